//! Retries: whether a failed attempt is tried again, and when.
//!
//! [`decide`] is the only place where this is decided. It is told what happened and looks nothing
//! up. The caller classifies the attempt, waits, and passes on the last response.

pub mod backoff;
pub mod budget;
pub mod jitter;
pub mod pushback;

use std::time::Duration;

use http::Method;
use serde::{Deserialize, Deserializer};

pub use backoff::Backoff;
pub use budget::{Budget, Stake};
pub use jitter::Jitter;
pub use pushback::Pushback;

use crate::policy::outcome::{Conditions, Outcome};
use crate::time::Moment;
use crate::units::schema::written_as;
use crate::units::{self, Timespan};

/// `retry:` of a route.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Attempts after the first; 0 to 10, default 1.
    #[serde(default = "default_max_retries", deserialize_with = "units::bounded::<_, 0, 10>")]
    #[schemars(range(max = 10))]
    pub max_retries: u32,
    /// Which methods may be sent twice; default `safe`.
    #[serde(default)]
    pub methods: Methods,
    /// Outcomes that are retried; default connect failures, refused streams, resets, 502, 503, 504.
    #[serde(default = "default_on")]
    pub on: Conditions,
    /// The budget that retries are taken from: a name in `retry_budgets`, or `unlimited`. Default:
    /// that of the route's upstream.
    #[serde(default)]
    pub budget: BudgetName,
    /// The wait before each retry; default: 25 ms, doubled each time up to 250 ms, plus up to half
    /// of it.
    #[serde(default)]
    pub backoff: Backoff,
    /// The longest wait that an upstream may ask for; default 10 s. If it asks for a longer one
    /// there is no retry, rather than one too early.
    #[serde(default = "default_max_retry_after")]
    pub max_retry_after: Timespan,
}

/// The budget of a route's retries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BudgetName {
    /// One that all routes of the same upstream share, unless they say otherwise: 20 % of their
    /// requests, and at least 3 retries per second.
    #[default]
    OfUpstream,
    /// Only `max_retries` bounds retries.
    Unlimited,
    /// The budget of this name in `retry_budgets`.
    Named(String),
}

impl BudgetName {
    /// The name in `retry_budgets`; `None` for the upstream's own budget, and for none.
    pub fn name(&self) -> Option<&str> {
        match self {
            BudgetName::Named(name) => Some(name),
            BudgetName::OfUpstream | BudgetName::Unlimited => None,
        }
    }
}

written_as!(BudgetName, "BudgetName", {
    "description": "A name in `retry_budgets`, or `unlimited`.",
    "type": "string",
});

impl<'de> Deserialize<'de> for BudgetName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(if name == budget::UNLIMITED { BudgetName::Unlimited } else { BudgetName::Named(name) })
    }
}

/// Which methods may be sent twice. In any case, a request that was provably not sent may be sent
/// again, and so may one with an idempotency key; TRACE and CONNECT are never retried.
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
pub enum Methods {
    /// GET, HEAD, OPTIONS.
    #[default]
    Safe,
    /// GET, HEAD, OPTIONS, PUT and DELETE.
    Idempotent,
    /// Every method; for upstreams that recognise repeated requests themselves.
    Any,
}

impl Methods {
    /// Whether a request of this method may be sent twice.
    pub fn allow(self, method: &Method) -> bool {
        let safe = *method == Method::GET || *method == Method::HEAD || *method == Method::OPTIONS;
        match self {
            Methods::Safe => safe,
            Methods::Idempotent => safe || *method == Method::PUT || *method == Method::DELETE,
            Methods::Any => !never_twice(method),
        }
    }

    /// Whether a request whose attempt ended like this may be sent again; `keyed` as in
    /// [`Attempt`].
    pub fn allow_after(self, outcome: Outcome, method: &Method, keyed: bool) -> bool {
        let harmless = keyed || outcome.provably_unsent();
        self.allow(method) || (harmless && !never_twice(method))
    }
}

/// An attempt that has ended, and its circumstances.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// How it ended, as the policies see it.
    pub outcome: Outcome,
    /// The client's, before any transcoding.
    pub method: &'a Method,
    /// Whether the request has an idempotency key: then all its attempts count as one request.
    pub keyed: bool,
    /// Attempts after the first so far.
    pub retries_done: u32,
    /// Whether all that was read of the request's body can be sent again.
    pub body_replayable: bool,
    /// Whether the client has seen any of the response.
    pub response_started: bool,
    /// Whether the client has closed its connection or stream.
    pub client_gone: bool,
    /// Whether a trusted client says that the request is itself a retry.
    pub nested: bool,
    /// What the upstream says about a retry.
    pub server_asks: Option<Pushback>,
    /// Time until the request's deadline; `None` without one.
    pub time_left: Option<Duration>,
    /// A uniform number from `[0, 1)`, for the jitter of the wait.
    pub random: f64,
}

/// The decision after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this wait. The budget has been charged.
    Retry {
        /// From the end of the attempt; at least the backoff.
        after: Duration,
    },
    /// Pass on to the client what there is.
    Stop(Reason),
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The client has gone.
    ClientGone,
    /// The client has received part of this response, which cannot be taken back.
    ResponseStarted,
    /// The outcome is not in `on`; for example a success.
    NotRetryable,
    /// The client retries itself; retries of retries multiply.
    Nested,
    /// The method may not be sent twice.
    Method,
    /// `max_retries` have been made.
    Exhausted,
    /// The body was too large to be kept.
    BodyTooLarge,
    /// The upstream asks for no retry, or for a longer wait than `max_retry_after`.
    Pushback,
    /// The retry could not begin before the deadline.
    Deadline,
    /// The budget is spent.
    Budget,
}

impl Reason {
    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::ClientGone => "client_gone",
            Reason::ResponseStarted => "response_started",
            Reason::NotRetryable => "not_retryable",
            Reason::Nested => "nested",
            Reason::Method => "method",
            Reason::Exhausted => "exhausted",
            Reason::BodyTooLarge => "body_too_large",
            Reason::Pushback => "pushback",
            Reason::Deadline => "deadline",
            Reason::Budget => "budget",
        }
    }
}

/// The request has gone in a circle: another attempt would go round once more, and where each gateway on
/// the way retries, several times.
const LOOP_DETECTED: Outcome = Outcome::Response(508);

/// Decides whether `attempt` is retried. The budget is asked last, so that only a retry that will
/// be made is charged.
pub fn decide(
    config: &Config,
    attempt: &Attempt<'_>,
    budget: Option<&mut Stake>,
    now: Moment,
) -> Decision {
    if let Some(reason) = obstacle(config, attempt) {
        return Decision::Stop(reason);
    }
    let Some(after) = wait(config, attempt) else {
        return Decision::Stop(Reason::Pushback);
    };
    if attempt.time_left.is_some_and(|left| after >= left) {
        return Decision::Stop(Reason::Deadline);
    }
    if budget.is_some_and(|stake| !stake.withdraw(now)) {
        return Decision::Stop(Reason::Budget);
    }
    Decision::Retry { after }
}

/// The reason against a retry, if any, apart from time and budget.
fn obstacle(config: &Config, attempt: &Attempt<'_>) -> Option<Reason> {
    let may_resend = config.methods.allow_after(attempt.outcome, attempt.method, attempt.keyed);
    if attempt.client_gone {
        Some(Reason::ClientGone)
    } else if attempt.response_started {
        Some(Reason::ResponseStarted)
    } else if !config.on.matches(attempt.outcome) || attempt.outcome == LOOP_DETECTED {
        Some(Reason::NotRetryable)
    } else if attempt.nested {
        Some(Reason::Nested)
    } else if !may_resend {
        Some(Reason::Method)
    } else if attempt.retries_done >= config.max_retries {
        Some(Reason::Exhausted)
    } else if !attempt.body_replayable {
        Some(Reason::BodyTooLarge)
    } else {
        None
    }
}

/// The wait before the next attempt: the longer of the backoff and the wait that the upstream asks
/// for. `None` if it asks for too much.
fn wait(config: &Config, attempt: &Attempt<'_>) -> Option<Duration> {
    let backoff = config.backoff.delay(attempt.retries_done.saturating_add(1), attempt.random);
    match attempt.server_asks {
        None => Some(backoff),
        Some(Pushback::After(asked)) if asked <= *config.max_retry_after => {
            Some(asked.max(backoff))
        }
        Some(Pushback::After(_) | Pushback::Never) => None,
    }
}

fn never_twice(method: &Method) -> bool {
    *method == Method::TRACE || *method == Method::CONNECT
}

fn default_max_retries() -> u32 {
    1
}

fn default_max_retry_after() -> Timespan {
    Timespan::from_secs(10)
}

fn default_on() -> Conditions {
    Conditions::RETRYABLE
}

#[cfg(test)]
mod tests;
