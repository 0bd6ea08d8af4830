//! The head of an upstream's answer: what it amounts to, and whether it is passed on.
//!
//! Attempts without an answer, and the decision on a retry itself, are in [`super::attempt`].

use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{CONTENT_TYPE, HeaderName};
use pingora_core::{Error, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::attempt::{self, REJECTED, RETRY};
use super::context::Context;
use super::rejection::Rejection;
use super::{divert, fallback, idempotency};
use crate::policy::outcome::Outcome;
use crate::policy::retry::Pushback;
use crate::runtime::snapshot::Route;
use crate::time::Moment;

/// How the content types of gRPC and of its variants begin.
const GRPC: &[u8] = b"application/grpc";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// What a client makes of a status that is no number.
const GRPC_UNKNOWN: u8 = 2;

/// An attempt has been answered: tell whoever cannot wait for the end of the answer, and decide
/// what becomes of it.
///
/// # Errors
/// [`RETRY`] for another attempt, here or elsewhere; [`REJECTED`] where the answer of the route's
/// fallback takes its place.
pub fn judge(
    session: &mut Session,
    ctx: &mut Context,
    route: &Route,
    head: &ResponseHeader,
    now: Moment,
) -> Result<()> {
    let outcome = classify(head);
    ctx.attempt.answered = Some(outcome);
    idempotency::attempted(ctx, outcome);
    if !is_failure(ctx, route, outcome) {
        return Ok(());
    }
    attempt::conclude(ctx, outcome, now);
    let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let asked = Pushback::of_answer(outcome, &head.headers, unix_now);
    if attempt::retry(session, ctx, outcome, asked, now) {
        return Err(Error::new_up(RETRY));
    }
    attempt::conclude_request(ctx, outcome, now);
    if !fallback::replaces(ctx, route, outcome) {
        return Ok(());
    }
    if divert::after(session, ctx, outcome, now) {
        return Err(Error::new_up(RETRY));
    }
    if fallback::answer(route).is_some() {
        ctx.end.rejection = Some(Rejection::Attempt(outcome));
        return Err(Error::new_up(REJECTED));
    }
    Ok(())
}

/// The upstream answered with this head.
///
/// A gRPC status counts where it is in the head: that of an answer without a message
/// ("Trailers-Only" in the gRPC protocol over HTTP/2), which most failures are.
fn classify(head: &ResponseHeader) -> Outcome {
    let response = Outcome::Response(head.status.as_u16());
    let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if !content_type.starts_with(GRPC) {
        return response;
    }
    let Some(status) = head.headers.get(GRPC_STATUS) else { return response };
    match status.to_str().ok().and_then(|text| text.parse().ok()) {
        Some(0) => response,
        Some(code) => Outcome::Grpc(code),
        None => Outcome::Grpc(GRPC_UNKNOWN),
    }
}

/// Whether a policy calls an answer a failure; of any other nobody needs to hear before its last
/// byte.
fn is_failure(ctx: &Context, route: &Route, outcome: Outcome) -> bool {
    let breakers = divert::breakers(ctx.diverted.as_ref(), route);
    let counted = breakers.into_iter().flatten().any(|b| b.config().failure_on.matches(outcome));
    let retried = route.retry.as_ref().is_some_and(|retry| retry.config.on.matches(outcome));
    counted || retried || fallback::replaces(ctx, route, outcome)
}
