//! Idempotency keys: whether a request is the first with its key, and what happens to the others.
//!
//! ```text
//!            claim                    the response is kept
//! ┌──────┐ ─────────> ┌──────┐ ───────────────────────────> ┌────────┐ ──ttl──> absent
//! │absent│            │Leased│                              │Answered│
//! └──────┘ <───────── └──────┘                              └────────┘
//!     nothing was sent    │ `until` has passed
//!                         v
//!                     undecided ──ttl──> absent
//!                         └── with `on_undecided: retry`, the next request claims it anew ──> Leased
//!
//! A request with the key of another one is told:
//!   Leased     InFlight (409)             Answered   the response again, or NotKept (409)
//!   undecided  Undecided (409), or is the next to be executed
//!   not the same request as the first, in any state: Mismatch (422)
//! ```
//!
//! A key is leased before anything is sent. If the gateway or its request dies after that, the key
//! stays leased: it is unknown whether the upstream acted, and [`decide`] never treats that as "not
//! yet". The next request with an undecided key gets a 409, or with `on_undecided: retry` is
//! executed. A store (`crate::idempotency`) keeps the states and returns its own time with them.
//! `proxy` reads the request, keeps its response and sends it again.
//!
//! Sources: the IETF draft "The Idempotency-Key HTTP Header Field" for the header and the statuses;
//! that any response of the upstream counts is Stripe's rule.

mod answer;
mod config;
mod fingerprint;
mod key;
#[cfg(test)]
mod tests;

use crate::policy::outcome::Outcome;
use crate::policy::{ASK_AGAIN, Notice};

pub use answer::{Answer, Kept};
pub use config::{Anonymous, Config, OnFailure, OnUndecided};
pub use fingerprint::{Fingerprint, Principal, Scope};
pub use key::{HEADER, InvalidKey, Key};

/// A point in time by the store's clock: milliseconds since the Unix epoch. All replicas that share
/// a store share its clock, and it survives restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub u64);

/// What a store holds for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The fingerprint of the first request.
    pub fingerprint: Fingerprint,
    /// How far the first request has come.
    pub state: State,
    /// From then on the key counts as absent.
    pub expires_at: Stamp,
}

/// How far the first request with a key has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The first request has been sent, or is about to be.
    Leased {
        /// Until then the request counts as under way; afterwards it is undecided.
        until: Stamp,
    },
    /// The first request has its response.
    Answered(Answer),
}

/// What happens to a request whose key exists already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may take the key over, unless another request does so first.
    TakeOver,
    /// It gets the response that the first one got.
    Replay(Answer),
    /// It gets the refusal's status.
    Refuse(Refusal),
}

/// Decides on a request with `fingerprint` whose key has an `entry`.
pub fn decide(
    entry: Entry,
    fingerprint: &Fingerprint,
    on_undecided: OnUndecided,
    now: Stamp,
) -> Decision {
    if now >= entry.expires_at {
        return Decision::TakeOver;
    }
    if entry.fingerprint != *fingerprint {
        return Decision::Refuse(Refusal::Mismatch);
    }
    match (entry.state, on_undecided) {
        (State::Answered(answer), _) if answer.body.is_none() => Decision::Refuse(Refusal::NotKept),
        (State::Answered(answer), _) => Decision::Replay(answer),
        (State::Leased { until }, _) if now < until => Decision::Refuse(Refusal::InFlight),
        (State::Leased { .. }, OnUndecided::Reject) => Decision::Refuse(Refusal::Undecided),
        (State::Leased { .. }, OnUndecided::Retry) => Decision::TakeOver,
    }
}

/// Whether the upstream may have acted on a request: from the moment that an attempt is written
/// until its outcome proves the contrary. A later attempt does not undo what an earlier one may
/// have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// An attempt is under way.
    sending: bool,
    /// The upstream may have acted on an earlier attempt.
    left: bool,
}

impl Traces {
    /// The request is about to be written to an upstream.
    pub fn sending(&mut self) {
        self.sending = true;
    }

    /// The attempt has ended with this outcome.
    pub fn attempted(&mut self, outcome: Outcome, config: &Config) {
        let refused = matches!(outcome, Outcome::Response(status) if config.releases(status));
        self.left |= self.sending && !outcome.provably_unsent() && !refused;
        self.sending = false;
    }

    /// Whether an upstream may have acted.
    pub fn exist(self) -> bool {
        self.sending || self.left
    }
}

/// Why a request with a key, or without one, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The route requires a key.
    Missing,
    /// The header does not hold a valid key.
    Invalid,
    /// The first request with this key has no response yet.
    InFlight,
    /// The key was used with another request before.
    Mismatch,
    /// The first request was sent, and its outcome will never be known.
    Undecided,
    /// The response to the first request was too large to keep.
    NotKept,
    /// The store cannot say whether the key is new.
    Unavailable,
}

impl Refusal {
    /// The stable name of the refusal.
    pub const fn code(self) -> &'static str {
        self.notice().code
    }

    /// What the client is told. There is no time to try again if that makes no sense before the key
    /// expires.
    pub const fn notice(self) -> Notice {
        match self {
            Refusal::Missing => Notice::new(
                "idempotency_key_missing",
                "this route requires an Idempotency-Key header",
            ),
            Refusal::Invalid => Notice::new(
                "idempotency_key_invalid",
                "the Idempotency-Key header must hold one key of 1 to 255 visible characters",
            ),
            Refusal::InFlight => Notice::new(
                "idempotency_in_flight",
                "the first request with this idempotency key is still in progress",
            )
            .after(ASK_AGAIN),
            Refusal::Mismatch => Notice::new(
                "idempotency_key_reused",
                "this idempotency key was used for another request before",
            ),
            Refusal::Undecided => Notice::new(
                "idempotency_undecided",
                "a request with this idempotency key was sent, and what became of it is not known",
            ),
            Refusal::NotKept => Notice::new(
                "idempotency_answer_not_kept",
                "the request with this idempotency key was answered; the answer was too large to \
                 keep",
            ),
            Refusal::Unavailable => {
                let detail = "idempotency keys cannot be looked up now";
                Notice::new("idempotency_unavailable", detail).after(ASK_AGAIN)
            }
        }
    }
}
