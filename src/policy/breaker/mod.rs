//! Circuit breaker: stop calling what keeps failing, try again with care.
//!
//! [`Breaker`] shares one state machine between threads. While the circuit is closed and nothing
//! fails, a call costs a few loads and no lock, and writes nothing but what its own thread's lane
//! counts; `window` says what it costs once something has failed. Refusals of an open circuit are
//! loads only, too. The machine's lock is taken for a failure that may end a run, for the success that
//! ends one, for the call with which a rate is reached, and while half-open.
//!
//! What an outcome is, when to take a permit, and what a refused client is answered are left to
//! the caller.

mod change;
mod circuit;
mod config;
mod machine;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
mod trial;
mod window;

use std::time::Duration;

pub use change::{Change, Why};
use circuit::Circuit;
pub use config::{
    CloseOn, Config, Consecutive, Count, Extent, Reset, SlowCalls, Transition, Verdict, Window,
};
pub use machine::Transitions;
use machine::{Machine, Ticket};

use super::lanes::{Hold, Shared};
use super::outcome::Outcome;
use crate::time::Moment;

/// A circuit breaker, shared by all that call one upstream or route.
#[derive(Debug)]
pub struct Breaker(Shared<Circuit>);

/// What a breaker shows on `/status` and in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls flow; `failures` in a row so far.
    Closed { failures: u32 },
    /// Calls are refused for this long yet.
    Open { remaining: Duration },
    /// Probes are let through, or the next call will be one.
    HalfOpen { in_flight: u32, successes: u32 },
    /// Calls are refused because an operator said so.
    ForcedOpen,
    /// Calls flow, whatever becomes of them, because an operator said so.
    ForcedClosed,
}

/// The circuit is open, or half-open with every probe out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the circuit is open")]
pub struct Open {
    /// Rest of the open time. Zero when half-open: the next result may close it.
    pub retry_after: Duration,
}

impl Breaker {
    pub fn new(config: Config, now: Moment) -> Self {
        Breaker(Shared::new(Circuit::new(config, now)))
    }

    /// What it was made from. A reload keeps a breaker whose configuration is unchanged.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Asks to make a call.
    ///
    /// # Errors
    /// [`Open`], with the time left, while the circuit refuses.
    pub fn acquire(&self, now: Moment) -> Result<Permit, Open> {
        let ticket = self.0.admit(now)?;
        Ok(Permit { circuit: self.0.hold(), ticket, begun: now, settled: false })
    }

    /// The state as of `now`. Takes the lock: for pages and metrics, not for the request path.
    pub fn state(&self, now: Moment) -> State {
        self.0.state(now)
    }

    /// How often the circuit changed. Takes the lock, as `state` does. A circuit counts as
    /// half-opened with its first probe.
    pub fn transitions(&self) -> Transitions {
        self.0.transitions()
    }

    /// What has changed since this was last asked, oldest first. A load while nothing has: cheap enough
    /// to be asked after every result. An operator's orders are not among it.
    pub fn changes(&self) -> Vec<Change> {
        self.0.changes()
    }

    /// Refuses every call until `force_closed` or `reset`.
    pub fn force_open(&self) {
        self.0.consult(Machine::force_open);
    }

    /// Admits every call and counts none until `force_open` or `reset`.
    pub fn force_closed(&self) {
        self.0.consult(Machine::force_closed);
    }

    /// Closes the circuit, forgets every result, and ends what was forced.
    pub fn reset(&self, now: Moment) {
        self.0.consult(|machine| machine.reset(&self.0.config, now));
    }
}

impl State {
    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Closed { .. } => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half_open",
            State::ForcedOpen => "forced_open",
            State::ForcedClosed => "forced_closed",
        }
    }
}

/// Leave to make one call. Dropped without a result it is ignored, and frees its place if it was
/// a probe's.
#[must_use = "a dropped permit counts as ignored"]
#[derive(Debug)]
pub struct Permit {
    circuit: Hold<Circuit>,
    ticket: Ticket,
    begun: Moment,
    settled: bool,
}

impl Permit {
    /// Tells the breaker what the call's outcome says; dropped if the circuit has changed since.
    /// The call took from its permit, or from when it has `begun`, until `now`.
    pub fn record(mut self, verdict: Verdict, now: Moment) {
        self.settled = true;
        self.circuit.settle(self.ticket, self.begun, verdict, now);
    }

    /// Says that the call began only now: a wait after the permit does not make it slow.
    pub fn begun(mut self, now: Moment) -> Self {
        self.begun = self.begun.max(now);
        self
    }

    /// Judges the outcome by the breaker's `failure_on`, and records that.
    pub fn record_outcome(self, outcome: Outcome, now: Moment) {
        let verdict = self.circuit.config.judge(outcome);
        self.record(verdict, now);
    }

    /// Whether the call is a trial of a half-open circuit.
    pub fn is_probe(&self) -> bool {
        self.ticket.round.is_some()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.settled && self.is_probe() {
            self.circuit.consult(|machine| machine.give_back(self.ticket));
        }
    }
}
