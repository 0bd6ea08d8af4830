//! `circuit_breaker:` as an operator writes it.

mod window;

use serde::de::{self, Deserialize, Deserializer};

pub use window::{Extent, SlowCalls, Window};

use crate::policy::outcome::{self, Conditions, Outcome};
use crate::units::{self, Timespan};

/// `circuit_breaker:` of an upstream or a route. At least one mode must be present; with both, the
/// first to trip opens the circuit.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Config {
    /// Trips on failures in a row.
    #[serde(default)]
    pub consecutive: Option<Consecutive>,
    /// Trips on the share of failures, or of slow calls, among the latest calls.
    #[serde(default)]
    pub window: Option<Window>,
    /// How long everything is refused after a trip; longer than 0, default 30 s. Also the time
    /// after which a probe that has not come back stops holding its place.
    #[serde(default = "default_open_for", deserialize_with = "units::positive")]
    pub open_for: Timespan,
    /// Probes admitted while half-open, and results that decide about the circuit; 1 to 1000,
    /// default 1.
    #[serde(
        default = "default_half_open_calls",
        deserialize_with = "units::bounded::<_, 1, 1000>"
    )]
    pub half_open_calls: u32,
    /// How the probes decide; see [`Config::closes_on`] for the default.
    #[serde(default)]
    pub close_on: Option<CloseOn>,
    /// Time in half-open at most, counted from the first probe; then the circuit is open again.
    /// Longer than 0. Absent: as long as it takes.
    #[serde(default, deserialize_with = "positive_if_present")]
    pub max_half_open: Option<Timespan>,
    /// When an open circuit is shown as half-open.
    #[serde(default)]
    pub transition: Transition,
    /// What is counted.
    #[serde(default)]
    pub count: Count,
    /// Outcomes that are failures; default connect failures, resets, timeouts, 500, 502, 503, 504,
    /// and of gRPC deadline_exceeded, internal, unavailable.
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

/// How probes decide about a half-open circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseOn {
    /// As gobreaker has it: `half_open_calls` successes close, one failure opens. A slow success
    /// is a success.
    Successes,
    /// As resilience4j has it: once `half_open_calls` results are in, or `minimum_calls` if that
    /// is less, the rates of `window` open or close.
    Rate,
}

/// When the end of `open_for` is seen. What is admitted does not depend on it: the first call
/// after `open_for` is a probe either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transition {
    /// The circuit is shown as half-open as soon as `open_for` is over.
    #[default]
    Automatic,
    /// It is shown as open until a call comes.
    Lazy,
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
    /// The upstream works but refuses for load (a 429): a failure to a rate; to a run of failures
    /// it is as neutral as [`Verdict::Neutral`]. After linkerd's unified failure accrual.
    Throttled,
    /// Nothing: it is in no count, and a probe's place is free again.
    Neutral,
}

impl Config {
    /// Judges an outcome: what `failure_on` names is a failure, any other answer a success, except
    /// a 429 (of gRPC: resource_exhausted), which is throttled. A transport error that is not
    /// named is neutral: it proves no health.
    pub const fn judge(&self, outcome: Outcome) -> Verdict {
        if self.failure_on.matches(outcome) {
            return Verdict::Failure;
        }
        match outcome {
            Outcome::Response(429) | Outcome::Grpc(outcome::RESOURCE_EXHAUSTED) => {
                Verdict::Throttled
            }
            Outcome::ConnectFailure
            | Outcome::TlsFailure
            | Outcome::ConnectTimeout
            | Outcome::RefusedStream
            | Outcome::Reset
            | Outcome::Timeout
            | Outcome::Protocol => Verdict::Neutral,
            Outcome::Response(_) | Outcome::Grpc(_) => Verdict::Success,
        }
    }

    /// How probes decide: as written; else by successes if there is a `consecutive` mode, and by
    /// rate with `window` alone.
    pub fn closes_on(&self) -> CloseOn {
        match (self.close_on, &self.consecutive) {
            (Some(written), _) => written,
            (None, Some(_)) => CloseOn::Successes,
            (None, None) => CloseOn::Rate,
        }
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `remote = "Self"` makes the derived one an inherent function, so that it can be checked.
        let config = Config::deserialize(deserializer)?;
        if config.consecutive.is_none() && config.window.is_none() {
            return Err(de::Error::custom(
                "needs a mode, such as `consecutive: {failures: 5, reset_every: 10s}` or \
                 `window: {calls: 100, failure_rate: 50%}`",
            ));
        }
        if config.window.is_none() && config.close_on == Some(CloseOn::Rate) {
            return Err(de::Error::custom("close_on: `rate` needs a `window` that says which"));
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
            "connect_failure, reset, timeout, grpc_deadline_exceeded, grpc_internal, \
             grpc_unavailable, 500, 502, 503, 504"
        );
        assert_eq!((config.max_half_open, config.transition), (None, Transition::Automatic));
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
            "{consecutive: {failures: 5}, max_half_open: 0s}",
            "{consecutive: {failures: 5}, transition: eager}",
            "{consecutive: {failures: 5}, close_on: rate}",
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
        for outcome in [Outcome::Reset, Outcome::Timeout, Outcome::RefusedStream] {
            assert_eq!(config.judge(outcome), Verdict::Neutral, "{outcome:?}");
        }
    }

    #[test]
    fn a_refusal_for_load_is_throttled_unless_it_is_named() {
        let config = parse("{consecutive: {failures: 5}}").expect("valid");
        assert_eq!(config.judge(Outcome::Response(429)), Verdict::Throttled);
        assert_eq!(config.judge(Outcome::Grpc(8)), Verdict::Throttled);
        let config = parse("{consecutive: {failures: 5}, failure_on: [429]}").expect("valid");
        assert_eq!(config.judge(Outcome::Response(429)), Verdict::Failure);
    }

    #[test]
    fn a_grpc_failure_counts_as_its_http_counterpart_does() {
        let config = parse("{consecutive: {failures: 5}}").expect("valid");
        let verdicts = [4, 13, 14, 5].map(|code| config.judge(Outcome::Grpc(code)));
        let failure = Verdict::Failure;
        assert_eq!(verdicts, [failure, failure, failure, Verdict::Success]);
    }

    #[test]
    fn probes_decide_as_the_mode_they_stand_for_does() {
        let closes_on = |text| parse(text).expect("valid").closes_on();
        assert_eq!(closes_on("{consecutive: {failures: 5}}"), CloseOn::Successes);
        assert_eq!(closes_on("{window: {calls: 10}}"), CloseOn::Rate);
        let both = "{consecutive: {failures: 5}, window: {calls: 10}}";
        assert_eq!(closes_on(both), CloseOn::Successes);
        assert_eq!(closes_on("{window: {calls: 10}, close_on: successes}"), CloseOn::Successes);
    }
}
