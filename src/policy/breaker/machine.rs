//! The state machine of a breaker, for one thread at a time.
//!
//! After sony/gobreaker: a generation number marks every change of phase, and a result with an
//! older one is dropped. Added to that: probes give their places back, a watchdog takes the places
//! of probes that never return, and trials can decide by rate, as in resilience4j. The calls of a
//! window are counted elsewhere; the module above shares the machine between threads.

use std::collections::VecDeque;
use std::time::Duration;

use super::Receipt;
use super::change::{Changes, Why};
use super::config::{CloseOn, Config, Consecutive, Reset, Verdict};
use super::trial::{Round, Trial};
use super::window::{Count, Judgement};
use crate::time::Moment;

/// The generation in which a call was admitted. Its result only counts in that generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) generation: u64,
    /// For a probe, the round in which it took a place.
    pub(super) round: Option<Round>,
}

/// The result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) verdict: Verdict,
    pub(super) slow: bool,
    /// The counts of the window, if this call made them reach a rate.
    pub(super) tripped: Option<Count>,
}

/// The phases of a circuit. Each change makes a new generation; a result of an older one is dropped.
///
/// ```text
///           failures in a row, or a rate of the window
/// ┌──────┐ ──────────────────────────────────────────────> ┌──────┐ <──────────┐
/// │Closed│                                                 │ Open │            │
/// └──────┘ <────────────┐                                  └──────┘            │
///                       │   `open_for` is over, and a         │                │
///                       │   call comes: the first probe       v                │
///                       │                                 ┌────────┐           │
///                       └────── the trial is passed ───── │HalfOpen│ ──────────┘
///                                                         └────────┘ the trial failed, or
///                                                                    `max_half_open` is over
/// any of them ── force_open ──> ForcedOpen   force_closed ──> ForcedClosed   reset ──> Closed
/// ```
///
/// A trial has `half_open_calls` places for probes, and is decided by [`Trial::judge`]. A phase ends
/// when a call is admitted or told, never by a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    Open {
        until: Moment,
    },
    HalfOpen(Trial),
    /// Opened by an operator, until an operator changes it.
    ForcedOpen,
    /// Closed by an operator, likewise; nothing is counted.
    ForcedClosed,
}

/// How often the circuit has changed since the breaker was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transitions {
    /// Trips, trials that failed, and orders to open.
    pub opened: u64,
    /// Trials begun.
    pub half_opened: u64,
    /// Trials that succeeded, and orders that closed it.
    pub closed: u64,
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) generation: u64,
    pub(super) phase: Phase,
    /// The generation with which the phase began. Within a phase only the end of a fixed interval
    /// starts a new one, which affects only the failures in a row.
    pub(super) since: u64,
    pub(super) transitions: Transitions,
    pub(super) changes: Changes,
    /// The failures in a row, oldest first; at most as many as trip.
    run: VecDeque<Moment>,
    /// The end of the current fixed interval, if there are intervals.
    interval_end: Option<Moment>,
}

const NEVER: Moment = Moment::from_nanos(u64::MAX);

impl Machine {
    pub(super) fn new(config: &Config, now: Moment) -> Self {
        Machine {
            generation: 0,
            phase: Phase::Closed,
            since: 0,
            transitions: Transitions::default(),
            changes: Changes::default(),
            run: VecDeque::new(),
            interval_end: interval_end(config, now),
        }
    }

    /// Failures in a row that still count at `now`.
    pub(super) fn failures(&self, config: &Config, now: Moment) -> u32 {
        let Some(mode) = &config.consecutive else { return 0 };
        if self.interval_is_over(now) {
            return 0;
        }
        let young = self.run.iter().filter(|failed| !is_old(mode, **failed, now)).count();
        u32::try_from(young).unwrap_or(u32::MAX)
    }

    /// Failures in a row that a success would clear.
    pub(super) fn run_length(&self) -> u32 {
        u32::try_from(self.run.len()).unwrap_or(u32::MAX)
    }

    /// The phase as of `now`, whether or not a call has observed its change.
    pub(super) fn phase_at(&self, config: &Config, now: Moment) -> Phase {
        match self.phase {
            Phase::HalfOpen(trial) if now >= trial.until => {
                Phase::Open { until: trial.until + *config.open_for }
            }
            phase => phase,
        }
    }

    /// The moment before which `admit` always gives the same result: admitted if closed, refused
    /// otherwise.
    pub(super) fn consult_at(&self, config: &Config) -> Moment {
        match self.phase {
            Phase::Closed => self.interval_end.unwrap_or(NEVER),
            Phase::Open { until } => until,
            Phase::HalfOpen(trial) => trial.consult_at(config),
            Phase::ForcedOpen | Phase::ForcedClosed => NEVER,
        }
    }

    /// Admits a call, or returns how long calls are certainly refused (zero if half-open, where the
    /// next result may close the circuit).
    pub(super) fn admit(&mut self, config: &Config, now: Moment) -> Result<Ticket, Duration> {
        self.expire(config, now);
        self.renew(config, now);
        match self.phase {
            Phase::Closed | Phase::ForcedClosed => {
                Ok(Ticket { generation: self.generation, round: None })
            }
            Phase::Open { until } if now < until => Err(until.since(now)),
            Phase::Open { .. } => {
                self.half_open(config, now);
                self.admit_probe(config, now)
            }
            Phase::HalfOpen(_) => self.admit_probe(config, now),
            Phase::ForcedOpen => Err(*config.open_for),
        }
    }

    /// Records the result of a call; drops it if it belongs to another phase.
    pub(super) fn settle(&mut self, config: &Config, ticket: Ticket, report: Report, now: Moment) {
        self.expire(config, now);
        if ticket.generation < self.since {
            return;
        }
        match self.phase {
            Phase::Closed => self.settle_call(config, ticket, report, now),
            Phase::HalfOpen(_) => self.settle_probe(config, ticket, report, now),
            // No ticket has the generation of an open circuit, and a forced one counts nothing.
            Phase::Open { .. } | Phase::ForcedOpen | Phase::ForcedClosed => {}
        }
    }

    /// Takes failures out of the run, unless they belong to another phase.
    pub(super) fn retract(&mut self, receipts: &[Receipt]) {
        for receipt in receipts.iter().filter(|receipt| receipt.generation >= self.since) {
            // Of two failures at the same moment, either will do.
            if let Some(place) = self.run.iter().position(|failed| *failed == receipt.at) {
                self.run.remove(place);
            }
        }
    }

    /// Frees the place of a probe without a result, unless it has lost it already.
    pub(super) fn give_back(&mut self, ticket: Ticket) {
        if ticket.generation != self.generation {
            return;
        }
        match &mut self.phase {
            Phase::HalfOpen(trial) => trial.give_back(ticket.round),
            Phase::Closed | Phase::Open { .. } | Phase::ForcedOpen | Phase::ForcedClosed => {}
        }
    }

    pub(super) fn force_open(&mut self) {
        let was_open = matches!(self.phase, Phase::Open { .. } | Phase::ForcedOpen);
        self.transitions.opened += u64::from(!was_open);
        self.changes.forget();
        self.enter(Phase::ForcedOpen);
    }

    pub(super) fn force_closed(&mut self) {
        self.count_closing();
        self.enter(Phase::ForcedClosed);
    }

    /// Closes the circuit and forgets all results.
    pub(super) fn reset(&mut self, config: &Config, now: Moment) {
        self.count_closing();
        self.enter(Phase::Closed);
        self.interval_end = interval_end(config, now);
    }

    fn settle_call(&mut self, config: &Config, ticket: Ticket, report: Report, now: Moment) {
        // A result from an earlier fixed interval does not count for failures in a row, but does
        // for the window.
        let of_the_run = ticket.generation == self.generation && !self.interval_is_over(now);
        match report.verdict {
            Verdict::Success if of_the_run => self.run.clear(),
            Verdict::Failure if of_the_run => self.count_failure(config, now),
            Verdict::Success | Verdict::Failure | Verdict::Throttled | Verdict::Neutral => {}
        }
        if let Some(count) = report.tripped
            && self.phase == Phase::Closed
        {
            self.trip(count.into(), config, now);
        }
    }

    fn settle_probe(&mut self, config: &Config, ticket: Ticket, report: Report, now: Moment) {
        let failed = match (report.verdict, config.closes_on()) {
            (Verdict::Success, _) => false,
            (Verdict::Failure, _) | (Verdict::Throttled, CloseOn::Rate) => true,
            (Verdict::Neutral, _) | (Verdict::Throttled, CloseOn::Successes) => {
                return self.give_back(ticket);
            }
        };
        let Phase::HalfOpen(trial) = &mut self.phase else { return };
        trial.take_in(ticket.round, failed, report.slow);
        match trial.judge(config) {
            Some(Judgement::Reached(_)) => self.reopen(config, now),
            Some(Judgement::Below) => self.close(config, now),
            None => {}
        }
    }

    fn admit_probe(&mut self, config: &Config, now: Moment) -> Result<Ticket, Duration> {
        let Phase::HalfOpen(trial) = &mut self.phase else { return Err(Duration::ZERO) };
        let round = trial.admit(config, now).ok_or(Duration::ZERO)?;
        Ok(Ticket { generation: self.generation, round: Some(round) })
    }

    fn count_failure(&mut self, config: &Config, now: Moment) {
        let Some(mode) = &config.consecutive else { return };
        while self.run.front().is_some_and(|failed| is_old(mode, *failed, now)) {
            self.run.pop_front();
        }
        self.run.push_back(now);
        if self.run_length() >= mode.failures {
            self.trip(Why::InARow(self.run_length()), config, now);
        }
    }

    /// Opens a circuit that has been half-open for too long, as of the moment its time ended.
    fn expire(&mut self, config: &Config, now: Moment) {
        if let Phase::HalfOpen(trial) = self.phase
            && now >= trial.until
        {
            self.reopen(config, trial.until);
        }
    }

    /// Starts a new fixed interval with the first call after the last one ended.
    fn renew(&mut self, config: &Config, now: Moment) {
        if self.interval_is_over(now) {
            self.generation += 1;
            self.run.clear();
            self.interval_end = interval_end(config, now);
        }
    }

    fn interval_is_over(&self, now: Moment) -> bool {
        self.phase == Phase::Closed && self.interval_end.is_some_and(|end| now >= end)
    }

    /// Opens a closed circuit.
    fn trip(&mut self, why: Why, config: &Config, now: Moment) {
        self.changes.opened(why, *config.open_for, now);
        self.open(config, now);
    }

    /// Opens a half-open circuit again.
    fn reopen(&mut self, config: &Config, now: Moment) {
        self.changes.trial_failed();
        self.open(config, now);
    }

    fn open(&mut self, config: &Config, now: Moment) {
        self.enter(Phase::Open { until: now + *config.open_for });
        self.transitions.opened += 1;
    }

    fn half_open(&mut self, config: &Config, now: Moment) {
        let until = config.max_half_open.map_or(NEVER, |most| now + *most);
        self.enter(Phase::HalfOpen(Trial::new(until)));
        self.transitions.half_opened += 1;
    }

    fn close(&mut self, config: &Config, now: Moment) {
        self.enter(Phase::Closed);
        self.interval_end = interval_end(config, now);
        self.transitions.closed += 1;
        self.changes.closed(now);
    }

    fn count_closing(&mut self) {
        let was_closed = matches!(self.phase, Phase::Closed | Phase::ForcedClosed);
        self.transitions.closed += u64::from(!was_closed);
        self.changes.forget();
    }

    fn enter(&mut self, phase: Phase) {
        self.generation += 1;
        self.since = self.generation;
        self.run.clear();
        self.phase = phase;
    }
}

fn is_old(mode: &Consecutive, failed: Moment, now: Moment) -> bool {
    match mode.reset {
        Reset::Rolling => mode.reset_every.is_some_and(|age| now.since(failed) >= *age),
        Reset::Fixed => false,
    }
}

fn interval_end(config: &Config, now: Moment) -> Option<Moment> {
    let mode = config.consecutive.as_ref()?;
    match mode.reset {
        Reset::Rolling => None,
        Reset::Fixed => mode.reset_every.map(|span| now + *span),
    }
}
