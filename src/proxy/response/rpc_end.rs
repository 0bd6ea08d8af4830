//! The end of an RPC response that is part of its body: the trailers of gRPC-Web, and the last
//! envelope of a Connect stream. A call that fails there has HTTP status 200.
//!
//! The body is read on its way to the client, never changed or held back; only the end itself is
//! kept until it is complete.
//!
//! Sources: "gRPC-Web" (Message framing), the Connect protocol (Streaming-Response,
//! EndStreamResponse).

use std::borrow::Cow;

use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use crate::coding::Encoding;
use crate::policy::outcome::Outcome;
use crate::proxy::dialect::Protocol;
use crate::proxy::request::envelopes::{COMPRESSED, Walk};
use crate::proxy::{dialect, request, response};
use crate::transcode::wire;

/// The flag of the envelope that ends a response, in each of the two protocols.
const WEB_TRAILERS: u8 = 0x80;
const END_STREAM: u8 = 0b10;
/// Limit on the end in bytes, before inflation and after it; no client accepts as much metadata.
const LONGEST: usize = 64 * 1024;
/// Prefix of the content types of responses in Base64.
const BASE64: &[u8] = b"application/grpc-web-text";
/// Four characters of Base64 are three bytes.
const QUAD: usize = 4;

/// A failed call, according to the response's end.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// For the policies.
    pub outcome: Outcome,
    /// For the client; `None` if there is none.
    pub message: Option<String>,
    /// In gRPC-Web, the other trailers.
    pub trailers: HeaderMap,
    /// A message preceded the failure.
    pub late: bool,
}

/// Reads a response's body to find how its call ended.
pub struct RpcEnd {
    flag: u8,
    encoding: Encoding,
    walk: Walk,
    /// The part of the end that has arrived.
    end: Option<Vec<u8>>,
    /// In a Base64 body, the characters that do not make a group of four yet.
    quad: Option<Vec<u8>>,
    /// A message has arrived.
    late: bool,
    /// The rest of the body need not be read.
    over: bool,
}

impl RpcEnd {
    /// For a response with these headers to a client of `protocol`; `None` if its body does not
    /// report the end.
    pub fn of(protocol: Protocol, headers: &HeaderMap) -> Option<Self> {
        let flag = match protocol {
            Protocol::GrpcWeb | Protocol::GrpcWebText => WEB_TRAILERS,
            Protocol::ConnectStream => END_STREAM,
            Protocol::Http | Protocol::Connect | Protocol::Grpc => return None,
        };
        let content_type = response::grpc::content_type(headers);
        let in_base64 = content_type.starts_with(BASE64);
        let is_readable = protocol.is_spoken_by(content_type)
            && Encoding::of(headers, CONTENT_ENCODING) == Encoding::Identity;
        is_readable.then(|| RpcEnd {
            flag,
            encoding: request::envelopes::encoding_name(protocol)
                .map_or(Encoding::Identity, |name| Encoding::of(headers, name)),
            walk: Walk::default(),
            end: None,
            quad: in_base64.then(Vec::new),
            late: false,
            over: false,
        })
    }

    /// Reads the next piece of the body. Returns a failure once, as soon as it is certain.
    pub fn pass(&mut self, piece: &[u8]) -> Option<Failure> {
        if self.over {
            return None;
        }
        let (bytes, is_sound) = self.decoded(piece);
        // After invalid Base64 the client cannot read the rest either.
        self.over = !is_sound;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (message, begun) = self.walk.step(&mut rest);
            if let Some(end) = &mut self.end {
                let room = LONGEST - end.len();
                end.extend_from_slice(&message[..message.len().min(room)]);
            }
            // The end is complete here. Bytes after it are not part of it, and may arrive in the
            // same piece.
            if (begun.is_some() || self.walk.is_past_message())
                && let Some(end) = self.end.take()
            {
                self.over = true;
                return self.failure(&end);
            }
            match begun {
                Some((flags, _)) if flags & self.flag != 0 => {
                    self.end = Some(Vec::new());
                    if flags & COMPRESSED == 0 {
                        self.encoding = Encoding::Identity;
                    }
                }
                Some(_) => self.late = true,
                None => {}
            }
        }
        None
    }

    /// Decodes a piece of the body, if it is in Base64; and whether all of it is valid.
    fn decoded<'a>(&mut self, piece: &'a [u8]) -> (Cow<'a, [u8]>, bool) {
        let Some(quad) = &mut self.quad else { return (Cow::Borrowed(piece), true) };
        quad.extend_from_slice(piece);
        let whole = quad.len() - quad.len() % QUAD;
        let decoded = match wire::of_base64(&quad[..whole]) {
            Ok(bytes) => (Cow::Owned(bytes), true),
            Err(_) => {
                // Decodes as much as if it had arrived in smaller pieces.
                let quads = quad.chunks_exact(QUAD).map_while(|quad| wire::of_base64(quad).ok());
                (Cow::Owned(quads.flatten().collect()), false)
            }
        };
        quad.drain(..whole);
        decoded
    }

    /// The failure that the end reports. An unreadable end reports none.
    fn failure(&self, end: &[u8]) -> Option<Failure> {
        let end = match self.encoding {
            Encoding::Identity => Cow::Borrowed(end),
            Encoding::Coded(coding) => Cow::Owned(coding.read(end, LONGEST).ok()?),
            Encoding::Unknown => return None,
        };
        let late = self.late;
        match self.flag {
            END_STREAM => {
                let (code, message) = dialect::connect_end(&end)?;
                let outcome = Outcome::Grpc(code);
                Some(Failure { outcome, message, trailers: HeaderMap::new(), late })
            }
            _ => {
                let outcome = response::grpc::grpc_failure(dialect::trailer_status(&end)?)?;
                let trailers = dialect::trailers_of(&end);
                let message = response::grpc::grpc_message(&trailers);
                Some(Failure { outcome, message, trailers, late })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use http::header::CONTENT_TYPE;

    use super::*;
    use crate::coding::Coding;

    fn headers(protocol: Protocol) -> HeaderMap {
        let content_type = match protocol {
            Protocol::ConnectStream => "application/connect+json",
            Protocol::GrpcWebText => "application/grpc-web-text",
            Protocol::GrpcWeb | Protocol::Grpc | Protocol::Connect | Protocol::Http => {
                "application/grpc-web+proto"
            }
        };
        let field = |name: &'static str, value| (name.parse().expect("a name"), value);
        HeaderMap::from_iter([
            (CONTENT_TYPE, http::HeaderValue::from_static(content_type)),
            field("grpc-encoding", Coding::Gzip.name()),
            field("connect-content-encoding", Coding::Gzip.name()),
        ])
    }

    fn frame(flags: u8, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).expect("short").to_be_bytes();
        [&[flags], &length[..], data].concat()
    }

    /// What is learned from a body in pieces of each size, which must be the same every time.
    fn learned(protocol: Protocol, body: &[u8]) -> Option<(u8, Option<String>)> {
        let of_size = |size| {
            let mut end = RpcEnd::of(protocol, &headers(protocol)).expect("an end");
            let found: Vec<_> = body.chunks(size).filter_map(|piece| end.pass(piece)).collect();
            assert!(found.len() <= 1);
            found.into_iter().next()
        };
        let whole = of_size(body.len().max(1));
        for size in 1..body.len() {
            assert_eq!(of_size(size), whole, "{size}");
        }
        whole.map(|failure| match failure.outcome {
            Outcome::Grpc(code) => (code, failure.message),
            outcome => panic!("{outcome:?}"),
        })
    }

    const FAILED: &[u8] = b"grpc-status: 14\r\ngrpc-message: not%20now\r\n";

    fn not_now() -> Option<(u8, Option<String>)> {
        Some((14, Some("not now".to_owned())))
    }

    #[test]
    fn the_trailers_of_grpc_web_tell_however_they_are_cut() {
        let body = |trailers| [frame(0, b"\x80abc"), frame(0x80, trailers)].concat();
        assert_eq!(learned(Protocol::GrpcWeb, &body(FAILED)), not_now());
        assert_eq!(learned(Protocol::GrpcWeb, &frame(0x80, FAILED)), not_now());
        for good in [&b"grpc-status:0\r\n"[..], b"", b"grpc-message: 14"] {
            assert_eq!(learned(Protocol::GrpcWeb, &body(good)), None);
        }
        assert_eq!(learned(Protocol::GrpcWeb, &frame(0, FAILED)), None, "a message");
    }

    #[test]
    fn what_follows_the_end_does_not_hide_it() {
        for more in [&b"\0"[..], &frame(0, b"abc"), &frame(0x80, b"grpc-status: 0\r\n")] {
            let body = [&frame(0x80, FAILED)[..], more].concat();
            assert_eq!(learned(Protocol::GrpcWeb, &body), not_now(), "{more:?}");
        }
    }

    #[test]
    fn base64_is_read_in_segments_with_their_own_padding() {
        for message in [&b"a"[..], b"ab", b"abc"] {
            let text = [frame(0, message), frame(0x80, FAILED)].map(|part| STANDARD.encode(part));
            assert_eq!(learned(Protocol::GrpcWebText, text.concat().as_bytes()), not_now());
        }
        assert_eq!(learned(Protocol::GrpcWebText, b"!!!!AAAA"), None);
        let ended = STANDARD.encode(frame(0x80, FAILED)) + "!!!!";
        assert_eq!(learned(Protocol::GrpcWebText, ended.as_bytes()), not_now());
    }

    #[test]
    fn the_last_envelope_of_a_stream_of_connect_tells() {
        let body = |end: &str| [frame(0, b"{}"), frame(2, end.as_bytes())].concat();
        let failed = r#"{"error":{"code":"unavailable","message":"not now"},"metadata":{}}"#;
        assert_eq!(learned(Protocol::ConnectStream, &body(failed)), not_now());
        for good in ["{}", r#"{"metadata":{"a":["b"]}}"#, "no JSON"] {
            assert_eq!(learned(Protocol::ConnectStream, &body(good)), None, "{good}");
        }
        let strange = r#"{"error":{"code":"on_fire"}}"#;
        assert_eq!(learned(Protocol::ConnectStream, &body(strange)), Some((2, None)));
    }

    #[test]
    fn a_compressed_end_is_read_and_a_bomb_is_not() {
        let packed = |data: &[u8]| Coding::Gzip.write(data).expect("gzip");
        // Too short to be worth compressing, so it is left as it is.
        let failed = [FAILED, b"x: ", &[b'a'; 200]].concat();
        assert_eq!(learned(Protocol::GrpcWeb, &frame(0x81, &packed(&failed))), not_now());
        let bomb = [&b"grpc-status: 14\r\nx: "[..], &vec![b'a'; LONGEST]].concat();
        let mut end = RpcEnd::of(Protocol::GrpcWeb, &headers(Protocol::GrpcWeb)).expect("an end");
        assert_eq!(end.pass(&frame(0x81, &packed(&bomb))), None);
    }

    #[test]
    fn of_an_endless_end_so_much_is_kept() {
        let mut end = RpcEnd::of(Protocol::GrpcWeb, &headers(Protocol::GrpcWeb)).expect("an end");
        assert_eq!(end.pass(&[0x80, 0xFF, 0xFF, 0xFF, 0xFF]), None);
        for _ in 0..3 {
            assert_eq!(end.pass(&[b'a'; LONGEST]), None);
        }
        assert_eq!(end.end.map(|end| end.len()), Some(LONGEST));
    }

    #[test]
    fn other_answers_are_not_looked_into() {
        let json =
            HeaderMap::from_iter([(CONTENT_TYPE, http::HeaderValue::from_static("text/html"))]);
        assert!(RpcEnd::of(Protocol::GrpcWeb, &json).is_none());
        assert!(RpcEnd::of(Protocol::Grpc, &headers(Protocol::GrpcWeb)).is_none());
    }

    #[test]
    fn the_answer_s_own_type_says_whether_it_is_base64() {
        let mut end = RpcEnd::of(Protocol::GrpcWebText, &headers(Protocol::GrpcWeb));
        let failure = end.as_mut().and_then(|end| end.pass(&frame(0x80, FAILED)));
        assert!(failure.is_some());
    }
}
