//! The state machine of one endpoint's ejection, for one thread at a time. Time and randomness are
//! arguments.

use std::collections::VecDeque;
use std::time::Duration;

use super::config::Config;
use super::{Mark, Reason};
use crate::policy::breaker::Receipt;
use crate::time::Moment;

/// The phases of an endpoint.
///
/// ```text
///             failures in a row, or a share of failures,
///             and another one may be ejected
/// ┌─────────┐ ──────────────────────────────────────> ┌───────┐ <───────────┐
/// │Available│                                         │Ejected│             │
/// └─────────┘ <──────────┐                            └───────┘             │ the probe failed:
///      ^                 │    `until` is over, and a    │    ^              │ twice the time
///      │                 │    request comes: the probe  v    │ no result    │
///      │                 │                           ┌───────┐             │
///      │                 └── the probe succeeded ─── │Probing│ ────────────┘
///      │                                             └───────┘
///      └──── an active check passes again, in any phase
/// ```
///
/// Each ejection begins an epoch. The result of an attempt that began in another epoch is late, and
/// counts for nothing. A phase ends when a request comes or is told, never by a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Available,
    Ejected {
        until: Moment,
    },
    /// One request is under way to find out.
    Probing {
        /// As it was; over.
        until: Moment,
    },
}

/// Failures that are remembered, at most, so that the upstream's breaker can take them back.
const REMEMBERED: usize = 1024;
/// By how much an ejection may be longer, so that endpoints and gateways do not probe in step.
const JITTER: f64 = 0.2;

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) phase: Phase,
    pub(super) epoch: u64,
    /// Failures in a row.
    pub(super) run: u32,
    /// The number of the run: a success begins another one.
    serial: u32,
    /// Attempts that ended, and those that failed, since the window began.
    window: Tally,
    failed: u64,
    recent: VecDeque<(u32, Receipt)>,
    /// Ejections in a row, of which each doubles the time.
    level: u32,
    readmitted: Moment,
    pub(super) last: Option<Last>,
    pub(super) times: u64,
    failed_probes: u32,
}

/// The latest ejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) reason: Reason,
    pub(super) since: Moment,
}

/// Attempts at an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) struct Tally {
    pub(in super::super) ended: u64,
    pub(in super::super) failed: u64,
}

impl Machine {
    pub(super) fn new() -> Self {
        Machine {
            phase: Phase::Available,
            epoch: 0,
            run: 0,
            serial: 0,
            window: Tally::default(),
            failed: 0,
            recent: VecDeque::new(),
            level: 0,
            readmitted: Moment::ZERO,
            last: None,
            times: 0,
            failed_probes: 0,
        }
    }

    /// Counts a failure of an attempt that began in `epoch`; `None` if it is late. Returns where a
    /// breaker's receipt belongs.
    pub(super) fn failed(&mut self, epoch: u64) -> Option<Mark> {
        if epoch != self.epoch || self.phase != Phase::Available {
            return None;
        }
        self.run = self.run.saturating_add(1);
        self.failed += 1;
        Some(Mark { epoch, serial: self.serial, run: self.run })
    }

    /// Counts a success that ends a run of failures.
    pub(super) fn succeeded(&mut self, epoch: u64, config: &Config) {
        if epoch != self.epoch || self.phase != Phase::Available {
            return;
        }
        self.run = 0;
        self.serial = self.serial.wrapping_add(1);
        if config.window.is_none() {
            self.recent.clear();
        }
    }

    /// Keeps where a failure was counted. Returns false if it counted towards an ejection that has
    /// happened meanwhile: the caller takes it back.
    pub(super) fn remember(&mut self, mark: Mark, receipt: Receipt, config: &Config) -> bool {
        if mark.epoch != self.epoch {
            return false;
        }
        if config.window.is_some() || mark.serial == self.serial {
            if self.recent.len() >= REMEMBERED {
                self.recent.pop_front();
            }
            self.recent.push_back((mark.serial, receipt));
        }
        true
    }

    /// Ejects the endpoint. Returns for how long, and the failures that have done it.
    pub(super) fn eject(
        &mut self,
        reason: Reason,
        config: &Config,
        now: Moment,
        random: f64,
    ) -> (Duration, Vec<Receipt>) {
        // A level less for each time without an ejection.
        let behaved = now.since(self.readmitted).as_nanos() / config.eject_for.as_nanos().max(1);
        self.level = self.level.saturating_sub(u32::try_from(behaved).unwrap_or(u32::MAX));
        let serial = self.serial;
        let did_it = |in_run: u32| match reason {
            Reason::Consecutive { .. } => in_run == serial,
            Reason::Share { .. } => true,
        };
        let receipts = std::mem::take(&mut self.recent).into_iter();
        let receipts = receipts.filter(|(run, _)| did_it(*run)).map(|(_, receipt)| receipt);
        let receipts = receipts.collect();
        self.last = Some(Last { reason, since: now });
        self.failed_probes = 0;
        (self.shut(config, now, random), receipts)
    }

    /// Begins the probe, if its time has come and none is under way.
    pub(super) fn begin_probe(&mut self, now: Moment) -> bool {
        match self.phase {
            Phase::Ejected { until } if now >= until => {
                self.phase = Phase::Probing { until };
                true
            }
            Phase::Available | Phase::Ejected { .. } | Phase::Probing { .. } => false,
        }
    }

    /// The probe has ended without a result. Returns when the next one is due.
    pub(super) fn drop_probe(&mut self, epoch: u64) -> Option<Moment> {
        match self.phase {
            Phase::Probing { until } if epoch == self.epoch => {
                self.phase = Phase::Ejected { until };
                Some(until)
            }
            Phase::Available | Phase::Ejected { .. } | Phase::Probing { .. } => None,
        }
    }

    /// The probe has failed. Returns for how long the endpoint stays ejected; `None` if something
    /// else has decided about it meanwhile.
    pub(super) fn probe_failed(
        &mut self,
        epoch: u64,
        config: &Config,
        now: Moment,
        random: f64,
    ) -> Option<Duration> {
        if epoch != self.epoch || !self.is_probing() {
            return None;
        }
        self.failed_probes = self.failed_probes.saturating_add(1);
        Some(self.shut(config, now, random))
    }

    /// The probe has succeeded. Returns how long the endpoint was ejected, and the number of probes
    /// that failed meanwhile.
    pub(super) fn probe_succeeded(&mut self, epoch: u64, now: Moment) -> Option<(Duration, u32)> {
        (epoch == self.epoch && self.is_probing()).then(|| self.readmit(now))?
    }

    /// Ends an ejection; `None` if there is none.
    pub(super) fn readmit(&mut self, now: Moment) -> Option<(Duration, u32)> {
        (self.run, self.serial) = (0, self.serial.wrapping_add(1));
        self.recent.clear();
        if self.phase == Phase::Available {
            return None;
        }
        self.phase = Phase::Available;
        self.readmitted = now;
        let after = self.last.map_or(Duration::ZERO, |last| now.since(last.since));
        Some((after, self.failed_probes))
    }

    /// The attempts since the last call of this, given how many have ended in all. Another window
    /// begins.
    pub(super) fn turn(&mut self, ended: u64) -> Tally {
        let tally = Tally {
            ended: ended.saturating_sub(self.window.ended),
            failed: self.failed - self.window.failed,
        };
        self.window = Tally { ended, failed: self.failed };
        // What is left counts for failures in a row only.
        let serial = self.serial;
        self.recent.retain(|(run, _)| *run == serial);
        tally
    }

    /// As another endpoint has it that takes the place of this one. Its attempts are counted from the
    /// start, and the result of a probe under way is not its own.
    pub(super) fn inherited(&mut self) -> Machine {
        let phase = match self.phase {
            Phase::Probing { until } => Phase::Ejected { until },
            phase @ (Phase::Available | Phase::Ejected { .. }) => phase,
        };
        let recent = std::mem::take(&mut self.recent);
        let last = self.last;
        Machine { phase, window: Tally::default(), failed: 0, recent, last, ..*self }
    }

    /// Another breaker counts from now on.
    pub(super) fn forget(&mut self) {
        self.recent.clear();
    }

    fn is_probing(&self) -> bool {
        matches!(self.phase, Phase::Probing { .. })
    }

    fn shut(&mut self, config: &Config, now: Moment, random: f64) -> Duration {
        let doubled = 2_u32.saturating_pow(self.level);
        let time = config.eject_for.saturating_mul(doubled).min(*config.max_eject_for);
        let time = time.mul_f64(1.0 + JITTER * random.clamp(0.0, 1.0));
        self.level = (self.level + 1).min(31);
        self.epoch += 1;
        self.times += 1;
        (self.run, self.serial) = (0, self.serial.wrapping_add(1));
        self.phase = Phase::Ejected { until: now + time };
        time
    }
}
