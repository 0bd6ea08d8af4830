//! Active health checks: what their results say of an endpoint, and when it is checked next.
//!
//! The results come as arguments, as does the time: `runtime::health` sends the checks. What is
//! found belongs to the endpoint, so it outlives changes of the set and reloads as the endpoint
//! does.
//!
//! ```text
//!            first pass                `unhealthy` failures in a row
//! unknown ───────────────> healthy ────────────────────────────────> unhealthy
//!    │                        ^                                       │   ^
//!    │                        └───────────────────────────────────────┘   │
//!    │                              `healthy` passes in a row             │
//!    └────────────────────────────────────────────────────────────────────┘
//!                     `unhealthy` failures in a row
//! ```

pub mod config;
mod drive;
mod schedule;
pub mod statuses;
mod verdicts;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use config::Config;
pub use drive::keep_checked;

use crate::time::Moment;

/// What the checks have found of an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verdict {
    /// No check has passed yet, and not enough have failed.
    #[default]
    Unknown,
    /// It gets requests.
    Healthy,
    /// It gets none.
    Unhealthy,
}

impl Verdict {
    /// The name on `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Unknown => "unknown",
            Verdict::Healthy => "healthy",
            Verdict::Unhealthy => "unhealthy",
        }
    }
}

/// Why a check has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One word, for metrics.
    pub kind: &'static str,
    /// The reason, for people: one line of bounded length.
    pub words: Arc<str>,
}

/// The state of an endpoint's checks.
#[derive(Debug, Default)]
pub struct Health(
    /// Locked by checks, and where the set is shown or rebuilt, not by requests.
    Mutex<State>,
);

#[derive(Debug, Clone, Default)]
struct State {
    verdict: Verdict,
    since: Moment,
    /// How many of the latest checks ended as the last one did.
    in_a_row: u32,
    checks: u64,
    last: Option<(Result<(), Failure>, Moment)>,
    /// When the next check begins; `None` before the first is planned.
    due: Option<Moment>,
}

/// What an operator can see.
#[derive(Debug, Clone)]
pub struct Report {
    /// What the checks have found.
    pub verdict: Verdict,
    /// When it became so; for an unknown one, when it was first planned to be checked.
    pub since: Moment,
    /// Checks that have ended.
    pub checks: u64,
    /// How the last one ended, and when.
    pub last: Option<(Result<(), Failure>, Moment)>,
}

/// A change of the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// What it was.
    pub from: Verdict,
    /// What it is.
    pub to: Verdict,
    /// How many checks in a row have decided it.
    pub in_a_row: u32,
    /// How long it was what it was.
    pub after: Duration,
    /// Whether that was the first check.
    pub is_first: bool,
}

impl Health {
    /// What the checks have found.
    pub fn verdict(&self) -> Verdict {
        self.state().verdict
    }

    /// Whether a check has ended.
    pub fn is_checked(&self) -> bool {
        self.state().checks > 0
    }

    /// The state now.
    pub fn report(&self) -> Report {
        let State { verdict, since, checks, last, .. } = self.state().clone();
        Report { verdict, since, checks, last }
    }

    /// The verdict stands until checks of another kind decide otherwise, beginning at once.
    pub fn begin_anew(&self) {
        let mut state = self.state();
        (state.in_a_row, state.due) = (0, None);
    }

    /// What was found of `before` holds until checks decide otherwise, beginning at once.
    pub(super) fn succeed(&self, before: &Health) {
        let before = before.state().clone();
        *self.state() = State { in_a_row: 0, due: None, ..before };
    }

    /// The endpoint is not checked any more.
    pub fn forget(&self) {
        *self.state() = State::default();
    }

    /// Plans the first check, unless one is planned, and returns when it begins. `random` is from 0
    /// to 1.
    fn plan(&self, config: &Config, random: f64, now: Moment) -> Moment {
        let mut state = self.state();
        if state.verdict == Verdict::Unknown && state.checks == 0 && state.due.is_none() {
            state.since = now;
        }
        *state.due.get_or_insert_with(|| now + FIRST_WITHIN.min(*config.interval).mul_f64(random))
    }

    /// Plans the check after one that has ended, and returns when it begins. `random` is from 0 to
    /// 1.
    fn plan_next(&self, config: &Config, random: f64, now: Moment) -> Moment {
        let mut state = self.state();
        let is_decided = match (state.verdict, &state.last) {
            (Verdict::Healthy, Some((result, _))) => result.is_ok(),
            (Verdict::Unhealthy, Some((result, _))) => result.is_err(),
            (Verdict::Unknown, _) | (_, None) => false,
        };
        let pause = if is_decided { config.interval } else { config.fast_interval };
        let factor = 1.0 + config.jitter.fraction() * (2.0 * random - 1.0);
        let due = now + pause.mul_f64(factor);
        state.due = Some(due);
        due
    }

    /// Takes in how a check has ended.
    pub(super) fn note(
        &self,
        result: Result<(), Failure>,
        config: &Config,
        now: Moment,
    ) -> Option<Edge> {
        let mut state = self.state();
        let passed = result.is_ok();
        let as_before = state.last.as_ref().is_some_and(|(last, _)| last.is_ok() == passed);
        state.in_a_row = if as_before { state.in_a_row.saturating_add(1) } else { 1 };
        state.checks += 1;
        state.last = Some((result, now));
        let in_a_row = state.in_a_row;
        let to = match (state.verdict, passed) {
            (Verdict::Unknown, true) => Verdict::Healthy,
            (Verdict::Unhealthy, true) if in_a_row >= config.healthy => Verdict::Healthy,
            (Verdict::Unknown | Verdict::Healthy, false) if in_a_row >= config.unhealthy => {
                Verdict::Unhealthy
            }
            (same, _) => same,
        };
        let from = std::mem::replace(&mut state.verdict, to);
        if from == to {
            return None;
        }
        let after = now.since(std::mem::replace(&mut state.since, now));
        Some(Edge { from, to, in_a_row, after, is_first: state.checks == 1 })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every write leaves the state consistent, even if a panic comes between two.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first checks begin within this time, at random, so that many endpoints are not checked in
/// the same moment (envoy#4132).
const FIRST_WITHIN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
