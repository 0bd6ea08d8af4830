//! Pure decisions: no Pingora, no I/O, no clock reads.
//!
//! Each policy has its own module with its configuration and its state. [`order`] defines the order
//! in which they are applied.

pub mod auth;
pub mod breaker;
pub mod bulkhead;
pub mod dry_run;
pub mod failure;
pub mod fallback;
pub mod idempotency;
mod lanes;
pub mod networks;
pub mod order;
pub mod outcome;
pub mod rate_limit;
pub mod retry;
pub mod split;
pub(crate) mod sync;
pub mod terms;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

/// The policies of one route, in the order in which they are applied.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// All of these limits must admit a request.
    pub rate_limits: Vec<Arc<rate_limit::Limiter>>,
    /// The route's own breaker.
    pub route_breaker: Option<Arc<breaker::Breaker>>,
    /// The upstream's breaker, shared with other routes to it.
    pub upstream_breaker: Option<Arc<breaker::Breaker>>,
    /// The route's.
    pub bulkhead: Option<Arc<bulkhead::Bulkhead>>,
    /// The status of the response if the bulkhead is full.
    pub bulkhead_status: bulkhead::Status,
    /// Whether the bulkhead refuses.
    pub bulkhead_enforce: dry_run::Enforce,
}

/// What an admitted request holds until it ends. Dropping it gives everything back.
#[must_use = "dropping an admission gives its permits back"]
#[derive(Debug, Default)]
pub struct Admission {
    /// `None` without a breaker of the upstream's, and once the permit's result is recorded.
    pub upstream_permit: Option<breaker::Permit>,
    /// The same of the route's breaker.
    pub route_permit: Option<breaker::Permit>,
    /// `None` if the route has no bulkhead.
    pub slot: Option<bulkhead::Slot>,
    /// Its part of what its caller may hold; `None` if that is not limited.
    pub share: Option<bulkhead::Share>,
    /// Its part in the queue of a bulkhead that is not enforced.
    pub rehearsal: Option<bulkhead::Rehearsal>,
}

impl Admission {
    /// Gives back what a request holds of dry policies, once their twin would have ended it.
    /// `breakers` are those that its permits are of: the route's and the upstream's.
    pub fn give_back_dry(
        &mut self,
        breakers: [Option<&Arc<breaker::Breaker>>; 2],
        bulkhead: dry_run::Enforce,
    ) {
        let is_dry = |breaker: Option<&Arc<breaker::Breaker>>| {
            breaker.is_some_and(|breaker| breaker.enforce().is_dry())
        };
        let [of_route, of_upstream] = breakers.map(is_dry);
        if of_route {
            self.route_permit = None;
        }
        if of_upstream {
            self.upstream_permit = None;
        }
        if bulkhead.is_dry() {
            (self.slot, self.share, self.rehearsal) = (None, None, None);
        }
    }
}

/// Whose circuit a circuit breaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitOf {
    /// The route's own: other routes to the same upstream have theirs.
    Route,
    /// The upstream's, which all routes to it share.
    Upstream,
}

/// What is taken of a bulkhead that refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Every slot.
    Slots,
    /// All that one caller may hold.
    Share,
}

/// When a client may ask again where that is not known: after one second. A guess, for a store or a
/// name that is away, or a first request that is still under way.
pub const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What a client is told of a refusal, in every protocol. The request path adds the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// The stable name of the refusal.
    pub code: &'static str,
    /// What went wrong, in words.
    pub detail: &'static str,
    /// When to try again; `None` if that makes no sense, or is not known.
    pub retry_after: Option<Duration>,
}

impl Notice {
    const fn new(code: &'static str, detail: &'static str) -> Self {
        Notice { code, detail, retry_after: None }
    }

    const fn after(self, wait: Duration) -> Self {
        Notice { retry_after: Some(wait), ..self }
    }
}

/// A policy has refused the request.
#[derive(Debug, Clone)]
pub enum Rejection {
    /// The client's address may not use the route.
    Address(networks::Refusal),
    /// The credentials do not admit the request, or cannot be checked.
    Credentials(auth::Refusal),
    /// A limit is used up, with the verdict of the strictest one.
    RateLimited(rate_limit::Verdict),
    /// The store of a shared limit is unavailable, and the limit is configured to refuse then.
    LimitStoreUnavailable,
    /// The idempotency key, or its absence, does not admit the request.
    Idempotency(idempotency::Refusal),
    /// A circuit is open, or has as many probes as it admits.
    CircuitOpen {
        /// Whose circuit it is.
        of: CircuitOf,
        /// Until the circuit admits probes; zero if it is half-open.
        retry_after: Duration,
    },
    /// The bulkhead has no room for the request.
    BulkheadFull {
        /// What is full.
        what: Taken,
        /// The status that the route responds with: 429 or 503.
        status: u16,
    },
    /// The request has waited for a slot of the bulkhead and got none.
    BulkheadWaitExceeded {
        /// What ended the wait.
        why: bulkhead::InVain,
        /// The status that the route responds with: 429 or 503.
        status: u16,
    },
}

impl Rejection {
    /// The stable name of the refusal.
    pub fn code(&self) -> &'static str {
        self.notice().code
    }

    /// What the client is told. When to try again is known for a limit, an open circuit and key sets
    /// that cannot be fetched, a guess ([`ASK_AGAIN`]) for a store that is down, not known for a full
    /// bulkhead.
    pub fn notice(&self) -> Notice {
        match self {
            Rejection::Address(_) => {
                Notice::new("address_denied", "this address may not use this route")
            }
            Rejection::Credentials(refusal) => refusal.notice(),
            Rejection::RateLimited(verdict) => {
                Notice::new("rate_limited", "the rate limit is used up").after(verdict.retry_after)
            }
            Rejection::LimitStoreUnavailable => {
                let detail = "the store of the rate limit cannot be asked";
                Notice::new("limit_store_unavailable", detail).after(ASK_AGAIN)
            }
            Rejection::Idempotency(refusal) => refusal.notice(),
            Rejection::CircuitOpen { of, retry_after } => {
                let detail = match of {
                    CircuitOf::Route => "the circuit of the route is open",
                    CircuitOf::Upstream => "the circuit to the upstream is open",
                };
                Notice::new("circuit_open", detail).after(*retry_after)
            }
            Rejection::BulkheadFull { what, .. } => {
                let detail = match what {
                    Taken::Slots => "too many requests are in flight",
                    Taken::Share => "too many requests of this caller are in flight",
                };
                Notice::new("bulkhead_full", detail)
            }
            Rejection::BulkheadWaitExceeded { .. } => {
                let detail = "too many requests are in flight, and waiting did not help";
                Notice::new("bulkhead_wait_exceeded", detail)
            }
        }
    }
}
