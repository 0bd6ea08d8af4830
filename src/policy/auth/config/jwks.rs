//! `jwks:`: a key set over HTTP.

use super::ServiceUrl;
use crate::units::Timespan;

/// A key set over HTTP (RFC 7517).
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "WrittenJwks")]
#[serde(try_from = "WrittenJwks")]
pub struct Jwks {
    /// Where the set is fetched from.
    pub url: ServiceUrl,
    /// The time from one successful fetch to the next; longer than 0, default 5 min.
    pub refresh: Timespan,
    /// How long the last good keys are used while fetching fails; at least `refresh`, default 1 h.
    pub max_stale: Timespan,
    /// The time limit of one fetch, including the connect; also how long a request waits for one.
    /// Longer than 0, default 5 s.
    pub timeout: Timespan,
    /// Limits fetches caused by unknown key ids: a few at once, then one per this interval. Longer
    /// than 0, default 5 s.
    pub min_refetch: Timespan,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenJwks {
    /// Where the set is fetched from.
    url: ServiceUrl,
    /// The time from one successful fetch to the next; longer than 0, default 5 min.
    #[serde(default = "five_minutes")]
    refresh: Timespan,
    /// How long the last good keys are used while fetching fails; at least `refresh`, default 1 h.
    #[serde(default = "one_hour")]
    max_stale: Timespan,
    /// The time limit of one fetch, including the connect; longer than 0, default 5 s.
    #[serde(default = "five_seconds")]
    timeout: Timespan,
    /// Limits fetches caused by unknown key ids: a few at once, then one per this interval. Longer
    /// than 0, default 5 s.
    #[serde(default = "five_seconds")]
    min_refetch: Timespan,
}

impl TryFrom<WrittenJwks> for Jwks {
    type Error = String;

    fn try_from(written: WrittenJwks) -> Result<Self, String> {
        let WrittenJwks { url, refresh, max_stale, timeout, min_refetch } = written;
        if refresh.is_zero() || timeout.is_zero() || min_refetch.is_zero() {
            return Err("refresh, timeout and min_refetch must be more than 0".to_owned());
        }
        if max_stale < refresh {
            return Err(format!(
                "max_stale must be at least refresh ({refresh}), or good keys expire between fetches"
            ));
        }
        Ok(Jwks { url, refresh, max_stale, timeout, min_refetch })
    }
}

fn five_minutes() -> Timespan {
    Timespan::from_secs(300)
}

fn one_hour() -> Timespan {
    Timespan::from_secs(3600)
}

fn five_seconds() -> Timespan {
    Timespan::from_secs(5)
}
