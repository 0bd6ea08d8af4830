//! Pure decisions: no Pingora, no I/O, no clock reads.
//!
//! Each policy has its module, its configuration and its state there. What they have in
//! common is here: [`admit`], the one place that fixes their order. [`idempotency`] has its place
//! between its two halves.

pub mod auth;
pub mod breaker;
pub mod bulkhead;
pub mod failure;
pub mod fallback;
pub mod idempotency;
mod lanes;
pub mod outcome;
pub mod rate_limit;
pub mod retry;
mod sync;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use crate::time::Moment;

/// What guards one route, in the order in which it is asked.
#[derive(Debug, Default)]
pub struct Policies {
    /// All of which a request must be within.
    pub rate_limits: Vec<Arc<rate_limit::Limiter>>,
    /// The route's own breaker.
    pub route_breaker: Option<Arc<breaker::Breaker>>,
    /// The upstream's breaker, shared with other routes to it.
    pub upstream_breaker: Option<Arc<breaker::Breaker>>,
    pub bulkhead: Option<Arc<bulkhead::Bulkhead>>,
    /// What a full bulkhead is answered with.
    pub bulkhead_status: bulkhead::Status,
}

/// Who asks.
#[derive(Debug)]
pub struct Caller<'a> {
    /// What the route's [`auth::Guard`] made of the credentials; `Ok(None)` where none are needed.
    pub identity: Result<Option<&'a auth::Identity>, auth::Refusal>,
    pub address: IpAddr,
    /// Of the request, for limits that are keyed by one.
    pub headers: &'a HeaderMap,
    /// What was heard of the limits that replicas share.
    pub shared: rate_limit::Heard,
}

/// What an admitted request holds until it ends. Dropping it gives everything back.
#[must_use = "dropping an admission gives its permits back"]
#[derive(Debug, Default)]
pub struct Admission {
    pub upstream_permit: Option<breaker::Permit>,
    pub route_permit: Option<breaker::Permit>,
    pub slot: Option<bulkhead::Slot>,
}

/// A policy said no.
#[derive(Debug, Clone)]
pub enum Rejection {
    Credentials(auth::Refusal),
    RateLimited(rate_limit::Verdict),
    /// A shared limit cannot be asked, and is configured to refuse then.
    LimitStoreUnavailable,
    Idempotency(idempotency::Refusal),
    CircuitOpen {
        retry_after: Duration,
    },
    /// With the status the route answers it with.
    BulkheadFull {
        status: u16,
    },
}

/// Ask every policy of a route whether `caller` may pass. The first refusal ends it; what
/// was taken before is given back by its drop.
///
/// Identity comes first, because limits are counted by it. Breakers come before the
/// bulkhead, so that an open circuit costs no slot; a probe that the bulkhead then refuses
/// frees its place, because its permit is dropped.
///
/// Where the caller stands in the limits is left in `standing`, whatever comes after: the answer
/// to a request that was counted says so, even if it is another policy's refusal.
pub fn admit(
    policies: &Policies,
    caller: Caller<'_>,
    standing: &mut Option<rate_limit::Standing>,
    now: Moment,
) -> Result<Admission, Rejection> {
    admit_caller(policies, caller, standing, now)?;
    admit_call(policies, now)
}

/// The first half of [`admit`]: may this caller ask? A request with an idempotency key looks that
/// up between the halves, so that an answer given again costs neither permit nor slot.
pub fn admit_caller(
    policies: &Policies,
    caller: Caller<'_>,
    standing: &mut Option<rate_limit::Standing>,
    now: Moment,
) -> Result<(), Rejection> {
    let requester =
        caller.requester().map_err(|refusal| Rejection::Credentials(refusal.clone()))?;
    *standing = rate_limit::check_shared(&policies.rate_limits, &requester, &caller.shared, now)
        .map_err(|_| Rejection::LimitStoreUnavailable)?;
    match standing.filter(|standing| !standing.verdict.admitted) {
        Some(refused) => Err(Rejection::RateLimited(refused.verdict)),
        None => Ok(()),
    }
}

/// The second half of [`admit`]: can the call be made?
pub fn admit_call(policies: &Policies, now: Moment) -> Result<Admission, Rejection> {
    // Destructured in full: a new policy does not compile until it is placed.
    let Policies { rate_limits: _, route_breaker, upstream_breaker, bulkhead, bulkhead_status } =
        policies;
    let route_permit = through(route_breaker.as_ref(), now)?;
    let upstream_permit = through(upstream_breaker.as_ref(), now)?;
    let slot = match bulkhead {
        Some(bulkhead) => Some(
            bulkhead
                .acquire(now)
                .map_err(|_| Rejection::BulkheadFull { status: bulkhead_status.code() })?,
        ),
        None => None,
    };
    Ok(Admission { upstream_permit, route_permit, slot })
}

impl Caller<'_> {
    /// Whom limits count.
    ///
    /// # Errors
    /// Why the credentials are not good enough to be counted.
    pub fn requester(&self) -> Result<rate_limit::Requester<'_>, &auth::Refusal> {
        let identity = *self.identity.as_ref()?;
        Ok(rate_limit::Requester::new(identity, self.address, self.headers))
    }
}

fn through(
    breaker: Option<&Arc<breaker::Breaker>>,
    now: Moment,
) -> Result<Option<breaker::Permit>, Rejection> {
    breaker
        .map(|breaker| breaker.acquire(now))
        .transpose()
        .map_err(|open| Rejection::CircuitOpen { retry_after: open.retry_after })
}

impl Rejection {
    /// The stable name of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Rejection::Credentials(refusal) => refusal.code(),
            Rejection::RateLimited(_) => "rate_limited",
            Rejection::LimitStoreUnavailable => "limit_store_unavailable",
            Rejection::Idempotency(refusal) => refusal.code(),
            Rejection::CircuitOpen { .. } => "circuit_open",
            Rejection::BulkheadFull { .. } => "bulkhead_full",
        }
    }

    /// What went wrong, for a person.
    pub fn detail(&self) -> &'static str {
        match self {
            Rejection::Credentials(refusal) => refusal.detail(),
            Rejection::RateLimited(_) => "the rate limit is used up",
            Rejection::LimitStoreUnavailable => "the store of the rate limit cannot be asked",
            Rejection::Idempotency(refusal) => refusal.detail(),
            Rejection::CircuitOpen { .. } => "the circuit to the upstream is open",
            Rejection::BulkheadFull { .. } => "too many requests are in flight",
        }
    }

    /// When to try again: known for a limit, an open circuit and keys that are away, guessed for a
    /// store that is away, not known for a full bulkhead.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Rejection::RateLimited(verdict) => Some(verdict.retry_after),
            Rejection::Idempotency(refusal) => refusal.retry_after(),
            Rejection::CircuitOpen { retry_after } => Some(*retry_after),
            Rejection::LimitStoreUnavailable => Some(Duration::from_secs(1)),
            Rejection::Credentials(refusal) => refusal.retry_after(),
            Rejection::BulkheadFull { .. } => None,
        }
    }
}
