//! The gateway's own answers, put on the wire so that the connection stays in order.

use bytes::Bytes;
use http::header::{
    ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use pingora_core::{Error, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use std::time::Duration;

use super::attempt::REJECTED;
use super::context::Context;
use super::dialect::Rendered;
use super::rejection::{Rejection, RpcCode};
use super::{cors, dialect, fallback, headers};
use crate::config::route::Dialect;
use crate::policy::outcome::Outcome;
use crate::policy::{self, idempotency};
use crate::runtime::status::Answer;
use crate::time::Clock;
use crate::units::retry_after_seconds;

/// Says that an answer is not the first of its kind.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How long a client may take to fetch an answer of the gateway's own.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// A refused request's body is read and thrown away up to this size, so that the
/// connection can be used again; beyond it, closing is cheaper.
const DRAIN_LIMIT: u64 = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// `rejection` in the dialect of the route, or the route's fallback for it.
pub fn render(ctx: &Context, rejection: &Rejection) -> Rendered {
    match fallback::of(ctx, rejection) {
        Some((answer, _)) => fallback::render(answer, ctx, rejection),
        None => dialect::render(dialect_of(ctx), rejection, ctx.request_id()),
    }
}

/// Write `rejection`, as it was rendered.
pub async fn refuse(
    session: &mut Session,
    ctx: &Context,
    rejection: &Rejection,
    rendered: Rendered,
) -> Result<()> {
    let mut head = head(rendered.status, Some(rendered.content_type), rendered.body.len())?;
    // On an answer that is no error it would mean nothing.
    if let Some(after) = rejection.retry_after().filter(|_| rendered.status >= 400) {
        head.insert_header(RETRY_AFTER, retry_after_seconds(after).to_string())?;
    }
    match rejection {
        Rejection::MethodNotAllowed(allow) => head.insert_header(ALLOW, allow.clone())?,
        Rejection::Policy(policy::Rejection::Credentials(refusal)) => {
            let guard = ctx.route.as_ref().and_then(|route| route.guard.as_ref());
            if let Some(challenge) = guard.and_then(|guard| guard.challenge(refusal)) {
                head.insert_header(WWW_AUTHENTICATE, challenge.clone())?;
            }
        }
        _ => {}
    }
    keep_or_close(session, rejection.closes_connection());
    send(session, ctx, head, rendered.body).await
}

/// The status `rejection` will be answered with.
pub fn status(ctx: &Context, rejection: &Rejection) -> u16 {
    if let Some((answer, _)) = fallback::of(ctx, rejection) {
        return answer.status;
    }
    match dialect_of(ctx) {
        Dialect::Problem => rejection.status().as_u16(),
        Dialect::Connect => rejection.rpc_code().http_status(),
    }
}

fn dialect_of(ctx: &Context) -> Dialect {
    ctx.route.as_ref().map_or(Dialect::Problem, |route| route.config.errors)
}

/// An upstream's plain HTTP error is about to become a Connect one: fix its head, and have
/// its body collected. An error without a body becomes a refusal, because a Connect client
/// must find a code in it.
pub fn begin_translation(
    response: &mut ResponseHeader,
    ctx: &mut Context,
    status: u16,
) -> Result<()> {
    if response.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0") {
        ctx.end.rejection = Some(Rejection::Attempt(Outcome::Response(status)));
        return Err(Error::new_up(REJECTED));
    }
    response.set_status(RpcCode::from_upstream_status(status).http_status())?;
    response.remove_header(&CONTENT_LENGTH);
    response.remove_header(&CONTENT_ENCODING);
    response.insert_header(CONTENT_TYPE, HeaderValue::from_static("application/json"))?;
    ctx.body.translation = Some((status, Vec::new()));
    Ok(())
}

/// Write an answer that is no refusal.
pub async fn reply(session: &mut Session, ctx: &Context, answer: Answer) -> Result<()> {
    let head = head(answer.status, answer.content_type, answer.body.len())?;
    keep_or_close(session, false);
    send(session, ctx, head, answer.body).await
}

/// Write an answer that another request has got before.
pub async fn replay(
    session: &mut Session,
    ctx: &Context,
    answer: idempotency::Answer,
) -> Result<()> {
    let body = answer.body.unwrap_or_default();
    let mut head = ResponseHeader::build_no_case(answer.status, Some(answer.headers.len() + 8))?;
    headers::with_headers(&mut head, |headers, status| {
        *headers = answer.headers;
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            headers.insert(CONTENT_LENGTH, body.len().into());
        }
    });
    keep_or_close(session, false);
    send(session, ctx, head, body).await
}

/// Answer a CORS preflight.
pub async fn preflight(session: &mut Session, ctx: &Context) -> Result<()> {
    let mut head = ResponseHeader::build_no_case(204, Some(8))?;
    if let Some(cors) = ctx.route.as_ref().and_then(|route| route.config.cors.as_ref()) {
        cors::permit_preflight(cors, &session.req_header().headers, &mut head)?;
    }
    keep_or_close(session, false);
    headers::with_headers(&mut head, |headers, _| headers::echo(headers, ctx));
    write(session, ctx, head, Bytes::new()).await
}

fn head(status: u16, content_type: Option<HeaderValue>, length: usize) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(status, Some(8))?;
    if let Some(content_type) = content_type {
        head.insert_header(CONTENT_TYPE, content_type)?;
    }
    head.insert_header(CONTENT_LENGTH, length)?;
    Ok(head)
}

async fn send(
    session: &mut Session,
    ctx: &Context,
    mut head: ResponseHeader,
    body: Bytes,
) -> Result<()> {
    headers::prepare_response(session, &mut head, ctx)?;
    write(session, ctx, head, body).await
}

async fn write(
    session: &mut Session,
    ctx: &Context,
    head: ResponseHeader,
    body: Bytes,
) -> Result<()> {
    ctx.guard(Some(Clock::now() + WRITE_LIMIT));
    let without_body = session.req_header().method == Method::HEAD || body.is_empty();
    session.write_response_header(Box::new(head), without_body).await?;
    if !without_body {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// Decide what becomes of the connection. What is left of a refused request's body is read
/// to its end, or the connection closes: it is never taken for the next request.
fn keep_or_close(session: &mut Session, close: bool) {
    let unread = !session.as_downstream_mut().is_body_done();
    let length = super::intake::content_length(&session.req_header().headers);
    let expects = session.req_header().headers.contains_key(http::header::EXPECT);
    let drainable = !unread || (!expects && length.is_some_and(|length| length <= DRAIN_LIMIT));
    let downstream = session.as_downstream_mut();
    if close || !drainable {
        downstream.set_keepalive(None);
        return;
    }
    downstream.set_close_on_response_before_downstream_finish(false);
    downstream.set_total_drain_timeout(Some(DRAIN_TIME));
}
