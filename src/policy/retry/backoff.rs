//! How long to wait before a retry.

use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer};

use crate::units::{Percent, Timespan};

/// `backoff:` of a retry rule. Before the n-th retry the wait is `min(max, base × factor^(n-1))`,
/// plus a random share of it, uniformly distributed from 0 to `jitter`. So no wait is longer than
/// `max × (1 + jitter)`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields)]
#[schemars(rename = "Backoff")]
pub struct Backoff {
    /// The wait before the first retry, without jitter; default 25 ms, 0 for no wait.
    #[serde(default = "default_base")]
    pub base: Timespan,
    /// The longest wait, without jitter; not below `base`. Absent: ten times `base`.
    #[serde(default, deserialize_with = "present")]
    pub max: Option<Timespan>,
    /// The ratio of each wait to the one before; 1 to 10, default 2.
    #[serde(default = "default_factor", deserialize_with = "factor")]
    #[schemars(range(min = 1, max = 10))]
    pub factor: f64,
    /// The largest random addition, as a share of the wait; default 50 %.
    #[serde(default = "default_jitter")]
    pub jitter: Percent,
}

impl Backoff {
    /// The wait before retry number `retry` (the first is 1). `random` is uniform over `[0, 1)`;
    /// values outside are clamped.
    pub fn delay(&self, retry: u32, random: f64) -> Duration {
        let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        // The power may overflow to infinity, and zero times infinity is not a number.
        let grown = self.base.as_secs_f64() * self.factor.powi(exponent).min(f64::MAX);
        let bounded = grown.min(self.max().as_secs_f64());
        let jittered = bounded * (1.0 + self.jitter.fraction() * random.clamp(0.0, 1.0));
        Duration::try_from_secs_f64(jittered).unwrap_or(Duration::MAX)
    }

    fn max(&self) -> Duration {
        self.max.map_or_else(|| self.base.saturating_mul(10), |max| *max)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            base: default_base(),
            max: None,
            factor: default_factor(),
            jitter: default_jitter(),
        }
    }
}

impl<'de> Deserialize<'de> for Backoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `remote = "Self"` makes the derived function an inherent one, so that its result can be
        // checked.
        let backoff = Backoff::deserialize(deserializer)?;
        if backoff.max() < *backoff.base {
            return Err(de::Error::custom("max: must be at least as long as `base`"));
        }
        Ok(backoff)
    }
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timespan>, D::Error> {
    Timespan::deserialize(deserializer).map(Some)
}

fn factor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let factor = f64::deserialize(deserializer)?;
    if !(1.0..=10.0).contains(&factor) {
        return Err(de::Error::custom(format_args!("must be from 1 to 10, not {factor}")));
    }
    Ok(factor)
}

fn default_base() -> Timespan {
    Timespan::from_millis(25)
}

fn default_factor() -> f64 {
    2.0
}

fn default_jitter() -> Percent {
    Percent::new(50)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Backoff, String> {
        serde_yaml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn each_wait_is_twice_the_one_before_up_to_the_longest() {
        let backoff = parse("{base: 100ms, max: 500ms}").expect("valid");
        let waits: Vec<_> = (1..=5).map(|n| backoff.delay(n, 0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 500, 500]);
    }

    #[test]
    fn jitter_adds_up_to_its_share_and_takes_nothing_away() {
        let backoff = parse("{base: 100ms, jitter: 50%}").expect("valid");
        assert_eq!(backoff.delay(1, 0.0).as_millis(), 100);
        assert_eq!(backoff.delay(1, 0.5).as_millis(), 125);
        assert!(backoff.delay(1, 0.999).as_millis() < 150);
    }

    #[test]
    fn the_longest_wait_is_ten_times_the_first_unless_it_is_given() {
        assert_eq!(Backoff::default().delay(10, 0.0).as_millis(), 250);
    }

    #[test]
    fn values_that_could_not_work_are_refused() {
        for text in [
            "{base: 1s, max: 100ms}",
            "{factor: 0.5}",
            "{factor: 11}",
            "{factor: .nan}",
            "{jitter: 101%}",
            "{delay: 1s}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_wait_never_leaves_its_bounds(
            base in 0..10_000_u64, over in 0..100_000_u64, factor in 1.0..10.0_f64,
            jitter in 0..=100_u8, retry in any::<u32>(), random in 0.0..1.0_f64,
        ) {
            let backoff = Backoff {
                base: Timespan::from_millis(base),
                max: Some(Timespan::from_millis(base + over)),
                factor,
                jitter: Percent::new(jitter),
            };
            let wait = backoff.delay(retry, random).as_secs_f64();
            let longest = (base + over) as f64 / 1e3 * (1.0 + f64::from(jitter) / 100.0);
            prop_assert!(wait >= base as f64 / 1e3 - 1e-9);
            prop_assert!(wait <= longest + 1e-9);
        }

        #[test]
        fn a_later_retry_never_waits_less(retry in 1..100_u32, factor in 1.0..10.0_f64) {
            let backoff = Backoff { factor, ..Backoff::default() };
            prop_assert!(backoff.delay(retry, 0.0) <= backoff.delay(retry + 1, 0.0));
        }
    }
}
