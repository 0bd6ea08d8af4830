//! Why a route refuses a request: who sends it is not known, or may not.

use std::borrow::Cow;

use super::denial::{Denial, Said, Wanted};
use super::permit::Unpermitted;
use crate::policy::Notice;

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
    /// What the client is told.
    fn notice(self) -> Notice {
        let (code, detail) = match self {
            Forbidden::Scopes => {
                ("scope_missing", "the credentials do not carry the scopes this route needs")
            }
            Forbidden::Role => {
                ("role_missing", "the credentials do not carry the role this route needs")
            }
            Forbidden::Call(_) => ("call_denied", "this caller may not make this call"),
        };
        Notice::new(code, detail)
    }
}

/// Why a route refuses a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Who sends it is not known. [`Denial::KeysUnavailable`] and [`Denial::Unanswered`] are not the
    /// client's fault.
    Unauthenticated(Denial),
    /// Who sends it is known, and may not.
    Forbidden(Forbidden),
}

impl Refusal {
    /// The stable name of the refusal.
    pub fn code(&self) -> &'static str {
        self.notice().code
    }

    /// What the client is told. When to try again with the same credentials is known only if they
    /// could not be checked.
    pub fn notice(&self) -> Notice {
        match self {
            Refusal::Unauthenticated(denial) => denial.notice(),
            Refusal::Forbidden(forbidden) => forbidden.notice(),
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
