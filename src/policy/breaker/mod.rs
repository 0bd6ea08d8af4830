//! Circuit breaker: stops calls to an upstream that keeps failing, and tries again with few.
//!
//! [`Breaker`] shares one state machine between threads. While the circuit is closed and nothing
//! fails, a call takes a few loads and no lock, and writes only to counters in its own thread's
//! lane; `window` says what a call costs after a failure. An open circuit refuses with loads only,
//! too. The lock is taken for a failure that may end a run, for the success that ends one, for the
//! call that makes a rate reach its limit, and while half-open.
//!
//! The caller classifies outcomes, decides when to take a permit, and writes the response to a
//! refused client.

mod change;
mod circuit;
mod config;
mod machine;
#[cfg(test)]
mod model;
pub mod orders;
#[cfg(test)]
mod tests;
mod trial;
mod window;

use std::sync::Arc;
use std::time::Duration;

pub use change::{Change, Opening, Why};
use circuit::Circuit;
pub use config::{
    CloseOn, Config, Consecutive, Count, Extent, Reset, SlowCalls, Transition, Verdict, Window,
};
pub use machine::Transitions;
use machine::{Machine, Ticket};

use super::dry_run::Enforce;
use super::lanes::{Hold, Shared};
use crate::time::Moment;

/// A circuit breaker, shared by all calls to one upstream or of one route.
#[derive(Debug)]
pub struct Breaker {
    circuit: Shared<Circuit>,
    enforce: Enforce,
}

/// The state that is reported on `/status` and in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls are admitted; `failures` in a row so far.
    Closed {
        /// Always 0 without a `consecutive` mode.
        failures: u32,
    },
    /// Calls are refused for this much longer.
    Open {
        /// Until the first probe is admitted.
        remaining: Duration,
    },
    /// Probes are admitted, or the next call will be one.
    HalfOpen {
        /// Probes without a result.
        in_flight: u32,
        /// Probes of this trial that succeeded.
        successes: u32,
    },
    /// Calls are refused by an operator's order.
    ForcedOpen,
    /// Calls are admitted by an operator's order, whatever their outcomes.
    ForcedClosed,
}

/// The circuit is open, or half-open with all probes in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the circuit is open")]
pub struct Open {
    /// The rest of the open time. Zero if half-open: the next result may close the circuit.
    pub retry_after: Duration,
}

impl Breaker {
    /// A closed circuit with nothing counted.
    pub fn new(config: Config, now: Moment) -> Self {
        Breaker { enforce: config.enforce, circuit: Shared::new(Circuit::new(config, now)) }
    }

    /// `old` under the configuration `wanted`: `old` itself if nothing changed; if only `enforce`
    /// did, another breaker of the same circuit. `None` if it must be a new circuit.
    pub fn continued(old: &Arc<Breaker>, wanted: &Config) -> Option<Arc<Breaker>> {
        let enforce = wanted.enforce;
        let config = Config { enforce, ..old.config().clone() };
        if config != *wanted {
            return None;
        }
        Some(match old.enforce == enforce {
            true => old.clone(),
            false => Arc::new(Breaker { circuit: old.circuit.clone(), enforce }),
        })
    }

    /// The configuration that its circuit was made from; [`Breaker::enforce`] may have changed since.
    pub fn config(&self) -> &Config {
        &self.circuit.config
    }

    /// Whether both are breakers of the same circuit.
    pub fn shares_circuit(&self, other: &Breaker) -> bool {
        std::ptr::eq(&*self.circuit, &*other.circuit)
    }

    /// Whether the circuit refuses.
    pub fn enforce(&self) -> Enforce {
        self.enforce
    }

    /// Asks for permission to make a call.
    ///
    /// # Errors
    /// [`Open`], with the time left, while the circuit refuses.
    pub fn acquire(&self, now: Moment) -> Result<Permit, Open> {
        let ticket = self.circuit.admit(now)?;
        Ok(Permit { circuit: self.circuit.hold(), ticket, begun: now, settled: false })
    }

    /// The state as of `now`. Takes the lock: for pages and metrics, not for the request path.
    pub fn state(&self, now: Moment) -> State {
        self.circuit.state(now)
    }

    /// Since when the circuit is open, and why; `None` if it is closed, or forced open. Takes the
    /// lock, as `state` does.
    pub fn opening(&self) -> Option<Opening> {
        self.circuit.opening()
    }

    /// How often the circuit changed. Takes the lock, as `state` does. A circuit counts as
    /// half-opened with its first probe.
    pub fn transitions(&self) -> Transitions {
        self.circuit.transitions()
    }

    /// The changes since the last call of this, oldest first. Costs one load if there are none, so
    /// it can be called after every result. Orders of an operator are not included.
    pub fn changes(&self) -> Vec<Change> {
        self.circuit.changes()
    }

    /// Takes failures back, as if their calls had not been made. Those that are not counted any
    /// more, because they are too old or the circuit has changed since, change nothing: a circuit
    /// that they have opened stays open. What a success has ended is not restored.
    pub fn retract(&self, receipts: &[Receipt]) {
        self.circuit.retract(receipts);
    }
}

/// Where a failure was counted, so that it can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    generation: u64,
    /// When, as the run of failures has it.
    at: Moment,
    slow: bool,
    /// In the window, if there is one.
    place: Option<window::Place>,
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

/// Permission to make one call. A permit dropped without a result is not counted, and frees its
/// place if it is a probe's.
#[must_use = "a dropped permit counts as ignored"]
#[derive(Debug)]
pub struct Permit {
    circuit: Hold<Circuit>,
    ticket: Ticket,
    begun: Moment,
    settled: bool,
}

impl Permit {
    /// Records the call's verdict. It is ignored if the circuit has changed since. The call lasted
    /// from its permit, or from [`Permit::begun`], until `now`.
    pub fn record(self, verdict: Verdict, now: Moment) {
        self.settle(verdict, now);
    }

    /// The same. Returns where it is counted, if it is a failure of a closed circuit.
    pub fn settle(mut self, verdict: Verdict, now: Moment) -> Option<Receipt> {
        self.settled = true;
        self.circuit.settle(self.ticket, self.begun, verdict, now)
    }

    /// The call begins only now, so that a wait after the permit does not make it slow.
    pub fn begun(mut self, now: Moment) -> Self {
        self.begun = self.begun.max(now);
        self
    }

    /// Whether the call is a probe of a half-open circuit.
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
