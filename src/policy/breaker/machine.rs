//! The state machine of a breaker, for one thread at a time.
//!
//! After sony/gobreaker: a generation number marks every change of phase, and a result that
//! carries an older one is dropped. What is added: places of probes that are given back, and a
//! watchdog for probes that never are. Sharing it between threads is left to the module above.

use std::collections::VecDeque;
use std::time::Duration;

use super::config::{Config, Consecutive, Reset, Verdict};
use crate::time::Moment;

/// What a call was admitted as; its result is worth something only to that generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) generation: u64,
    /// For a probe, the round in which it took a place.
    pub(super) round: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    Open { until: Moment },
    HalfOpen(Trial),
}

/// The probes of one half-open phase. `places` counts successes and probes in flight of this
/// round; those two are all that can hold one, so a full trial has a probe in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trial {
    pub(super) places: u32,
    pub(super) successes: u32,
    round: u32,
    /// When the probes in flight lose their places to others. Their results still count.
    pub(super) reclaim_at: Moment,
}

/// How often the circuit changed, since the breaker was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transitions {
    pub opened: u64,
    pub half_opened: u64,
    pub closed: u64,
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) generation: u64,
    pub(super) phase: Phase,
    pub(super) transitions: Transitions,
    /// The failures in a row, oldest first; never more than trip.
    run: VecDeque<Moment>,
    /// With fixed windows, the end of this one.
    renew_at: Option<Moment>,
}

impl Machine {
    pub(super) fn new(config: &Config, now: Moment) -> Self {
        Machine {
            generation: 0,
            phase: Phase::Closed,
            transitions: Transitions::default(),
            run: VecDeque::new(),
            renew_at: window_end(config, now),
        }
    }

    /// Failures in a row that still count at `now`.
    pub(super) fn failures(&self, config: &Config, now: Moment) -> u32 {
        let Some(mode) = &config.consecutive else { return 0 };
        if self.window_is_over(now) {
            return 0;
        }
        let young = self.run.iter().filter(|failed| !is_old(mode, **failed, now)).count();
        u32::try_from(young).unwrap_or(u32::MAX)
    }

    /// Failures in a row that a success would clear.
    pub(super) fn run_length(&self) -> u32 {
        u32::try_from(self.run.len()).unwrap_or(u32::MAX)
    }

    /// The moment before which `admit` can only say again what the phase says: admitted if
    /// closed, refused if not.
    pub(super) fn consult_at(&self, config: &Config) -> Moment {
        match self.phase {
            Phase::Closed => self.renew_at.unwrap_or(Moment::from_nanos(u64::MAX)),
            Phase::Open { until } => until,
            Phase::HalfOpen(trial) if trial.places < config.half_open_calls => Moment::ZERO,
            Phase::HalfOpen(trial) => trial.reclaim_at,
        }
    }

    /// Admits a call, or says how long everything is refused for certain (zero if half-open,
    /// where the next result may change it).
    pub(super) fn admit(&mut self, config: &Config, now: Moment) -> Result<Ticket, Duration> {
        self.renew(config, now);
        match self.phase {
            Phase::Closed => Ok(Ticket { generation: self.generation, round: None }),
            Phase::Open { until } if now < until => Err(until.since(now)),
            Phase::Open { .. } => {
                self.half_open();
                self.admit_probe(config, now)
            }
            Phase::HalfOpen(_) => self.admit_probe(config, now),
        }
    }

    /// Takes in the result of a call; drops it if it is of another generation, or of a fixed
    /// window that is over.
    pub(super) fn settle(
        &mut self,
        config: &Config,
        ticket: Ticket,
        verdict: Verdict,
        now: Moment,
    ) {
        if ticket.generation != self.generation || self.window_is_over(now) {
            return;
        }
        match (&mut self.phase, verdict) {
            (Phase::Closed, Verdict::Success) => self.run.clear(),
            (Phase::Closed, Verdict::Failure) => self.count_failure(config, now),
            (Phase::HalfOpen(_), Verdict::Failure) => self.open(config, now),
            (Phase::HalfOpen(trial), Verdict::Success) => {
                trial.successes += 1;
                // A probe that lost its place takes one again: `places` never falls below the successes.
                trial.places += u32::from(ticket.round != Some(trial.round));
                if trial.successes >= config.half_open_calls {
                    self.close(config, now);
                }
            }
            (Phase::HalfOpen(_), Verdict::Neutral) => self.give_back(ticket),
            // No ticket carries the generation of an open circuit.
            (Phase::Closed, Verdict::Neutral) | (Phase::Open { .. }, _) => {}
        }
    }

    /// Frees the place of a probe that says nothing, unless it has lost it already.
    pub(super) fn give_back(&mut self, ticket: Ticket) {
        if ticket.generation != self.generation {
            return;
        }
        match &mut self.phase {
            Phase::HalfOpen(trial) if ticket.round == Some(trial.round) => trial.places -= 1,
            Phase::HalfOpen(_) | Phase::Closed | Phase::Open { .. } => {}
        }
    }

    fn admit_probe(&mut self, config: &Config, now: Moment) -> Result<Ticket, Duration> {
        let Phase::HalfOpen(trial) = &mut self.phase else { return Err(Duration::ZERO) };
        if trial.places >= config.half_open_calls {
            if now < trial.reclaim_at {
                return Err(Duration::ZERO);
            }
            trial.round += 1;
            trial.places = trial.successes;
        }
        trial.places += 1;
        // Counted from the youngest probe, so that each has at least this long.
        trial.reclaim_at = now + *config.open_for;
        Ok(Ticket { generation: self.generation, round: Some(trial.round) })
    }

    fn count_failure(&mut self, config: &Config, now: Moment) {
        let Some(mode) = &config.consecutive else { return };
        while self.run.front().is_some_and(|failed| is_old(mode, *failed, now)) {
            self.run.pop_front();
        }
        self.run.push_back(now);
        if self.run_length() >= mode.failures {
            self.open(config, now);
        }
    }

    /// Begins a new fixed window with the first call after the last one's end.
    fn renew(&mut self, config: &Config, now: Moment) {
        if self.window_is_over(now) {
            self.generation += 1;
            self.run.clear();
            self.renew_at = window_end(config, now);
        }
    }

    fn window_is_over(&self, now: Moment) -> bool {
        self.phase == Phase::Closed && self.renew_at.is_some_and(|end| now >= end)
    }

    fn open(&mut self, config: &Config, now: Moment) {
        self.generation += 1;
        self.run.clear();
        self.phase = Phase::Open { until: now + *config.open_for };
        self.transitions.opened += 1;
    }

    fn half_open(&mut self) {
        self.generation += 1;
        self.phase =
            Phase::HalfOpen(Trial { places: 0, successes: 0, round: 0, reclaim_at: Moment::ZERO });
        self.transitions.half_opened += 1;
    }

    fn close(&mut self, config: &Config, now: Moment) {
        self.generation += 1;
        self.phase = Phase::Closed;
        self.renew_at = window_end(config, now);
        self.transitions.closed += 1;
    }
}

fn is_old(mode: &Consecutive, failed: Moment, now: Moment) -> bool {
    match mode.reset {
        Reset::Rolling => mode.reset_every.is_some_and(|age| now.since(failed) >= *age),
        Reset::Fixed => false,
    }
}

fn window_end(config: &Config, now: Moment) -> Option<Moment> {
    let mode = config.consecutive.as_ref()?;
    match mode.reset {
        Reset::Rolling => None,
        Reset::Fixed => mode.reset_every.map(|span| now + *span),
    }
}
