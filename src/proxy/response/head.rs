//! The head of an upstream's response: how it is classified, and whether it is passed on.
//!
//! Also the response's end, where RPC reports how the call went. Attempts without a response, and
//! the decision on a retry, are in [`crate::proxy::attempt`].

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Version};
use pingora_core::{Error, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::coding::Encoding;
use crate::policy::failure::Cause;
use crate::policy::outcome::Outcome;
use crate::policy::retry::Pushback;
use crate::proxy::dialect::Protocol;
use crate::proxy::dialect::names::GRPC_STATUS;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::signal::{REJECTED, RETRY};
use crate::proxy::rejection::Rejection;
use crate::proxy::response::grpc::{content_type, failure_in, grpc_message, is_grpc};
use crate::proxy::response::rpc_end::{Failure, RpcEnd};
use crate::proxy::{attempt, downstream, exchange, reply, report, response};
use crate::record::Recorder;
use crate::runtime::snapshot::Route;
use crate::summary::words::Words;
use crate::time::{Clock, Moment};

const JSON: &[u8] = b"application/json";

/// Handles the head of an attempt's response, before any of it is passed on.
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
    // Each hop sets its own version (RFC 9110, section 2.5).
    head.set_version(Version::HTTP_11);
    let status = head.status.as_u16();
    let took = now.since(ctx.attempt.started);
    ctx.attempt.head_at = Some(now);
    if ctx.attempt.first_byte_by.take().is_some() {
        ctx.guard(ctx.next_deadline());
    }
    exchange::times::answer(ctx, now);
    let waited = now.since(ctx.attempt.connected.unwrap_or(ctx.attempt.started));
    let waited = exchange::times::apart(ctx, waited, now);
    ctx.times.first_byte += waited;
    ctx.attempt.upstream_status = Some(status);
    ctx.attempt.upstream_duration = Some(took);
    if let Some(upstream) = ctx.upstream() {
        upstream.metrics.answered(took);
    }
    judge(session, ctx, &route, head, now)?;
    if ctx.body.call.is_some() {
        // The record gets a message as its JSON.
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
        // Also if there is no body to translate and a refusal replaces the response.
        if !exchange::sent::has_body(session, head) {
            attempt::conclude::answered(ctx, now);
        }
        response::translation::begin_translation(session, head, ctx, status)?;
    }
    if let Some(capture) = &route.capture {
        let content_type = head.headers.get(CONTENT_TYPE);
        let length = exchange::fields::content_length(&head.headers);
        let tap = capture.response(content_type.map(|v| v.as_bytes()), length);
        // `begin_translation` has removed the encoding of an error that is translated.
        let encoding = Encoding::of(&head.headers, CONTENT_ENCODING);
        ctx.body.response_tap = tap.and_then(|tap| tap.encoded(encoding));
    }
    Ok(())
}

/// Handles the head of a response that goes to the client. A `durable` or `sync` row is committed
/// first.
///
/// # Errors
/// [`REJECTED`] if the row could not be committed, and the route withholds the response then; those
/// of [`response::headers::prepare_response`].
pub async fn pass_on(
    recorder: Option<&Recorder>,
    session: &mut Session,
    ctx: &mut Context,
    head: &mut ResponseHeader,
) -> Result<()> {
    if !exchange::sent::has_body(session, head) {
        attempt::conclude::answered(ctx, Clock::now());
    }
    if ctx.keyed.is_some() {
        let has_body = has_body(session, head);
        // Boxed, as below: most responses need not carry this future's state.
        Box::pin(response::keeping::begin(ctx, head, has_body)).await;
    }
    response::headers::prepare_response(session, head, ctx)?;
    let status = head.status.as_u16();
    if report::recording::commits(recorder, ctx)
        && let Err(rejection) =
            Box::pin(report::recording::commit(recorder, session, ctx, status)).await
    {
        ctx.end.refuse(rejection);
        return Err(Error::new_in(REJECTED));
    }
    if !ctx.holds_head() {
        ctx.sent = Some(status);
    }
    downstream::date::keep(ctx, head);
    if status == 101 {
        begin_tunnel(ctx, Clock::now());
    }
    Ok(())
}

/// The upstream has agreed to a WebSocket. The attempt has succeeded, and from now on only the
/// tunnel's idle timeout applies.
fn begin_tunnel(ctx: &mut Context, now: Moment) {
    attempt::conclude::answered(ctx, now);
    ctx.deadline = None;
    ctx.attempt.deadline = None;
    let websocket = ctx.route.as_ref().and_then(|route| route.config.websocket.as_ref());
    if let (Some(connection), Some(websocket)) = (&ctx.connection, websocket) {
        connection.guard.tunnel(*websocket.idle_timeout, now);
    }
}

/// Holds the head back until more of the response arrives, if a gRPC status can be retried and the
/// client's request is complete. A call that fails without a message can then still be retried.
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

/// Handles the end of a response that has trailers. In gRPC they say how the call ended.
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
        attempt::conclude::answered_last(ctx, outcome, || grpc_message(trailers));
    }
    response::transcode::end(trailers, ctx)?;
    response::keeping::end_with(ctx, trailers);
    attempt::conclude::answered(ctx, now);
    response::body::on_response(session, &mut None, true, ctx);
    Ok(())
}

/// Handles a piece of a response's body, which may report that the call failed.
///
/// # Errors
/// [`RETRY`] for another attempt, if none of this response has gone to the client.
pub fn on_body(session: &mut Session, ctx: &mut Context, piece: Option<&Bytes>) -> Result<()> {
    let (Some(end), Some(piece)) = (&mut ctx.body.rpc_end, piece) else { return Ok(()) };
    let Some(failure) = end.pass(piece) else { return Ok(()) };
    let Some(route) = ctx.route.clone().filter(|_| !ctx.end.has_rpc_failed()) else {
        return Ok(());
    };
    let now = Clock::now();
    let Failure { outcome, message, trailers, late } = failure;
    call_failed(ctx, outcome, || message.clone(), now);
    if !late {
        retry_call(session, ctx, &route, outcome, &trailers, now)?;
    }
    attempt::conclude::answered_last(ctx, outcome, || message);
    attempt::conclude::answered(ctx, now);
    Ok(())
}

/// A response that began as a success reports at its end that the call failed.
fn call_failed(
    ctx: &mut Context,
    outcome: Outcome,
    message: impl FnOnce() -> Option<String>,
    now: Moment,
) {
    ctx.attempt.answered = Some(outcome);
    attempt::conclude::conclude(ctx, outcome, now);
    report::recording::note_error(ctx, message);
    ctx.end.judge_rpc(true);
}

/// Asks for another attempt, if the policy allows one and none of this response has gone to the
/// client.
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

/// Classifies an attempt by its response's head, and decides what becomes of it. A failure is
/// reported to the breakers at once, not at the end of the response.
///
/// # Errors
/// [`RETRY`] for another attempt, at this upstream or the fallback; [`REJECTED`] if the route's
/// fallback response replaces this one.
pub fn judge(
    session: &mut Session,
    ctx: &mut Context,
    route: &Route,
    head: &ResponseHeader,
    now: Moment,
) -> Result<()> {
    let outcome = classify(head);
    ctx.attempt.answered = Some(outcome);
    let grpc_failed = matches!(outcome, Outcome::Grpc(_));
    ctx.end.judge_rpc(grpc_failed);
    let message = || grpc_failed.then(|| grpc_message(&head.headers)).flatten();
    report::recording::note_error(ctx, message);
    response::keeping::attempted(ctx, outcome);
    if !is_failure(ctx, route, outcome) {
        attempt::conclude::answered_last(ctx, outcome, message);
        return Ok(());
    }
    attempt::conclude::conclude(ctx, outcome, now);
    let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let asked = Pushback::of_answer(outcome, &head.headers, unix_now);
    if attempt::retry::retry(session, ctx, outcome, asked, now) {
        let cause = Cause::of_answer(outcome);
        ctx.attempt.failure = cause.and_then(|c| attempt::conclude::failure(ctx, c, Words::None));
        return Err(Error::new_up(RETRY));
    }
    attempt::conclude::conclude_request(ctx, outcome, now);
    attempt::conclude::answered_last(ctx, outcome, message);
    if !reply::stand_in::replaces(ctx, route, outcome) {
        return Ok(());
    }
    if attempt::divert::after(session, ctx, outcome, now) {
        return Err(Error::new_up(RETRY));
    }
    if let Some(cause) = Cause::of_answer(outcome)
        && reply::stand_in::answer(ctx, route).is_some()
    {
        ctx.end.refuse(Rejection::Upstream(cause));
        return Err(Error::new_up(REJECTED));
    }
    Ok(())
}

/// The outcome according to the head.
///
/// A gRPC status in the head counts: it is there in a response without a message ("Trailers-Only"
/// in the gRPC protocol over HTTP/2), as most failures are.
fn classify(head: &ResponseHeader) -> Outcome {
    let response = Outcome::Response(head.status.as_u16());
    if !is_grpc(&head.headers) {
        return response;
    }
    failure_in(&head.headers).unwrap_or(response)
}

/// Whether a body may follow an upstream's head. In gRPC none does if the head already says how the
/// call ended.
fn has_body(session: &Session, head: &ResponseHeader) -> bool {
    let is_trailers_only = is_grpc(&head.headers) && head.headers.contains_key(&GRPC_STATUS);
    exchange::sent::has_body(session, head) && !is_trailers_only
}

/// Whether any policy of the route counts the outcome as a failure. Other outcomes are reported
/// only at the end of the response.
fn is_failure(ctx: &Context, route: &Route, outcome: Outcome) -> bool {
    let breakers = attempt::breakers::breakers(ctx.diverted.as_ref(), route, ctx.drawn);
    let counted = breakers.into_iter().flatten().any(|b| b.config().failure_on.matches(outcome));
    let retried = route.retry.as_ref().is_some_and(|retry| retry.config.on.matches(outcome));
    counted || retried || reply::stand_in::replaces(ctx, route, outcome)
}
