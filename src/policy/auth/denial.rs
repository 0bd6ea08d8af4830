//! Why a caller was turned away: a code and a sentence for the client, a reason for the operator.
//!
//! The client's part says nothing an attacker could steer by: which check failed on an unproven
//! credential stays here, in the metric's label. The status is the request path's to choose.

use std::sync::Arc;

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
    /// The token names no key and not exactly one fits.
    KeyNotNamed,
    BadSignature,
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
            Denial::KeyNotNamed => "key_not_named",
            Denial::BadSignature => "bad_signature",
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

    /// The authority whose keys should be fetched again before this denial is final, and the `kid`
    /// that was asked for, if one was.
    pub fn wanted_keys(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Denial::UnknownKey { authority, kid } => Some((authority, Some(kid))),
            Denial::KeysUnavailable { authority } => Some((authority, None)),
            Denial::Missing
            | Denial::Malformed
            | Denial::Algorithm
            | Denial::Critical
            | Denial::KeyNotNamed
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
            | Denial::KeyNotNamed
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
    /// 401.
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

    /// As [`Denial::wanted_keys`].
    pub fn wanted_keys(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Refusal::Unauthenticated(denial) => denial.wanted_keys(),
            Refusal::Forbidden(_) => None,
        }
    }
}
