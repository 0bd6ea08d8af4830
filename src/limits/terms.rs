//! A limit as the script sees it: a key for each requester, a kind, a cost, and three numbers. And
//! the script's reply as a verdict of the limit.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::rate_limit::{Algorithm, Config, Limits, Requester, TokenBucket, Verdict};

/// The script computes in doubles, which are exact for whole numbers below 2^53. Half of that
/// leaves room for every sum in it.
const EXACT: u64 = 1 << 52;
const NANOS_PER_MICRO: u64 = 1000;

/// In which limits a request is counted that is within them.
#[derive(Clone, Copy)]
pub(super) enum Intent {
    /// In none.
    Look,
    /// In all.
    Count,
    /// In those that are enforced: a dry run that is over counts nothing more.
    CountEnforced,
}

/// A shared limit, compiled.
pub(super) struct Terms {
    config: Config,
    limit: u32,
    /// The beginning of all keys of the limit.
    stem: String,
    kind: &'static str,
    numbers: [u64; 3],
}

/// The shared limits of a list, in its order.
///
/// A key names everything its state depends on. So limits with different numbers never share state,
/// not even while replicas run two configurations. Two equal limits in a list both count.
pub(super) fn compile(prefix: &str, route: &str, limits: &Limits) -> Box<[Terms]> {
    let mut compiled: Vec<Terms> = Vec::new();
    for config in limits.0.iter().filter(|limit| limit.shared.is_some()) {
        let mut terms = Terms::new(config);
        let stem = format!("{prefix}:{route}:{}:{}", rule(config), config.key);
        let is_twin = |other: &&Terms| {
            let (one, other) = (&other.config, config);
            (&one.algorithm, one.cost, &one.key) == (&other.algorithm, other.cost, &other.key)
        };
        let twins = compiled.iter().filter(is_twin).count();
        terms.stem = match twins {
            0 => format!("{stem}:"),
            twins => format!("{stem}:{}:", twins + 1),
        };
        compiled.push(terms);
    }
    compiled.into()
}

impl Terms {
    fn new(config: &Config) -> Self {
        let (kind, numbers) = match &config.algorithm {
            Algorithm::FixedWindow(limit) => {
                let window = micros(*limit.per);
                ("fixed_window", [limit.requests.into(), window, 0])
            }
            Algorithm::SlidingWindow(limit) => {
                let [window, tick] = ticks(limit.requests, micros(*limit.per));
                ("sliding_window", [limit.requests.into(), window, tick])
            }
            Algorithm::TokenBucket(bucket) => {
                let [per_token, unit] = units(bucket);
                ("token_bucket", [bucket.burst.into(), per_token, unit])
            }
        };
        let limit = config.algorithm.most() / config.cost;
        Terms { config: config.clone(), limit, stem: String::new(), kind, numbers }
    }

    /// The key under which the script keeps the state of `requester`.
    pub(super) fn key(&self, requester: &Requester<'_>) -> String {
        let mut key = String::with_capacity(self.stem.len() + 32);
        key.push_str(&self.stem);
        // Writing to a string does not fail.
        let _ = write!(key, "{:032x}", self.config.key.digest(requester));
        key
    }

    pub(super) fn is_dry(&self) -> bool {
        self.config.enforce.is_dry()
    }

    #[cfg(test)]
    pub(super) fn numbers(&self) -> [u64; 3] {
        self.numbers
    }
}

/// The script's arguments.
pub(super) fn arguments(terms: &[Terms], intent: Intent) -> Arc<[String]> {
    let letter = |terms: &Terms| match (intent, terms.is_dry()) {
        (Intent::Look, _) | (Intent::CountEnforced, true) => '0',
        (Intent::Count | Intent::CountEnforced, false) => '1',
        (Intent::Count, true) => 'd',
    };
    let intent: String = terms.iter().map(letter).collect();
    let limits = terms.iter().flat_map(|terms| {
        let numbers = terms.numbers.map(|number| number.to_string());
        [terms.kind.to_owned(), terms.config.cost.to_string()].into_iter().chain(numbers)
    });
    [intent].into_iter().chain(limits).collect()
}

/// The script's reply, four numbers for each limit; `None` if it is not of that form.
pub(super) fn verdicts(terms: &[Terms], numbers: &[u64]) -> Option<Vec<Verdict>> {
    if numbers.len() != 4 * terms.len() {
        return None;
    }
    let answers = terms.iter().zip(numbers.chunks_exact(4));
    let verdict = |(terms, answer): (&Terms, &[u64])| match answer {
        &[admitted, remaining, reset_after, retry_after] => Some(Verdict {
            admitted: admitted == 1,
            limit: terms.limit,
            remaining: u32::try_from(remaining).ok()?,
            reset_after: Duration::from_micros(reset_after),
            retry_after: Duration::from_micros(retry_after),
        }),
        _ => None,
    };
    answers.map(verdict).collect()
}

/// The limit as text, for operators who look at keys.
fn rule(config: &Config) -> String {
    let mut rule = match &config.algorithm {
        Algorithm::FixedWindow(limit) => format!("fixed_window:{}/{}", limit.requests, limit.per),
        Algorithm::SlidingWindow(limit) => {
            format!("sliding_window:{}/{}", limit.requests, limit.per)
        }
        Algorithm::TokenBucket(bucket) => {
            format!("token_bucket:{}/{}:{}", bucket.rate, bucket.per, bucket.burst)
        }
    }
    .replace(' ', "");
    if config.cost != 1 {
        // Writing to a string does not fail.
        let _ = write!(rule, "x{}", config.cost);
    }
    rule
}

/// Microseconds, rounded up: not in the client's favour.
fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(NANOS_PER_MICRO.into())).unwrap_or(u64::MAX)
}

/// A window in ticks, and a tick in microseconds, chosen so that `requests x window` is exact. Only
/// the largest limits over days need ticks longer than 1 µs.
fn ticks(requests: u32, window: u64) -> [u64; 2] {
    let product = u128::from(requests) * u128::from(window);
    // At most 3.2e13 microseconds times a million, divided by 2^52.
    let tick = product.div_ceil(EXACT.into()) as u64;
    [window.div_ceil(tick), tick]
}

/// Units until a token is back, and how many units make a microsecond. The unit is the nanosecond,
/// unless the bucket takes more than 52 days to fill.
fn units(bucket: &TokenBucket) -> [u64; 2] {
    let nanos = bucket.per_token();
    if nanos.saturating_mul(u64::from(bucket.burst) + 1) <= EXACT {
        return [nanos, NANOS_PER_MICRO];
    }
    [nanos.div_ceil(NANOS_PER_MICRO), 1]
}
