//! `retry_budgets:` as the operator configures it.

use serde::de::{self, Deserialize, Deserializer};

use crate::units::{self, Percent, Timespan};

const MAX_KEYS: u32 = 10_000;

/// An entry of `retry_budgets:`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "Written")]
#[serde(try_from = "Written")]
pub struct Config {
    /// How many retries it grants.
    pub bound: Bound,
    /// Whether each caller has its own, and of how many callers; `None`: all have one together.
    pub callers: Option<u32>,
}

/// What a budget grants.
#[derive(Debug, Clone, PartialEq)]
pub enum Bound {
    /// A retry costs a token; tokens come back at a steady rate.
    TokenBucket(TokenBucket),
    /// Retries are a share of the requests of the last seconds.
    Ratio(Ratio),
    /// Retries are a share of the active requests.
    Concurrency(Concurrency),
}

/// The keys as in the file; one of the first three.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// A retry costs a token; tokens come back at a steady rate. Excludes `ratio` and `concurrency`.
    #[serde(default)]
    token_bucket: Option<TokenBucket>,
    /// Retries are a share of the requests of the last seconds. Excludes `token_bucket` and `concurrency`.
    #[serde(default)]
    ratio: Option<Ratio>,
    /// Retries are a share of the active requests. Excludes `token_bucket` and `ratio`.
    #[serde(default)]
    concurrency: Option<Concurrency>,
    /// `consumer`: each caller has such a budget of its own, so that one cannot use up the retries of others.
    /// Callers are counted as rate limits with `key: consumer` count them: anonymous requests by the client's
    /// address. Default: all callers have one together.
    #[serde(default)]
    per: Option<Per>,
    /// With `per`: the most callers that have a budget of their own at one time; further ones have one together.
    /// 1 to 1,000,000, default 10000.
    #[serde(default, deserialize_with = "max_keys")]
    #[schemars(range(min = 1, max = 1_000_000))]
    max_keys: Option<u32>,
}

/// What has a budget of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Per {
    /// Each caller.
    Consumer,
}

impl TryFrom<Written> for Config {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { token_bucket, ratio, concurrency, per, max_keys } = written;
        let bound = match (token_bucket, ratio, concurrency) {
            (Some(bucket), None, None) => Bound::TokenBucket(bucket),
            (None, Some(ratio), None) => Bound::Ratio(ratio),
            (None, None, Some(active)) => Bound::Concurrency(active),
            (None, None, None) => {
                return Err("needs one of `token_bucket`, `ratio` and `concurrency`");
            }
            _ => return Err("has one of `token_bucket`, `ratio` and `concurrency`, not several"),
        };
        let callers = match (per, max_keys) {
            (Some(Per::Consumer), max_keys) => Some(max_keys.unwrap_or(MAX_KEYS)),
            (None, None) => None,
            (None, Some(_)) => return Err("max_keys: has a meaning only with `per: consumer`"),
        };
        Ok(Config { bound, callers })
    }
}

impl From<Bound> for Config {
    fn from(bound: Bound) -> Self {
        Config { bound, callers: None }
    }
}

impl Config {
    /// An upstream's own budget, for routes that name none.
    pub fn of_upstream() -> Self {
        let (share, min_per_second, ttl) = (default_share(), default_min(), default_ttl());
        Bound::Ratio(Ratio { share, min_per_second, ttl }).into()
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

/// A share in millionths: exact for every percentage with up to four decimals.
pub(super) fn millionths(share: Percent) -> u64 {
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

fn max_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    units::bounded::<_, 1, 1_000_000>(deserializer).map(Some)
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
            "{}",
            "{per: consumer}",
            "{ratio: {}, concurrency: {}}",
            "{ratio: {}, max_keys: 10}",
            "{ratio: {}, per: route}",
            "{ratio: {}, per: consumer, max_keys: 0}",
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
        assert_eq!(parse("{ratio: {}}"), Ok(Bound::Ratio(ratio).into()));
        let concurrency = Concurrency { share, min: 3 };
        assert_eq!(parse("{concurrency: {}}"), Ok(Bound::Concurrency(concurrency).into()));
    }
}
