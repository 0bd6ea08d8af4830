//! Compressed bodies that the gateway itself must read or write.
//!
//! A route that transcodes reads its callers' compressed messages and compresses its responses. A
//! body that is only passed on is left as it is, but if the gateway must understand a response, it
//! asks only for codings that it can decode. A response kept for an idempotency key is kept
//! uncoded, or in a coding that the gateway can undo: the client of a replay may accept other
//! codings than the first client.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderName};
use http::{HeaderMap, HeaderValue};
use pingora_proxy::Session;

use crate::coding::Encoding;
use crate::proxy::dialect::Protocol;
use crate::proxy::dialect::names::GRPC_ENCODING;
use crate::proxy::exchange::context::Context;
use crate::proxy::rejection::Rejection;
use crate::proxy::request;
use crate::runtime::snapshot::Route;
use crate::transcode::wire::Framing;
use crate::transcode::{Fault, wire};

const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const CONNECT_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("connect-accept-encoding");

/// The field that names the encoding of a message in this framing.
pub fn encoding_field(framing: Framing) -> HeaderName {
    match framing {
        Framing::Bare => CONTENT_ENCODING,
        Framing::Grpc | Framing::GrpcWeb | Framing::GrpcWebText => GRPC_ENCODING,
    }
}

/// The field that lists the encodings a peer accepts.
pub fn accept_field(protocol: Protocol) -> HeaderName {
    match protocol {
        Protocol::Http | Protocol::Connect => ACCEPT_ENCODING,
        Protocol::ConnectStream => CONNECT_ACCEPT_ENCODING,
        Protocol::Grpc | Protocol::GrpcWeb | Protocol::GrpcWebText => GRPC_ACCEPT_ENCODING,
    }
}

/// How the body of a single message is framed; `None` for a stream.
pub fn framing(protocol: Protocol) -> Option<Framing> {
    match protocol {
        Protocol::Http | Protocol::Connect => Some(Framing::Bare),
        Protocol::Grpc => Some(Framing::Grpc),
        Protocol::GrpcWeb => Some(Framing::GrpcWeb),
        Protocol::GrpcWebText => Some(Framing::GrpcWebText),
        Protocol::ConnectStream => None,
    }
}

/// The encoding of the request's message; `Identity` if the gateway has already decoded it.
pub fn of_request(framing: Framing, headers: &HeaderMap, ctx: &Context) -> Encoding {
    match ctx.body.inflated {
        true => Encoding::Identity,
        false => Encoding::of(headers, encoding_field(framing)),
    }
}

/// Decodes the body of a request with an idempotency key, so that equal messages compare equal:
/// gzip may store the time, and need not produce the same bytes twice. Returns `None` if the body
/// is not encoded, or if it cannot be decoded and the route does not need that.
///
/// # Errors
/// The body cannot be decoded, and the route must read it.
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

/// Removes the codings that the gateway cannot undo from the request, if it must understand the
/// response.
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
