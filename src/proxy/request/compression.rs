//! Compressed bodies, where the gateway reads them or writes them itself.
//!
//! A route that transcodes reads its callers' compressed messages and compresses its answers. What is
//! only passed on stays as it is; but where the gateway must understand an answer, it asks for codings
//! that it reads. An answer is kept for its idempotency key without a coding, or in one that can be
//! undone: who gets it again may accept others than who got it first.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderName};
use http::{HeaderMap, HeaderValue};
use pingora_proxy::Session;

use crate::coding::Encoding;
use crate::proxy::dialect::Protocol;
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::proxy::request;
use crate::runtime::snapshot::Route;
use crate::transcode::wire::Framing;
use crate::transcode::{Fault, wire};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const CONNECT_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("connect-accept-encoding");

/// The field that names the encoding of messages in a protocol.
pub fn encoding_field(framing: Framing) -> HeaderName {
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
pub fn framing(protocol: Protocol) -> Option<Framing> {
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
        Err(fault) => Err(request::fault::rejected(fault)),
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
