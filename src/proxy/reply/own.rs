//! What a route's `serve`, `respond` and `redirect` answer, as it is written for the caller.

use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora_proxy::Session;

use crate::config::respond::Respond;
use crate::proxy::dialect::{Protocol, Rendered};
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::fields;
use crate::proxy::rejection::{Rejection, RpcError};
use crate::proxy::request;
use crate::proxy::response::translation::{codes, reader};
use crate::routing::{Redirect, Requested};
use crate::runtime::status::Answer;

/// What the gateway reports about itself.
pub fn page(answer: Answer) -> Rendered {
    let content_type = answer.content_type.map(|value| (CONTENT_TYPE, value));
    Rendered::new(answer.status, content_type.into_iter().collect(), answer.body)
}

/// The response that the route's operator wrote. A caller of RPC gets an error as one of its own protocol,
/// which says no more than the status.
///
/// # Errors
/// The caller speaks RPC and could not read the response.
pub fn respond(session: &Session, ctx: &Context, respond: &Respond) -> Result<Rendered, Rejection> {
    let Respond { status, content_type, headers, body } = respond;
    if is_rpc(session) {
        let after = headers.0.iter().find(|(name, _)| *name == RETRY_AFTER);
        let after = after.map(|(_, value)| fields::fill(value, ctx));
        return of_rpc(session, ctx, *status, after.as_ref());
    }
    let mut fields = HeaderMap::with_capacity(headers.0.len() + 1);
    for (name, value) in &headers.0 {
        fields.insert(name, fields::fill(value, ctx));
    }
    if let Some(content_type) = content_type {
        fields.insert(CONTENT_TYPE, content_type.clone());
    }
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name?, value))).collect();
    Ok(Rendered::new(*status, fields, body.clone()))
}

fn of_rpc(
    session: &Session,
    ctx: &Context,
    status: u16,
    after: Option<&HeaderValue>,
) -> Result<Rendered, Rejection> {
    if status < 400 {
        return Err(Rejection::NotForRpc);
    }
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let seconds = after.and_then(|after| after.to_str().ok()?.parse().ok());
    let error = RpcError {
        code: codes(ctx).of_status(status),
        message: reason.unwrap_or_default(),
        retry_after: seconds.map(std::time::Duration::from_secs),
    };
    Ok(reader(session, ctx).fail(&error))
}

/// The URL that the client is sent to.
///
/// # Errors
/// The caller speaks RPC, and follows no redirect; or the request names no host, and the redirect needs it.
pub fn redirect(
    session: &Session,
    ctx: &Context,
    redirect: &Redirect,
) -> Result<Rendered, Rejection> {
    if is_rpc(session) {
        return Err(Rejection::NotForRpc);
    }
    let head = session.req_header();
    let authority = ctx.asked.host().and_then(|host| std::str::from_utf8(host).ok());
    let requested = Requested {
        scheme: request::head::scheme(ctx, &head.headers),
        host: &request::head::host_of(head)?,
        // The host has been accepted, so what follows its last colon, outside of brackets, is a number.
        port: authority.and_then(|host| host.rsplit_once(':')?.1.parse().ok()),
        path: ctx.path.as_deref().unwrap_or_else(|| head.uri.path()),
        query: head.uri.query(),
    };
    let location = redirect.location(&requested).and_then(|url| HeaderValue::try_from(url).ok());
    let Some(location) = location else {
        return Err(Rejection::BadRequest("the request names no host to be sent to".into()));
    };
    Ok(Rendered::new(redirect.status, vec![(LOCATION, location)], bytes::Bytes::new()))
}

/// Whether the request itself is one of RPC: a route may also write its errors as Connect for all others.
fn is_rpc(session: &Session) -> bool {
    Protocol::of(session.req_header()) != Protocol::Http
}
