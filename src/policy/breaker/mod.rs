//! Circuit breaker: stop calling what keeps failing, try again with care.
//!
//! [`Breaker`] shares one state machine between threads. While the circuit is closed and nothing
//! fails, a call costs a few loads: no lock, no write to a shared line but the permit's reference
//! count and, with a window, the window's. Refusals of an open circuit are loads only, too. The
//! lock is taken for a failure that may end a run, for the success that ends one, for the call
//! with which a rate is reached, and while half-open.
//!
//! What an outcome is, when to take a permit, and what a refused client is answered are left to
//! the caller.

mod config;
mod machine;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
mod trial;
mod window;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
pub use config::{
    CloseOn, Config, Consecutive, Count, Extent, Reset, SlowCalls, Transition, Verdict, Window,
};
pub use machine::Transitions;
use machine::{Machine, Phase, Report, Ticket};

use crate::policy::outcome::Outcome;
use crate::policy::sync::{AtomicU32, AtomicU64, Mutex, Ordering, PoisonError};
use crate::time::Moment;

/// A circuit breaker, shared by all that call one upstream or route.
#[derive(Debug)]
pub struct Breaker {
    config: Config,
    /// Phase and generation in one word, as `pack` lays them out.
    word: AtomicU64,
    /// Nanoseconds of the moment before which the word alone decides; see `Machine::consult_at`.
    consult_at: AtomicU64,
    /// Failures in a row: a success needs the lock only if there are any.
    run_length: AtomicU32,
    /// The calls of this closed phase, if a window is configured. A new one for each phase: what
    /// an older one is still told changes nothing.
    window: ArcSwapOption<window::Window>,
    /// A plain lock, held for a few instructions and never across an await.
    machine: Mutex<Machine>,
}

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
        let machine = Machine::new(&config, now);
        Breaker {
            word: AtomicU64::new(pack(&machine)),
            consult_at: AtomicU64::new(machine.consult_at(&config).as_nanos()),
            run_length: AtomicU32::new(0),
            window: ArcSwapOption::new(fresh_window(&config, &machine)),
            config,
            machine: Mutex::new(machine),
        }
    }

    /// What it was made from. A reload keeps a breaker whose configuration is unchanged.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Asks to make a call.
    ///
    /// # Errors
    /// [`Open`], with the time left, while the circuit refuses.
    pub fn acquire(self: &Arc<Self>, now: Moment) -> Result<Permit, Open> {
        // Acquire pairs with the Release in `publish`. The two loads may straddle a change of
        // phase. That is harmless: the word decides, and was true during this call; the moment
        // only says whether to ask under the lock, and bounds what a refusal tells.
        let word = self.word.load(Ordering::Acquire);
        let consult_at = Moment::from_nanos(self.consult_at.load(Ordering::Acquire));
        if now < consult_at {
            match word & PHASE_BITS {
                CLOSED => {
                    let ticket = Ticket { generation: word >> PHASE_WIDTH, round: None };
                    return Ok(self.permit(ticket, now));
                }
                OPEN => {
                    let retry_after = consult_at.since(now).min(*self.config.open_for);
                    return Err(Open { retry_after });
                }
                _half_open => return Err(Open { retry_after: Duration::ZERO }),
            }
        }
        match self.consult(|machine| machine.admit(&self.config, now)) {
            Ok(ticket) => Ok(self.permit(ticket, now)),
            Err(retry_after) => Err(Open { retry_after }),
        }
    }

    /// The state as of `now`. Takes the lock: for pages and metrics, not for the request path.
    pub fn state(&self, now: Moment) -> State {
        let machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        match machine.phase_at(&self.config, now) {
            Phase::Closed => State::Closed { failures: machine.failures(&self.config, now) },
            Phase::Open { until } if now < until => State::Open { remaining: until.since(now) },
            Phase::Open { .. } => match self.config.transition {
                Transition::Automatic => State::HalfOpen { in_flight: 0, successes: 0 },
                Transition::Lazy => State::Open { remaining: Duration::ZERO },
            },
            Phase::HalfOpen(trial) => {
                State::HalfOpen { in_flight: trial.in_flight(), successes: trial.successes() }
            }
            Phase::ForcedOpen => State::ForcedOpen,
            Phase::ForcedClosed => State::ForcedClosed,
        }
    }

    /// How often the circuit changed. Takes the lock, as `state` does. A circuit counts as
    /// half-opened with its first probe.
    pub fn transitions(&self) -> Transitions {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner).transitions
    }

    /// Refuses every call until `force_closed` or `reset`.
    pub fn force_open(&self) {
        self.consult(Machine::force_open);
    }

    /// Admits every call and counts none until `force_open` or `reset`.
    pub fn force_closed(&self) {
        self.consult(Machine::force_closed);
    }

    /// Closes the circuit, forgets every result, and ends what was forced.
    pub fn reset(&self, now: Moment) {
        self.consult(|machine| machine.reset(&self.config, now));
    }

    fn permit(self: &Arc<Self>, ticket: Ticket, now: Moment) -> Permit {
        Permit { breaker: Arc::clone(self), ticket, begun: now, settled: false }
    }

    fn settle(&self, permit: &Permit, verdict: Verdict, now: Moment) {
        let ticket = permit.ticket;
        let slow = self.is_slow(now.since(permit.begun));
        let tripped = !permit.is_probe() && self.trips(ticket, verdict, slow, now);
        if permit.is_probe() || tripped || self.concerns_run(verdict) {
            let report = Report { verdict, slow, tripped };
            self.consult(|machine| machine.settle(&self.config, ticket, report, now));
        }
    }

    fn is_slow(&self, took: Duration) -> bool {
        let slow_calls = self.config.window.as_ref().and_then(|window| window.slow_calls.as_ref());
        slow_calls.is_some_and(|slow| took > *slow.longer_than)
    }

    /// Puts a call admitted while closed into the window; whether a rate is reached with it.
    fn trips(&self, ticket: Ticket, verdict: Verdict, slow: bool, now: Moment) -> bool {
        let failed = match verdict {
            Verdict::Success => false,
            Verdict::Failure | Verdict::Throttled => true,
            Verdict::Neutral => return false,
        };
        if self.config.window.is_none() {
            return false;
        }
        let window = self.window.load();
        let of_this_phase = window.as_ref().filter(|window| ticket.generation >= window.since);
        of_this_phase.is_some_and(|window| window.record(window::Call { failed, slow }, now))
    }

    /// Whether the result of a call admitted while closed can change the run of failures.
    fn concerns_run(&self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Neutral | Verdict::Throttled => false,
            Verdict::Failure => self.config.consecutive.is_some(),
            // Relaxed: a success that does not see a failure recorded meanwhile came before it.
            Verdict::Success => self.run_length.load(Ordering::Relaxed) > 0,
        }
    }

    /// Runs `decide` under the lock and publishes what it left.
    fn consult<R>(&self, decide: impl FnOnce(&mut Machine) -> R) -> R {
        // A panic cannot leave the machine half-changed in a way that matters more than going on.
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let since = machine.since;
        let decision = decide(&mut machine);
        if machine.since != since {
            // Before the word: a ticket of the new phase finds its window.
            self.window.store(fresh_window(&self.config, &machine));
        }
        // Stores are ordered by the lock; Release pairs with the Acquire in `acquire`.
        let consult_at = machine.consult_at(&self.config).as_nanos();
        self.consult_at.store(consult_at, Ordering::Release);
        self.word.store(pack(&machine), Ordering::Release);
        // Relaxed: see `concerns_run`.
        self.run_length.store(machine.run_length(), Ordering::Relaxed);
        decision
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
    breaker: Arc<Breaker>,
    ticket: Ticket,
    begun: Moment,
    settled: bool,
}

impl Permit {
    /// Tells the breaker what the call's outcome says; dropped if the circuit has changed since.
    /// The call took from its permit, or from when it has `begun`, until `now`.
    pub fn record(mut self, verdict: Verdict, now: Moment) {
        self.settled = true;
        self.breaker.settle(&self, verdict, now);
    }

    /// Says that the call began only now: a wait after the permit does not make it slow.
    pub fn begun(mut self, now: Moment) -> Self {
        self.begun = self.begun.max(now);
        self
    }

    /// Judges the outcome by the breaker's `failure_on`, and records that.
    pub fn record_outcome(self, outcome: Outcome, now: Moment) {
        let verdict = self.breaker.config.judge(outcome);
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
            self.breaker.consult(|machine| machine.give_back(self.ticket));
        }
    }
}

const PHASE_WIDTH: u32 = 2;
const PHASE_BITS: u64 = (1 << PHASE_WIDTH) - 1;
const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;

fn pack(machine: &Machine) -> u64 {
    let phase = match machine.phase {
        Phase::Closed | Phase::ForcedClosed => CLOSED,
        Phase::Open { .. } | Phase::ForcedOpen => OPEN,
        Phase::HalfOpen(_) => HALF_OPEN,
    };
    machine.generation << PHASE_WIDTH | phase
}

fn fresh_window(config: &Config, machine: &Machine) -> Option<Arc<window::Window>> {
    match machine.phase {
        Phase::Closed => {
            let config = config.window.as_ref()?;
            Some(Arc::new(window::Window::new(config, machine.since)))
        }
        Phase::Open { .. } | Phase::HalfOpen(_) | Phase::ForcedOpen | Phase::ForcedClosed => None,
    }
}
