//! THE order in which a request is asked, step by step, and why it is this one.
//!
//! Two lists: what is asked of the caller, and what is asked before a call is made. Between them stands
//! whatever may answer without a call; today that is a response kept for an idempotency key. The
//! request path walks both in its phase `request_filter`, and has no other order
//! (`proxy::request::admission`). Steps that policies decide are decided here, or in the policy's own
//! module; the request path does the rest: it reads bodies and asks stores.
//!
//! What comes after the lists is asked once for each attempt, not for each request:
//!
//! - whether there is another attempt: [`super::retry::decide`], for every way in which one can end;
//! - whether the circuits let that attempt through: again the two circuits, in their order here;
//! - what is answered in place of a refusal: [`super::fallback`].

use super::rate_limit::{self, Heard, Requester, Standing};
use super::{Admission, Policies, Rejection, breaker};
use crate::time::Moment;

/// A step that looks at the caller and at what it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfCaller {
    FloodGuard,
    Form,
    BodySize,
    Credentials,
    RateLimits,
    IdempotencyKey,
}

/// A step that looks at what stands before the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfCall {
    RouteCircuit,
    UpstreamCircuit,
    Bulkhead,
    Endpoint,
    Deadline,
    RetryBudget,
    Body,
}

/// What is asked of the caller, once its route is known.
pub const CALLER: [OfCaller; 6] = [
    // A flood must cost next to nothing: it is counted by address alone, before anything is read.
    OfCaller::FloodGuard,
    // What its own protocol forbids cannot be understood by any later step. The time that the caller
    // gives the request counts from here on, too: what follows may wait for a store.
    OfCaller::Form,
    // The head announces the size: neither a signature is verified nor a limit counted for a body
    // that will not be taken.
    OfCaller::BodySize,
    // Limits and keys are counted by who asks.
    OfCaller::Credentials,
    // A request is counted even if something refuses it later; those refused above cost a caller
    // nothing of its limit.
    OfCaller::RateLimits,
    // A response that is given again counts as a request, and needs neither permit nor slot. The key
    // belongs to its caller.
    OfCaller::IdempotencyKey,
];

/// What is asked before a call is made.
pub const CALL: [OfCall; 7] = [
    // Circuits before the bulkhead: an open one costs no slot. A probe that a later step refuses
    // gives its place back.
    OfCall::RouteCircuit,
    OfCall::UpstreamCircuit,
    OfCall::Bulkhead,
    // What could not be called anyway is no reason to wait for a body.
    OfCall::Endpoint,
    // A store may have used the time up that the request has.
    OfCall::Deadline,
    // Only what will be called earns retries.
    OfCall::RetryBudget,
    // Last, because it waits for the client: defaults are filled in, a message is transcoded.
    OfCall::Body,
];

impl OfCaller {
    /// The step's name, as metrics and documentation have it.
    pub const fn name(self) -> &'static str {
        match self {
            OfCaller::FloodGuard => "flood_guard",
            OfCaller::Form => "form",
            OfCaller::BodySize => "body_size",
            OfCaller::Credentials => "credentials",
            OfCaller::RateLimits => "rate_limits",
            OfCaller::IdempotencyKey => "idempotency_key",
        }
    }
}

impl OfCall {
    /// The step's name, as metrics and documentation have it.
    pub const fn name(self) -> &'static str {
        match self {
            OfCall::RouteCircuit => "route_circuit",
            OfCall::UpstreamCircuit => "upstream_circuit",
            OfCall::Bulkhead => "bulkhead",
            OfCall::Endpoint => "endpoint",
            OfCall::Deadline => "deadline",
            OfCall::RetryBudget => "retry_budget",
            OfCall::Body => "body",
        }
    }

    /// Whether it is about the upstream that a route names. A request that falls back to another one
    /// is not asked it again.
    pub const fn is_of_upstream(self) -> bool {
        match self {
            OfCall::RouteCircuit
            | OfCall::UpstreamCircuit
            | OfCall::Bulkhead
            | OfCall::Endpoint => true,
            OfCall::Deadline | OfCall::RetryBudget | OfCall::Body => false,
        }
    }

    /// Take what the step's policy gives, into `admission`. Steps that no policy of `policies` decides
    /// take nothing.
    ///
    /// # Errors
    /// The policy refuses. What has been taken before is given back when `admission` is dropped.
    pub fn take(
        self,
        policies: &Policies,
        admission: &mut Admission,
        now: Moment,
    ) -> Result<(), Rejection> {
        // Destructured in full: a new policy does not compile until it has its step.
        let Policies { rate_limits: _, route_breaker, upstream_breaker, bulkhead, bulkhead_status } =
            policies;
        match self {
            OfCall::RouteCircuit => admission.route_permit = through(route_breaker, now)?,
            OfCall::UpstreamCircuit => admission.upstream_permit = through(upstream_breaker, now)?,
            OfCall::Bulkhead => {
                let full = |_| Rejection::BulkheadFull { status: bulkhead_status.code() };
                let slot = bulkhead.as_ref().map(|bulkhead| bulkhead.acquire(now).map_err(full));
                admission.slot = slot.transpose()?;
            }
            OfCall::Endpoint | OfCall::Deadline | OfCall::RetryBudget | OfCall::Body => {}
        }
        Ok(())
    }
}

/// Count a request of `requester` in all limits of a route, or in none.
///
/// Where it stands in them is left in `standing`, whatever comes after: the response to a request that
/// was counted says so, even if another policy refuses it.
///
/// # Errors
/// A limit is used up, or its store cannot be asked and the route refuses then.
pub fn count(
    policies: &Policies,
    requester: &Requester<'_>,
    heard: &Heard,
    standing: &mut Option<Standing>,
    now: Moment,
) -> Result<(), Rejection> {
    *standing = rate_limit::check_shared(&policies.rate_limits, requester, heard, now)
        .map_err(|_| Rejection::LimitStoreUnavailable)?;
    match standing.filter(|standing| !standing.verdict.admitted) {
        Some(refused) => Err(Rejection::RateLimited(refused.verdict)),
        None => Ok(()),
    }
}

fn through(
    breaker: &Option<std::sync::Arc<breaker::Breaker>>,
    now: Moment,
) -> Result<Option<breaker::Permit>, Rejection> {
    breaker
        .as_ref()
        .map(|breaker| breaker.acquire(now))
        .transpose()
        .map_err(|open| Rejection::CircuitOpen { retry_after: open.retry_after })
}
