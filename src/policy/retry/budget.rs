//! Retry budgets: how many retries all routes that share a budget may make together.
//!
//! `max_retries` bounds the attempts of each request, but that alone still multiplies an outage. A
//! budget bounds retries by time or by requests, whatever the load and on any number of threads. It
//! never waits: once it is spent, the client gets the last response unchanged.

mod accounts;
mod bucket;
mod callers;
mod concurrency;
mod config;
mod ratio;
mod table;

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};

use bucket::Bucket;
use callers::Callers;
use concurrency::Active;
use crossbeam_utils::CachePadded;
use ratio::Share;
use table::Seat;

pub use config::{Bound, Concurrency, Config, Ratio, TokenBucket};

use crate::policy::lanes::{Hold, Shared};
use crate::time::Moment;

/// What `retry.budget` says instead of a name where only `max_retries` is to bound retries.
pub const UNLIMITED: &str = "unlimited";

/// The names of the upstreams' own budgets begin with this, in `/status` and in metrics.
pub const OF_UPSTREAM: &str = "upstream:";

/// A budget, shared by name.
#[derive(Debug)]
pub struct Budget(Shared<Account>);

#[derive(Debug)]
struct Account {
    config: Config,
    kind: Kind,
    counts: CachePadded<Counts>,
}

#[derive(Debug)]
enum Kind {
    TokenBucket(Bucket),
    Ratio(Share),
    Concurrency(Active),
    PerCaller(Callers),
}

#[derive(Debug, Default)]
struct Counts {
    withdrawn: AtomicU64,
    refused: AtomicU64,
}

impl Budget {
    /// A full bucket, or nothing counted.
    pub fn new(config: Config, _now: Moment) -> Self {
        let kind = match (&config.bound, config.callers) {
            (Bound::TokenBucket(bucket), None) => Kind::TokenBucket(Bucket::new(bucket)),
            (Bound::Ratio(ratio), None) => Kind::Ratio(Share::new(ratio)),
            (Bound::Concurrency(share), None) => Kind::Concurrency(Active::new(share)),
            (Bound::TokenBucket(bucket), Some(most)) => {
                Kind::PerCaller(Callers::of_bucket(bucket, most))
            }
            (Bound::Ratio(ratio), Some(most)) => Kind::PerCaller(Callers::of_ratio(ratio, most)),
            (Bound::Concurrency(share), Some(most)) => {
                Kind::PerCaller(Callers::of_concurrency(share, most))
            }
        };
        Budget(Shared::new(Account { config, kind, counts: CachePadded::default() }))
    }

    /// The configuration it was made from. A reload keeps a budget whose configuration is
    /// unchanged.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Whether each caller has its own: then requests [enter as](Budget::enter_as) one.
    pub fn is_per_consumer(&self) -> bool {
        matches!(self.0.kind, Kind::PerCaller(_))
    }

    /// Registers a request, once, before its first attempt. It takes its retries through the stake.
    pub fn enter(&self, now: Moment) -> Stake {
        self.enter_as(&(), now)
    }

    /// The same for a request of this caller. Where all have one budget together, it does not matter who it is.
    pub fn enter_as(&self, caller: &impl Hash, now: Moment) -> Stake {
        let mut seat = None;
        match &self.0.kind {
            Kind::TokenBucket(_) => {}
            Kind::Ratio(share) => share.deposit(now),
            Kind::Concurrency(active) => active.enter(),
            Kind::PerCaller(callers) => seat = Some(callers.enter(caller, now)),
        }
        Stake { account: self.0.hold(), seat, retrying: false }
    }

    /// Callers that have a budget of their own now; 0 where all have one together.
    pub fn callers(&self) -> usize {
        match &self.0.kind {
            Kind::TokenBucket(_) | Kind::Ratio(_) | Kind::Concurrency(_) => 0,
            Kind::PerCaller(callers) => callers.count(),
        }
    }

    /// Retries that could be made at `now`; a gauge shows it. Where each caller has its own, those of all that
    /// have used it lately.
    pub fn tokens(&self, now: Moment) -> f64 {
        match &self.0.kind {
            Kind::TokenBucket(bucket) => bucket.tokens(now),
            Kind::Ratio(share) => share.tokens(now),
            Kind::Concurrency(active) => active.tokens(),
            Kind::PerCaller(callers) => callers.tokens(now),
        }
    }

    /// Retries granted since the start.
    pub fn withdrawn(&self) -> u64 {
        self.0.counts.withdrawn.load(Ordering::Relaxed)
    }

    /// Retries refused since the start.
    pub fn refused(&self) -> u64 {
        self.0.counts.refused.load(Ordering::Relaxed)
    }
}

/// One request's share in a budget, held until the request ends.
#[must_use = "a request that leaves the budget at once is not in it"]
#[derive(Debug)]
pub struct Stake {
    account: Hold<Account>,
    /// Where it is counted, if each caller has a budget.
    seat: Option<Seat>,
    /// Whether the latest attempt is a retry.
    retrying: bool,
}

impl Stake {
    /// Takes one retry from the budget, if it has one; the attempt before it has ended. Never
    /// waits.
    pub fn withdraw(&mut self, now: Moment) -> bool {
        let before = std::mem::take(&mut self.retrying);
        let granted = match &self.account.kind {
            Kind::TokenBucket(bucket) => bucket.withdraw(now),
            Kind::Ratio(share) => share.withdraw(now),
            Kind::Concurrency(active) => {
                if before {
                    active.end_retry();
                }
                active.begin_retry()
            }
            Kind::PerCaller(callers) => {
                let seat = self.seat.map(|seat| callers.withdraw(seat, before, now));
                self.seat = seat.map(|(seat, _)| seat);
                seat.is_some_and(|(_, granted)| granted)
            }
        };
        self.retrying = granted;
        // Relaxed: plain counters for metrics.
        let counts = &self.account.counts;
        let counter = if granted { &counts.withdrawn } else { &counts.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        granted
    }
}

#[cfg(test)]
impl Stake {
    fn seat(&self) -> Option<Seat> {
        self.seat
    }
}

impl Drop for Stake {
    fn drop(&mut self) {
        match &self.account.kind {
            Kind::TokenBucket(_) | Kind::Ratio(_) => {}
            Kind::Concurrency(active) => active.leave(self.retrying),
            Kind::PerCaller(callers) => {
                if let Some(seat) = self.seat {
                    callers.leave(seat, self.retrying);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        serde_yaml::with::singleton_map::deserialize(serde_yaml::Deserializer::from_str(text))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn grants_and_refusals_are_counted() {
        let config = parse("{token_bucket: {capacity: 2, refill_per_second: 1}}").expect("valid");
        let budget = Arc::new(Budget::new(config, Moment::ZERO));
        let mut stake = budget.enter(Moment::ZERO);
        let granted = (0..5).filter(|_| stake.withdraw(Moment::ZERO)).count();
        assert_eq!((granted, budget.withdrawn(), budget.refused()), (2, 2, 3));
    }

    #[test]
    fn requests_share_one_budget() {
        let config = parse("{token_bucket: {capacity: 2, refill_per_second: 1}}").expect("valid");
        let budget = Arc::new(Budget::new(config, Moment::ZERO));
        let mut stakes: Vec<_> = (0..5).map(|_| budget.enter(Moment::ZERO)).collect();
        let granted =
            stakes.iter_mut().filter_map(|s| s.withdraw(Moment::ZERO).then_some(())).count();
        assert_eq!(granted, 2);
    }
}
