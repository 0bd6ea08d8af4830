//! An upstream's error, rewritten in the caller's protocol.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use pingora_core::{Error, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::coding::Encoding;
use crate::config::error_codes::ErrorCodes;
use crate::config::rpc_code::RpcCode;
use crate::policy::failure::Cause;
use crate::proxy::dialect::{Protocol, Reader, Rendered, Said};
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::signal::REJECTED;
use crate::proxy::exchange::translation::Translation;
use crate::proxy::rejection::{Rejection, RpcError};
use crate::proxy::{dialect, response};

/// Who gets the response, by the request.
pub fn reader<'a>(session: &'a Session, ctx: &'a Context) -> Reader<'a> {
    Reader {
        protocol: ctx.protocol,
        headers: &session.req_header().headers,
        codes: codes(ctx),
        statuses: ctx.route.as_ref().map(|route| &route.config.status_map),
        request_id: ctx.request_id(),
    }
}

/// The route's `error_codes`; without a route the default.
pub fn codes(ctx: &Context) -> &ErrorCodes {
    static GATEWAY: ErrorCodes = ErrorCodes::GATEWAY;
    ctx.route.as_ref().map_or(&GATEWAY, |route| &route.config.error_codes)
}

/// Prepares to translate an upstream's plain HTTP error to the caller's protocol: rewrites its
/// head, and has its body collected. An error without a body becomes a refusal, because the caller
/// must find a code in it. So does an error for gRPC if no trailers can be sent.
///
/// # Errors
/// [`REJECTED`], if the error becomes a refusal.
pub fn begin_translation(
    session: &Session,
    response: &mut ResponseHeader,
    ctx: &mut Context,
    status: u16,
) -> Result<()> {
    let empty = response.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
    let orders = ctx.connection.as_ref().and_then(|connection| connection.orders.as_ref());
    if empty || (ctx.protocol == Protocol::Grpc && orders.is_none()) {
        ctx.end.refuse(Rejection::Upstream(Cause::Answered(status)));
        return Err(Error::new_up(REJECTED));
    }
    let translation = collected(response);
    let error = translation.error(codes(ctx), "");
    let is_connect = codes(ctx).is_connect(status);
    let Rendered { status, headers, .. } = reader(session, ctx).fail(&error);
    // Such an upstream may speak Connect already, and its body, which is yet to come, then stays as
    // it is.
    let is_json = response::grpc::content_type(&response.headers).starts_with(b"application/json");
    if !(ctx.protocol == Protocol::Connect && is_json && is_connect) {
        response.set_status(status)?;
    }
    response.remove_header(&CONTENT_LENGTH);
    response.remove_header(&CONTENT_ENCODING);
    for (name, value) in headers.into_iter().filter(|(name, _)| *name == CONTENT_TYPE) {
        response.insert_header(name, value)?;
    }
    ctx.end.judge_rpc(true);
    ctx.body.translation = Some(translation);
    Ok(())
}

/// An upstream's error, as far as it is known from its head.
pub fn collected(head: &ResponseHeader) -> Translation {
    let after = head.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    Translation {
        status: head.status.as_u16(),
        retry_after: after.map(Duration::from_secs),
        encoding: Encoding::of(&head.headers, CONTENT_ENCODING),
        body: Vec::new(),
    }
}

/// A complete upstream error, in the caller's protocol.
pub fn render_collected(session: &Session, ctx: &Context, error: &Translation) -> Rendered {
    let said = Said::in_body(&error.body);
    let mut error = error.error(codes(ctx), &said.message);
    error.code = said.code.unwrap_or(error.code);
    reader(session, ctx).fail(&error)
}

/// An error of an RPC upstream, in the caller's protocol.
pub fn render_error(session: &Session, ctx: &Context, code: RpcCode, message: &str) -> Rendered {
    reader(session, ctx).fail(&RpcError { code, message, retry_after: None })
}

/// The collected error in the caller's protocol: the body that replaces the upstream's.
pub fn translate(session: &Session, ctx: &Context, translation: Translation) -> Bytes {
    let said = Said::in_body(&translation.body);
    if said.code.is_some() && ctx.protocol == Protocol::Connect {
        return translation.body.into();
    }
    let mut error = translation.error(codes(ctx), &said.message);
    error.code = said.code.unwrap_or(error.code);
    let orders = ctx.connection.as_ref().and_then(|connection| connection.orders.as_ref());
    if ctx.protocol == Protocol::Grpc
        && let Some(orders) = orders
    {
        orders.end_with(dialect::grpc_trailers(&error));
        return Bytes::new();
    }
    reader(session, ctx).fail(&error).body
}
