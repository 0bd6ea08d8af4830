//! What a client is told about its limits: names, quotas and state, as header values.
//!
//! `RateLimit-Policy` and `RateLimit` are structured fields (RFC 9651) of the IETF's draft
//! "RateLimit header fields for HTTP". [`Headers`] configures which responses have them; the
//! request path adds them.

use http::HeaderValue;

use super::config::{Algorithm, Limits};
use super::{Standing, Verdict};
use crate::units::retry_after_seconds;

/// `rate_limit_headers:`, for all limited routes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    /// Which responses have them; default `refusals`.
    pub on: On,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`; default true.
    pub x_ratelimit: bool,
    /// `X-RateLimit-Remaining`, `-Burst-Capacity` and `-Replenish-Rate` of a route whose first
    /// limit is a `token_bucket`; default false.
    pub token_bucket: bool,
    /// `RateLimit-Policy` and `RateLimit`; default false.
    pub ietf: bool,
}

/// Which responses have limit headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// Responses to requests that a limit refused.
    #[default]
    Refusals,
    /// Responses to all requests that a limit was checked for.
    Always,
}

/// The limits of one route as clients see them, rendered once.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    names: Vec<String>,
    quoted: Vec<String>,
    policy: Option<HeaderValue>,
    bucket: Option<Bucket>,
}

/// A token bucket as clients see it: in requests, not in the tokens they cost.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub burst: HeaderValue,
    /// Requests that come back in a second, rounded down.
    pub rate: HeaderValue,
}

impl Default for Headers {
    fn default() -> Self {
        Headers { on: On::default(), x_ratelimit: true, token_bucket: false, ietf: false }
    }
}

impl Headers {
    /// Whether a response after this verdict has any.
    pub fn apply_to(&self, verdict: &Verdict) -> bool {
        let asked = match self.on {
            On::Refusals => !verdict.admitted,
            On::Always => true,
        };
        asked && (self.x_ratelimit || self.token_bucket || self.ietf)
    }
}

impl Fields {
    /// The limits of `route`. A limit is named after its route; if there are several, its position,
    /// from 1, is appended: `orders-2`.
    pub fn new(route: &str, limits: &Limits) -> Self {
        let name = |place: usize| match limits.0.len() {
            1 => route.to_owned(),
            _ => format!("{route}-{}", place + 1),
        };
        let names: Vec<String> = (0..limits.0.len()).map(name).collect();
        let quoted: Vec<String> = names.iter().map(|name| quote(name)).collect();
        // A client is not told of a limit that is not enforced.
        let told = limits.0.iter().zip(&quoted).filter(|(limit, _)| !limit.enforce.is_dry());
        let items: Vec<String> = told.map(policy).collect();
        let policy =
            (!items.is_empty()).then(|| HeaderValue::try_from(items.join(", ")).ok()).flatten();
        let first = limits.0.first().filter(|limit| !limit.enforce.is_dry());
        let bucket = first.and_then(bucket);
        Fields { names, quoted, policy, bucket }
    }

    /// The names of the limits, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The value of `RateLimit-Policy`: every limit with its quota and its window, in seconds.
    pub fn policy(&self) -> Option<&HeaderValue> {
        self.policy.as_ref()
    }

    /// The first limit, if it is a bucket.
    pub fn bucket(&self) -> Option<&Bucket> {
        self.bucket.as_ref()
    }

    /// The value of `RateLimit`: requests left in the strictest limit, and seconds to wait for
    /// more. After a refusal that is the wait of `Retry-After`, else the time until the quota is
    /// full again.
    pub fn standing(&self, standing: &Standing) -> Option<HeaderValue> {
        let Verdict { admitted, remaining, reset_after, retry_after, .. } = standing.verdict;
        let name = self.quoted.get(standing.limit)?;
        let wait = retry_after_seconds(if admitted { reset_after } else { retry_after });
        HeaderValue::try_from(format!("{name};r={remaining};t={wait}")).ok()
    }
}

fn bucket(limit: &super::Config) -> Option<Bucket> {
    let Algorithm::TokenBucket(bucket) = &limit.algorithm else { return None };
    let per_second = 1_000_000_000 / bucket.per_token().max(1);
    let requests = |tokens: u64| HeaderValue::from(tokens / u64::from(limit.cost));
    Some(Bucket { burst: requests(bucket.burst.into()), rate: requests(per_second) })
}

/// One item of `RateLimit-Policy`. A window is rounded up to whole seconds, so that a client that
/// keeps to it is slower than necessary, but never too fast.
fn policy((limit, name): (&super::Config, &String)) -> String {
    let quota = limit.algorithm.most() / limit.cost;
    let window = match &limit.algorithm {
        Algorithm::FixedWindow(limit) => *limit.per,
        Algorithm::SlidingWindow(limit) => *limit.per,
        Algorithm::TokenBucket(bucket) => bucket.full_after(),
    };
    format!("{name};q={quota};w={}", retry_after_seconds(window))
}

/// A structured field's string holds only printable ASCII; any other character becomes `?`.
fn quote(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for c in name.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Config, FixedWindow, Key, Replays, TokenBucket};
    use super::*;
    use crate::policy::dry_run::Enforce;
    use crate::units::Timespan;

    fn limits(algorithms: impl IntoIterator<Item = Algorithm>) -> Limits {
        let key = Key::default();
        let limit = |algorithm| Config {
            algorithm,
            key: key.clone(),
            cost: 1,
            replays: Replays::Counted,
            max_keys: 1,
            shared: None,
            enforce: Enforce::Yes,
        };
        Limits(algorithms.into_iter().map(limit).collect())
    }

    fn a_hundred_a_minute() -> Algorithm {
        Algorithm::FixedWindow(FixedWindow { requests: 100, per: Timespan::from_secs(60) })
    }

    fn bucket(rate: u32, burst: u32) -> Algorithm {
        Algorithm::TokenBucket(TokenBucket { rate, per: Timespan::from_secs(1), burst })
    }

    fn standing(limit: usize, admitted: bool) -> Standing {
        let verdict = Verdict {
            admitted,
            limit: 100,
            remaining: u32::from(admitted) * 7,
            reset_after: Duration::from_millis(20_001),
            retry_after: Duration::from_millis(u64::from(!admitted) * 1500),
        };
        Standing { limit, verdict, first: None }
    }

    #[test]
    fn a_lone_limit_is_named_after_its_route() {
        let fields = Fields::new("orders", &limits([a_hundred_a_minute()]));
        assert_eq!(fields.policy().expect("a limit"), "\"orders\";q=100;w=60");
        assert_eq!(fields.standing(&standing(0, true)).expect("it"), "\"orders\";r=7;t=21");
    }

    #[test]
    fn several_limits_are_told_apart_by_their_place() {
        let fields = Fields::new("orders", &limits([a_hundred_a_minute(), bucket(10, 25)]));
        let policy = "\"orders-1\";q=100;w=60, \"orders-2\";q=25;w=3";
        assert_eq!(fields.policy().expect("limits"), policy);
        assert_eq!(fields.standing(&standing(1, true)).expect("it"), "\"orders-2\";r=7;t=21");
    }

    #[test]
    fn a_refusal_says_the_wait_of_retry_after() {
        let fields = Fields::new("orders", &limits([bucket(10, 25)]));
        assert_eq!(fields.standing(&standing(0, false)).expect("it"), "\"orders\";r=0;t=2");
    }

    #[test]
    fn any_name_makes_a_well_formed_field() {
        let fields = Fields::new("a\"\\ü\n", &limits([a_hundred_a_minute()]));
        assert_eq!(fields.policy().expect("a limit"), r#""a\"\\??";q=100;w=60"#);
    }

    #[test]
    fn a_bucket_is_told_of_where_it_is_the_first_limit() {
        let told = |algorithms: Vec<Algorithm>| {
            let bucket = Fields::new("orders", &limits(algorithms)).bucket().cloned();
            bucket.map(|bucket| (bucket.burst, bucket.rate))
        };
        let ten = (HeaderValue::from(20), HeaderValue::from(10));
        assert_eq!(told(vec![bucket(10, 20), a_hundred_a_minute()]), Some(ten));
        assert_eq!(told(vec![a_hundred_a_minute(), bucket(10, 20)]), None);
        assert_eq!(told(vec![bucket(3, 7)]).map(|told| told.1), Some(HeaderValue::from(2)));
    }

    #[test]
    fn a_route_without_limits_has_nothing_to_say() {
        assert!(Fields::new("orders", &limits([])).policy().is_none());
    }
}
