//! `circuit_breaker:` as an operator writes it.

use serde::de::{self, Deserialize, Deserializer};

use crate::policy::outcome::{Conditions, Outcome};
use crate::units::{self, Timespan};

/// `circuit_breaker:` of an upstream or a route. At least one mode must be present; with several,
/// the first to trip opens the circuit.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Config {
    /// Trips on failures in a row.
    #[serde(default)]
    pub consecutive: Option<Consecutive>,
    /// How long everything is refused after a trip; longer than 0, default 30 s. Also the time
    /// after which a probe that has not come back stops holding its place.
    #[serde(default = "default_open_for", deserialize_with = "units::positive")]
    pub open_for: Timespan,
    /// Probes admitted while half-open, and successes in a row that close the circuit; 1 to
    /// 1000, default 1.
    #[serde(
        default = "default_half_open_calls",
        deserialize_with = "units::bounded::<_, 1, 1000>"
    )]
    pub half_open_calls: u32,
    /// What is counted.
    #[serde(default)]
    pub count: Count,
    /// Outcomes that are failures; default connect failures, resets, timeouts, 500, 502, 503, 504.
    #[serde(default = "default_failure_on")]
    pub failure_on: Conditions,
}

/// `consecutive:`, as gobreaker counts.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consecutive {
    /// Failures in a row that trip; 1 to 10,000.
    #[serde(deserialize_with = "units::bounded::<_, 1, 10_000>")]
    pub failures: u32,
    /// Failures older than this are forgotten; longer than 0. Absent: never.
    #[serde(default, deserialize_with = "positive_if_present")]
    pub reset_every: Option<Timespan>,
    /// How `reset_every` forgets.
    #[serde(default)]
    pub reset: Reset,
}

/// How failures grow old.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    /// Each failure on its own: a run trips if it fits into `reset_every`, wherever it lies.
    #[default]
    Rolling,
    /// All at once, at the end of fixed windows. The results of calls begun in an earlier window
    /// are dropped, so calls that take longer than `reset_every` never count.
    Fixed,
}

/// Whether a retry is counted apart from its request. The breaker does not know: it is told by
/// whoever takes the permits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// Every attempt takes a permit.
    #[default]
    Attempts,
    /// One permit for a request with all its retries; its last outcome counts.
    Requests,
}

/// What an outcome says about the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Success,
    Failure,
    /// Nothing: it neither adds to a run of failures nor ends it, and a probe's place is free again.
    Neutral,
}

impl Config {
    /// Judges an outcome: what `failure_on` names is a failure, any other answer a success. A 429
    /// and a transport error that is not named are neither: they prove no health.
    pub const fn judge(&self, outcome: Outcome) -> Verdict {
        if self.failure_on.matches(outcome) {
            return Verdict::Failure;
        }
        match outcome {
            Outcome::Response(429)
            | Outcome::ConnectFailure
            | Outcome::ConnectTimeout
            | Outcome::RefusedStream
            | Outcome::Reset
            | Outcome::Timeout
            | Outcome::Protocol => Verdict::Neutral,
            Outcome::Response(_) => Verdict::Success,
        }
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `remote = "Self"` makes the derived one an inherent function, so that it can be checked.
        let config = Config::deserialize(deserializer)?;
        if config.consecutive.is_none() {
            return Err(de::Error::custom(
                "needs a mode, such as `consecutive: {failures: 5, reset_every: 10s}`",
            ));
        }
        Ok(config)
    }
}

fn positive_if_present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timespan>, D::Error> {
    units::positive(from).map(Some)
}

fn default_open_for() -> Timespan {
    Timespan::from_secs(30)
}

fn default_half_open_calls() -> u32 {
    1
}

fn default_failure_on() -> Conditions {
    Conditions::FAILURES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        serde_yaml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_reference() {
        let config = parse("{consecutive: {failures: 5}}").expect("valid");
        assert_eq!(config.open_for, Timespan::from_secs(30));
        assert_eq!(config.half_open_calls, 1);
        assert_eq!(config.count, Count::Attempts);
        let consecutive = config.consecutive.expect("present");
        assert_eq!((consecutive.reset_every, consecutive.reset), (None, Reset::Rolling));
        assert_eq!(
            config.failure_on.to_string(),
            "connect_failure, reset, timeout, 500, 502, 503, 504"
        );
    }

    #[test]
    fn a_breaker_without_a_mode_is_refused() {
        let error = parse("{open_for: 30s}").expect_err("no mode");
        assert!(error.contains("consecutive"), "{error}");
    }

    #[test]
    fn values_that_could_not_work_are_refused() {
        for text in [
            "{consecutive: {failures: 0}}",
            "{consecutive: {failures: 10001}}",
            "{consecutive: {failures: 5, reset_every: 0s}}",
            "{consecutive: {failures: 5}, open_for: 0s}",
            "{consecutive: {failures: 5}, half_open_calls: 0}",
            "{consecutive: {failures: 5}, count: calls}",
            "{consecutive: {failures: 5}, open: 5s}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_is_a_success_unless_it_is_named() {
        let config = parse("{consecutive: {failures: 5}, failure_on: [503, timeout]}").expect("ok");
        assert_eq!(config.judge(Outcome::Response(503)), Verdict::Failure);
        assert_eq!(config.judge(Outcome::Response(500)), Verdict::Success);
        assert_eq!(config.judge(Outcome::Response(404)), Verdict::Success);
        assert_eq!(config.judge(Outcome::Timeout), Verdict::Failure);
    }

    #[test]
    fn what_proves_neither_health_nor_failure_is_neutral() {
        let config = parse("{consecutive: {failures: 5}, failure_on: [5xx]}").expect("valid");
        assert_eq!(config.judge(Outcome::Response(429)), Verdict::Neutral);
        assert_eq!(config.judge(Outcome::Reset), Verdict::Neutral);
        let config = parse("{consecutive: {failures: 5}, failure_on: [429]}").expect("valid");
        assert_eq!(config.judge(Outcome::Response(429)), Verdict::Failure);
    }
}
