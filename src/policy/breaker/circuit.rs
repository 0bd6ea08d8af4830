//! A breaker's state as shared by threads: the machine behind a lock, and beside it, in atomics,
//! what most calls need to know.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::change::{Change, Opening};
use super::config::{Config, Transition, Verdict};
use super::machine::{Machine, Phase, Report, Ticket, Transitions};
use super::orders::Orders;
use super::{Open, Receipt, State, window};
use crate::policy::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering, PoisonError};
use crate::time::Moment;

#[derive(Debug)]
pub(super) struct Circuit {
    pub(super) config: Config,
    /// Phase and generation in one word, as `pack` lays them out.
    word: AtomicU64,
    /// The moment, in nanoseconds, before which the word alone decides; see `Machine::consult_at`.
    consult_at: AtomicU64,
    /// Failures in a row. A success takes the lock only if there are any.
    run_length: AtomicU32,
    /// The calls of this closed phase, if a window is configured. Each phase has a new one, so that
    /// late results in an older one change nothing.
    window: ArcSwapOption<window::Window>,
    /// Whether there are changes to report.
    changed: AtomicBool,
    /// A plain lock, held for a few instructions and never across an await.
    pub(super) machine: Mutex<Machine>,
    pub(super) orders: Orders,
}

impl Circuit {
    pub(super) fn new(config: Config, now: Moment) -> Self {
        let machine = Machine::new(&config, now);
        Circuit {
            word: AtomicU64::new(pack(&machine)),
            consult_at: AtomicU64::new(machine.consult_at(&config).as_nanos()),
            run_length: AtomicU32::new(0),
            changed: AtomicBool::new(false),
            window: ArcSwapOption::new(fresh_window(&config, &machine)),
            config,
            machine: Mutex::new(machine),
            orders: Orders::default(),
        }
    }

    /// Admits a call; see `Breaker::acquire`.
    pub(super) fn admit(&self, now: Moment) -> Result<Ticket, Open> {
        // Acquire pairs with the Release in `consult`. The phase may change between the two loads,
        // which is harmless: the word decides, and was current during this call. The moment only
        // tells whether to take the lock, and bounds the time that a refusal reports.
        let word = self.word.load(Ordering::Acquire);
        let consult_at = Moment::from_nanos(self.consult_at.load(Ordering::Acquire));
        if now < consult_at {
            match word & PHASE_BITS {
                CLOSED => {
                    return Ok(Ticket { generation: word >> PHASE_WIDTH, round: None });
                }
                OPEN => {
                    let retry_after = consult_at.since(now).min(*self.config.open_for);
                    return Err(Open { retry_after });
                }
                _half_open => return Err(Open { retry_after: Duration::ZERO }),
            }
        }
        self.consult(|machine| machine.admit(&self.config, now))
            .map_err(|retry_after| Open { retry_after })
    }

    /// See `Breaker::state`.
    pub(super) fn state(&self, now: Moment) -> State {
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

    pub(super) fn opening(&self) -> Option<Opening> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner).changes.opening()
    }

    pub(super) fn transitions(&self) -> Transitions {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner).transitions
    }

    /// See `Breaker::changes`.
    pub(super) fn changes(&self) -> Vec<Change> {
        // Relaxed: the thread that made a change sees it, and is the one to report it.
        if !self.changed.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.store(false, Ordering::Relaxed);
        machine.changes.take()
    }

    /// Records the result of a call. Returns where it is counted, if it is a failure and no probe.
    pub(super) fn settle(
        &self,
        ticket: Ticket,
        begun: Moment,
        verdict: Verdict,
        now: Moment,
    ) -> Option<Receipt> {
        let is_probe = ticket.round.is_some();
        let slow = self.is_slow(now.since(begun));
        let recorded = if is_probe { None } else { self.in_window(ticket, verdict, slow, now) };
        let tripped = recorded.and_then(|recorded| recorded.reached);
        if is_probe || tripped.is_some() || self.concerns_run(verdict) {
            let report = Report { verdict, slow, tripped };
            self.consult(|machine| machine.settle(&self.config, ticket, report, now));
        }
        let place = recorded.map(|recorded| recorded.place);
        let is_failure = verdict == Verdict::Failure && !is_probe;
        is_failure.then_some(Receipt { generation: ticket.generation, at: now, slow, place })
    }

    /// See `Breaker::retract`.
    pub(super) fn retract(&self, receipts: &[Receipt]) {
        if let Some(window) = self.window.load().as_ref() {
            let of_this_phase = receipts.iter().filter(|r| r.generation >= window.since);
            for Receipt { slow, place, .. } in of_this_phase {
                if let Some(place) = *place {
                    window.retract(window::Call { failed: true, slow: *slow }, place);
                }
            }
        }
        if self.config.consecutive.is_some() && !receipts.is_empty() {
            self.consult(|machine| machine.retract(receipts));
        }
    }

    fn is_slow(&self, took: Duration) -> bool {
        let slow_calls = self.config.window.as_ref().and_then(|window| window.slow_calls.as_ref());
        slow_calls.is_some_and(|slow| took > *slow.longer_than)
    }

    /// Records in the window a call that was admitted while closed.
    fn in_window(
        &self,
        ticket: Ticket,
        verdict: Verdict,
        slow: bool,
        now: Moment,
    ) -> Option<window::Recorded> {
        let failed = match verdict {
            Verdict::Success => false,
            Verdict::Failure | Verdict::Throttled => true,
            Verdict::Neutral => return None,
        };
        self.config.window.as_ref()?;
        let window = self.window.load();
        let of_this_phase = window.as_ref().filter(|window| ticket.generation >= window.since);
        of_this_phase.map(|window| window.record(window::Call { failed, slow }, now))
    }

    /// Whether the result of a call admitted while closed can change the failures in a row.
    fn concerns_run(&self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Neutral | Verdict::Throttled => false,
            Verdict::Failure => self.config.consecutive.is_some(),
            // Relaxed: a success that misses a failure recorded meanwhile counts as earlier.
            Verdict::Success => self.run_length.load(Ordering::Relaxed) > 0,
        }
    }

    /// Runs `decide` under the lock, and publishes the machine's new state.
    pub(super) fn consult<R>(&self, decide: impl FnOnce(&mut Machine) -> R) -> R {
        // A panic may leave the machine half-changed, but going on does less harm than failing.
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let since = machine.since;
        let decision = decide(&mut machine);
        if machine.since != since {
            // Before the word, so that a ticket of the new phase finds its window.
            self.window.store(fresh_window(&self.config, &machine));
        }
        if !machine.changes.is_empty() {
            self.changed.store(true, Ordering::Relaxed);
        }
        // The lock orders the stores; Release pairs with the Acquire in `admit`.
        let consult_at = machine.consult_at(&self.config).as_nanos();
        self.consult_at.store(consult_at, Ordering::Release);
        self.word.store(pack(&machine), Ordering::Release);
        // Relaxed: see `concerns_run`.
        self.run_length.store(machine.run_length(), Ordering::Relaxed);
        decision
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
