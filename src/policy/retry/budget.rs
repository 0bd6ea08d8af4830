//! Retry budgets: how many retries all routes that share a budget may make together.
//!
//! `max_retries` bounds the attempts of each request, but that alone still multiplies an outage. A
//! budget bounds retries by time or by requests, whatever the load and on any number of threads. It
//! never waits: once it is spent, the client gets the last response unchanged.

mod bucket;
mod concurrency;
mod ratio;

use std::sync::atomic::{AtomicU64, Ordering};

use bucket::Bucket;
use concurrency::Active;
use crossbeam_utils::CachePadded;
use ratio::Share;
use serde::de::{self, Deserialize, Deserializer};

use crate::policy::lanes::{Hold, Shared};
use crate::time::Moment;
use crate::units::{self, Percent, Timespan};

/// What `retry.budget` says instead of a name where only `max_retries` is to bound retries.
pub const UNLIMITED: &str = "unlimited";

/// The names of the upstreams' own budgets begin with this, in `/status` and in metrics.
pub const OF_UPSTREAM: &str = "upstream:";

/// An entry of `retry_budgets:`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Config {
    /// A retry costs a token; tokens come back at a steady rate.
    TokenBucket(TokenBucket),
    /// Retries are a share of the requests of the last seconds.
    Ratio(Ratio),
    /// Retries are a share of the active requests.
    Concurrency(Concurrency),
}

impl Config {
    /// An upstream's own budget, for routes that name none.
    pub fn of_upstream() -> Self {
        Config::Ratio(Ratio {
            share: default_share(),
            min_per_second: default_min(),
            ttl: default_ttl(),
        })
    }
}

/// `token_bucket:`. In any span of time, retries ≤ `capacity + refill_per_second × seconds`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenBucket {
    /// The most tokens, and those at the start; 1 to 1,000,000.
    #[serde(deserialize_with = "units::bounded::<_, 1, 1_000_000>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub capacity: u32,
    /// Tokens that come back per second; 0.001 to 1,000,000.
    #[serde(deserialize_with = "rate")]
    #[schemars(range(min = 0.001, max = 1_000_000))]
    pub refill_per_second: f64,
}

/// `ratio:`. In any `ttl`, retries ≤ `share × requests + min_per_second × seconds`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    /// Retries per request; 0 % to 100 %, default 20 %.
    #[serde(default = "default_share")]
    pub share: Percent,
    /// Retries per second that are granted without requests; 0 to 10,000, default 3.
    #[serde(default = "default_min", deserialize_with = "units::bounded::<_, 0, 10_000>")]
    #[schemars(range(max = 10_000))]
    pub min_per_second: u32,
    /// How long requests and retries count; 1 s to 60 s, default 10 s. Tracked in tenths: after
    /// nine tenths of it a request may already be forgotten.
    #[serde(default = "default_ttl", deserialize_with = "ttl")]
    pub ttl: Timespan,
}

/// `concurrency:`. A retry begins only while fewer than `max(share × active requests, min)` are
/// under way. A request is active until it ends, including its waits for a retry.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// Retries per active request; 0 % to 100 %, default 20 %.
    #[serde(default = "default_share")]
    pub share: Percent,
    /// Concurrent retries that are granted without requests; 0 to 10,000, default 3.
    #[serde(default = "default_min", deserialize_with = "units::bounded::<_, 0, 10_000>")]
    #[schemars(range(max = 10_000))]
    pub min: u32,
}

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
}

#[derive(Debug, Default)]
struct Counts {
    withdrawn: AtomicU64,
    refused: AtomicU64,
}

impl Budget {
    /// A full bucket, or nothing counted.
    pub fn new(config: Config, _now: Moment) -> Self {
        let kind = match &config {
            Config::TokenBucket(bucket) => Kind::TokenBucket(Bucket::new(bucket)),
            Config::Ratio(ratio) => Kind::Ratio(Share::new(ratio)),
            Config::Concurrency(share) => Kind::Concurrency(Active::new(share)),
        };
        Budget(Shared::new(Account { config, kind, counts: CachePadded::default() }))
    }

    /// The configuration it was made from. A reload keeps a budget whose configuration is
    /// unchanged.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Registers a request, once, before its first attempt. It takes its retries through the stake.
    pub fn enter(&self, now: Moment) -> Stake {
        match &self.0.kind {
            Kind::TokenBucket(_) => {}
            Kind::Ratio(share) => share.deposit(now),
            Kind::Concurrency(active) => active.enter(),
        }
        Stake { account: self.0.hold(), retrying: false }
    }

    /// Retries that could be made at `now`; a gauge shows it.
    pub fn tokens(&self, now: Moment) -> f64 {
        match &self.0.kind {
            Kind::TokenBucket(bucket) => bucket.tokens(now),
            Kind::Ratio(share) => share.tokens(now),
            Kind::Concurrency(active) => active.tokens(),
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
        };
        self.retrying = granted;
        // Relaxed: plain counters for metrics.
        let counts = &self.account.counts;
        let counter = if granted { &counts.withdrawn } else { &counts.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        granted
    }
}

impl Drop for Stake {
    fn drop(&mut self) {
        match &self.account.kind {
            Kind::TokenBucket(_) | Kind::Ratio(_) => {}
            Kind::Concurrency(active) => active.leave(self.retrying),
        }
    }
}

/// A share in millionths: exact for every percentage with up to four decimals.
fn millionths(share: Percent) -> u64 {
    (share.fraction() * 1e6).round() as u64
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let rate = f64::deserialize(deserializer)?;
    if !(0.001..=1_000_000.0).contains(&rate) {
        return Err(de::Error::custom(format_args!("must be from 0.001 to 1000000, not {rate}")));
    }
    Ok(rate)
}

fn ttl<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    let ttl = Timespan::deserialize(deserializer)?;
    if ttl < Timespan::from_secs(1) || ttl > Timespan::from_secs(60) {
        return Err(de::Error::custom("must be from 1s to 60s"));
    }
    Ok(ttl)
}

fn default_share() -> Percent {
    Percent::new(20)
}

fn default_min() -> u32 {
    3
}

fn default_ttl() -> Timespan {
    Timespan::from_secs(10)
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
    fn values_that_could_not_work_are_refused() {
        assert!(parse("{token_bucket: {capacity: 20, refill_per_second: 0.5}}").is_ok());
        for text in [
            "{token_bucket: {capacity: 0, refill_per_second: 10}}",
            "{token_bucket: {capacity: 20, refill_per_second: 0}}",
            "{token_bucket: {capacity: 20, refill_per_second: -1}}",
            "{token_bucket: {capacity: 20, refill_per_second: .inf}}",
            "{token_bucket: {capacity: 20}}",
            "{bucket: {capacity: 20, refill_per_second: 10}}",
            "{ratio: {share: 101%}}",
            "{ratio: {min_per_second: 10001}}",
            "{ratio: {ttl: 999ms}}",
            "{ratio: {ttl: 61s}}",
            "{ratio: {min: 3}}",
            "{concurrency: {share: 0.2}}",
            "{concurrency: {min: -1}}",
            "{concurrency: {ttl: 10s}}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_defaults_are_a_fifth_and_three() {
        let (share, ttl) = (Percent::new(20), Timespan::from_secs(10));
        let ratio = Ratio { share, min_per_second: 3, ttl };
        assert_eq!(parse("{ratio: {}}"), Ok(Config::Ratio(ratio)));
        let concurrency = Concurrency { share, min: 3 };
        assert_eq!(parse("{concurrency: {}}"), Ok(Config::Concurrency(concurrency)));
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
