//! `circuit_breaker:` as the operator configures it.

mod window;

use serde::de::{self, Deserialize, Deserializer};

pub use window::{Extent, SlowCalls, Window};

use crate::policy::dry_run::Enforce;
use crate::policy::outcome::{self, Conditions, Outcome};
use crate::units::{self, Timespan};

/// `circuit_breaker:` of an upstream or a route. At least one mode must be present; with both, the
/// first to trip opens the circuit.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields)]
#[schemars(rename = "CircuitBreaker")]
pub struct Config {
    /// Trips after failures in a row; absent: never.
    #[serde(default)]
    pub consecutive: Option<Consecutive>,
    /// Trips on the share of failures, or of slow calls, in a window of recent calls; absent:
    /// never.
    #[serde(default)]
    pub window: Option<Window>,
    /// How long all calls are refused after a trip; longer than 0, default 30 s. Also the time
    /// after which a probe without a result loses its place.
    #[serde(default = "default_open_for", deserialize_with = "units::positive")]
    pub open_for: Timespan,
    /// How many probes are admitted while half-open, and how many results decide about the circuit;
    /// 1 to 1000, default 1.
    #[serde(
        default = "default_half_open_calls",
        deserialize_with = "units::bounded::<_, 1, 1000>"
    )]
    #[schemars(range(min = 1, max = 1000))]
    pub half_open_calls: u32,
    /// How the probes decide; default by successes if there is a `consecutive` mode, and by rate
    /// with `window` alone.
    #[serde(default)]
    pub close_on: Option<CloseOn>,
    /// The longest time in half-open, from the first probe on; then the circuit opens again. Longer
    /// than 0. Absent: no limit.
    #[serde(default, deserialize_with = "positive_if_present")]
    pub max_half_open: Option<Timespan>,
    /// When an open circuit is reported as half-open; default `automatic`.
    #[serde(default)]
    pub transition: Transition,
    /// Whether attempts or requests are counted; default `attempts`.
    #[serde(default)]
    pub count: Count,
    /// Outcomes that are failures; default connect failures, resets, timeouts, 500, 502, 503, 504,
    /// and of gRPC deadline_exceeded, internal, unavailable.
    #[serde(default = "default_failure_on")]
    pub failure_on: Conditions,
    /// `false`: calls that an open circuit would refuse are counted in `would_refuse_total`, and
    /// are made. Their outcomes do not count. Default `true`.
    #[serde(default)]
    pub enforce: Enforce,
}

/// `consecutive:`, counted as gobreaker does.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consecutive {
    /// How many failures in a row trip; 1 to 10,000.
    #[serde(deserialize_with = "units::bounded::<_, 1, 10_000>")]
    #[schemars(range(min = 1, max = 10_000))]
    pub failures: u32,
    /// Failures older than this are forgotten; longer than 0. Absent: never.
    #[serde(default, deserialize_with = "positive_if_present")]
    pub reset_every: Option<Timespan>,
    /// How failures expire after `reset_every`; default `rolling`.
    #[serde(default)]
    pub reset: Reset,
}

/// How failures expire.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    serde::Deserialize,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    /// Each failure on its own: any run of failures within `reset_every` trips.
    #[default]
    Rolling,
    /// All at once, at the end of fixed windows. Results of calls begun in an earlier window are
    /// dropped, so calls that take longer than `reset_every` never count.
    Fixed,
}

/// How probes decide the state of a half-open circuit.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CloseOn {
    /// As in gobreaker: `half_open_calls` successes close the circuit, one failure opens it. A slow
    /// success is a success.
    Successes,
    /// As in resilience4j: after `half_open_calls` results, or `minimum_calls` if that is less, the
    /// rates of `window` decide.
    Rate,
}

/// When the end of `open_for` becomes visible. Admission does not depend on it: the first call
/// after `open_for` is a probe either way.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    serde::Deserialize,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Transition {
    /// The circuit is reported as half-open as soon as `open_for` is over.
    #[default]
    Automatic,
    /// It is reported as open until the next call.
    Lazy,
}

/// Whether each retry counts separately. The breaker itself does not know about retries: the caller
/// decides when to take a permit.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    serde::Deserialize,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// Every attempt takes a permit.
    #[default]
    Attempts,
    /// A request takes one permit for all its attempts; its last outcome counts.
    Requests,
}

/// What an outcome says about the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The upstream works.
    Success,
    /// The upstream does not work.
    Failure,
    /// The upstream works but refuses because of load (a 429). Counts as a failure in a rate, and
    /// as neutral for failures in a row. After linkerd's unified failure accrual.
    Throttled,
    /// Says nothing: it is not counted, and a probe's place becomes free again.
    Neutral,
}

impl Verdict {
    /// Of an outcome, where those in `failure_on` are failures.
    pub const fn of(outcome: Outcome, failure_on: &Conditions) -> Self {
        if failure_on.matches(outcome) {
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
}

impl Config {
    /// Judges an outcome. Outcomes in `failure_on` are failures. Other responses are successes,
    /// except a 429 (in gRPC resource_exhausted), which is throttled. Other transport errors are
    /// neutral: they prove nothing.
    pub const fn judge(&self, outcome: Outcome) -> Verdict {
        Verdict::of(outcome, &self.failure_on)
    }

    /// How probes decide: as configured; by default by successes if there is a `consecutive` mode,
    /// and by rate with `window` alone.
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
        // `remote = "Self"` makes the derived function an inherent one, so that its result can be
        // checked.
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
