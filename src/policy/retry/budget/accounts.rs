//! What one caller has of each kind of budget: the arithmetic of `bucket`, `ratio` and `concurrency`, for one
//! thread at a time. A test holds them to each other.

use super::config::{Concurrency, Ratio, TokenBucket, millionths};
use super::table::Account;
use crate::time::Moment;

const SLOTS: usize = 10;
const MILLION: u64 = 1_000_000;

/// See `super::bucket`.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    full_at: u64,
}

#[derive(Debug)]
pub(super) struct Rate {
    per_token: u64,
    depth: u64,
}

impl Rate {
    pub(super) fn of(config: &TokenBucket) -> Self {
        let per_token = (1e9 / config.refill_per_second).ceil() as u64;
        Rate { per_token, depth: per_token.saturating_mul(u64::from(config.capacity)) }
    }
}

impl Bucket {
    pub(super) fn withdraw(&mut self, rule: &Rate, now: Moment) -> bool {
        let now = now.as_nanos();
        let next = self.full_at.max(now).saturating_add(rule.per_token);
        let is_granted = next <= now.saturating_add(rule.depth);
        if is_granted {
            self.full_at = next;
        }
        is_granted
    }

    pub(super) fn tokens(&self, rule: &Rate, now: Moment) -> f64 {
        let missing = self.full_at.saturating_sub(now.as_nanos());
        rule.depth.saturating_sub(missing) as f64 / rule.per_token as f64
    }
}

impl Account for Bucket {
    type Rule = Rate;

    fn is_as_new(&self, _: &Rate, now: Moment) -> bool {
        self.full_at <= now.as_nanos()
    }
}

/// See `super::ratio`: requests and retries of the slots up to `newest`; slot `s` is at `s % SLOTS`.
#[derive(Debug, Default)]
pub(super) struct Share {
    newest: u64,
    requests: [u32; SLOTS],
    granted: [u32; SLOTS],
}

#[derive(Debug)]
pub(super) struct Earned {
    share: u64,
    reserve: u64,
    slot: u64,
}

impl Earned {
    pub(super) fn of(config: &Ratio) -> Self {
        let ttl = config.ttl.as_millis();
        let reserve = ttl * u128::from(config.min_per_second) * u128::from(MILLION / 1000);
        Earned {
            share: millionths(config.share),
            reserve: u64::try_from(reserve).unwrap_or(u64::MAX),
            slot: u64::try_from(config.ttl.as_nanos()).unwrap_or(u64::MAX) / SLOTS as u64,
        }
    }
}

impl Share {
    /// Drops what is too old. Returns the slot of `now`, unless that is itself too old to count.
    fn turn_to(&mut self, rule: &Earned, now: Moment) -> Option<usize> {
        let slot = now.as_nanos() / rule.slot;
        let begun = slot.saturating_sub(self.newest).min(SLOTS as u64);
        for ago in 0..begun {
            let index = ((slot - ago) % SLOTS as u64) as usize;
            (self.requests[index], self.granted[index]) = (0, 0);
        }
        self.newest = self.newest.max(slot);
        (slot + SLOTS as u64 > self.newest).then_some((slot % SLOTS as u64) as usize)
    }

    pub(super) fn deposit(&mut self, rule: &Earned, now: Moment) {
        if let Some(slot) = self.turn_to(rule, now) {
            self.requests[slot] = self.requests[slot].saturating_add(1);
        }
    }

    pub(super) fn withdraw(&mut self, rule: &Earned, now: Moment) -> bool {
        self.turn_to(rule, now);
        if self.balance(rule) < MILLION {
            return false;
        }
        self.granted[(self.newest % SLOTS as u64) as usize] += 1;
        true
    }

    fn balance(&self, rule: &Earned) -> u64 {
        let sum = |counts: &[u32; SLOTS]| counts.iter().map(|count| u64::from(*count)).sum::<u64>();
        let earned = rule.reserve.saturating_add(sum(&self.requests).saturating_mul(rule.share));
        earned.saturating_sub(sum(&self.granted).saturating_mul(MILLION))
    }

    /// Without what is too old at `now`.
    pub(super) fn tokens(&self, rule: &Earned, now: Moment) -> f64 {
        let mut then =
            Share { newest: self.newest, requests: self.requests, granted: self.granted };
        then.turn_to(rule, now);
        then.balance(rule) as f64 / MILLION as f64
    }
}

impl Account for Share {
    type Rule = Earned;

    fn is_as_new(&self, rule: &Earned, now: Moment) -> bool {
        let is_empty = |counts: &[u32; SLOTS]| counts.iter().all(|count| *count == 0);
        now.as_nanos() / rule.slot >= self.newest + SLOTS as u64
            || is_empty(&self.requests) && is_empty(&self.granted)
    }
}

/// See `super::concurrency`.
#[derive(Debug, Default)]
pub(super) struct Active {
    requests: u32,
    retries: u32,
}

#[derive(Debug)]
pub(super) struct Portion {
    share: u64,
    min: u64,
}

impl Portion {
    pub(super) fn of(config: &Concurrency) -> Self {
        Portion { share: millionths(config.share), min: config.min.into() }
    }
}

impl Active {
    pub(super) fn enter(&mut self) {
        self.requests += 1;
    }

    fn limit(&self, rule: &Portion) -> u64 {
        (u64::from(self.requests) * rule.share / MILLION).max(rule.min)
    }

    pub(super) fn begin_retry(&mut self, rule: &Portion, ends_another: bool) -> bool {
        self.retries = self.retries.saturating_sub(u32::from(ends_another));
        let is_granted = u64::from(self.retries) < self.limit(rule);
        self.retries += u32::from(is_granted);
        is_granted
    }

    pub(super) fn leave(&mut self, retrying: bool) {
        self.requests = self.requests.saturating_sub(1);
        self.retries = self.retries.saturating_sub(u32::from(retrying));
    }

    pub(super) fn tokens(&self, rule: &Portion) -> f64 {
        self.limit(rule).saturating_sub(self.retries.into()) as f64
    }
}

impl Account for Active {
    type Rule = Portion;

    fn is_as_new(&self, _: &Portion, _: Moment) -> bool {
        self.requests == 0
    }
}
