//! `bulkhead:` as the operator configures it.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::policy::dry_run::Enforce;
use crate::units::schema::written_as;
use crate::units::{self, Timespan};

/// `bulkhead:` of a route.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "Written")]
#[serde(try_from = "Written")]
pub struct Config {
    /// The most requests in flight.
    pub limit: Limit,
    /// Where requests wait that find no free slot. `None`: they are refused at once.
    pub queue: Option<Queue>,
    /// What one caller may hold. `None`: all that is free.
    pub per_consumer: Option<PerConsumer>,
    /// The status of the response to a refused client; default 429.
    pub status: Status,
    /// `false`: requests that find no free slot are counted in `would_refuse_total`, and pass
    /// without one. Default `true`.
    pub enforce: Enforce,
}

/// Where the number of slots comes from; a bulkhead names one.
#[derive(Debug, Clone, PartialEq)]
pub enum Limit {
    /// `max_in_flight:`, at least 1.
    Fixed(NonZeroU32),
    /// `adaptive:`, between two bounds.
    Adaptive(Adaptive),
}

/// `adaptive:`. The number of slots follows the measured latency: up while it stays near its
/// long-time average, down when it rises above. Gradient2 of Netflix's concurrency-limits.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields)]
#[schemars(rename = "Adaptive")]
pub struct Adaptive {
    /// The least number of slots; default 10, or `max` if that is less.
    #[serde(default, deserialize_with = "present")]
    pub min: Option<NonZeroU32>,
    /// The most slots; not below `min`.
    pub max: NonZeroU32,
    /// Slots at the start, clamped to `min` and `max`; default 20.
    #[serde(default = "default_initial")]
    pub initial: NonZeroU32,
    /// How many times its long-time average the latency may reach before slots are taken away; 1 to
    /// 10, default 1.5.
    #[serde(default = "default_tolerance", deserialize_with = "tolerance")]
    #[schemars(range(min = 1, max = 10))]
    pub tolerance: f64,
}

impl Adaptive {
    /// The least number of slots, as configured or by default.
    pub fn min(&self) -> u32 {
        self.min.unwrap_or(DEFAULT_MIN.min(self.max)).get()
    }
}

/// `queue:`. A request that finds no free slot waits for one, instead of being refused at once. It
/// is served in the order of arrival while the queue keeps draining; `interval` says what happens
/// once it does not.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields)]
#[schemars(rename = "Queue")]
pub struct Queue {
    /// The most requests that wait at once, at least 1.
    pub max: NonZeroU32,
    /// How long a request waits at most, and never beyond its own deadline; default 1s.
    #[serde(default = "default_max_wait", deserialize_with = "units::positive")]
    pub max_wait: Timespan,
    /// A wait that is no cause for concern; less than `interval`, default 5ms. With slow calls,
    /// about the time of one call divided by the number of slots.
    #[serde(default = "default_target", deserialize_with = "units::positive")]
    pub target: Timespan,
    /// When the longest wait has not been below `target` for this long, waiting does not help any
    /// more: new requests go first, and those that have waited longest are given up. Default 100ms,
    /// at most 1m.
    #[serde(default = "default_interval", deserialize_with = "units::positive")]
    pub interval: Timespan,
}

/// `per_consumer:`. What one caller may have under way at once, in flight and waiting, so that none takes all
/// slots. Callers are counted as rate limits with `key: consumer` count them: anonymous requests by the
/// client's address.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PerConsumer {
    /// The most requests of one caller, at least 1.
    pub max_in_flight: NonZeroU32,
    /// The most callers that are counted separately at one time; further ones are counted as one. 1 to 1,000,000,
    /// default 10000.
    #[serde(default = "default_max_keys", deserialize_with = "units::bounded::<_, 1, 1_000_000>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_keys: u32,
}

/// The status of a refusal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Status {
    /// 429, the default.
    #[default]
    TooManyRequests,
    /// 503, as some proxies respond.
    ServiceUnavailable,
}

impl Status {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Status::TooManyRequests => 429,
            Status::ServiceUnavailable => 503,
        }
    }
}

/// The keys as in the file.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The most requests in flight, at least 1. Excludes `adaptive`.
    #[serde(default, deserialize_with = "present")]
    max_in_flight: Option<NonZeroU32>,
    /// A number of slots that follows the measured latency, between two bounds.
    #[serde(default)]
    adaptive: Option<Adaptive>,
    /// Where requests wait that find no free slot. Default: none, they are refused at once.
    #[serde(default)]
    queue: Option<Queue>,
    /// What one caller may have in flight. Default: there is no such limit.
    #[serde(default)]
    per_consumer: Option<PerConsumer>,
    /// The status of the response to a refused client; default 429.
    #[serde(default)]
    #[schemars(extend("default" = 429))]
    status: Status,
    #[serde(default)]
    enforce: Enforce,
}

impl TryFrom<Written> for Config {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { max_in_flight, adaptive, queue, per_consumer, status, enforce } = written;
        let limit = match (max_in_flight, adaptive) {
            (Some(slots), None) => Limit::Fixed(slots),
            (None, Some(adaptive)) => Limit::Adaptive(adaptive),
            (None, None) => return Err("needs `max_in_flight: 100` or `adaptive: {max: 100}`"),
            (Some(_), Some(_)) => return Err("has either `max_in_flight` or `adaptive`, not both"),
        };
        Ok(Config { limit, queue, per_consumer, status, enforce })
    }
}

impl<'de> Deserialize<'de> for Adaptive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `remote = "Self"` makes the derived function an inherent one, so that its result can be
        // checked.
        let adaptive = Adaptive::deserialize(deserializer)?;
        if adaptive.min() > adaptive.max.get() {
            return Err(de::Error::custom("max: must not be below `min`"));
        }
        Ok(adaptive)
    }
}

impl<'de> Deserialize<'de> for Queue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let queue = Queue::deserialize(deserializer)?;
        if queue.target >= queue.interval {
            return Err(de::Error::custom("target: must be below `interval`"));
        }
        if *queue.interval > MAX_INTERVAL {
            return Err(de::Error::custom("interval: must be at most 1m"));
        }
        Ok(queue)
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(StatusVisitor)
    }
}

struct StatusVisitor;

impl Visitor<'_> for StatusVisitor {
    type Value = Status;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("429 or 503")
    }

    fn visit_u64<E: de::Error>(self, code: u64) -> Result<Status, E> {
        match code {
            429 => Ok(Status::TooManyRequests),
            503 => Ok(Status::ServiceUnavailable),
            other => Err(E::custom(format_args!("must be 429 or 503, not {other}"))),
        }
    }
}

/// A queue that has stood for longer does not stand by accident.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
const DEFAULT_MIN: NonZeroU32 = NonZeroU32::new(10).expect("not 0");
const DEFAULT_INITIAL: NonZeroU32 = NonZeroU32::new(20).expect("not 0");

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NonZeroU32>, D::Error> {
    NonZeroU32::deserialize(from).map(Some)
}

fn tolerance<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let tolerance = f64::deserialize(deserializer)?;
    if !(1.0..=10.0).contains(&tolerance) {
        return Err(de::Error::custom(format_args!("must be from 1 to 10, not {tolerance}")));
    }
    Ok(tolerance)
}

fn default_initial() -> NonZeroU32 {
    DEFAULT_INITIAL
}

fn default_tolerance() -> f64 {
    1.5
}

fn default_max_keys() -> u32 {
    10_000
}

fn default_max_wait() -> Timespan {
    Timespan::from_secs(1)
}

// Both as in RFC 8289, section 4.2.

fn default_target() -> Timespan {
    Timespan::from_millis(5)
}

fn default_interval() -> Timespan {
    Timespan::from_millis(100)
}

written_as!(Status, "BulkheadStatus", { "type": "integer", "enum": [429, 503] });

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        serde_yaml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn a_status_other_than_429_and_503_is_refused() {
        assert_eq!(parse("{max_in_flight: 100}").map(|c| c.status.code()), Ok(429));
        assert_eq!(parse("{max_in_flight: 1, status: 503}").map(|c| c.status.code()), Ok(503));
        assert!(parse("{max_in_flight: 1, status: 500}").is_err());
    }

    #[test]
    fn the_defaults_of_an_adaptive_limit_fit_its_maximum() {
        let Ok(Config { limit: Limit::Adaptive(adaptive), .. }) = parse("{adaptive: {max: 5}}")
        else {
            panic!("not adaptive")
        };
        assert_eq!((adaptive.min(), adaptive.tolerance), (5, 1.5));
    }

    #[test]
    fn a_request_waits_only_where_a_queue_is_configured() {
        let queue = |text: &str| parse(text).map(|config| config.queue);
        assert_eq!(queue("{max_in_flight: 1}"), Ok(None));
        let millis = Timespan::from_millis;
        let max = NonZeroU32::new(9).expect("not 0");
        let (max_wait, target, interval) = (millis(1000), millis(5), millis(100));
        let defaults = Queue { max, max_wait, target, interval };
        assert_eq!(queue("{max_in_flight: 1, queue: {max: 9}}"), Ok(Some(defaults)));
    }

    #[test]
    fn values_that_could_not_work_are_refused() {
        for text in [
            "{}",
            "{max_in_flight: 0}",
            "{max_in_flight: 10, adaptive: {max: 10}}",
            "{adaptive: {}}",
            "{adaptive: {max: 0}}",
            "{adaptive: {min: 0, max: 10}}",
            "{adaptive: {min: 11, max: 10}}",
            "{adaptive: {max: 10, tolerance: 0.5}}",
            "{adaptive: {max: 10, tolerance: .nan}}",
            "{adaptive: {max: 10, target: 1s}}",
            "{max_in_flight: 1, queue: {}}",
            "{max_in_flight: 1, queue: {max: 0}}",
            "{max_in_flight: 1, queue: {max: 1, max_wait: 0}}",
            "{max_in_flight: 1, queue: {max: 1, target: 0}}",
            "{max_in_flight: 1, queue: {max: 1, target: 100ms}}",
            "{max_in_flight: 1, queue: {max: 1, interval: 5ms}}",
            "{max_in_flight: 1, queue: {max: 1, interval: 61s}}",
            "{max_in_flight: 1, queue: {max: 1, timeout: 5ms}}",
            "{max_in_flight: 1, per_consumer: 1}",
            "{max_in_flight: 1, per_consumer: {max_in_flight: 0}}",
            "{max_in_flight: 1, per_consumer: {max_in_flight: 1, max_keys: 0}}",
            "{per_consumer: {max_in_flight: 1}}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
