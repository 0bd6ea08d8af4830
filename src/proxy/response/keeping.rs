//! The response to a request with an idempotency key, stored for later requests with that key.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use pingora_http::ResponseHeader;

use crate::policy::failure::Cause;
use crate::policy::idempotency::Answer;
use crate::policy::outcome::Outcome;
use crate::proxy::dialect::Rendered;
use crate::proxy::downstream::orders::Orders;
use crate::proxy::exchange;
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::runtime::snapshot::Route;
use crate::time::Clock;

/// Whether the request may be sent twice because it holds its key.
pub fn is_held(ctx: &Context) -> bool {
    ctx.keyed.as_ref().is_some_and(|keyed| keyed.lease.is_some())
}

/// The request is about to be written to an upstream.
pub fn sending(ctx: &mut Context) {
    if let Some(lease) = ctx.keyed.as_mut().and_then(|keyed| keyed.lease.as_mut()) {
        lease.traces.sending();
    }
}

/// Notes how an attempt ended.
pub fn attempted(ctx: &mut Context, outcome: Outcome) {
    let Some(keyed) = &mut ctx.keyed else { return };
    let idempotency = ctx.route.as_ref().and_then(|route| route.idempotency.as_ref());
    if let (Some(lease), Some(idempotency)) = (&mut keyed.lease, idempotency) {
        lease.traces.attempted(outcome, &idempotency.config);
    }
}

/// The response is about to begin. It is collected from here on; or, if the upstream says that it
/// has not processed the request, the key is released.
pub async fn begin(ctx: &mut Context, head: &ResponseHeader, has_body: bool) {
    let Some(keyed) = ctx.keyed.as_mut() else { return };
    let Some(lease) = keyed.lease.take() else { return };
    let mut answer = Answer::begin(head.status, &head.headers);
    if !lease.traces.exist() {
        lease.release(grace(ctx)).await;
    } else if has_body {
        keyed.length = exchange::fields::content_length(&head.headers);
        let largest = largest(ctx.route.as_deref());
        keyed.outgrown = keyed.length.is_some_and(|length| length > largest);
        keyed.answer = Some((answer, Vec::new()));
        keyed.trailers = None;
        keyed.lease = Some(lease);
        return;
    } else {
        answer.body = Some(Bytes::new());
        lease.keep(answer, grace(ctx)).await.ok();
    }
    ctx.guard(ctx.next_deadline());
}

/// Collects a chunk of the response, as the client gets it. The last chunk waits for the store.
pub fn collect(ctx: &mut Context, chunk: Option<&Bytes>, end: bool) {
    let Some(keyed) = ctx.keyed.as_mut() else { return };
    let Some((_, collected)) = &mut keyed.answer else { return };
    let largest = largest(ctx.route.as_deref());
    if let Some(chunk) = chunk.filter(|_| !keyed.outgrown) {
        keyed.outgrown = (collected.len() + chunk.len()) as u64 > largest;
        collected.extend_from_slice(chunk);
    }
    if keyed.outgrown {
        *collected = Vec::new();
    }
    let orders = ctx.connection.as_ref().and_then(|connection| connection.orders.as_ref());
    // An HTTP/1.1 client has the whole response with the last byte of its length, and gets no
    // trailers, even if an HTTP/2 upstream sends them.
    let end = end || (orders.is_none() && keyed.length == Some(collected.len() as u64));
    if end
        && let Some((mut answer, collected)) = keyed.answer.take()
        && let Some(lease) = keyed.lease.take()
    {
        answer.body = (!keyed.outgrown).then(|| collected.into());
        if let Some(trailers) = orders.and_then(Orders::end).or(keyed.trailers.as_ref()) {
            answer.end_with(trailers);
        }
        let kept = lease.keep(answer, grace(ctx));
        if let Some(connection) = &ctx.connection {
            connection.guard.detachment.hold(kept);
        }
    }
}

/// Notes the trailers, which arrive before the call for the end of the body.
pub fn end_with(ctx: &mut Context, trailers: &HeaderMap) {
    if let Some(keyed) = &mut ctx.keyed {
        keyed.trailers = Some(trailers.clone());
    }
}

/// The exchange is over. Only now is it certain that an HTTP/2 response which ended with its head
/// has no body.
pub fn ended(ctx: &mut Context, well: bool) {
    let Some(keyed) = ctx.keyed.as_mut() else { return };
    if well
        && let Some((mut answer, collected)) = keyed.answer.take()
        && let Some(lease) = keyed.lease.take()
        && collected.is_empty()
        && !keyed.outgrown
    {
        answer.body = Some(Bytes::new());
        // The gateway does not wait for the store: the client already has its response.
        drop(lease.keep(answer, grace(ctx)));
    }
}

fn largest(route: Option<&Route>) -> u64 {
    let idempotency = route.and_then(|route| route.idempotency.as_ref());
    idempotency.map_or(0, |idempotency| idempotency.config.max_response.0)
}

/// How long the store may take. This time does not count against the upstream or the client, so the
/// request's deadline is moved to allow for it.
fn grace(ctx: &Context) -> Duration {
    let within = *ctx.snapshot.config.record.commit_timeout;
    let until = Clock::now() + within;
    ctx.guard(ctx.next_deadline().map(|deadline| deadline.max(until)));
    within
}

/// Settles the key of a request that the gateway itself responds to. If nothing was sent to an
/// upstream, the key is released. If the upstream did respond, this response is stored. Otherwise
/// the outcome is unknown, and the key stays undecided.
pub async fn settle(ctx: &mut Context, rejection: &Rejection, rendered: &Rendered) {
    let Some(lease) = ctx.keyed.as_mut().and_then(|keyed| keyed.lease.take()) else { return };
    let within = grace(ctx);
    if !lease.traces.exist() {
        lease.release(within).await;
    } else if let Rejection::Upstream(
        Cause::Answered(_) | Cause::Grpc(_) | Cause::AnswerUnreadable,
    ) = rejection
    {
        lease.keep(rendered.to_answer(), within).await.ok();
    }
}
