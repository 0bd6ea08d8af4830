//! What an answer says about its route's limits, and what a replay gets back of them.
//!
//! The values are made in [`Fields`](crate::policy::rate_limit::Fields); here they meet the answer. They are written
//! before the route's own edits, which may therefore take them out again.

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_proxy::Session;

use crate::policy::rate_limit;
use crate::policy::rate_limit::{Requester, Standing, Verdict};
use crate::proxy::exchange::context::Context;
use crate::time::Moment;
use crate::units::retry_after_seconds;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const BURST: HeaderName = HeaderName::from_static("x-ratelimit-burst-capacity");
const RATE: HeaderName = HeaderName::from_static("x-ratelimit-replenish-rate");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STANDING: HeaderName = HeaderName::from_static("ratelimit");

/// The request is answered from what was kept: give back what it took at `counted` of the limits that
/// want it so.
pub fn forgive(session: &Session, ctx: &mut Context, counted: Moment) {
    let Some(route) = &ctx.route else { return };
    let limiters = &route.policies.rate_limits;
    let headers = &session.req_header().headers;
    let requester = Requester::new(ctx.identity.as_deref(), ctx.client, headers);
    let forgiving = limiters.iter().filter(|limiter| limiter.forgives_replays());
    rate_limit::refund_all(forgiving, &requester, counted);
    let Some(Standing { limit, verdict, first }) = &mut ctx.standing else { return };
    let forgives = |place: usize| limiters.get(place).is_some_and(|l| l.forgives_replays());
    if forgives(*limit) {
        verdict.remaining = verdict.limit.min(verdict.remaining + 1);
    }
    if forgives(0)
        && let Some(first) = first
    {
        *first += 1;
    }
}

/// Add what the configuration wants of it. Nothing is allocated where that is nothing.
pub fn write(headers: &mut HeaderMap, ctx: &Context) {
    let (Some(standing), Some(route)) = (&ctx.standing, &ctx.route) else { return };
    let wanted = &ctx.snapshot.config.rate_limit_headers;
    if !wanted.apply_to(&standing.verdict) {
        return;
    }
    if wanted.x_ratelimit {
        write_plain(headers, &standing.verdict);
    }
    if wanted.token_bucket
        && let Some(bucket) = route.limit_fields.bucket()
        && let Some(remaining) = standing.first
    {
        headers.insert(REMAINING, HeaderValue::from(remaining));
        headers.insert(BURST, bucket.burst.clone());
        headers.insert(RATE, bucket.rate.clone());
    }
    // Lists: what the upstream says of its own limits, under its own names, stays true.
    if wanted.ietf
        && let Some(policy) = route.limit_fields.policy()
        && let Some(value) = route.limit_fields.standing(standing)
    {
        headers.append(POLICY, policy.clone());
        headers.append(STANDING, value);
    }
}

/// `X-RateLimit-*`, in place of an upstream's: they hold one limit. `Reset` in seconds from now.
fn write_plain(headers: &mut HeaderMap, verdict: &Verdict) {
    headers.insert(LIMIT, HeaderValue::from(verdict.limit));
    headers.insert(REMAINING, HeaderValue::from(verdict.remaining));
    headers.insert(RESET, HeaderValue::from(retry_after_seconds(verdict.reset_after)));
}
