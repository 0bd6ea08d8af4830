//! The head of an upstream's answer: what it amounts to, and whether it is passed on.
//!
//! And its end, where RPC says how the call went. Attempts without an answer, and the decision on
//! a retry itself, are in [`crate::proxy::attempt`].

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Version};
use pingora_core::{Error, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::coding::Encoding;
use crate::policy::outcome::Outcome;
use crate::policy::retry::Pushback;
use crate::proxy::dialect::Protocol;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::signal::{REJECTED, RETRY};
use crate::proxy::rejection::Rejection;
use crate::proxy::response::grpc::{GRPC_STATUS, content_type, failure_in, grpc_message, is_grpc};
use crate::proxy::response::rpc_end::{Failure, RpcEnd};
use crate::proxy::{attempt, exchange, reply, report, response};
use crate::runtime::snapshot::Route;
use crate::time::{Clock, Moment};

const JSON: &[u8] = b"application/json";

/// The head of an attempt's answer, before anything of it is passed on.
///
/// # Errors
/// As [`response::well_formed::check`] and [`judge`].
pub fn on_head(
    session: &mut Session,
    ctx: &mut Context,
    head: &mut ResponseHeader,
    now: Moment,
) -> Result<()> {
    let Some(route) = ctx.route.clone() else { return Ok(()) };
    response::well_formed::check(session, &route, head)?;
    // The version is each hop's own (RFC 9110, section 2.5).
    head.set_version(Version::HTTP_11);
    let status = head.status.as_u16();
    let took = now.since(ctx.attempt.started);
    ctx.attempt.upstream_status = Some(status);
    ctx.attempt.upstream_duration = Some(took);
    if let Some(upstream) = ctx.upstream() {
        upstream.metrics.answered(took);
    }
    judge(session, ctx, &route, head, now)?;
    if ctx.body.call.is_some() {
        // What is remembered of a message is its JSON.
        let capture = route.capture.as_ref();
        ctx.body.response_tap = capture.and_then(|c| c.response(Some(JSON), None));
        return response::transcode::begin(session, ctx, head);
    }
    await_trailers(session, ctx, &route, head);
    ctx.body.rpc_end = RpcEnd::of(ctx.protocol, &head.headers);
    if ctx.protocol == Protocol::Http {
        if let Some(status) = route.config.status_map.get(status) {
            head.set_status(status)?;
        }
    } else if status >= 400 && !ctx.protocol.is_spoken_by(content_type(&head.headers)) {
        // Also where there is nothing to translate, and a refusal takes its place.
        if !exchange::sent::has_body(session, head) {
            attempt::conclude::answered(ctx, now);
        }
        response::translation::begin_translation(session, head, ctx, status)?;
    }
    if let Some(capture) = &route.capture {
        let content_type = head.headers.get(CONTENT_TYPE);
        let length = exchange::fields::content_length(&head.headers);
        let tap = capture.response(content_type.map(|v| v.as_bytes()), length);
        // Of an error that is translated, it has gone.
        let encoding = Encoding::of(&head.headers, CONTENT_ENCODING);
        ctx.body.response_tap = tap.and_then(|tap| tap.encoded(encoding));
    }
    Ok(())
}

/// The upstream has agreed to a WebSocket: the attempt has succeeded, and what passes from now on has
/// no other limit than its own on silence.
pub fn begin_tunnel(ctx: &mut Context, now: Moment) {
    attempt::conclude::answered(ctx, now);
    ctx.deadline = None;
    ctx.attempt.deadline = None;
    let websocket = ctx.route.as_ref().and_then(|route| route.config.websocket.as_ref());
    if let (Some(connection), Some(websocket)) = (&ctx.connection, websocket) {
        connection.guard.tunnel(*websocket.idle_timeout, now);
    }
}

/// Where a status of gRPC may be retried, and the client has nothing more to say, it gets the head
/// together with what follows it: a failure that has no message can be taken back then.
fn await_trailers(session: &mut Session, ctx: &Context, route: &Route, head: &ResponseHeader) {
    let Some(retry) = &route.retry else { return };
    if !retry.config.on.names_grpc() || !is_grpc(&head.headers) {
        return;
    }
    if let Some(orders) = ctx.connection.as_ref().and_then(|c| c.orders.as_ref())
        && session.as_downstream_mut().is_body_done()
    {
        orders.hold_head();
    }
}

/// The end of an answer that has trailers: in gRPC, what it amounts to.
///
/// # Errors
/// [`RETRY`] for another attempt.
pub fn on_trailers(
    session: &mut Session,
    ctx: &mut Context,
    trailers: &HeaderMap,
    now: Moment,
) -> Result<()> {
    if let Some(outcome) = failure_in(trailers)
        && let Some(route) = ctx.route.clone()
    {
        call_failed(ctx, outcome, || grpc_message(trailers), now);
        retry_call(session, ctx, &route, outcome, trailers, now)?;
        attempt::conclude::answered_last(ctx, outcome);
    }
    response::transcode::end(trailers, ctx)?;
    response::keeping::end_with(ctx, trailers);
    attempt::conclude::answered(ctx, now);
    response::body::on_response(session, &mut None, true, ctx);
    Ok(())
}

/// A piece of an answer's body: it may say that the call failed.
///
/// # Errors
/// [`RETRY`] for another attempt, where nothing of this one has gone to the client.
pub fn on_body(session: &mut Session, ctx: &mut Context, piece: Option<&Bytes>) -> Result<()> {
    let (Some(end), Some(piece)) = (&mut ctx.body.rpc_end, piece) else { return Ok(()) };
    let Some(failure) = end.pass(piece) else { return Ok(()) };
    let Some(route) = ctx.route.clone().filter(|_| !ctx.end.rpc_failed) else { return Ok(()) };
    let now = Clock::now();
    let Failure { outcome, message, trailers, late } = failure;
    call_failed(ctx, outcome, || message, now);
    if !late {
        retry_call(session, ctx, &route, outcome, &trailers, now)?;
    }
    attempt::conclude::answered_last(ctx, outcome);
    attempt::conclude::answered(ctx, now);
    Ok(())
}

/// The end of an answer that began well says that the call failed.
fn call_failed(
    ctx: &mut Context,
    outcome: Outcome,
    message: impl FnOnce() -> Option<String>,
    now: Moment,
) {
    ctx.attempt.answered = Some(outcome);
    attempt::conclude::conclude(ctx, outcome, now);
    report::recording::note_error(ctx, message);
    ctx.end.rpc_failed = true;
}

/// Another attempt, if the policy wants one and nothing of this one has gone to the client.
fn retry_call(
    session: &mut Session,
    ctx: &mut Context,
    route: &Route,
    outcome: Outcome,
    trailers: &HeaderMap,
    now: Moment,
) -> Result<()> {
    let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let asked = Pushback::of_answer(outcome, trailers, unix_now);
    if is_failure(ctx, route, outcome) && attempt::retry::retry(session, ctx, outcome, asked, now) {
        return Err(Error::new_up(RETRY));
    }
    Ok(())
}

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
    ctx.end.rpc_failed = matches!(outcome, Outcome::Grpc(_));
    let grpc_failed = ctx.end.rpc_failed;
    report::recording::note_error(ctx, || {
        grpc_failed.then(|| grpc_message(&head.headers)).flatten()
    });
    response::keeping::attempted(ctx, outcome);
    if !is_failure(ctx, route, outcome) {
        attempt::conclude::answered_last(ctx, outcome);
        return Ok(());
    }
    attempt::conclude::conclude(ctx, outcome, now);
    let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let asked = Pushback::of_answer(outcome, &head.headers, unix_now);
    if attempt::retry::retry(session, ctx, outcome, asked, now) {
        return Err(Error::new_up(RETRY));
    }
    attempt::conclude::conclude_request(ctx, outcome, now);
    attempt::conclude::answered_last(ctx, outcome);
    if !reply::stand_in::replaces(ctx, route, outcome) {
        return Ok(());
    }
    if attempt::divert::after(session, ctx, outcome, now) {
        return Err(Error::new_up(RETRY));
    }
    if reply::stand_in::answer(ctx, route).is_some() {
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
    if !is_grpc(&head.headers) {
        return response;
    }
    failure_in(&head.headers).unwrap_or(response)
}

/// Whether a body may follow an upstream's head. In gRPC none does where the head says how the call
/// ended.
pub fn has_body(session: &Session, head: &ResponseHeader) -> bool {
    let is_trailers_only = is_grpc(&head.headers) && head.headers.contains_key(&GRPC_STATUS);
    exchange::sent::has_body(session, head) && !is_trailers_only
}

/// Whether a policy calls an answer a failure; of any other nobody needs to hear before its last
/// byte.
fn is_failure(ctx: &Context, route: &Route, outcome: Outcome) -> bool {
    let breakers = attempt::breakers::breakers(ctx.diverted.as_ref(), route);
    let counted = breakers.into_iter().flatten().any(|b| b.config().failure_on.matches(outcome));
    let retried = route.retry.as_ref().is_some_and(|retry| retry.config.on.matches(outcome));
    counted || retried || reply::stand_in::replaces(ctx, route, outcome)
}
