//! Why a client was refused, with a code and a sentence for the client.
//!
//! These must not help an attacker: they do not say which check failed on an unproven credential.
//! The request path chooses the status.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderValue, StatusCode};

use crate::policy::{ASK_AGAIN, Notice};

/// The last second that can be written with a year of four digits.
const LATEST: u64 = 253_402_300_799;

/// For credentials of which no more is told.
const INVALID: Notice = Notice::new("credentials_invalid", "the credentials are not valid");

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
    /// The client's certificate has none of the names that are allowed.
    NotAllowed {
        /// The entry of `auth` that allows others.
        authority: Arc<str>,
    },
    /// The client's certificate has no name that counts.
    Unnamed {
        /// The entry of `auth` that has looked for one.
        authority: Arc<str>,
    },
    /// The authorization server says that the token is not active.
    Inactive {
        /// The entry of `auth` that has asked.
        authority: Arc<str>,
    },
    /// A service that was asked about the request does not let it pass.
    Said(Arc<Said>),
    /// A service could not be asked, or its answer makes no sense.
    Unanswered {
        /// The entry of `auth` that has asked.
        authority: Arc<str>,
        /// What went wrong, for the operator.
        why: Arc<str>,
    },
}

/// How a service has refused a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// The entry of `auth` that has asked.
    pub authority: Arc<str>,
    /// In short.
    pub verdict: Verdict,
    /// Its `WWW-Authenticate` fields.
    pub challenges: Box<[HeaderValue]>,
    /// Its `Set-Cookie` fields, such as the state of a login.
    pub cookies: Box<[HeaderValue]>,
}

/// What a service has said of a request that may not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// 401: the credentials are missing or invalid.
    Unauthorized,
    /// 403: the client is known, and may not.
    Forbidden,
    /// The client should go elsewhere first, such as to a login page.
    Redirect {
        /// One of 301, 302, 303, 307, 308.
        status: StatusCode,
        /// Where.
        location: HeaderValue,
    },
}

impl Denial {
    /// Which check failed, for the operator alone: it would help who guesses credentials. `None` if
    /// the client is told as much.
    pub(super) fn reason(&self) -> Option<Cow<'static, str>> {
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
            Denial::NotAllowed { authority } => {
                let said = format!("auth.{authority} allows no name of the client's certificate");
                return Some(Cow::Owned(said));
            }
            Denial::Unnamed { authority } => {
                let said =
                    format!("auth.{authority}: the client's certificate has no name that counts");
                return Some(Cow::Owned(said));
            }
            Denial::Inactive { authority } => {
                let said =
                    format!("auth.{authority}: the server says that the token is not active");
                return Some(Cow::Owned(said));
            }
            Denial::Said(said) => {
                let status = match &said.verdict {
                    Verdict::Unauthorized => "401".to_owned(),
                    Verdict::Forbidden => "403".to_owned(),
                    Verdict::Redirect { status, .. } => format!("a redirect ({})", status.as_u16()),
                };
                let said = format!("auth.{}: the service has answered {status}", said.authority);
                return Some(Cow::Owned(said));
            }
            Denial::Unanswered { authority, why } => {
                return Some(Cow::Owned(format!("auth.{authority}: {why}")));
            }
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
            | Denial::UnknownApiKey
            | Denial::NotAllowed { .. }
            | Denial::Unnamed { .. }
            | Denial::Inactive { .. }
            | Denial::Said(_)
            | Denial::Unanswered { .. } => None,
        }
    }

    /// Whether the same credentials would be denied again, so that the denial may be remembered.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self, Denial::Unanswered { .. } | Denial::NotYetValid)
    }

    /// Whether it says more than `other`, of another authority.
    pub fn outweighs(&self, other: &Denial) -> bool {
        self.weight() > other.weight()
    }

    /// How much this denial says, to choose among those of several authorities. One that a fetch
    /// may still overturn comes first; missing credentials say least.
    pub(super) fn weight(&self) -> u8 {
        if self.wanted_keys().is_some() || matches!(self, Denial::Unanswered { .. }) {
            return 2;
        }
        u8::from(*self != Denial::Missing)
    }

    /// What the client is told. Only a token with a valid signature can be reported as expired, so
    /// this tells only its owner.
    pub(super) fn notice(&self) -> Notice {
        match self {
            Denial::Missing => {
                let detail = "this route needs credentials and the request has none";
                Notice::new("credentials_missing", detail)
            }
            Denial::Expired { .. } => Notice::new("token_expired", "the token has expired"),
            Denial::KeysUnavailable { retry_after, .. } => {
                let detail = "the keys that tokens are checked with are not available";
                Notice::new("keys_unavailable", detail).after(*retry_after)
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
            | Denial::UnknownApiKey
            | Denial::Unnamed { .. }
            | Denial::Inactive { .. } => INVALID,
            Denial::NotAllowed { .. } => {
                let detail = "the client's certificate is not for a caller of this route";
                Notice::new("caller_denied", detail)
            }
            Denial::Said(said) => match said.verdict {
                Verdict::Unauthorized => INVALID,
                Verdict::Forbidden => {
                    let detail = "the authorization service does not allow this request";
                    Notice::new("auth_denied", detail)
                }
                Verdict::Redirect { .. } => {
                    let detail = "the authorization service asks to go elsewhere first";
                    Notice::new("auth_redirect", detail)
                }
            },
            Denial::Unanswered { .. } => {
                let detail = "the service that credentials are checked with is not available";
                Notice::new("auth_unavailable", detail).after(ASK_AGAIN)
            }
        }
    }
}
