//! The probes of a half-open circuit: which calls may be one, and what their results decide.

use super::config::{CloseOn, Config};
use super::window::{Count, Judgement, Rule};
use crate::time::Moment;

/// Counts how often probes without a result lost their places.
pub(super) type Round = u32;

/// The probes of one half-open phase. `places` counts results, and probes in flight of this round.
/// Nothing else takes a place, so a full trial always has a probe in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trial {
    places: u32,
    results: u32,
    failed: u32,
    slow: u32,
    round: Round,
    /// When the probes in flight lose their places to new ones. Their results still count.
    reclaim_at: Moment,
    /// When the circuit opens again, decided or not.
    pub(super) until: Moment,
}

impl Trial {
    pub(super) fn new(until: Moment) -> Self {
        Trial { places: 0, results: 0, failed: 0, slow: 0, round: 0, reclaim_at: until, until }
    }

    /// Takes a place, if one is free.
    pub(super) fn admit(&mut self, config: &Config, now: Moment) -> Option<Round> {
        if self.is_full(config) {
            if now < self.reclaim_at {
                return None;
            }
            self.round += 1;
            self.places = self.results;
        }
        self.places += 1;
        // From the latest probe on, so that each has at least this long.
        self.reclaim_at = now + *config.open_for;
        Some(self.round)
    }

    /// Frees the place of a probe without a result, unless it has lost it already.
    pub(super) fn give_back(&mut self, round: Option<Round>) {
        self.places -= u32::from(round == Some(self.round));
    }

    /// The moment before which a call can only be refused.
    pub(super) fn consult_at(&self, config: &Config) -> Moment {
        if self.is_full(config) { self.reclaim_at.min(self.until) } else { Moment::ZERO }
    }

    fn is_full(&self, config: &Config) -> bool {
        self.places >= config.half_open_calls
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.places.saturating_sub(self.results)
    }

    pub(super) fn successes(&self) -> u32 {
        self.results - self.failed
    }

    /// Records a result.
    pub(super) fn take_in(&mut self, round: Option<Round>, failed: bool, slow: bool) {
        self.results += 1;
        self.failed += u32::from(failed);
        self.slow += u32::from(slow);
        // A probe that lost its place takes a new one: `places` never falls below the number of
        // results.
        self.places += u32::from(round != Some(self.round));
    }

    fn count(&self) -> Count {
        Count { calls: self.results.into(), failed: self.failed.into(), slow: self.slow.into() }
    }

    /// Whether the circuit opens (a rate is reached) or closes; `None` while undecided.
    pub(super) fn judge(&self, config: &Config) -> Option<Judgement> {
        let enough = self.results >= config.half_open_calls;
        match (config.closes_on(), &config.window) {
            (CloseOn::Rate, Some(window)) => {
                Rule::new(window).within(config.half_open_calls).judge(self.count())
            }
            (CloseOn::Successes, _) | (CloseOn::Rate, None) if self.failed > 0 => {
                Some(Judgement::Reached(self.count()))
            }
            (CloseOn::Successes, _) | (CloseOn::Rate, None) => enough.then_some(Judgement::Below),
        }
    }
}
