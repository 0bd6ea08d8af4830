//! Why a caller was turned away: a code and a sentence for the client, a reason for the operator.
//!
//! The client's part says nothing an attacker could steer by: which check failed on an unproven
//! credential stays here, in the metric's label. The status is the request path's to choose.

use std::sync::Arc;
use std::time::Duration;

/// The keys that might turn a denial into a yes, if the issuer has others by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Any keys that may be believed: there are none.
    Any,
    /// A set that holds this key id.
    Named(&'a str),
    /// A set other than this generation, with which the token does not verify. The issuer may have
    /// replaced a key and kept its id, which the token names if it names one.
    Other { generation: u64, kid: Option<&'a str> },
}

/// What was wrong with the credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// None were presented in the place this route looks at.
    Missing,
    /// Presented twice, too long, not a JWT, or with an algorithm nobody knows.
    Malformed,
    /// The token names an algorithm that is not allowed, or not this key's.
    Algorithm,
    /// The token demands extensions (`crit`, RFC 7515, section 4.1.11); none is understood.
    Critical,
    /// The token names a key that is not in the set. Worth one more fetch of it.
    UnknownKey {
        authority: Arc<str>,
        kid: Box<str>,
    },
    /// No key that the token may have been signed with verifies it, and there will be no other.
    BadSignature,
    /// The same, but the keys are those of a key set. Worth one more fetch of it: an issuer may keep
    /// the id of a key that it replaces.
    NotVerified {
        authority: Arc<str>,
        kid: Option<Box<str>>,
        generation: u64,
    },
    /// Signed, but the claims are not of the types RFC 7519 gives them, or `exp` is absent.
    Claims,
    Expired,
    NotYetValid,
    Issuer,
    Audience,
    /// The consumer's claim is absent or cannot be a header value.
    Consumer,
    /// No keys were ever fetched, or the last good ones are too old to be believed.
    KeysUnavailable {
        authority: Arc<str>,
        /// When a request may have them fetched again.
        retry_after: Duration,
    },
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

    /// The exact reason, as a metric label or in a log line of the operator's.
    pub fn reason(&self) -> &'static str {
        match self {
            Denial::Missing => "missing",
            Denial::Malformed => "malformed",
            Denial::Algorithm => "algorithm",
            Denial::Critical => "critical",
            Denial::UnknownKey { .. } => "unknown_key",
            Denial::BadSignature | Denial::NotVerified { .. } => "bad_signature",
            Denial::Claims => "claims",
            Denial::Expired => "expired",
            Denial::NotYetValid => "not_yet_valid",
            Denial::Issuer => "issuer",
            Denial::Audience => "audience",
            Denial::Consumer => "consumer",
            Denial::KeysUnavailable { .. } => "keys_unavailable",
            Denial::UnknownApiKey => "unknown_api_key",
        }
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
            | Denial::Expired
            | Denial::NotYetValid
            | Denial::Issuer
            | Denial::Audience
            | Denial::Consumer
            | Denial::UnknownApiKey => None,
        }
    }

    /// Where several authorities denied: how much this one tells. One that a fetch may still turn
    /// into a yes comes first; that one of them saw no credentials says least.
    pub(super) fn weight(&self) -> u8 {
        if self.wanted_keys().is_some() {
            return 2;
        }
        u8::from(*self != Denial::Missing)
    }

    /// What the client is told. Expiry is only ever found on a token whose signature holds, so
    /// saying so helps its owner and nobody else.
    fn told(&self) -> (&'static str, &'static str) {
        match self {
            Denial::Missing => {
                ("credentials_missing", "this route needs credentials and the request has none")
            }
            Denial::Expired => ("token_expired", "the token has expired"),
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

/// The caller is known and may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    Scopes,
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

/// A route's answer to a request it does not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 401; 503 where it is [`Denial::KeysUnavailable`], which is not the caller's fault.
    Unauthenticated(Denial),
    /// 403.
    Forbidden(Forbidden),
}

impl Refusal {
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Unauthenticated(denial) => denial.code(),
            Refusal::Forbidden(forbidden) => forbidden.code(),
        }
    }

    pub fn detail(&self) -> &'static str {
        match self {
            Refusal::Unauthenticated(denial) => denial.detail(),
            Refusal::Forbidden(forbidden) => forbidden.detail(),
        }
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::Unauthenticated(denial) => denial.reason(),
            Refusal::Forbidden(forbidden) => forbidden.code(),
        }
    }

    /// When the same credentials may be good enough; known only where they could not be checked.
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
