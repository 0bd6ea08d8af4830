//! Which refusals of a route get its fallback response, and how that is rendered.
//!
//! The policy defines its content; it takes the place of a [dialect](crate::proxy::dialect). The
//! call to another upstream that comes first, where the route has one, is in
//! [`crate::proxy::attempt::divert`].

use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use http::header::CONTENT_TYPE;

use crate::policy::failure;
use crate::policy::fallback::{Answer, Cause, Values};
use crate::policy::outcome::{Conditions, Outcome};
use crate::proxy::dialect::Rendered;
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::runtime::snapshot::Route;

/// The response that stands in for `rejection`, if the route has one for its cause. If the request
/// was diverted, the cause is the one it was diverted for.
pub fn of<'a>(ctx: &'a Context, rejection: &Rejection) -> Option<(&'a Answer, Cause)> {
    let route = ctx.route.as_ref()?;
    let answer = answer(ctx, route)?;
    if let Rejection::Upstream(failed @ (failure::Cause::Answered(_) | failure::Cause::Grpc(_))) =
        rejection
        && failed.outcome().is_some_and(|outcome| !replaces(ctx, route, outcome))
    {
        return None;
    }
    let cause = rejection.fallback_cause()?;
    let cause = ctx.diverted.as_ref().map_or(cause, |diverted| diverted.cause);
    let covers = route.config.fallback.as_ref().is_some_and(|config| config.covers(cause));
    covers.then_some((answer, cause))
}

/// The route's own fallback response. A client that expects RPC messages cannot read it, unless the
/// route makes messages from JSON.
pub fn answer<'a>(ctx: &Context, route: &'a Route) -> Option<&'a Answer> {
    let config = route.config.fallback.as_ref()?;
    let is_read = ctx.protocol.reads_json() || route.makes_messages();
    config.answer.as_ref().filter(|_| is_read)
}

/// Whether the route's fallback replaces an upstream's response to the last attempt. It does if the
/// response would have been retried, had there been another attempt.
pub fn replaces(ctx: &Context, route: &Route, outcome: Outcome) -> bool {
    let Some(config) = &route.config.fallback else { return false };
    if config.upstream.is_none() && answer(ctx, route).is_none() {
        return false;
    }
    let failures = route.retry.as_ref().map_or(Conditions::RETRYABLE, |retry| retry.config.on);
    let covers = ctx.diverted.is_some() || config.covers(Cause::AttemptsSpent);
    covers && failures.matches(outcome)
}

/// Fills in the route's fallback response.
pub fn render(answer: &Answer, ctx: &Context, rejection: &Rejection) -> Rendered {
    let route = ctx.route.as_ref();
    let now = SystemTime::now();
    let timestamp = humantime::format_rfc3339_millis(now).to_string();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let values = Values {
        route: route.map_or("", |route| &route.name),
        upstream: route.and_then(|r| r.upstream(ctx.drawn)).map_or("", |u| &u.upstream.name),
        timestamp: &timestamp,
        unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        request_id: ctx.request_id(),
        code: rejection.code(),
    };
    let content_type = HeaderValue::from_static("application/json");
    let body = answer.json.fill(&values).into();
    Rendered::new(answer.status, vec![(CONTENT_TYPE, content_type)], body)
}
