//! `jwks:`: a key set over HTTP.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};

use crate::units::Timespan;
use crate::units::schema::written_as;

/// A key set over HTTP (RFC 7517).
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "WrittenJwks")]
#[serde(try_from = "WrittenJwks")]
pub struct Jwks {
    /// Where the set is fetched from.
    pub url: KeysUrl,
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

/// The address of a key set: `http` or `https`, without credentials in it.
#[derive(Clone, PartialEq)]
pub struct KeysUrl(http::Uri);

impl KeysUrl {
    /// The whole address, for fetching. Its query may contain a token, so do not print it.
    pub fn expose(&self) -> String {
        self.0.to_string()
    }

    /// Whether the scheme is `https`.
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme() == Some(&http::uri::Scheme::HTTPS)
    }
}

/// Prints the address without the query.
impl fmt::Display for KeysUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.scheme_str().unwrap_or_default();
        let authority = self.0.authority().map_or("", http::uri::Authority::as_str);
        write!(f, "{scheme}://{authority}{}", self.0.path())
    }
}

impl fmt::Debug for KeysUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeysUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "expected an address such as https://issuer/.well-known/jwks.json".to_owned();
        let uri: http::Uri = text.trim().parse().map_err(|_| wrong())?;
        let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong());
        };
        if authority.host().is_empty() {
            return Err(wrong());
        }
        if authority.as_str().contains('@') {
            return Err("a key set's address must not hold a user name or password".to_owned());
        }
        Ok(KeysUrl(uri))
    }
}

impl<'de> Deserialize<'de> for KeysUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenJwks {
    /// Where the set is fetched from.
    url: KeysUrl,
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

// Its query may hold a token.
written_as!(KeysUrl, "KeysUrl", {
    "description": "http:// or https://, without user name and password.",
    "type": "string",
    "pattern": "^\\s*[hH][tT][tT][pP][sS]?://",
    "writeOnly": true,
});
