//! Idempotency keys: whether a request is the first with its key, and what becomes of the others.
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
//! A key is leased before anything is sent. Whoever dies after that leaves it leased: nobody knows
//! whether the upstream acted, and [`decide`] never takes that for "not yet". The states are kept by
//! a store (`crate::idempotency`), which tells its own time along with them; reading the request,
//! keeping its answer and giving it again are left to `proxy`.
//!
//! Sources: the IETF draft "The Idempotency-Key HTTP Header Field" for the header and the statuses;
//! that any answer counts once the upstream has given it is Stripe's rule.

mod answer;
mod config;
mod fingerprint;
mod key;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::policy::outcome::Outcome;

pub use answer::{Answer, Kept};
pub use config::{Anonymous, Config, OnFailure, OnUndecided};
pub use fingerprint::{Fingerprint, Principal, Scope};
pub use key::{HEADER, InvalidKey, Key};

/// When a client whose first request is still under way may ask again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A point in time by the store's clock: milliseconds since the Unix epoch. All replicas that share
/// a store share its clock, and it goes on over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub u64);

/// What a store holds of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Of the request that came first.
    pub fingerprint: Fingerprint,
    pub state: State,
    /// From then on the key is as good as absent.
    pub expires_at: Stamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The first request has been sent, or is about to be.
    Leased { until: Stamp },
    /// It has been answered.
    Answered(Answer),
}

/// What becomes of a request whose key is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may take the key over, if nobody else does meanwhile.
    TakeOver,
    /// It gets the answer that the first one got.
    Replay(Answer),
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

/// Whether the upstream may have acted on a request. It may, from the moment that an attempt is
/// written until its outcome proves the contrary; what an attempt has done, no later one undoes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// An attempt is under way.
    sending: bool,
    /// An attempt before it may have been acted on.
    left: bool,
}

impl Traces {
    /// The request is about to be written to an upstream.
    pub fn sending(&mut self) {
        self.sending = true;
    }

    /// The attempt has ended like this.
    pub fn attempted(&mut self, outcome: Outcome, config: &Config) {
        let refused = matches!(outcome, Outcome::Response(status) if config.releases(status));
        self.left |= self.sending && !outcome.provably_unsent() && !refused;
        self.sending = false;
    }

    /// Whether it cannot be ruled out that an upstream has acted.
    pub fn exist(self) -> bool {
        self.sending || self.left
    }
}

/// Why a request with a key, or without one, is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The route requires a key.
    Missing,
    /// What the header holds is no key.
    Invalid,
    /// The first request with this key has no answer yet.
    InFlight,
    /// The key came with another request before.
    Mismatch,
    /// The first request was sent, and nobody will ever know what became of it.
    Undecided,
    /// It was answered, with more than is kept.
    NotKept,
    /// The store cannot say whether the key is new.
    Unavailable,
}

impl Refusal {
    /// The stable name of the refusal.
    pub const fn code(self) -> &'static str {
        match self {
            Refusal::Missing => "idempotency_key_missing",
            Refusal::Invalid => "idempotency_key_invalid",
            Refusal::InFlight => "idempotency_in_flight",
            Refusal::Mismatch => "idempotency_key_reused",
            Refusal::Undecided => "idempotency_undecided",
            Refusal::NotKept => "idempotency_answer_not_kept",
            Refusal::Unavailable => "idempotency_unavailable",
        }
    }

    /// What went wrong, for a person.
    pub const fn detail(self) -> &'static str {
        match self {
            Refusal::Missing => "this route requires an Idempotency-Key header",
            Refusal::Invalid => {
                "the Idempotency-Key header must hold one key of 1 to 255 visible characters"
            }
            Refusal::InFlight => "the first request with this idempotency key is still in progress",
            Refusal::Mismatch => "this idempotency key was used for another request before",
            Refusal::Undecided => {
                "a request with this idempotency key was sent, and what became of it is not known"
            }
            Refusal::NotKept => {
                "the request with this idempotency key was answered; the answer was too large to keep"
            }
            Refusal::Unavailable => "idempotency keys cannot be looked up now",
        }
    }

    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Refusal::InFlight | Refusal::Unavailable => Some(ASK_AGAIN),
            Refusal::Missing
            | Refusal::Invalid
            | Refusal::Mismatch
            | Refusal::Undecided
            | Refusal::NotKept => None,
        }
    }
}
