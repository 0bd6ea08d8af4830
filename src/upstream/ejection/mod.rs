//! Passive health: an endpoint whose attempts fail is ejected for a time, and comes back by one real
//! request that succeeds.
//!
//! [`Ejection`] is the state of one endpoint; an upstream asks its `machine` under a lock, and only
//! after a failure, or for the success that ends a run of failures. It decides by failures in a row,
//! as linkerd's failure accrual, and by the share of failures in a window against the other
//! endpoints. Envoy compares with the mean less 1.9 standard deviations
//! (`outlier_detection.proto`, `success_rate_stdev_factor`). That says nothing for fewer than five
//! endpoints, several bad ones hide each other, and among endpoints that hardly fail a single failure
//! is an outlier. So here a share is compared with that of all others together: at least twice as
//! much, and at least `failure_rate`. If all fail alike none is ejected; that is for the upstream's
//! circuit breaker.
//!
//! How many may be ejected, and what is used if none is available, is decided by
//! [`Upstream`](super::Upstream), which knows all endpoints.

pub mod config;
mod due;
mod machine;
mod share;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(super) use due::Due;
pub(super) use machine::Tally;
use machine::{Machine, Phase};
pub(super) use share::outliers;

use self::config::Config;
use crate::policy::breaker::Receipt;
use crate::policy::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};
use crate::time::Moment;

/// What ejected an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Failures in a row.
    Consecutive {
        /// How many.
        failures: u32,
    },
    /// Its share of failures, compared with that of the other endpoints.
    Share {
        /// Its attempts in the window.
        ended: u64,
        /// Those that failed.
        failed: u64,
    },
}

impl Reason {
    pub(super) const CONSECUTIVE: &str = "consecutive_failures";
    pub(super) const SHARE: &str = "failure_rate";

    /// The metric label: the key of the rule.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Consecutive { .. } => Reason::CONSECUTIVE,
            Reason::Share { .. } => Reason::SHARE,
        }
    }
}

/// Which failure of an endpoint it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    epoch: u64,
    serial: u32,
    /// Failures in a row with it.
    pub(super) run: u32,
}

/// How an attempt's result counts for the breaker of its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It counts.
    Yes,
    /// It counts, until the endpoint is ejected because of it: the breaker's receipt is to be kept.
    Until(Mark),
    /// It counted towards an ejection that has happened, or it is late.
    No,
}

/// An endpoint's state for `/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// `available`, `ejected` or `probing`.
    pub state: &'static str,
    /// Of the latest ejection, and when it began.
    pub last: Option<(Reason, Moment)>,
    /// When the probe is due, if the endpoint is ejected.
    pub until: Option<Moment>,
    /// How often it was ejected; a probe that failed counts as well.
    pub times: u64,
}

/// The state of one endpoint, shared by threads.
#[derive(Debug)]
pub struct Ejection {
    /// The epoch, and whether the endpoint is available; see `pack`.
    word: AtomicU64,
    /// Failures in a row. A success takes the lock only if there are any.
    run: AtomicU32,
    /// Held for a few instructions, after a failure.
    machine: Mutex<Machine>,
}

/// What an attempt's result means for its endpoint, as of the attempt's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// It counts, if the endpoint's epoch is still this one.
    Counts(u64),
    /// The endpoint was ejected, and used because none was available.
    Aside,
    /// It decides about the endpoint.
    Probe(u64),
}

impl Default for Ejection {
    fn default() -> Self {
        let machine = Machine::new();
        let word = AtomicU64::new(pack(&machine));
        Ejection { word, run: AtomicU32::new(0), machine: Mutex::new(machine) }
    }
}

impl Ejection {
    /// What an attempt that begins now counts for.
    pub(super) fn pass(&self) -> Pass {
        // Relaxed, as the other loads of it: a change that is missed counts as later.
        match self.word.load(Ordering::Relaxed) {
            word if word & OUT == 0 => Pass::Counts(word >> 1),
            _ejected => Pass::Aside,
        }
    }

    /// Whether an attempt that began in `epoch` is late.
    pub(super) fn is_late(&self, epoch: u64) -> bool {
        self.word.load(Ordering::Relaxed) >> 1 != epoch
    }

    /// Counts a failure; `None` if it is late.
    pub(super) fn failed(&self, epoch: u64) -> Option<Mark> {
        self.consult(|machine| machine.failed(epoch))
    }

    /// Counts a success. Takes no lock unless it ends a run of failures.
    pub(super) fn succeeded(&self, epoch: u64, config: &Config) {
        // Relaxed: a success that misses a failure counted meanwhile counts as earlier.
        if self.run.load(Ordering::Relaxed) > 0 {
            self.consult(|machine| machine.succeeded(epoch, config));
        }
    }

    /// See `Machine::remember`.
    pub(super) fn remember(&self, mark: Mark, receipt: Receipt, config: &Config) -> bool {
        self.lock().remember(mark, receipt, config)
    }

    /// Ejects the endpoint, unless it is ejected already. Returns for how long, until when, and
    /// what the breaker takes back.
    pub(super) fn eject(
        &self,
        reason: Reason,
        config: &Config,
        now: Moment,
        random: f64,
    ) -> Option<(Duration, Vec<Receipt>)> {
        self.consult(|machine| match machine.phase {
            Phase::Available => Some(machine.eject(reason, config, now, random)),
            Phase::Ejected { .. } | Phase::Probing { .. } => None,
        })
    }

    /// When the next probe is due; `None` if the endpoint is not ejected, or a probe is under way.
    pub(super) fn due(&self) -> Option<Moment> {
        if self.word.load(Ordering::Acquire) & OUT == 0 {
            return None;
        }
        match self.lock().phase {
            Phase::Ejected { until } => Some(until),
            Phase::Available | Phase::Probing { .. } => None,
        }
    }

    /// Begins a probe; `None` if its time has not come, or there is one.
    pub(super) fn probe(&self, now: Moment) -> Option<Pass> {
        self.consult(|machine| machine.begin_probe(now).then_some(Pass::Probe(machine.epoch)))
    }

    /// See `Machine::drop_probe`.
    pub(super) fn drop_probe(&self, epoch: u64) -> Option<Moment> {
        self.consult(|machine| machine.drop_probe(epoch))
    }

    /// See `Machine::probe_failed`.
    pub(super) fn probe_failed(
        &self,
        epoch: u64,
        config: &Config,
        now: Moment,
        random: f64,
    ) -> Option<Duration> {
        self.consult(|machine| machine.probe_failed(epoch, config, now, random))
    }

    /// See `Machine::probe_succeeded`.
    pub(super) fn probe_succeeded(&self, epoch: u64, now: Moment) -> Option<(Duration, u32)> {
        self.consult(|machine| machine.probe_succeeded(epoch, now))
    }

    /// Ends the ejection, whatever its time, and forgets failures in a row.
    pub(super) fn clear(&self, now: Moment) -> Option<(Duration, u32)> {
        self.consult(|machine| machine.readmit(now))
    }

    /// It goes on with the ejection of `before`, and its failures in a row.
    pub(super) fn succeed(&self, before: &Ejection) {
        let before = before.lock().inherited();
        self.consult(|machine| *machine = before);
    }

    /// See `Machine::turn`.
    pub(super) fn turn(&self, ended: u64) -> Tally {
        self.lock().turn(ended)
    }

    /// See `Machine::forget`.
    pub(super) fn forget(&self) {
        self.lock().forget();
    }

    /// For people to read.
    pub fn shown(&self) -> Shown {
        let machine = self.lock();
        let (state, until) = match machine.phase {
            Phase::Available => ("available", None),
            Phase::Ejected { until } => ("ejected", Some(until)),
            Phase::Probing { .. } => ("probing", None),
        };
        let last = machine.last.map(|last| (last.reason, last.since));
        Shown { state, last, until, times: machine.times }
    }

    fn consult<R>(&self, decide: impl FnOnce(&mut Machine) -> R) -> R {
        let mut machine = self.lock();
        let decision = decide(&mut machine);
        self.run.store(machine.run, Ordering::Relaxed);
        // Release pairs with the Acquire in `due`.
        self.word.store(pack(&machine), Ordering::Release);
        decision
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // A panic may leave the machine half-changed, but going on does less harm than failing.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bit of an endpoint that is ejected, or probed.
const OUT: u64 = 1;

fn pack(machine: &Machine) -> u64 {
    let out = match machine.phase {
        Phase::Available => 0,
        Phase::Ejected { .. } | Phase::Probing { .. } => OUT,
    };
    machine.epoch << 1 | out
}
