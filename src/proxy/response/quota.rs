//! The rate limit headers of a response, and the quota that a replay gives back.
//!
//! [`Fields`](crate::policy::rate_limit::Fields) prepares the values. They are written before the
//! route's own edits, so a route can remove them.

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_proxy::Session;

use crate::policy::rate_limit;
use crate::policy::rate_limit::{Limiter, Requester, Standing, Verdict};
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

/// Gives back what a replayed request took at `counted` of the limits that do not count replays.
pub fn forgive(session: &Session, ctx: &mut Context, counted: Moment) {
    let Some(route) = &ctx.route else { return };
    let limiters = &route.policies.rate_limits;
    let headers = &session.req_header().headers;
    let requester = Requester::new(ctx.identity.as_deref(), ctx.client, headers);
    let requester = route.counted(requester);
    // A dry limit has not counted what a dry policy would have refused.
    let counted_it = |limiter: &Limiter| !(limiter.is_dry() && ctx.dry_run.is_over());
    let forgiving = limiters.iter().filter(|l| l.forgives_replays() && counted_it(l));
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

/// Adds the headers that the configuration asks for. Allocates nothing if it asks for none.
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
    // Appended: the upstream's own limits, under their own names, remain valid.
    if wanted.ietf
        && let Some(policy) = route.limit_fields.policy()
        && let Some(value) = route.limit_fields.standing(standing)
    {
        headers.append(POLICY, policy.clone());
        headers.append(STANDING, value);
    }
}

/// `X-RateLimit-*`, replacing an upstream's, because they can state only one limit. `Reset` is in
/// seconds from now.
fn write_plain(headers: &mut HeaderMap, verdict: &Verdict) {
    headers.insert(LIMIT, HeaderValue::from(verdict.limit));
    headers.insert(REMAINING, HeaderValue::from(verdict.remaining));
    headers.insert(RESET, HeaderValue::from(retry_after_seconds(verdict.reset_after)));
}
