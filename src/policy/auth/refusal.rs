//! Why a route refuses a request: who sends it is not known, or may not.

use std::borrow::Cow;
use std::time::Duration;

use super::denial::{Denial, Said, Wanted};
use super::permit::Unpermitted;

/// When to try again if a service could not be asked.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The client is authenticated, but not authorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// Scopes that the route requires are missing.
    Scopes,
    /// The route's role is missing.
    Role,
    /// No entry of the route's `permit` has this caller with this path and method.
    Call(Unpermitted),
}

impl Forbidden {
    /// The `code` of the refusal, and the metric's label.
    pub fn code(self) -> &'static str {
        match self {
            Forbidden::Scopes => "scope_missing",
            Forbidden::Role => "role_missing",
            Forbidden::Call(_) => "call_denied",
        }
    }

    /// One sentence for the client.
    pub fn detail(self) -> &'static str {
        match self {
            Forbidden::Scopes => "the credentials do not carry the scopes this route needs",
            Forbidden::Role => "the credentials do not carry the role this route needs",
            Forbidden::Call(_) => "this caller may not make this call",
        }
    }
}

/// Why a route refuses a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 401; or 503 for [`Denial::KeysUnavailable`] and [`Denial::Unanswered`], which are not the
    /// client's fault; or what a service has said.
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
            Refusal::Forbidden(Forbidden::Call(lack)) => Some(lack.reason().into()),
            Refusal::Forbidden(Forbidden::Scopes | Forbidden::Role) => None,
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
            Refusal::Unauthenticated(Denial::Unanswered { .. }) => Some(ASK_AGAIN),
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

    /// What a service has said, if it is its refusal.
    pub fn said(&self) -> Option<&Said> {
        match self {
            Refusal::Unauthenticated(Denial::Said(said)) => Some(said),
            Refusal::Unauthenticated(_) | Refusal::Forbidden(_) => None,
        }
    }
}
