//! The head of an upstream's answer: what it amounts to, and whether it is passed on.
//!
//! And its end, where RPC says how the call went. Attempts without an answer, and the decision on
//! a retry itself, are in [`super::attempt`].

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Version};
use percent_encoding::percent_decode;
use pingora_core::{Error, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::attempt::{self, REJECTED, RETRY};
use super::context::Context;
use super::dialect::Protocol;
use super::rejection::Rejection;
use super::rpc_end::{Failure, RpcEnd};
use super::{
    answer, body, dialect, divert, fallback, idempotency, intake, recording, transcoded,
    well_formed,
};
use crate::coding::Encoding;
use crate::policy::idempotency::Answer;
use crate::policy::outcome::Outcome;
use crate::policy::retry::Pushback;
use crate::runtime::snapshot::Route;
use crate::time::{Clock, Moment};
use crate::transcode::wire;

/// How the content types of gRPC and of its variants begin.
const GRPC: &[u8] = b"application/grpc";
const JSON: &[u8] = b"application/json";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// What a client makes of a status that is no number.
const GRPC_UNKNOWN: u8 = 2;

/// The head of an attempt's answer, before anything of it is passed on.
///
/// # Errors
/// As [`well_formed::check`] and [`judge`].
pub fn on_head(
    session: &mut Session,
    ctx: &mut Context,
    head: &mut ResponseHeader,
    now: Moment,
) -> Result<()> {
    let Some(route) = ctx.route.clone() else { return Ok(()) };
    well_formed::check(session, &route, head)?;
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
        return transcoded::begin(session, ctx, head);
    }
    await_trailers(session, ctx, &route, head);
    ctx.body.rpc_end = RpcEnd::of(ctx.protocol, &head.headers);
    if ctx.protocol == Protocol::Http {
        if let Some(status) = route.config.status_map.get(status) {
            head.set_status(status)?;
        }
    } else if status >= 400 && !ctx.protocol.is_spoken_by(content_type(&head.headers)) {
        // Also where there is nothing to translate, and a refusal takes its place.
        if !attempt::has_body(session, head) {
            attempt::answered(ctx, now);
        }
        answer::begin_translation(session, head, ctx, status)?;
    }
    if let Some(capture) = &route.capture {
        let content_type = head.headers.get(CONTENT_TYPE);
        let length = intake::content_length(&head.headers);
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
    attempt::answered(ctx, now);
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
        attempt::answered_last(ctx, outcome);
    }
    transcoded::end(trailers, ctx)?;
    idempotency::end_with(ctx, trailers);
    attempt::answered(ctx, now);
    body::on_response(session, &mut None, true, ctx);
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
    attempt::answered_last(ctx, outcome);
    attempt::answered(ctx, now);
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
    attempt::conclude(ctx, outcome, now);
    recording::note_error(ctx, message);
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
    if is_failure(ctx, route, outcome) && attempt::retry(session, ctx, outcome, asked, now) {
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
    recording::note_error(ctx, || grpc_failed.then(|| grpc_message(&head.headers)).flatten());
    idempotency::attempted(ctx, outcome);
    if !is_failure(ctx, route, outcome) {
        attempt::answered_last(ctx, outcome);
        return Ok(());
    }
    attempt::conclude(ctx, outcome, now);
    let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let asked = Pushback::of_answer(outcome, &head.headers, unix_now);
    if attempt::retry(session, ctx, outcome, asked, now) {
        return Err(Error::new_up(RETRY));
    }
    attempt::conclude_request(ctx, outcome, now);
    attempt::answered_last(ctx, outcome);
    if !fallback::replaces(ctx, route, outcome) {
        return Ok(());
    }
    if divert::after(session, ctx, outcome, now) {
        return Err(Error::new_up(RETRY));
    }
    if fallback::answer(ctx, route).is_some() {
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
    attempt::has_body(session, head) && !is_trailers_only
}

/// Whether an answer that was kept says that its call failed, whatever its status of HTTP.
pub fn has_failed(protocol: Protocol, answer: &Answer) -> bool {
    let mut fields = answer.trailers.as_deref().into_iter().chain([&answer.headers]);
    if let Some(status) = fields.find_map(|fields| fields.get(&GRPC_STATUS)) {
        return is_grpc(&answer.headers) && grpc_failure(status.as_bytes()).is_some();
    }
    let body = answer.body.as_deref().unwrap_or_default();
    let is_zero = |status: Option<&[u8]>| status.is_none_or(|status| status == b"0");
    match protocol {
        Protocol::GrpcWeb => !is_zero(dialect::web_status(body)),
        Protocol::GrpcWebText => {
            wire::of_base64(body).is_ok_and(|body| !is_zero(dialect::web_status(&body)))
        }
        Protocol::Http | Protocol::Connect | Protocol::ConnectStream | Protocol::Grpc => false,
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    content_type(headers).starts_with(GRPC)
}

pub fn content_type(headers: &HeaderMap) -> &[u8] {
    headers.get(CONTENT_TYPE).map_or(b"", |value| value.as_bytes())
}

fn failure_in(fields: &HeaderMap) -> Option<Outcome> {
    grpc_failure(fields.get(&GRPC_STATUS)?.as_bytes())
}

/// What a `grpc-status` says, unless it is 0.
pub fn grpc_failure(status: &[u8]) -> Option<Outcome> {
    match str::from_utf8(status).ok().and_then(|text| text.parse().ok()) {
        Some(0) => None,
        Some(code) => Some(Outcome::Grpc(code)),
        None => Some(Outcome::Grpc(GRPC_UNKNOWN)),
    }
}

/// What gRPC says of an error, for a person.
pub fn grpc_message(fields: &HeaderMap) -> Option<String> {
    decoded(fields.get(&GRPC_MESSAGE)?.as_bytes())
}

/// What an answer that was kept says of its error, in the protocols of gRPC.
pub fn kept_message(protocol: Protocol, answer: &Answer) -> Option<String> {
    let mut fields = answer.trailers.as_deref().into_iter().chain([&answer.headers]);
    let body = answer.body.as_deref().unwrap_or_default();
    match protocol {
        Protocol::Grpc | Protocol::Http => fields.find_map(grpc_message),
        Protocol::GrpcWeb => decoded(dialect::web_message(body)?),
        Protocol::GrpcWebText => decoded(dialect::web_message(&wire::of_base64(body).ok()?)?),
        Protocol::Connect | Protocol::ConnectStream => None,
    }
}

fn decoded(message: &[u8]) -> Option<String> {
    let text = percent_decode(message).decode_utf8_lossy();
    (!text.is_empty()).then(|| text.into_owned())
}

/// Whether a policy calls an answer a failure; of any other nobody needs to hear before its last
/// byte.
fn is_failure(ctx: &Context, route: &Route, outcome: Outcome) -> bool {
    let breakers = divert::breakers(ctx.diverted.as_ref(), route);
    let counted = breakers.into_iter().flatten().any(|b| b.config().failure_on.matches(outcome));
    let retried = route.retry.as_ref().is_some_and(|retry| retry.config.on.matches(outcome));
    counted || retried || fallback::replaces(ctx, route, outcome)
}
