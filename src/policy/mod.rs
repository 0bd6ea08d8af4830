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

/// A policy has refused the request.
#[derive(Debug, Clone)]
pub enum Rejection {
    /// 403: the client's address may not use the route.
    Address(networks::Refusal),
    /// 401, 403, or 503 while keys are unavailable.
    Credentials(auth::Refusal),
    /// 429, with the verdict of the strictest limit.
    RateLimited(rate_limit::Verdict),
    /// The store of a shared limit is unavailable, and the limit is configured to refuse then.
    LimitStoreUnavailable,
    /// 400, 409, 422 or 503.
    Idempotency(idempotency::Refusal),
    /// 503.
    CircuitOpen {
        /// Whose circuit it is.
        of: CircuitOf,
        /// Until the circuit admits probes; zero if it is half-open.
        retry_after: Duration,
    },
    /// With the status that the route responds with.
    BulkheadFull {
        /// What is full.
        what: Taken,
        /// 429 or 503.
        status: u16,
    },
    /// The same status, for a request that has waited for a slot and got none.
    BulkheadWaitExceeded {
        /// What ended the wait.
        why: bulkhead::InVain,
        /// 429 or 503.
        status: u16,
    },
}

impl Rejection {
    /// The stable name of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Rejection::Address(_) => "address_denied",
            Rejection::Credentials(refusal) => refusal.code(),
            Rejection::RateLimited(_) => "rate_limited",
            Rejection::LimitStoreUnavailable => "limit_store_unavailable",
            Rejection::Idempotency(refusal) => refusal.code(),
            Rejection::CircuitOpen { .. } => "circuit_open",
            Rejection::BulkheadFull { .. } => "bulkhead_full",
            Rejection::BulkheadWaitExceeded { .. } => "bulkhead_wait_exceeded",
        }
    }

    /// What went wrong, in words.
    pub fn detail(&self) -> &'static str {
        match self {
            Rejection::Address(_) => "this address may not use this route",
            Rejection::Credentials(refusal) => refusal.detail(),
            Rejection::RateLimited(_) => "the rate limit is used up",
            Rejection::LimitStoreUnavailable => "the store of the rate limit cannot be asked",
            Rejection::Idempotency(refusal) => refusal.detail(),
            Rejection::CircuitOpen { of: CircuitOf::Route, .. } => {
                "the circuit of the route is open"
            }
            Rejection::CircuitOpen { of: CircuitOf::Upstream, .. } => {
                "the circuit to the upstream is open"
            }
            Rejection::BulkheadFull { what: Taken::Slots, .. } => "too many requests are in flight",
            Rejection::BulkheadFull { what: Taken::Share, .. } => {
                "too many requests of this caller are in flight"
            }
            Rejection::BulkheadWaitExceeded { .. } => {
                "too many requests are in flight, and waiting did not help"
            }
        }
    }

    /// When to try again: known for a limit, an open circuit and key sets that cannot be fetched, a
    /// guess for a store that is down, not known for a full bulkhead.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Rejection::RateLimited(verdict) => Some(verdict.retry_after),
            Rejection::Idempotency(refusal) => refusal.retry_after(),
            Rejection::CircuitOpen { retry_after, .. } => Some(*retry_after),
            Rejection::LimitStoreUnavailable => Some(Duration::from_secs(1)),
            Rejection::Credentials(refusal) => refusal.retry_after(),
            Rejection::Address(_)
            | Rejection::BulkheadFull { .. }
            | Rejection::BulkheadWaitExceeded { .. } => None,
        }
    }
}
