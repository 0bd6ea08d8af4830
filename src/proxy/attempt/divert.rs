//! The fallback upstream: one call to it, in place of a refusal.
//!
//! It happens at most once per request, within the request's deadline and without a retry, and only
//! if the fallback upstream's circuit breaker permits it. The route's bulkhead, circuit and retry
//! budget protect the route's own upstream: they are not told of this call.
//! [`crate::proxy::reply::stand_in`] decides what the client gets if the fallback fails too.

use std::sync::Arc;

use pingora_proxy::Session;

use crate::policy::CircuitOf;
use crate::policy::fallback::Cause;
use crate::policy::order::{self, Leave};
use crate::policy::outcome::Outcome;
use crate::policy::retry::Methods;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::diverted::Diverted;
use crate::proxy::rejection::Rejection;
use crate::proxy::{attempt, exchange, report, response};
use crate::time::Moment;

/// Sends a request that was about to be refused, and of which nothing has been sent, to the
/// fallback upstream. Returns false if it must be refused.
pub fn instead_of(rejection: &Rejection, ctx: &mut Context, now: Moment) -> bool {
    rejection.fallback_cause().is_some_and(|cause| begin(ctx, cause, Instead::Of(rejection), now))
}

/// Sends a request whose last attempt ended with `outcome` to the fallback upstream, if the request
/// may be sent again and its body is still held in full. Returns false if it cannot be.
pub fn after(session: &mut Session, ctx: &mut Context, outcome: Outcome, now: Moment) -> bool {
    let Some(route) = &ctx.route else { return false };
    let methods = route.retry.as_ref().map_or(Methods::Safe, |retry| retry.config.methods);
    let method = &session.req_header().method;
    methods.allow_after(outcome, method, response::keeping::is_held(ctx))
        && !session.as_ref().retry_buffer_truncated()
        && !exchange::sent::is_answered(session)
        && !ctx.end.is_client_gone()
        && begin(ctx, Cause::AttemptsSpent, Instead::After(outcome), now)
}

/// What the call takes the place of.
enum Instead<'a> {
    Of(&'a Rejection),
    After(Outcome),
}

fn begin(ctx: &mut Context, cause: Cause, instead: Instead<'_>, now: Moment) -> bool {
    let Some(route) = ctx.route.clone() else { return false };
    let (Some(config), Some(target)) = (&route.config.fallback, &route.fallback) else {
        return false;
    };
    let expired = ctx.deadline.is_some_and(|deadline| now >= deadline);
    if ctx.diverted.is_some() || expired || !config.covers(cause) {
        return false;
    }
    if target.upstream.lack().is_some() {
        return false;
    }
    // Of several upstreams, one may be what the others fall back on.
    if route.upstream(ctx.drawn).is_some_and(|own| Arc::ptr_eq(own, target)) {
        return false;
    }
    let permit =
        match order::leave(target.upstream.breaker(), CircuitOf::Upstream, &ctx.dry_run, now) {
            Leave::Given(permit) => permit,
            Leave::Passed(_) => {
                // If that circuit were enforced, this is how the request would have ended.
                match instead {
                    Instead::Of(rejection) => attempt::dry_run::would_refuse(ctx, rejection.code()),
                    Instead::After(outcome) => {
                        ctx.dry_run.end();
                        attempt::dry_run::would_stop(ctx, outcome, now);
                    }
                }
                None
            }
            Leave::Refused(_) => return false,
        };
    // Told now: of another upstream's failure, the request may tell later.
    report::log_failure(ctx);
    ctx.attempt.failure = ctx.verdict.failure.take();
    // Ends the span of the attempt at the route's own upstream, before the target changes.
    report::spans::end_attempt(ctx, now);
    ctx.admission.route_permit = None;
    ctx.admission.upstream_permit = permit;
    ctx.diverted = Some(Diverted { target: target.clone(), cause });
    route.metrics.diverted(cause.as_str());
    true
}
