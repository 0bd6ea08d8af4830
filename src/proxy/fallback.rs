//! Which refusals of a route have a fallback, and that put into bytes.
//!
//! What it says is the policy's; it takes the place of a [`super::dialect`].

use std::time::SystemTime;

use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::context::Context;
use super::dialect::Rendered;
use super::rejection::Rejection;
use crate::policy::fallback::{Cause, Config, Values};
use crate::policy::outcome::{Conditions, Outcome};
use crate::runtime::snapshot::Route;

/// The fallback that stands in for `rejection`, if the route has one for its cause.
pub fn of<'a>(ctx: &'a Context, rejection: &Rejection) -> Option<(&'a Config, Cause)> {
    let route = ctx.route.as_ref()?;
    let config = route.config.fallback.as_ref().filter(|_| ctx.protocol.reads_json())?;
    if let Rejection::Attempt(outcome @ (Outcome::Response(_) | Outcome::Grpc(_))) = rejection
        && !replaces(ctx, route, *outcome)
    {
        return None;
    }
    let cause = rejection.fallback_cause().filter(|cause| config.covers(*cause))?;
    Some((config, cause))
}

/// Whether an answer of the upstream, after the last attempt, gives way to the route's fallback:
/// if it would be retried, had there been another attempt. Who waits for messages of RPC cannot read
/// a fallback.
pub fn replaces(ctx: &Context, route: &Route, outcome: Outcome) -> bool {
    let fallback = route.config.fallback.as_ref().filter(|_| ctx.protocol.reads_json());
    let Some(config) = fallback else { return false };
    let failures = route.retry.as_ref().map_or(Conditions::RETRYABLE, |retry| retry.config.on);
    config.covers(Cause::AttemptsSpent) && failures.matches(outcome)
}

/// The answer.
pub fn render(config: &Config, ctx: &Context, rejection: &Rejection) -> Rendered {
    let route = ctx.route.as_ref();
    let timestamp = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let values = Values {
        route: route.map_or("", |route| &route.name),
        upstream: route.and_then(|r| r.upstream()).map_or("", |u| &u.upstream.name),
        timestamp: &timestamp,
        request_id: ctx.request_id(),
        code: rejection.code(),
    };
    let content_type = HeaderValue::from_static("application/json");
    let body = config.json.fill(&values).into();
    Rendered::new(config.status, vec![(CONTENT_TYPE, content_type)], body)
}
