//! Why a client was refused, with a code and a sentence for the client.
//!
//! These must not help an attacker: they do not say which check failed on an unproven credential.
//! The request path chooses the status.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// The last second that can be written with a year of four digits.
const LATEST: u64 = 253_402_300_799;

/// The keys that could make a denied token valid, if the issuer has others by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Any valid keys: there are none.
    Any,
    /// A set that holds this key id.
    Named(&'a str),
    /// A set other than this generation, whose keys do not verify the token. The issuer may have
    /// replaced a key and kept its id. `kid` is the id that the token names, if any.
    Other {
        /// The number of the set that was tried, as
        /// [`Keyring::generation`](super::Keyring::generation).
        generation: u64,
        /// `None` if the token names no key.
        kid: Option<&'a str>,
    },
}

/// What is wrong with the credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// There are none where this route expects them.
    Missing,
    /// They occur twice, are too long, not a JWT, or use an unknown algorithm.
    Malformed,
    /// The token names an algorithm that is not allowed, or does not fit its key.
    Algorithm,
    /// The token requires extensions (`crit`, RFC 7515, section 4.1.11); none is supported.
    Critical,
    /// The token names a key that is not in the set. Worth fetching the set once more.
    UnknownKey {
        /// The entry of `auth` whose set it is.
        authority: Arc<str>,
        /// The key id in the token's header.
        kid: Box<str>,
    },
    /// No key that the token may be signed with verifies it, and no other keys will come.
    BadSignature,
    /// The same, but with keys from a key set. Worth fetching the set once more: an issuer may
    /// replace a key and keep its id.
    NotVerified {
        /// The entry of `auth` whose set it is.
        authority: Arc<str>,
        /// The key id in the token's header, if any.
        kid: Option<Box<str>>,
        /// The number of the set that was tried.
        generation: u64,
    },
    /// The signature is valid, but claims are not of the types of RFC 7519, or `exp` is absent.
    Claims,
    /// `exp` has passed, by more than the leeway.
    Expired {
        /// It, in seconds since 1970.
        at: u64,
    },
    /// `nbf` lies ahead, by more than the leeway.
    NotYetValid,
    /// `iss` is not the configured one.
    Issuer,
    /// `aud` has none of the configured ones.
    Audience,
    /// The consumer's claim is absent or cannot be a header value.
    Consumer,
    /// No keys were ever fetched, or the last good ones are too old.
    KeysUnavailable {
        /// The entry of `auth` that has no keys.
        authority: Arc<str>,
        /// When a request may trigger another fetch.
        retry_after: Duration,
    },
    /// No consumer has this API key.
    UnknownApiKey,
}

impl Denial {
    /// The `code` of the refusal, for the client.
    pub fn code(&self) -> &'static str {
        self.told().0
    }

    /// One sentence for the client.
    pub fn detail(&self) -> &'static str {
        self.told().1
    }

    /// Which check failed, for the operator alone: it would help who guesses credentials. `None` if
    /// the client is told as much.
    fn reason(&self) -> Option<Cow<'static, str>> {
        Some(Cow::Borrowed(match self {
            Denial::Missing => return None,
            Denial::Expired { at } => {
                let at = UNIX_EPOCH + Duration::from_secs((*at).min(LATEST));
                let at = humantime::format_rfc3339_seconds(at);
                return Some(Cow::Owned(format!("the token has expired at {at} (`exp`)")));
            }
            Denial::Malformed => "the credentials are malformed, or there is more than one",
            Denial::Algorithm => "the token's algorithm is not allowed, or does not fit its key",
            Denial::Critical => "the token requires an extension (`crit`), and none is supported",
            Denial::UnknownKey { authority, .. } => {
                let said = format!("the token's key is not in the set of auth.{authority}");
                return Some(Cow::Owned(said));
            }
            Denial::BadSignature => "no key verifies the token's signature",
            Denial::NotVerified { authority, .. } => {
                let said = format!("no key of auth.{authority} verifies the token's signature");
                return Some(Cow::Owned(said));
            }
            Denial::Claims => "a claim of the token is missing or of the wrong type",
            Denial::NotYetValid => "the token is not valid yet (`nbf`)",
            Denial::Issuer => "the token is from another issuer (`iss`)",
            Denial::Audience => "the token is for another audience (`aud`)",
            Denial::Consumer => "the claim that names the consumer is missing or cannot be used",
            Denial::KeysUnavailable { authority, .. } => {
                let said =
                    format!("auth.{authority} has no keys: none were fetched, or too long ago");
                return Some(Cow::Owned(said));
            }
            Denial::UnknownApiKey => "no consumer has this API key",
        }))
    }

    /// The authority whose keys should be fetched again before this denial is final, and which keys
    /// would make a difference.
    pub fn wanted_keys(&self) -> Option<(&str, Wanted<'_>)> {
        match self {
            Denial::UnknownKey { authority, kid } => Some((authority, Wanted::Named(kid))),
            Denial::NotVerified { authority, kid, generation } => {
                Some((authority, Wanted::Other { generation: *generation, kid: kid.as_deref() }))
            }
            Denial::KeysUnavailable { authority, .. } => Some((authority, Wanted::Any)),
            Denial::Missing
            | Denial::Malformed
            | Denial::Algorithm
            | Denial::Critical
            | Denial::BadSignature
            | Denial::Claims
            | Denial::Expired { .. }
            | Denial::NotYetValid
            | Denial::Issuer
            | Denial::Audience
            | Denial::Consumer
            | Denial::UnknownApiKey => None,
        }
    }

    /// How much this denial says, to choose among those of several authorities. One that a fetch
    /// may still overturn comes first; missing credentials say least.
    pub(super) fn weight(&self) -> u8 {
        if self.wanted_keys().is_some() {
            return 2;
        }
        u8::from(*self != Denial::Missing)
    }

    /// What the client is told. Only a token with a valid signature can be reported as expired, so
    /// this tells only its owner.
    fn told(&self) -> (&'static str, &'static str) {
        match self {
            Denial::Missing => {
                ("credentials_missing", "this route needs credentials and the request has none")
            }
            Denial::Expired { .. } => ("token_expired", "the token has expired"),
            Denial::KeysUnavailable { .. } => {
                ("keys_unavailable", "the keys that tokens are checked with are not available")
            }
            Denial::Malformed
            | Denial::Algorithm
            | Denial::Critical
            | Denial::UnknownKey { .. }
            | Denial::NotVerified { .. }
            | Denial::BadSignature
            | Denial::Claims
            | Denial::NotYetValid
            | Denial::Issuer
            | Denial::Audience
            | Denial::Consumer
            | Denial::UnknownApiKey => ("credentials_invalid", "the credentials are not valid"),
        }
    }
}

/// The client is authenticated, but not authorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// Scopes that the route requires are missing.
    Scopes,
    /// The route's role is missing.
    Role,
}

impl Forbidden {
    /// The `code` of the refusal, and the metric's label.
    pub fn code(self) -> &'static str {
        match self {
            Forbidden::Scopes => "scope_missing",
            Forbidden::Role => "role_missing",
        }
    }

    /// One sentence for the client.
    pub fn detail(self) -> &'static str {
        match self {
            Forbidden::Scopes => "the credentials do not carry the scopes this route needs",
            Forbidden::Role => "the credentials do not carry the role this route needs",
        }
    }
}

/// Why a route refuses a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 401; or 503 for [`Denial::KeysUnavailable`], which is not the client's fault.
    Unauthenticated(Denial),
    /// 403.
    Forbidden(Forbidden),
}

impl Refusal {
    /// As [`Denial::code`] and [`Forbidden::code`].
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Unauthenticated(denial) => denial.code(),
            Refusal::Forbidden(forbidden) => forbidden.code(),
        }
    }

    /// Which check failed, for the operator alone. `None` if the client is told as much.
    pub fn reason(&self) -> Option<Cow<'static, str>> {
        match self {
            Refusal::Unauthenticated(denial) => denial.reason(),
            Refusal::Forbidden(_) => None,
        }
    }

    /// As [`Denial::detail`] and [`Forbidden::detail`].
    pub fn detail(&self) -> &'static str {
        match self {
            Refusal::Unauthenticated(denial) => denial.detail(),
            Refusal::Forbidden(forbidden) => forbidden.detail(),
        }
    }

    /// When to retry with the same credentials; known only if they could not be checked.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Refusal::Unauthenticated(Denial::KeysUnavailable { retry_after, .. }) => {
                Some(*retry_after)
            }
            Refusal::Unauthenticated(_) | Refusal::Forbidden(_) => None,
        }
    }

    /// As [`Denial::wanted_keys`].
    pub fn wanted_keys(&self) -> Option<(&str, Wanted<'_>)> {
        match self {
            Refusal::Unauthenticated(denial) => denial.wanted_keys(),
            Refusal::Forbidden(_) => None,
        }
    }
}
