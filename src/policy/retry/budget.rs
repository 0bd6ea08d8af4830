//! Retry budgets: how many retries all routes that share one may make together.
//!
//! Attempts per request are bounded by `max_retries`; that alone still multiplies an outage. A
//! budget bounds retries by time, whatever arrives and on however many threads. It never waits:
//! with nothing left, the client gets the last answer as it came.

mod bucket;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bucket::Bucket;
use serde::de::{self, Deserialize, Deserializer};

use crate::time::Moment;
use crate::units;

/// An entry of `retry_budgets:`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Config {
    /// A retry costs a token; tokens come back at a steady rate.
    TokenBucket(TokenBucket),
}

/// `token_bucket:`. In any span of time, retries ≤ `capacity + refill_per_second × seconds`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBucket {
    /// Tokens at most, and at the start; 1 to 1,000,000.
    #[serde(deserialize_with = "units::bounded::<_, 1, 1_000_000>")]
    pub capacity: u32,
    /// Tokens that come back per second; 0.001 to 1,000,000.
    #[serde(deserialize_with = "rate")]
    pub refill_per_second: f64,
}

/// A budget, shared by name.
#[derive(Debug)]
pub struct Budget {
    config: Config,
    kind: Kind,
    withdrawn: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug)]
enum Kind {
    TokenBucket(Bucket),
}

impl Budget {
    pub fn new(config: Config, _now: Moment) -> Self {
        let kind = match &config {
            Config::TokenBucket(bucket) => Kind::TokenBucket(Bucket::new(bucket)),
        };
        Budget { config, kind, withdrawn: AtomicU64::new(0), refused: AtomicU64::new(0) }
    }

    /// What it was made from. A reload keeps a budget whose configuration is unchanged.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Enters a request, once, before its first attempt. Its retries are taken through the stake.
    pub fn enter(self: &Arc<Self>, _now: Moment) -> Stake {
        match &self.kind {
            Kind::TokenBucket(_) => Stake { budget: Arc::clone(self) },
        }
    }

    /// Retries that could be made at `now`; the gauge.
    pub fn tokens(&self, now: Moment) -> f64 {
        match &self.kind {
            Kind::TokenBucket(bucket) => bucket.tokens(now),
        }
    }

    /// Retries granted since the start.
    pub fn withdrawn(&self) -> u64 {
        self.withdrawn.load(Ordering::Relaxed)
    }

    /// Retries refused since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// One request's share in a budget, held until the request ends.
#[must_use = "a request that leaves the budget at once is not in it"]
#[derive(Debug)]
pub struct Stake {
    budget: Arc<Budget>,
}

impl Stake {
    /// Takes one retry out of the budget, if it has one. Never waits.
    pub fn withdraw(&mut self, now: Moment) -> bool {
        let granted = match &self.budget.kind {
            Kind::TokenBucket(bucket) => bucket.withdraw(now),
        };
        // Relaxed: plain counters for metrics.
        let counter = if granted { &self.budget.withdrawn } else { &self.budget.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        granted
    }

    /// The budget it is a stake in.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let rate = f64::deserialize(deserializer)?;
    if !(0.001..=1_000_000.0).contains(&rate) {
        return Err(de::Error::custom(format_args!("must be from 0.001 to 1000000, not {rate}")));
    }
    Ok(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        serde_yaml::with::singleton_map::deserialize(serde_yaml::Deserializer::from_str(text))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn values_that_could_not_work_are_refused() {
        assert!(parse("{token_bucket: {capacity: 20, refill_per_second: 0.5}}").is_ok());
        for text in [
            "{token_bucket: {capacity: 0, refill_per_second: 10}}",
            "{token_bucket: {capacity: 20, refill_per_second: 0}}",
            "{token_bucket: {capacity: 20, refill_per_second: -1}}",
            "{token_bucket: {capacity: 20, refill_per_second: .inf}}",
            "{token_bucket: {capacity: 20}}",
            "{bucket: {capacity: 20, refill_per_second: 10}}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
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
