//! Writes the gateway's own responses so that the connection stays in order.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, HeaderName, LOCATION, RETRY_AFTER, SET_COOKIE,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use pingora_core::Result;
use pingora_core::protocols::http::HttpTask;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::policy::auth::{Said, Verdict};
use crate::policy::idempotency;
use crate::proxy::dialect::{Protocol, Rendered};
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::proxy::response::translation::{codes, reader};
use crate::proxy::{dialect, downstream, exchange, reply, request, response};
use crate::time::Clock;
use crate::units::retry_after_seconds;
use crate::{coding, policy};

/// Marks a response as a replay.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The content types that a request may have (W3C Linked Data Platform, section 7.1).
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
/// Time a client may take to read one of the gateway's own responses.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// A refused request's body is read and discarded up to this many bytes, so that the connection can
/// be reused; beyond it, closing is cheaper.
const DRAIN_LIMIT: u64 = 64 * 1024;
/// How long the rest of a refused request's body is read, so that the client sees its response
/// before the connection closes.
pub const DRAIN_TIME: Duration = Duration::from_secs(1);

/// `rejection` in the caller's protocol, or the route's fallback for it.
pub fn render(session: &Session, ctx: &Context, rejection: &Rejection) -> Rendered {
    let fallback = reply::stand_in::of(ctx, rejection)
        .map(|(answer, _)| reply::stand_in::render(answer, ctx, rejection))
        .and_then(|rendered| response::transcode::stand_in(session, ctx, rendered));
    fallback.unwrap_or_else(|| reader(session, ctx).refuse(rejection))
}

/// Writes `rejection` as it was rendered.
///
/// # Errors
/// The client cannot be written to.
pub async fn refuse(
    session: &mut Session,
    ctx: &mut Context,
    rejection: &Rejection,
    rendered: Rendered,
) -> Result<()> {
    let mut head = head(rendered.status, rendered.headers)?;
    let body = response::compression::deflate_answer(session, ctx, &mut head, rendered.body);
    let over_h2 = session.req_header().version == Version::HTTP_2;
    if !(rendered.bare && over_h2) {
        head.insert_header(CONTENT_LENGTH, body.len())?;
    }
    // `Retry-After` means nothing on a response that is no error.
    if let Some(after) = rejection.retry_after().filter(|_| rendered.status >= 400) {
        head.insert_header(RETRY_AFTER, retry_after_seconds(after).to_string())?;
    }
    match rejection {
        Rejection::MethodNotAllowed(allow) => head.insert_header(ALLOW, allow.clone())?,
        Rejection::UnsupportedMediaType(known) => head.insert_header(ACCEPT_POST, *known)?,
        Rejection::UnsupportedCompression => {
            head.insert_header(request::compression::accept_field(ctx.protocol), coding::READ)?;
        }
        Rejection::Policy(policy::Rejection::Credentials(refusal)) => {
            let guard = ctx.route.as_ref().and_then(|route| route.guard.as_ref());
            if let Some(challenge) = guard.and_then(|guard| guard.challenge(refusal)) {
                head.insert_header(WWW_AUTHENTICATE, challenge.clone())?;
            }
            if let Some(said) = refusal.said() {
                pass_on(said, ctx, &mut head)?;
            }
        }
        _ => {}
    }
    keep_or_close(session, rejection.closes_connection());
    send(session, ctx, head, body).await
}

/// What a service has answered besides its status. Callers of RPC know no redirects and no cookies.
fn pass_on(said: &Said, ctx: &Context, head: &mut ResponseHeader) -> Result<()> {
    if !said.challenges.is_empty() {
        head.remove_header(&WWW_AUTHENTICATE);
    }
    for challenge in &said.challenges {
        head.append_header(WWW_AUTHENTICATE, challenge.clone())?;
    }
    if ctx.protocol != Protocol::Http {
        return Ok(());
    }
    for cookie in &said.cookies {
        head.append_header(SET_COOKIE, cookie.clone())?;
    }
    if let Verdict::Redirect { location, .. } = &said.verdict {
        head.insert_header(LOCATION, location.clone())?;
        // It is for this client and this moment.
        head.insert_header(CACHE_CONTROL, "no-store")?;
    }
    Ok(())
}

/// A response broke off after its head. gRPC can still report why, in trailers; other clients see
/// the body end early.
pub async fn end_midway(session: &mut Session, ctx: &Context) {
    let over_h2 = session.req_header().version == Version::HTTP_2;
    if ctx.protocol == Protocol::Grpc
        && over_h2
        && let Some(rejection) = ctx.end.why_midway()
    {
        let trailers = dialect::grpc_trailers(&rejection.to_rpc(codes(ctx)));
        // A client that does not take them has disconnected.
        let _ = session.as_downstream_mut().write_response_trailers(trailers).await;
    }
}

/// Writes a response made from an upstream's. Over HTTP/2, a `bare` one ends with its head.
///
/// # Errors
/// The client cannot be written to.
pub async fn deliver(
    session: &mut Session,
    ctx: &mut Context,
    mut head: ResponseHeader,
    rendered: Rendered,
) -> Result<()> {
    keep_or_close(session, false);
    let over_h2 = session.req_header().version == Version::HTTP_2;
    // RFC 9110, section 8.6: a 204 has no length.
    if !(rendered.bare && over_h2) && rendered.status != 204 {
        head.insert_header(CONTENT_LENGTH, rendered.body.len())?;
    }
    send(session, ctx, head, rendered.body).await
}

/// Writes a response that is not a refusal.
///
/// # Errors
/// The client cannot be written to.
pub async fn reply(session: &mut Session, ctx: &mut Context, mut rendered: Rendered) -> Result<()> {
    let head = head(rendered.status, std::mem::take(&mut rendered.headers))?;
    deliver(session, ctx, head, rendered).await
}

/// Writes a response that an earlier request has received before.
///
/// # Errors
/// The client cannot be written to.
pub async fn replay(
    session: &mut Session,
    ctx: &mut Context,
    answer: idempotency::Answer,
) -> Result<()> {
    let mut body = answer.body.unwrap_or_default();
    let over_h2 = session.req_header().version == Version::HTTP_2;
    let trailers = answer.trailers.filter(|_| over_h2);
    let mut head = ResponseHeader::build_no_case(answer.status, Some(answer.headers.len() + 8))?;
    response::headers::with_headers(&mut head, |headers, status| {
        *headers = answer.headers;
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        body = response::compression::replayed(session, ctx, headers, std::mem::take(&mut body));
        let ends_otherwise = trailers.is_some() || (over_h2 && ctx.protocol == Protocol::Grpc);
        let is_bare = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if !ends_otherwise && !is_bare {
            headers.insert(CONTENT_LENGTH, body.len().into());
        }
    });
    keep_or_close(session, false);
    response::headers::prepare_response(session, &mut head, ctx)?;
    write(session, ctx, head, body, trailers).await
}

/// Responds to a CORS preflight, or to `OPTIONS *`, which has no route: the methods allowed differ
/// from route to route, so that response names none.
///
/// # Errors
/// The client cannot be written to.
pub async fn preflight(session: &mut Session, ctx: &mut Context) -> Result<()> {
    let mut head = ResponseHeader::build_no_case(204, Some(8))?;
    if let Some(cors) = ctx.route.as_ref().and_then(|route| route.config.cors.as_ref()) {
        response::cors::permit_preflight(cors, &session.req_header().headers, &mut head)?;
    }
    keep_or_close(session, false);
    response::headers::with_headers(&mut head, |headers, _| exchange::fields::echo(headers, ctx));
    write(session, ctx, head, Bytes::new(), None).await
}

/// The head of a response with these headers.
///
/// # Errors
/// A header value that Pingora refuses.
pub fn head(
    status: u16,
    headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(status, Some(8))?;
    for (name, value) in headers {
        head.insert_header(name, value)?;
    }
    Ok(head)
}

async fn send(
    session: &mut Session,
    ctx: &mut Context,
    mut head: ResponseHeader,
    body: Bytes,
) -> Result<()> {
    response::headers::prepare_response(session, &mut head, ctx)?;
    write(session, ctx, head, body, None).await
}

async fn write(
    session: &mut Session,
    ctx: &mut Context,
    mut head: ResponseHeader,
    body: Bytes,
    trailers: Option<Box<HeaderMap>>,
) -> Result<()> {
    ctx.guard(Some(Clock::now() + WRITE_LIMIT));
    exchange::times::own_answer(ctx);
    downstream::date::keep(ctx, &head);
    ctx.sent = Some(head.status.as_u16());
    let without_body = session.req_header().method == Method::HEAD || body.is_empty();
    let is_all = without_body && trailers.is_none();
    if is_all && session.req_header().version == Version::HTTP_2 {
        // Pingora's `write_response_header` would not mark the head as the end of the stream.
        session.write_response_tasks(vec![HttpTask::Header(Box::new(head), true)]).await?;
        return Ok(());
    }
    let in_head = ctx.protocol == Protocol::Grpc && !without_body;
    let trailers = trailers.or_else(|| in_head.then(|| Box::new(end(&mut head))));
    session.write_response_header(Box::new(head), is_all).await?;
    if !without_body {
        session.write_response_body(Some(body), trailers.is_none()).await?;
    }
    match trailers {
        Some(trailers) => session.as_downstream_mut().write_response_trailers(*trailers).await,
        None => Ok(()),
    }
}

/// Moves the fields that end a gRPC call to the trailers: they follow a message.
fn end(head: &mut ResponseHeader) -> HeaderMap {
    head.remove_header(&CONTENT_LENGTH);
    let mut trailers = HeaderMap::new();
    for name in &dialect::GRPC_END {
        if let Some(value) = head.remove_header(name) {
            trailers.insert(name, value);
        }
    }
    trailers
}

/// Decides whether the connection is reused. The rest of a refused request's body is read to its
/// end, or the connection closes, so that it is never taken for the next request.
fn keep_or_close(session: &mut Session, close: bool) {
    let unread = !session.as_downstream_mut().is_body_done();
    let length = exchange::fields::content_length(&session.req_header().headers);
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
