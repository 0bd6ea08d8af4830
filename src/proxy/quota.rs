//! What an answer says about its route's limits.
//!
//! The values are made in [`Fields`](crate::policy::rate_limit::Fields); here they meet the answer. They are written
//! before the route's own edits, which may therefore take them out again.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::Context;
use crate::policy::rate_limit::Verdict;
use crate::units::retry_after_seconds;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STANDING: HeaderName = HeaderName::from_static("ratelimit");

/// Add what the configuration wants of it. Nothing is allocated where that is nothing.
pub(super) fn write(headers: &mut HeaderMap, ctx: &Context) {
    let (Some(standing), Some(route)) = (&ctx.standing, &ctx.route) else { return };
    let wanted = &ctx.snapshot.config.rate_limit_headers;
    if !wanted.apply_to(&standing.verdict) {
        return;
    }
    if wanted.x_ratelimit {
        write_plain(headers, &standing.verdict);
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
