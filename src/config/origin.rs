//! `routes.NAME.cors.origins`: which web pages may call, by the origin that browsers send.

use std::str::FromStr;

use crate::units::schema::written_as;
use serde::{Deserialize, Deserializer};

/// One origin, or a pattern for several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `*`
    Any,
    /// `https://shop.example`
    Exact(String),
    /// `https://*.shop.example`: every host below this one.
    Below {
        /// With its colon and slashes: `https://`.
        scheme: String,
        /// With a leading dot: `.shop.example`.
        host: String,
    },
    /// `http://localhost:*`: every port.
    Ports(String),
}

impl Origin {
    /// Whether this allows the origin that a browser sent.
    pub fn covers(&self, named: &[u8]) -> bool {
        match self {
            Origin::Any => true,
            Origin::Exact(origin) => origin.as_bytes() == named,
            Origin::Below { scheme, host } => named
                .strip_prefix(scheme.as_bytes())
                .and_then(|rest| rest.strip_suffix(host.as_bytes()))
                .is_some_and(is_subdomain),
            Origin::Ports(before) => named
                .strip_prefix(before.as_bytes())
                .is_some_and(|port| !port.is_empty() && port.iter().all(u8::is_ascii_digit)),
        }
    }
}

/// Whether these are labels of a host, and nothing else.
fn is_subdomain(labels: &[u8]) -> bool {
    let is_label = |label: &[u8]| {
        !label.is_empty() && label.iter().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(b))
    };
    labels.split(|&b| b == b'.').all(is_label)
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Origin::Any);
        }
        let wrong = || {
            format!(
                "{text}: expected an origin as browsers name it (https://shop.example, http://localhost:3000), \
                 all below a host (https://*.shop.example), all ports (http://localhost:*), or *"
            )
        };
        let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._:[]".contains(&b);
        let is_plain = |text: &str| !text.is_empty() && text.bytes().all(fits);
        if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
            return Err(wrong());
        }
        if let Some(host) = authority.strip_prefix("*.").filter(|host| is_plain(host)) {
            return Ok(Origin::Below { scheme: format!("{scheme}://"), host: format!(".{host}") });
        }
        if let Some(host) = authority.strip_suffix(":*").filter(|host| is_plain(host)) {
            return Ok(Origin::Ports(format!("{scheme}://{host}:")));
        }
        is_plain(authority).then(|| Origin::Exact(text.to_owned())).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

written_as!(Origin, "Origin", {
    "description": "https://shop.example, https://*.shop.example, http://localhost:*, or *.",
    "type": "string",
    "pattern": "^(\\*|[a-z-]+://.+)$",
});

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(origin: &str, named: &str) -> bool {
        origin.parse::<Origin>().expect("an origin").covers(named.as_bytes())
    }

    #[test]
    fn an_exact_origin_is_itself_alone() {
        assert!(covers("https://shop.example", "https://shop.example"));
        for other in [
            "http://shop.example",
            "https://shop.example:8443",
            "https://shop.example.evil.example",
            "https://a.shop.example",
            "null",
        ] {
            assert!(!covers("https://shop.example", other), "{other}");
        }
        assert!(covers("*", "null"));
    }

    #[test]
    fn a_pattern_covers_what_is_below_a_host_and_nothing_that_looks_like_it() {
        let pattern = "https://*.shop.example";
        for below in ["https://a.shop.example", "https://b-1.a.shop.example"] {
            assert!(covers(pattern, below), "{below}");
        }
        for other in [
            "https://shop.example",
            "https://.shop.example",
            "https://evilshop.example",
            "https://a..shop.example",
            "http://a.shop.example",
            "https://a.shop.example:8443",
            "https://evil.example/.shop.example",
            "https://evil.example:1.shop.example",
            "https://a.shop.example.evil.example",
        ] {
            assert!(!covers(pattern, other), "{other}");
        }
        assert!(covers("https://*.shop.example:8443", "https://a.shop.example:8443"));
    }

    #[test]
    fn every_port_of_a_host() {
        assert!(covers("http://localhost:*", "http://localhost:3000"));
        for other in ["http://localhost", "http://localhost:", "http://localhost:1.evil.example"] {
            assert!(!covers("http://localhost:*", other), "{other}");
        }
    }

    #[test]
    fn what_no_browser_would_name_is_an_error_that_says_what_would_do() {
        for text in [
            "",
            "shop.example",
            "https://shop.example/",
            "https://Shop.example",
            "https://*shop.example",
            "https://shop.*",
            "https://*",
            "https://*.shop.example:*",
            "https://a b",
        ] {
            let error = text.parse::<Origin>().expect_err(text);
            assert!(error.contains("https://*.shop.example"), "{error}");
        }
    }
}
