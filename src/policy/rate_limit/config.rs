//! `rate_limit:` as the operator configures it.

mod key;
mod shared;

use std::fmt;
use std::time::Duration;

pub use key::{Key, KeySource, Named, Requester, Subject};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
pub use shared::{OnFailure, Redis, RedisUrl, Shared, Store};

use crate::policy::dry_run::Enforce;
use crate::units::{self, Timespan};

/// `rate_limit:` of a route.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "Written")]
#[serde(try_from = "Written")]
pub struct Config {
    /// How requests are counted.
    pub algorithm: Algorithm,
    /// What is counted separately; default each consumer.
    pub key: Key,
    /// How many of the limit's requests, or of the bucket's tokens, a request takes; 1 to
    /// 1,000,000, at most what the limit ever has, default 1.
    pub cost: u32,
    /// Whether a response that is replayed for an idempotency key has that cost, too; default
    /// `counted`.
    pub replays: Replays,
    /// About how many keys are remembered at once; 1 to 10,000,000, default 100,000.
    pub max_keys: u32,
    /// The store in which replicas count together. Absent: each replica counts by itself.
    pub shared: Option<Shared>,
    /// `false`: requests beyond the limit are counted in `would_refuse_total`, and pass. Default
    /// `true`.
    pub enforce: Enforce,
}

/// One limit or a list of them; a request must be within all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits(pub Vec<Config>);

/// What a replayed request costs. It must be within the limit in either case.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    serde::Deserialize,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Replays {
    /// As much as any other request.
    #[default]
    Counted,
    /// Nothing: its cost is given back.
    Free,
}

/// The algorithms. A limit names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Algorithm {
    /// Requests of a window that begins with a request.
    FixedWindow(FixedWindow),
    /// Requests of the last window and the current one, weighed.
    SlidingWindow(SlidingWindow),
    /// A steady rate, with bursts.
    TokenBucket(TokenBucket),
}

/// `fixed_window:`. A key's window begins with its first request after its last window has ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedWindow {
    /// Requests admitted per window; 1 to 1,000,000.
    #[serde(deserialize_with = "units::bounded::<_, 1, 1_000_000>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// Length of a window; 1 ms to 366 days.
    #[serde(deserialize_with = "window")]
    pub per: Timespan,
}

/// `sliding_window:`. Windows follow each other without a gap. Requests of the last window weigh
/// less as the current one passes, so that a client cannot spend two windows' requests at once.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlidingWindow {
    /// Requests admitted per window; 1 to 1,000,000.
    #[serde(deserialize_with = "units::bounded::<_, 1, 1_000_000>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// Length of a window; 1 ms to 366 days.
    #[serde(deserialize_with = "window")]
    pub per: Timespan,
}

/// `token_bucket:`. In any span of time, requests ≤ `burst + rate × span / per`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "WrittenBucket")]
#[serde(try_from = "WrittenBucket")]
pub struct TokenBucket {
    /// Tokens that come back within `per`; 1 to 1,000,000.
    pub rate: u32,
    /// 1 ms to 366 days, default 1 s.
    pub per: Timespan,
    /// The most tokens, and those at the start; 1 to 1,000,000, default `rate`. All must be back
    /// within 366 days.
    pub burst: u32,
}

impl Algorithm {
    /// The most that can be available: requests of a window, tokens of a bucket.
    pub fn most(&self) -> u32 {
        match self {
            Algorithm::FixedWindow(limit) => limit.requests,
            Algorithm::SlidingWindow(limit) => limit.requests,
            Algorithm::TokenBucket(bucket) => bucket.burst,
        }
    }
}

impl TokenBucket {
    /// Nanoseconds until a token is back, rounded up: not in the client's favour.
    pub fn per_token(&self) -> u64 {
        u64::try_from(self.per.as_nanos()).unwrap_or(u64::MAX).div_ceil(self.rate.into())
    }

    /// The time until an empty bucket is full.
    pub(super) fn full_after(&self) -> Duration {
        Duration::from_nanos(self.per_token()).saturating_mul(self.burst)
    }
}

/// The keys as in the file, before one algorithm is picked.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Requests of a window that begins with a request.
    #[serde(default)]
    fixed_window: Option<FixedWindow>,
    /// Requests of the last window and the current one, weighed.
    #[serde(default)]
    sliding_window: Option<SlidingWindow>,
    /// A steady rate, with bursts.
    #[serde(default)]
    token_bucket: Option<TokenBucket>,
    /// What is counted separately; default each consumer.
    #[serde(default)]
    #[schemars(extend("default" = "consumer"))]
    key: Key,
    /// How many of the limit's requests, or of the bucket's tokens, a request takes; 1 to
    /// 1,000,000, at most what the limit ever has, default 1.
    #[serde(default = "default_cost", deserialize_with = "units::bounded::<_, 1, 1_000_000>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    cost: u32,
    /// Whether a response that is replayed for an idempotency key has that cost, too; default
    /// `counted`.
    #[serde(default)]
    replays: Replays,
    /// About how many keys are remembered at once; 1 to 10,000,000, default 100,000.
    #[serde(default = "default_max_keys", deserialize_with = "max_keys")]
    #[schemars(range(min = 1, max = 10_000_000))]
    max_keys: u32,
    /// The store in which replicas count together. Absent: each replica counts by itself.
    #[serde(default)]
    shared: Option<Shared>,
    #[serde(default)]
    enforce: Enforce,
}

impl TryFrom<Written> for Config {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written {
            fixed_window,
            sliding_window,
            token_bucket,
            key,
            cost,
            replays,
            max_keys,
            shared,
            enforce,
        } = written;
        let algorithm = match (fixed_window, sliding_window, token_bucket) {
            (Some(limit), None, None) => Algorithm::FixedWindow(limit),
            (None, Some(limit), None) => Algorithm::SlidingWindow(limit),
            (None, None, Some(limit)) => Algorithm::TokenBucket(limit),
            (None, None, None) => {
                return Err("needs an algorithm, such as `fixed_window: {requests: 100, per: 1m}`");
            }
            (_, _, _) => return Err("has more than one algorithm; write a list of limits"),
        };
        if cost > algorithm.most() {
            return Err("cost: must be at most what the limit ever has, or no request could pass");
        }
        if replays == Replays::Free && shared.is_some() {
            return Err("replays: a limit that replicas share takes back nothing; write `counted`");
        }
        Ok(Config { algorithm, key, cost, replays, max_keys, shared, enforce })
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenBucket {
    #[serde(deserialize_with = "units::bounded::<_, 1, 1_000_000>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    /// Tokens that come back within `per`; 1 to 1,000,000.
    rate: u32,
    /// 1 ms to 366 days, default 1 s.
    #[serde(default = "one_second", deserialize_with = "window")]
    per: Timespan,
    /// The most tokens, and those at the start; 1 to 1,000,000, default `rate`.
    #[serde(default, deserialize_with = "burst")]
    #[schemars(range(min = 1, max = 1_000_000))]
    burst: Option<u32>,
}

impl TryFrom<WrittenBucket> for TokenBucket {
    type Error = &'static str;

    fn try_from(written: WrittenBucket) -> Result<Self, Self::Error> {
        let WrittenBucket { rate, per, burst } = written;
        let bucket = TokenBucket { rate, per, burst: burst.unwrap_or(rate) };
        let full = Duration::from_nanos(bucket.per_token()).checked_mul(bucket.burst);
        if full.is_none_or(|full| full > LONGEST_WINDOW) {
            return Err("burst: the burst takes longer than 366days to come back at this rate");
        }
        Ok(bucket)
    }
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LimitsVisitor)
    }
}

struct LimitsVisitor;

impl<'de> Visitor<'de> for LimitsVisitor {
    type Value = Limits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a limit such as {fixed_window: {requests: 100, per: 1m}}, or a list of limits")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Limits, A::Error> {
        Config::deserialize(MapAccessDeserializer::new(map)).map(|one| Limits(vec![one]))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Limits, E> {
        Ok(Limits::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Limits, A::Error> {
        let mut limits = Vec::new();
        while let Some(limit) = list.next_element()? {
            limits.push(limit);
        }
        Ok(Limits(limits))
    }
}

const LONGEST_WINDOW: Duration = Duration::from_secs(366 * 24 * 3600);

fn window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    let per = Timespan::deserialize(deserializer)?;
    if *per < Duration::from_millis(1) || *per > LONGEST_WINDOW {
        return Err(de::Error::custom("must be from 1ms to 366days"));
    }
    Ok(per)
}

fn burst<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    units::bounded::<_, 1, 1_000_000>(deserializer).map(Some)
}

fn max_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    units::bounded::<_, 1, 10_000_000>(deserializer)
}

fn default_cost() -> u32 {
    1
}

fn default_max_keys() -> u32 {
    100_000
}

fn one_second() -> Timespan {
    Timespan::from_secs(1)
}

impl schemars::JsonSchema for Limits {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RateLimits".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = generator.subschema_for::<Config>();
        schemars::json_schema!({
            "anyOf": [one, { "type": "array", "items": one }, { "type": "null" }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T: de::DeserializeOwned>(text: &str) -> Result<T, String> {
        let from = serde_yaml::Deserializer::from_str(text);
        serde_yaml::with::singleton_map_recursive::deserialize(from).map_err(|e| e.to_string())
    }

    #[test]
    fn consumers_are_counted_unless_the_key_says_otherwise() {
        let config: Config = parse("{fixed_window: {requests: 100, per: 1m}}").expect("valid");
        assert_eq!((config.key, config.max_keys), (KeySource::Consumer.into(), 100_000));
        let text = "{fixed_window: {requests: 100, per: 1m}, key: route}";
        assert_eq!(parse(text).map(|c: Config| c.key), Ok(KeySource::Route.into()));
    }

    #[test]
    fn a_bucket_holds_what_comes_back_in_a_second_unless_it_says_otherwise() {
        let bucket: TokenBucket = parse("{rate: 10}").expect("valid");
        assert_eq!((bucket.burst, bucket.per), (10, Timespan::from_secs(1)));
    }

    #[test]
    fn a_limit_stands_alone_or_in_a_list() {
        let one = "{fixed_window: {requests: 100, per: 1m}}";
        let count = |text: &str| parse(text).map(|limits: Limits| limits.0.len());
        assert_eq!(count(one), Ok(1));
        assert_eq!(count(&format!("[{one}, {{token_bucket: {{rate: 10}}, key: route}}]")), Ok(2));
        assert_eq!((count("[]"), count("~")), (Ok(0), Ok(0)));
        assert!(count("100").is_err());
    }

    #[test]
    fn values_that_could_not_work_are_refused() {
        for text in [
            "{}",
            "{fixed_window: {requests: 0, per: 1m}}",
            "{fixed_window: {requests: 1000001, per: 1m}}",
            "{fixed_window: {requests: 100, per: 0s}}",
            "{fixed_window: {requests: 100, per: 2years}}",
            "{fixed_window: {requests: 100}}",
            "{fixed_window: {requests: 100, per: 1m}, key: path}",
            "{fixed_window: {requests: 100, per: 1m}, max_keys: 0}",
            "{fixed_window: {requests: 100, per: 1m}, replays: 1}",
            "{fixed_window: {requests: 100, per: 1m}, replays: free, shared: {store: s}}",
            "{fixed_window: {requests: 100, per: 1m}, cost: 0}",
            "{fixed_window: {requests: 100, per: 1m}, cost: 101}",
            "{token_bucket: {rate: 100, burst: 20}, cost: 21}",
            "{fixed: {requests: 100, per: 1m}}",
            "{sliding_window: {requests: 0, per: 1m}}",
            "{sliding_window: {requests: 100}}",
            "{token_bucket: {rate: 0}}",
            "{token_bucket: {rate: 10, burst: 0}}",
            "{token_bucket: {rate: 10, per: 0s}}",
            "{token_bucket: {rate: 1, per: 1day, burst: 367}}",
            "{token_bucket: {burst: 10}}",
            "{fixed_window: {requests: 9, per: 1s}, token_bucket: {rate: 9}}",
        ] {
            assert!(parse::<Config>(text).is_err(), "{text}");
        }
    }
}
