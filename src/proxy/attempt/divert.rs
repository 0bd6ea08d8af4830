//! A request's other upstream: one call to where its route falls back, instead of a refusal.
//!
//! It happens once for a request, within its deadline and without a retry, and asks nobody but that
//! upstream's circuit: an upstream is called at most once for each request that falls back on it.
//! The route's bulkhead, its circuit and its budget are about the upstream it has left: they hear
//! nothing of this call. What is answered where it fails too is decided in [`crate::proxy::reply::stand_in`].

use pingora_proxy::Session;

use crate::policy::fallback::Cause;
use crate::policy::outcome::Outcome;
use crate::policy::retry::Methods;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::diverted::Diverted;
use crate::proxy::rejection::Rejection;
use crate::proxy::{exchange, report, response};
use crate::time::Moment;

/// Sends a request elsewhere that was about to be refused, and of which nothing has been sent. False
/// if it is to be refused.
pub fn instead_of(rejection: &Rejection, ctx: &mut Context, now: Moment) -> bool {
    rejection.fallback_cause().is_some_and(|cause| begin(ctx, cause, now))
}

/// Sends a request elsewhere whose last attempt ended like this. Only one that may be sent again, and
/// is still there to be sent.
pub fn after(session: &mut Session, ctx: &mut Context, outcome: Outcome, now: Moment) -> bool {
    let Some(route) = &ctx.route else { return false };
    let methods = route.retry.as_ref().map_or(Methods::Safe, |retry| retry.config.methods);
    let method = &session.req_header().method;
    methods.allow_after(outcome, method, response::keeping::is_held(ctx))
        && !session.as_ref().retry_buffer_truncated()
        && !exchange::sent::is_answered(session)
        && !ctx.end.client_gone
        && begin(ctx, Cause::AttemptsSpent, now)
}

fn begin(ctx: &mut Context, cause: Cause, now: Moment) -> bool {
    let Some(route) = ctx.route.clone() else { return false };
    let (Some(config), Some(target)) = (&route.config.fallback, &route.fallback) else {
        return false;
    };
    let expired = ctx.deadline.is_some_and(|deadline| now >= deadline);
    if ctx.diverted.is_some() || expired || !config.covers(cause) {
        return false;
    }
    if target.upstream.endpoints().is_empty() {
        return false;
    }
    let Ok(permit) = target.upstream.breaker().map(|breaker| breaker.acquire(now)).transpose()
    else {
        return false;
    };
    // Of the upstream it was sent to: after this, that is another one.
    report::spans::end_attempt(ctx, now);
    ctx.admission.route_permit = None;
    ctx.admission.upstream_permit = permit;
    ctx.diverted = Some(Diverted { target: target.clone(), cause });
    route.metrics.diverted(cause.as_str());
    true
}
