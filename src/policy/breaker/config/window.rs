//! `window:`, counted as resilience4j does.

use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer};

use crate::units::{self, Percent, Timespan};

/// `window:` of a circuit breaker. With at least `minimum_calls` in the window, it trips when the
/// share of failures or of slow calls reaches its rate.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "Written")]
#[serde(try_from = "Written")]
pub struct Window {
    /// Which calls are in the window.
    pub extent: Extent,
    /// How many calls must be in the window before a rate counts; 1 to 1,000,000, at most `calls`.
    /// Default 100, or `calls` if that is less.
    pub minimum_calls: u32,
    /// The share of failures that trips; above 0 %, default 50 %.
    pub failure_rate: Percent,
    /// Trips on slow calls, too. Absent: no call is slow.
    pub slow_calls: Option<SlowCalls>,
}

/// Which calls are in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// `calls:`, this many of the latest calls; 1 to 10,000.
    Calls(u32),
    /// `time:`, the calls of this many seconds, including the current one; whole seconds, 1 s to 1
    /// h.
    Seconds(u32),
}

/// `slow_calls:` of a window.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowCalls {
    /// A call is slow if it takes longer than this from its permit to its result, whatever the
    /// result is; longer than 0.
    #[serde(deserialize_with = "units::positive")]
    pub longer_than: Timespan,
    /// The share of slow calls that trips; above 0 %, default 100 %.
    #[serde(default = "default_slow_rate", deserialize_with = "above_zero")]
    pub rate: Percent,
}

/// The keys as in the file.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// This many of the latest calls; 1 to 10,000. Excludes `time`.
    #[serde(default, deserialize_with = "calls")]
    #[schemars(range(min = 1, max = 10_000))]
    calls: Option<u32>,
    /// The calls of this long, including the current second; whole seconds, 1 s to 1 h.
    #[serde(default, deserialize_with = "seconds")]
    #[schemars(with = "Option<Timespan>")]
    time: Option<u32>,
    /// How many calls must be in the window before a rate counts; 1 to 1,000,000, at most `calls`.
    /// Default 100, or `calls` if that is less.
    #[serde(default, deserialize_with = "minimum_calls")]
    #[schemars(range(min = 1, max = 1_000_000))]
    minimum_calls: Option<u32>,
    /// The share of failures that trips; above 0 %, default 50 %.
    #[serde(default = "default_failure_rate", deserialize_with = "above_zero")]
    failure_rate: Percent,
    /// Trips on slow calls, too. Absent: no call is slow.
    #[serde(default)]
    slow_calls: Option<SlowCalls>,
}

impl TryFrom<Written> for Window {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { calls, time, minimum_calls, failure_rate, slow_calls } = written;
        let (extent, most) = match (calls, time) {
            (Some(calls), None) => (Extent::Calls(calls), calls),
            (None, Some(seconds)) => (Extent::Seconds(seconds), u32::MAX),
            (Some(_), Some(_)) => return Err("has either `calls` or `time`, not both"),
            (None, None) => return Err("needs `calls: 100` or `time: 60s`"),
        };
        let minimum_calls = minimum_calls.unwrap_or_else(|| DEFAULT_MINIMUM.min(most));
        if minimum_calls > most {
            return Err("minimum_calls: the window never holds more than its `calls`");
        }
        Ok(Window { extent, minimum_calls, failure_rate, slow_calls })
    }
}

const DEFAULT_MINIMUM: u32 = 100;

fn calls<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    units::bounded::<_, 1, 10_000>(from).map(Some)
}

fn minimum_calls<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    units::bounded::<_, 1, 1_000_000>(from).map(Some)
}

fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let time = Timespan::deserialize(from)?;
    u32::try_from(time.as_secs())
        .ok()
        .filter(|seconds| (1..=3600).contains(seconds))
        .filter(|seconds| *time == Duration::from_secs((*seconds).into()))
        .map(Some)
        .ok_or_else(|| de::Error::custom("must be whole seconds from 1s to 1h"))
}

fn above_zero<'de, D: Deserializer<'de>>(from: D) -> Result<Percent, D::Error> {
    let rate = Percent::deserialize(from)?;
    if rate.fraction() <= 0.0 {
        return Err(de::Error::custom("must be above 0%, which every window has reached"));
    }
    Ok(rate)
}

fn default_failure_rate() -> Percent {
    Percent::new(50)
}

fn default_slow_rate() -> Percent {
    Percent::new(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Window, String> {
        serde_yaml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_resilience4j() {
        let window = parse("{calls: 100, slow_calls: {longer_than: 60s}}").expect("valid");
        assert_eq!((window.minimum_calls, window.failure_rate), (100, Percent::new(50)));
        assert_eq!(window.slow_calls.map(|slow| slow.rate), Some(Percent::new(100)));
    }

    #[test]
    fn a_small_window_needs_no_more_calls_than_it_holds() {
        assert_eq!(parse("{calls: 10}").map(|window| window.minimum_calls), Ok(10));
        assert_eq!(parse("{time: 10s}").map(|window| window.minimum_calls), Ok(100));
    }

    #[test]
    fn values_that_could_not_work_are_refused() {
        for text in [
            "{}",
            "{calls: 10, time: 10s}",
            "{calls: 0}",
            "{calls: 10001}",
            "{time: 0s}",
            "{time: 1500ms}",
            "{time: 2h}",
            "{calls: 10, minimum_calls: 0}",
            "{calls: 10, minimum_calls: 11}",
            "{calls: 10, failure_rate: 0%}",
            "{calls: 10, failure_rate: 0.5}",
            "{calls: 10, slow_calls: {rate: 50%}}",
            "{calls: 10, slow_calls: {longer_than: 0s}}",
            "{calls: 10, slow_call_rate: 50%}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
