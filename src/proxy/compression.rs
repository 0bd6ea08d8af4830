//! Compressed bodies, where the gateway reads them or writes them itself.
//!
//! A route that transcodes reads its callers' compressed messages and compresses its answers. What is
//! only passed on stays as it is; but where the gateway must understand an answer, it asks for codings
//! that it reads. An answer is kept for its idempotency key without a coding, or in one that can be
//! undone: who gets it again may accept others than who got it first.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderName, VARY};
use http::{HeaderMap, HeaderValue};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::dialect::Protocol;
use super::rejection::Rejection;
use super::{headers, transcoding};
use crate::coding::{Coding, Encoding};
use crate::runtime::snapshot::Route;
use crate::transcode::Fault;
use crate::transcode::wire::{self, Framing};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const CONNECT_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("connect-accept-encoding");
/// Largest answer that is decoded to be given again.
const REPLAYED_LIMIT: usize = 4 * 1024 * 1024;

/// The field that names the encoding of messages in a protocol.
fn encoding_field(framing: Framing) -> HeaderName {
    match framing {
        Framing::Bare => CONTENT_ENCODING,
        Framing::Grpc | Framing::GrpcWeb | Framing::GrpcWebText => GRPC_ENCODING,
    }
}

/// The field that lists the encodings a side reads.
pub fn accept_field(protocol: Protocol) -> HeaderName {
    match protocol {
        Protocol::Http | Protocol::Connect => ACCEPT_ENCODING,
        Protocol::ConnectStream => CONNECT_ACCEPT_ENCODING,
        Protocol::Grpc | Protocol::GrpcWeb | Protocol::GrpcWebText => GRPC_ACCEPT_ENCODING,
    }
}

/// How bodies of one message are framed; `None` of a stream.
fn framing(protocol: Protocol) -> Option<Framing> {
    match protocol {
        Protocol::Http | Protocol::Connect => Some(Framing::Bare),
        Protocol::Grpc => Some(Framing::Grpc),
        Protocol::GrpcWeb => Some(Framing::GrpcWeb),
        Protocol::GrpcWebText => Some(Framing::GrpcWebText),
        Protocol::ConnectStream => None,
    }
}

/// How the request's message is encoded, unless that has been undone.
pub fn of_request(framing: Framing, headers: &HeaderMap, ctx: &Context) -> Encoding {
    match ctx.body.inflated {
        true => Encoding::Identity,
        false => Encoding::of(headers, encoding_field(framing)),
    }
}

/// Undo how the body of a request with an idempotency key is encoded: `None` where it is not, or
/// where it cannot be read and is not the gateway's to read. The same message is not always compressed
/// into the same bytes: gzip may hold the time.
///
/// # Errors
/// The route must read the body, and cannot.
pub fn inflate_keyed(
    session: &Session,
    ctx: &mut Context,
    route: &Route,
    body: &[u8],
    limit: usize,
) -> Result<Option<Bytes>, Rejection> {
    let Some(framing) = framing(ctx.protocol) else { return Ok(None) };
    let encoding = of_request(framing, &session.req_header().headers, ctx);
    if encoding == Encoding::Identity {
        return Ok(None);
    }
    let must_read = route.transcoder.is_some() || route.config.json.is_some();
    match wire::inflated(framing, body, encoding, limit) {
        Ok(body) => {
            ctx.body.inflated = must_read;
            Ok(Some(body.into()))
        }
        Err(_) if !must_read => Ok(None),
        Err(Fault::Malformed(what)) if ctx.protocol == Protocol::Http => {
            Err(Rejection::InvalidBody(what))
        }
        Err(fault) => Err(transcoding::rejected(fault)),
    }
}

/// Where the gateway must understand the answer, ask for no coding that it cannot undo.
pub fn restrict(headers: &mut HeaderMap, ctx: &Context, route: &Route) {
    let captures = route.capture.as_ref().is_some_and(|capture| capture.reads_responses());
    if ctx.protocol != Protocol::Http || captures || ctx.keyed.is_some() {
        keep_readable(headers, ACCEPT_ENCODING);
    }
    if ctx.keyed.is_some() {
        keep_readable(headers, GRPC_ACCEPT_ENCODING);
    }
}

fn keep_readable(headers: &mut HeaderMap, name: HeaderName) {
    let is_readable = |item: &[u8]| {
        let coding = item.split(|byte| *byte == b';').next().unwrap_or_default();
        Encoding::named(coding) != Encoding::Unknown
    };
    let items = || {
        let values = headers.get_all(&name).iter();
        values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
    };
    if items().all(is_readable) {
        return;
    }
    let kept: Vec<&[u8]> = items().filter(|item| is_readable(item)).collect();
    let kept = HeaderValue::from_bytes(kept.join(&b","[..]).trim_ascii());
    let kept = kept.ok().filter(|kept| !kept.is_empty());
    headers.insert(name, kept.unwrap_or(HeaderValue::from_static("identity")));
}

/// The body of an answer as its caller accepts it: compressed, where the route transcodes and it is
/// worth it. What has been done goes into the head.
pub fn deflate_answer(
    session: &Session,
    ctx: &Context,
    head: &mut ResponseHeader,
    mut body: Bytes,
) -> Bytes {
    if is_worth_it(ctx, &body) {
        headers::with_headers(head, |headers, _| {
            body = deflate(session, ctx, headers, std::mem::take(&mut body));
        });
    }
    body
}

/// An answer that was kept, for a caller who may accept other codings than who got it first.
pub fn replayed(session: &Session, ctx: &Context, headers: &mut HeaderMap, body: Bytes) -> Bytes {
    let body = inflate_kept(session, ctx, headers, body);
    if is_worth_it(ctx, &body) { deflate(session, ctx, headers, body) } else { body }
}

fn is_worth_it(ctx: &Context, body: &Bytes) -> bool {
    let transcoder = ctx.route.as_ref().and_then(|route| route.transcoder.as_ref());
    transcoder.is_some_and(|transcoder| body.len() >= transcoder.compress_from().max(1))
}

fn deflate(session: &Session, ctx: &Context, headers: &mut HeaderMap, body: Bytes) -> Bytes {
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

/// Where it was kept in a coding that this caller does not accept, that is undone.
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
        // Rather in a coding than not at all.
        Err(_) => body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_asked_for() {
        let kept = |asked: &'static str| {
            let asked = HeaderValue::from_static(asked);
            let mut headers = HeaderMap::from_iter([(ACCEPT_ENCODING, asked)]);
            keep_readable(&mut headers, ACCEPT_ENCODING);
            headers.remove(ACCEPT_ENCODING).expect("a value").to_str().expect("text").to_owned()
        };
        assert_eq!(kept("gzip, deflate, br, zstd"), "gzip, deflate");
        assert_eq!(kept("br;q=1, gzip;q=0.5, *;q=0.1"), "gzip;q=0.5");
        assert_eq!(kept("gzip"), "gzip");
        assert_eq!(kept("br"), "identity");
        let mut none = HeaderMap::new();
        keep_readable(&mut none, ACCEPT_ENCODING);
        assert!(none.is_empty());
    }
}
