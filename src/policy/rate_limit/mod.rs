//! Rate limits: how many requests a consumer, an address or a route may make.
//!
//! [`Limiter`] counts one limit, in bounded memory, and with atomics only for keys it knows;
//! [`check_shared`] checks several, and combines what is counted here with what a store for several
//! replicas has counted. A request that is refused is not counted, and one that was counted can be
//! taken back. [`Fields`] renders what a client is told. Others determine the requester, ask that
//! store, and add the fields to a response.

mod config;
mod fields;
mod fixed_window;
mod part;
mod shared;
mod sliding_window;
mod table;
#[cfg(test)]
mod tests;
mod token_bucket;

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use config::{
    Algorithm, Config, FixedWindow, Key, KeySource, Limits, Named, OnFailure, Redis, RedisUrl,
    Replays, Requester, Shared, SlidingWindow, Store, Subject, TokenBucket,
};
use crossbeam_utils::CachePadded;
pub use fields::{Fields, Headers, On};
pub use part::Part;
pub use shared::{Heard, StoreUnavailable, check_shared, closed_without, refused_here};
use table::Table;

use crate::time::Moment;

/// One limit, shared by all requests it applies to.
pub struct Limiter {
    config: Config,
    rule: Rule,
    /// Keyed at random, so that a client cannot choose keys that collide.
    hasher: RandomState,
    /// Shared with the limiters that count the same.
    table: Arc<Table>,
    /// On a cache line apart from what every request reads.
    refused: Arc<CachePadded<AtomicU64>>,
}

/// The algorithm, compiled.
#[derive(Clone, Copy)]
enum Rule {
    FixedWindow(fixed_window::Rule),
    SlidingWindow(sliding_window::Rule),
    TokenBucket(token_bucket::Rule),
}

/// The limit's decision about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request is within the limit, and was counted.
    pub admitted: bool,
    /// The number of requests the limit allows: fewer than its units if a request takes several.
    pub limit: u32,
    /// Requests left after this one.
    pub remaining: u32,
    /// The time until the limit is full again.
    pub reset_after: Duration,
    /// The time until the next request can be admitted; zero if this one was. As a header, through
    /// [`retry_after_seconds`](crate::units::retry_after_seconds).
    pub retry_after: Duration,
}

/// The verdict of the strictest of a route's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its position in the list, from 0.
    pub limit: usize,
    /// The strictest limit's.
    pub verdict: Verdict,
    /// Requests left in the first limit of the list, whatever the others say; `None` if that was
    /// not checked.
    pub first: Option<u32>,
}

impl Limiter {
    /// Nothing is counted yet; memory is taken as keys come.
    pub fn new(config: Config) -> Self {
        let cost = config.cost;
        let rule = match &config.algorithm {
            Algorithm::FixedWindow(limit) => {
                Rule::FixedWindow(fixed_window::Rule::new(limit, cost))
            }
            Algorithm::SlidingWindow(limit) => {
                Rule::SlidingWindow(sliding_window::Rule::new(limit, cost))
            }
            Algorithm::TokenBucket(limit) => {
                Rule::TokenBucket(token_bucket::Rule::new(limit, cost))
            }
        };
        let table = Arc::new(Table::new(config.max_keys));
        Limiter { config, rule, hasher: RandomState::new(), table, refused: Arc::default() }
    }

    /// A limiter for `wanted` that goes on with what this one has counted, and shares it with this
    /// one. `None` if they differ in more than `enforce`.
    pub fn continued(&self, wanted: &Config) -> Option<Limiter> {
        let config = Config { enforce: wanted.enforce, ..self.config.clone() };
        (config == *wanted).then(|| Limiter {
            config,
            rule: self.rule,
            hasher: self.hasher.clone(),
            table: self.table.clone(),
            refused: self.refused.clone(),
        })
    }

    /// The configuration it was made from. A reload keeps a limiter whose configuration is
    /// unchanged.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counts a request of `requester`, if it is within the limit.
    pub fn check(&self, requester: &Requester<'_>, now: Moment) -> Verdict {
        let key = self.key(requester);
        match &self.rule {
            Rule::FixedWindow(rule) => self.table.count(key, rule, now),
            Rule::SlidingWindow(rule) => self.table.count(key, rule, now),
            Rule::TokenBucket(rule) => self.table.count(key, rule, now),
        }
    }

    /// What `check` would say, without counting.
    pub fn peek(&self, requester: &Requester<'_>, now: Moment) -> Verdict {
        let key = self.key(requester);
        match &self.rule {
            Rule::FixedWindow(rule) => self.table.look(key, rule, now),
            Rule::SlidingWindow(rule) => self.table.look(key, rule, now),
            Rule::TokenBucket(rule) => self.table.look(key, rule, now),
        }
    }

    /// Takes back a request of `requester` that was counted at `counted`. Does nothing if the key
    /// has been evicted since.
    pub fn refund(&self, requester: &Requester<'_>, counted: Moment) {
        let key = self.key(requester);
        match &self.rule {
            Rule::FixedWindow(rule) => self.table.amend(key, |state| rule.refund(state, counted)),
            Rule::SlidingWindow(rule) => self.table.amend(key, |state| rule.refund(state, counted)),
            Rule::TokenBucket(rule) => self.table.amend(key, |state| Some(rule.refund(state))),
        }
    }

    /// SipHash, 64 bits: among a million keys, the chance that two share one is 1 in 10^7. Zero
    /// marks a free slot.
    fn key(&self, requester: &Requester<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        self.config.key.hash_subject(requester, &mut hasher);
        hasher.finish().max(1)
    }

    /// Whether a replayed request gets its cost back.
    pub fn forgives_replays(&self) -> bool {
        self.config.replays == Replays::Free
    }

    /// Keys that were evicted early for lack of room; if this grows, `max_keys` is too small.
    pub fn evictions(&self) -> u64 {
        self.table.evictions()
    }

    /// Requests that this limit has refused.
    pub fn refused(&self) -> u64 {
        // Relaxed: a statistic, on which no other memory depends.
        self.refused.load(Ordering::Relaxed)
    }

    fn note_refusal(&self) {
        // Relaxed: see `refused`.
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// As [`check_shared`], if all limits are counted here.
fn check_part(
    limiters: &[Arc<Limiter>],
    requester: &Requester<'_>,
    part: Part,
    now: Moment,
) -> Option<Standing> {
    let standing = match (part, limiters) {
        (Part::All, []) => return None,
        (Part::All, [limiter]) => Standing::new(0, limiter.check(requester, now)),
        (Part::All, several) => look_then_count(several.iter().enumerate(), requester, now)?,
        (Part::Enforced | Part::Dry, _) => {
            look_then_count(part.numbered(limiters, |_| true), requester, now)?
        }
    };
    if !standing.verdict.admitted {
        limiters[standing.limit].note_refusal();
    }
    Some(standing)
}

/// Takes back a request of `requester` that was counted in these limits at `counted`, the `now` of
/// the check.
pub fn refund_all<'a>(
    limiters: impl IntoIterator<Item = &'a Arc<Limiter>>,
    requester: &Requester<'_>,
    counted: Moment,
) {
    for limiter in limiters {
        limiter.refund(requester, counted);
    }
}

fn look_then_count<'a>(
    limiters: impl Iterator<Item = (usize, &'a Arc<Limiter>)> + Clone,
    requester: &Requester<'_>,
    now: Moment,
) -> Option<Standing> {
    let seen =
        limiters.clone().map(|(limit, limiter)| Standing::new(limit, limiter.peek(requester, now)));
    if let Some(refusal) = longest_refusal(seen) {
        return Some(refusal);
    }
    count_all(limiters, None, requester, now)
}

/// The refusal with the longest wait, if any. Nothing has been counted then.
fn longest_refusal(standings: impl Iterator<Item = Standing>) -> Option<Standing> {
    let mut first = None;
    let refusals = standings
        .inspect(|standing| first = first.or(standing.uncounted_first()))
        .filter(|standing| !standing.verdict.admitted);
    let longest = refusals.max_by_key(|refusal| refusal.verdict.retry_after)?;
    Some(Standing { first, ..longest })
}

/// Counts in each limit. Returns the strictest of them and of `strictest`, or the first that
/// refuses.
fn count_all<'a>(
    limiters: impl Iterator<Item = (usize, &'a Arc<Limiter>)> + Clone,
    mut strictest: Option<Standing>,
    requester: &Requester<'_>,
    now: Moment,
) -> Option<Standing> {
    let mut first = strictest.and_then(|standing| standing.first);
    for (limit, limiter) in limiters.clone() {
        let standing = Standing::new(limit, limiter.check(requester, now));
        if limit == 0 {
            first = standing.first;
        }
        if !standing.verdict.admitted {
            let counted = limiters.take_while(|(place, _)| *place < limit);
            refund_all(counted.map(|(_, limiter)| limiter), requester, now);
            return Some(Standing { first, ..standing });
        }
        if strictest.is_none_or(|so_far| standing.is_stricter_than(&so_far)) {
            strictest = Some(standing);
        }
    }
    strictest.map(|standing| Standing { first, ..standing })
}

impl Standing {
    fn new(limit: usize, verdict: Verdict) -> Self {
        Standing { limit, verdict, first: (limit == 0).then_some(verdict.remaining) }
    }

    /// What the first limit has left if the request is not counted after all.
    fn uncounted_first(&self) -> Option<u32> {
        self.first.map(|first| first + u32::from(self.verdict.admitted))
    }

    fn is_stricter_than(&self, other: &Standing) -> bool {
        let (one, other) = (&self.verdict, &other.verdict);
        let by_time = one.remaining == other.remaining && one.reset_after > other.reset_after;
        one.remaining < other.remaining || by_time
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("config", &self.config).finish_non_exhaustive()
    }
}
