//! Responses written by the gateway, compressed for their client.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderValue};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::coding::{Coding, Encoding};
use crate::proxy::exchange::context::Context;
use crate::proxy::request::compression::{accept_field, encoding_field, framing};
use crate::proxy::response;
use crate::transcode::wire;
use crate::transcode::wire::Framing;

/// Largest stored response in bytes that is decoded for a replay.
const REPLAYED_LIMIT: usize = 4 * 1024 * 1024;

/// Compresses a response's body in a coding that the client accepts, if the route transcodes and
/// the body is large enough. Updates the head to match.
pub fn deflate_answer(
    session: &Session,
    ctx: &Context,
    head: &mut ResponseHeader,
    mut body: Bytes,
) -> Bytes {
    if is_worth_it(ctx, &body) {
        response::headers::with_headers(head, |headers, _| {
            body = deflate(session, ctx, headers, std::mem::take(&mut body));
        });
    }
    body
}

/// The body of a stored response, for a client that may accept other codings than the first one.
pub fn replayed(session: &Session, ctx: &Context, headers: &mut HeaderMap, body: Bytes) -> Bytes {
    let body = inflate_kept(session, ctx, headers, body);
    if is_worth_it(ctx, &body) { deflate(session, ctx, headers, body) } else { body }
}

fn is_worth_it(ctx: &Context, body: &Bytes) -> bool {
    let transcoder = ctx.route.as_ref().and_then(|route| route.transcoder.as_ref());
    transcoder.is_some_and(|transcoder| body.len() >= transcoder.compress_from().max(1))
}

/// The body in a coding that the client accepts, or as it is; `headers` say which. Connect and
/// plain HTTP compress the body, gRPC the message in its frame.
pub fn deflate(session: &Session, ctx: &Context, headers: &mut HeaderMap, body: Bytes) -> Bytes {
    if headers.contains_key(CONTENT_ENCODING) {
        return body;
    }
    let Some(framing) = framing(ctx.protocol) else { return body };
    if framing == Framing::Bare {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    let accepted = &session.req_header().headers;
    let coding = Coding::preferred(accepted, accept_field(ctx.protocol));
    let deflated =
        coding.and_then(|coding| Some((coding, wire::deflated(framing, &body, coding)?)));
    let Some((coding, deflated)) = deflated else { return body };
    headers.insert(encoding_field(framing), coding.name());
    deflated.into()
}

/// Decodes a stored response whose coding this client does not accept.
fn inflate_kept(session: &Session, ctx: &Context, headers: &mut HeaderMap, body: Bytes) -> Bytes {
    let Some(framing) = framing(ctx.protocol) else { return body };
    let (field, accepted) = (encoding_field(framing), accept_field(ctx.protocol));
    let Encoding::Coded(coding) = Encoding::of(headers, &field) else { return body };
    if coding.is_accepted(&session.req_header().headers, accepted) {
        return body;
    }
    match wire::inflated(framing, &body, Encoding::Coded(coding), REPLAYED_LIMIT) {
        Ok(inflated) => {
            headers.remove(&field);
            inflated.into()
        }
        // A response in a coding the client did not ask for is better than none.
        Err(_) => body,
    }
}
