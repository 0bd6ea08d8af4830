//! Fuzz targets for the envelopes of the RPC protocols, and for gRPC-Web as text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use super::super::dialect::Protocol;
use super::super::request::envelopes::{COMPRESSED, Envelopes, Walk};
use super::super::response::rpc_end::RpcEnd;
use super::CUTS;
use crate::coding::{Coding, Encoding};
use crate::transcode::wire::{self, Framing};

/// Limits in bytes: the longest message of a request, and the longest an inflated message may
/// become.
const MAX_MESSAGE: u64 = 100_000;
const LIMIT: usize = 100_000;
const GZIP: Encoding = Encoding::Coded(Coding::Gzip);

/// A stream of envelopes. The first byte of the input says whether the sender names an encoding.
///
/// The verdict does not depend on how the stream is split, and all readers of a single message
/// agree on it. What was read can be written again. No message grows beyond its limit.
pub fn envelopes(input: &[u8]) {
    let Some((choice, stream)) = input.split_first() else { return };
    check_walk(stream);
    let encoding = if choice & 1 == 1 { "gzip" } else { "identity" };
    let headers = grpc_headers("application/grpc", encoding);
    let whole = passed(&headers, stream, stream.len());
    for size in CUTS {
        assert_eq!(passed(&headers, stream, size), whole, "in pieces of {size}");
    }
    for protocol in [Protocol::GrpcWeb, Protocol::ConnectStream] {
        check_end(protocol, stream);
    }
    check_one(&headers, stream, encoding == "gzip");
    check_rewriting(stream);
    for framing in [Framing::Bare, Framing::Grpc, Framing::GrpcWeb, Framing::GrpcWebText] {
        let body = wire::wrap(framing, stream.to_vec());
        assert_eq!(wire::first(framing, &body).as_deref(), Ok(stream), "{framing:?}");
    }
}

/// A gRPC-Web body in Base64. It means the same as its decoded bytes do in gRPC-Web, however it is
/// split.
pub fn web_text(input: &[u8]) {
    check_base64(input);
    check_end(Protocol::GrpcWebText, input);
    // The input as the body, encoded in two segments with their own padding.
    let (first, second) = input.split_at(input.len() / 3);
    let text = [STANDARD.encode(first), STANDARD.encode(second)].concat();
    assert_eq!(wire::of_base64(text.as_bytes()).as_deref(), Ok(input));
    check_end(Protocol::GrpcWebText, text.as_bytes());
    for encoding in [Encoding::Identity, GZIP, Encoding::Unknown] {
        let of_text = wire::unwrap(Framing::GrpcWebText, text.as_bytes(), encoding, LIMIT);
        assert_eq!(of_text, wire::unwrap(Framing::GrpcWeb, input, encoding, LIMIT));
        let of_text = wire::inflated(Framing::GrpcWebText, text.as_bytes(), encoding, LIMIT);
        let of_bytes = wire::inflated(Framing::GrpcWeb, input, encoding, LIMIT);
        assert_eq!(of_text, of_bytes.map(|frames| STANDARD.encode(frames).into_bytes()));
    }
    let found = |protocol, body: &[u8]| {
        let mut end = RpcEnd::of(protocol, &end_headers(protocol)).expect("its type is right");
        end.pass(body)
    };
    let as_text = found(Protocol::GrpcWebText, STANDARD.encode(input).as_bytes());
    assert_eq!(as_text, found(Protocol::GrpcWeb, input));
}

/// The steps reproduce the stream, byte by byte.
fn check_walk(stream: &[u8]) {
    for size in CUTS {
        let (mut walk, mut written, mut last) = (Walk::default(), Vec::new(), 0);
        for mut piece in stream.chunks(size) {
            while !piece.is_empty() {
                let (message, begun) = walk.step(&mut piece);
                written.extend_from_slice(message);
                if let Some((flags, length)) = begun {
                    let length = u32::try_from(length).expect("four bytes");
                    last = written.len();
                    written.push(flags);
                    written.extend_from_slice(&length.to_be_bytes());
                }
            }
        }
        assert!(stream.starts_with(&written) && stream.len() - written.len() < 5);
        let is_whole = written.len() == stream.len();
        let (_, message) = written.split_at(last);
        let left = message.split_first_chunk().map(|([_, a, b, c, d], message)| {
            u64::from(u32::from_be_bytes([*a, *b, *c, *d])) - message.len() as u64
        });
        assert_eq!(walk.is_between(), is_whole && left.unwrap_or(0) == 0);
    }
}

/// Whether the stream is accepted, and how its end is judged.
fn passed(headers: &HeaderMap, stream: &[u8], size: usize) -> Result<(), &'static str> {
    let mut envelopes =
        Envelopes::of(Protocol::Grpc, headers, MAX_MESSAGE).expect("a stream of envelopes");
    let mut pieces = stream.chunks(size.max(1));
    let passed = pieces.try_for_each(|piece| envelopes.pass(piece));
    passed.and_then(|()| envelopes.end()).map_err(|rejection| rejection.code())
}

/// All readers agree on whether the body is one message.
fn check_one(headers: &HeaderMap, body: &[u8], may_compress: bool) {
    let mut envelopes =
        Envelopes::of(Protocol::Grpc, headers, MAX_MESSAGE).expect("a stream of envelopes");
    let is_one = envelopes.check_one(body).is_ok();
    let encoding = if may_compress { GZIP } else { Encoding::Identity };
    let unwrapped = wire::unwrap(Framing::Grpc, body, encoding, LIMIT);
    if let Ok(message) = &unwrapped {
        assert!(is_one || body.len() as u64 > MAX_MESSAGE, "one to the transcoder");
        assert!(message.len() <= LIMIT.max(body.len()));
    }
    let is_plain = body.first().is_some_and(|flags| flags & COMPRESSED == 0);
    if is_one && is_plain {
        assert_eq!(unwrapped.as_deref(), Ok(&body[5..]), "one to what passes it on");
    }
}

/// Compressing and inflating change only how a body is encoded.
fn check_rewriting(body: &[u8]) {
    if let Ok(same) = wire::inflated(Framing::Grpc, body, Encoding::Identity, LIMIT) {
        assert_eq!(same, body);
    }
    if let Ok(plain) = wire::inflated(Framing::Grpc, body, GZIP, LIMIT) {
        assert!(plain.len() <= body.len() + LIMIT);
        let again = wire::inflated(Framing::Grpc, &plain, Encoding::Identity, LIMIT);
        assert_eq!(again.as_ref(), Ok(&plain));
        if let Some(smaller) = wire::deflated(Framing::Grpc, &plain, Coding::Gzip) {
            assert!(smaller.len() < plain.len());
            let back = wire::inflated(Framing::Grpc, &smaller, GZIP, LIMIT.max(plain.len()));
            assert_eq!(back, Ok(plain));
        }
    }
}

/// Any decodable text: encoding the result and decoding it again gives the same bytes, which are no
/// longer than the text allows.
fn check_base64(text: &[u8]) {
    let Ok(bytes) = wire::of_base64(text) else { return };
    assert!(bytes.len() <= text.len().div_ceil(4) * 3);
    assert_eq!(wire::of_base64(STANDARD.encode(&bytes).as_bytes()), Ok(bytes));
}

/// What is learned from a response's end does not depend on how the response is split.
fn check_end(protocol: Protocol, body: &[u8]) {
    let learned = |size: usize| {
        let mut end = RpcEnd::of(protocol, &end_headers(protocol)).expect("its type is right");
        let mut found: Vec<_> = body.chunks(size).filter_map(|piece| end.pass(piece)).collect();
        assert!(found.len() <= 1, "a call fails once");
        found.pop()
    };
    let whole = learned(body.len().max(1));
    for size in CUTS {
        assert_eq!(learned(size), whole, "{protocol:?} in pieces of {size}");
    }
}

fn end_headers(protocol: Protocol) -> HeaderMap {
    let content_type = match protocol {
        Protocol::ConnectStream => "application/connect+json",
        Protocol::GrpcWebText => "application/grpc-web-text",
        Protocol::GrpcWeb | Protocol::Grpc | Protocol::Connect | Protocol::Http => {
            "application/grpc-web"
        }
    };
    grpc_headers(content_type, "gzip")
}

fn grpc_headers(content_type: &'static str, encoding: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert("grpc-encoding", HeaderValue::from_static(encoding));
    headers.insert("connect-content-encoding", HeaderValue::from_static(encoding));
    headers
}
