//! The verified identity behind a request.
//!
//! A consumer's name becomes a header of the upstream request and the key of rate limits. So it is
//! checked here, once, to be a name that stays the same everywhere.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::identity::Name;
use crate::units::schema::written_as;
use http::{HeaderName, HeaderValue};
use serde::de::{self, Deserialize, Deserializer};

/// A verified client. Shared by all requests with the same credential.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    pub(super) authority: Arc<str>,
    pub(super) consumer: Consumer,
    /// What kind of name in a certificate the consumer's is; `None` if it is from other credentials.
    pub(super) certified: Option<Certified>,
    pub(super) header: HeaderValue,
    pub(super) scopes: Box<[Box<str>]>,
    pub(super) roles: Box<[Box<str>]>,
    /// The token's `exp`, in Unix seconds, without leeway; `None` if the credentials have none.
    pub(super) expires_at: Option<u64>,
    pub(super) claims: KeptClaims,
    /// What a service says of the client, for the upstream.
    pub(super) passed: Box<[(HeaderName, HeaderValue)]>,
}

/// A kind of name in a certificate. The same text may be a name of another kind, or of a token or a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certified {
    /// A SPIFFE id.
    Spiffe,
    /// A DNS name.
    Dns,
    /// A common name.
    Common,
}

impl From<Name<'_>> for Certified {
    fn from(name: Name<'_>) -> Self {
        match name {
            Name::Spiffe(_) => Certified::Spiffe,
            Name::Dns(_) => Certified::Dns,
            Name::Common(_) => Certified::Common,
        }
    }
}

/// The claims of a verified token that some route needs, by their names in the token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptClaims(Box<[(Arc<str>, Box<str>)]>);

impl KeptClaims {
    /// The claim's text; `None` if the token does not have it, or it is not kept.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(kept, _)| **kept == *name).map(|(_, text)| &**text)
    }
}

impl FromIterator<(Arc<str>, Box<str>)> for KeptClaims {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Box<str>)>>(claims: I) -> Self {
        KeptClaims(claims.into_iter().collect())
    }
}

impl Identity {
    /// The entry of `auth:` that accepted the credentials. Two authorities may use one name for two
    /// clients, so a consumer's name is only unique within its authority.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The name of the consumer, unique within its authority.
    pub fn consumer(&self) -> &str {
        self.consumer.as_str()
    }

    /// The same as the name in the client's certificate; `None` if it is from other credentials.
    pub fn certified(&self) -> Option<Name<'_>> {
        let name = self.consumer();
        Some(match self.certified? {
            Certified::Spiffe => Name::Spiffe(name),
            Certified::Dns => Name::Dns(name),
            Certified::Common => Name::Common(name),
        })
    }

    /// The consumer as a header value, made once and not for every request.
    pub fn consumer_header(&self) -> &HeaderValue {
        &self.header
    }

    /// Whether the credentials carry `scope`, compared exactly.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| **held == *scope)
    }

    /// Whether the credentials carry `role`, compared exactly.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|held| **held == *role)
    }

    /// The header fields that the upstream gets because a service has answered with them.
    pub fn passed(&self) -> &[(HeaderName, HeaderValue)] {
        &self.passed
    }

    /// Empty for an API key.
    pub fn claims(&self) -> &KeptClaims {
        &self.claims
    }
}

/// A name that stays the same wherever it arrives as a header: 1 to 256 visible ASCII characters,
/// with spaces only in between (receivers trim the ends, so `acme ` would become `acme`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Consumer(Box<str>);

impl Consumer {
    /// As in the credentials or the configuration.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Never fails, because every accepted name is a valid header value. It returns an error type
    /// so that no panic depends on that reasoning.
    pub(super) fn to_header(&self) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
        HeaderValue::from_str(&self.0)
    }
}

impl fmt::Display for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Consumer {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let fits = !name.is_empty()
            && name.len() <= 256
            && name.bytes().all(|b| matches!(b, b' '..=b'~'))
            && name.trim() == name;
        if !fits {
            return Err("a consumer's name must be 1 to 256 visible ASCII characters without a \
                        space at either end, since it is sent upstream as a header"
                .to_owned());
        }
        Ok(Consumer(name.into()))
    }
}

impl<'de> Deserialize<'de> for Consumer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

written_as!(Consumer, "Consumer", {
    "description": "The consumer's name.",
    "type": "string",
    "pattern": "^[!-~]([ -~]*[!-~])?$",
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_name_is_a_header_value() {
        for name in ["acme", "user@example.org", "a b", "~", "auth0|5f7c"] {
            let consumer: Consumer = name.parse().expect(name);
            assert_eq!(consumer.to_header().expect(name), name);
        }
    }

    #[test]
    fn a_name_that_would_change_on_the_way_is_refused() {
        for name in
            ["", " acme", "acme ", "a\r\nX-Admin: 1", "a\tb", "zoë", "a\0", &"x".repeat(257)]
        {
            assert!(name.parse::<Consumer>().is_err(), "{name:?}");
        }
    }
}
