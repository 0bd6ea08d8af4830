//! A check by the gRPC health service: `grpc.health.v1.Health/Check`.
//!
//! Its two messages have one field each, so they are written and read here by hand: a request is
//! `service = 1` (a string), a response `status = 1` (an enum, of which 1 is `SERVING`).

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, Method};
use pingora_core::Result;
use pingora_core::protocols::http::client::HttpSession;
use pingora_http::RequestHeader;

use super::fault::{Fault, failed, of_exchange};
use super::http::{AGENT, read_head};
use crate::upstream::Endpoint;
use crate::upstream::health::config::{Grpc, Unimplemented};

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// A response has two bytes, and five in front of them.
const MAX_BODY: usize = 4 * 1024;
/// What is shown of a server's message, in characters.
const MAX_MESSAGE: usize = 200;

const OK: &str = "0";
const NOT_FOUND: &str = "5";
const UNIMPLEMENTED: &str = "12";

/// Makes the call, and judges its result.
pub(super) async fn check(
    session: &mut HttpSession,
    endpoint: &Endpoint,
    config: &Grpc,
) -> Result<(), Fault> {
    if session.as_http2().is_none() {
        return Err(failed("protocol", "gRPC needs HTTP/2, and the endpoint agreed to HTTP/1.1"));
    }
    let request = request(endpoint).map_err(of_exchange)?;
    session.write_request_header(Box::new(request)).await.map_err(of_exchange)?;
    let message = Bytes::from(ask(&config.service));
    session.write_request_body(message, true).await.map_err(of_exchange)?;
    read_head(session).await?;
    let Some(head) = session.response_header() else {
        return Err(failed("invalid_response", "no head"));
    };
    let status = head.status.as_u16();
    let is_grpc = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if status != 200 || !is_grpc {
        return Err(failed("status", format_args!("status {status} in place of a gRPC response")));
    }
    if head.headers.contains_key("grpc-status") {
        // Trailers only: there is no message.
        return of_status(&head.headers, config).unwrap_or_else(|| serving(&[]));
    }
    let mut body = Vec::new();
    while let Some(bytes) = session.read_response_body().await.map_err(of_exchange)? {
        if body.len() + bytes.len() > MAX_BODY {
            return Err(failed("invalid_response", "too large a message for a health check"));
        }
        body.extend_from_slice(&bytes);
    }
    let trailers = match session {
        HttpSession::H2(stream) => stream.read_trailers().await.map_err(of_exchange)?,
        HttpSession::H1(_) | HttpSession::Custom(()) => None,
    };
    of_status(&trailers.unwrap_or_default(), config).unwrap_or_else(|| serving(&body))
}

fn request(endpoint: &Endpoint) -> Result<RequestHeader> {
    let path = format!("{}{METHOD}", endpoint.key.base_path);
    let mut request = RequestHeader::build(Method::POST, path.as_bytes(), None)?;
    request.insert_header(HOST, endpoint.key.authority.clone())?;
    request.insert_header(CONTENT_TYPE, "application/grpc")?;
    request.insert_header(TE, "trailers")?;
    request.insert_header(USER_AGENT, AGENT)?;
    Ok(request)
}

/// The request's message in its frame.
fn ask(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 8);
    if !service.is_empty() {
        message.push(FIELD_1 | LENGTH_DELIMITED);
        let mut left = service.len();
        while left >= 0x80 {
            message.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        message.push(left as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

/// What the call's status says of the endpoint; `None`: the message decides.
fn of_status(trailers: &HeaderMap, config: &Grpc) -> Option<Result<(), Fault>> {
    let text = |name| trailers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let Some(status) = text("grpc-status") else {
        return Some(Err(failed("invalid_response", "a gRPC response without grpc-status")));
    };
    let what = match (&*status, config.unimplemented) {
        (OK, _) => return None,
        (UNIMPLEMENTED, Unimplemented::Healthy) => return Some(Ok(())),
        (UNIMPLEMENTED, Unimplemented::Unhealthy) => {
            ("unimplemented", "the server has no health service".to_owned())
        }
        (NOT_FOUND, _) => {
            ("not_serving", format!("the server does not know the service `{}`", config.service))
        }
        (other, _) => {
            let shown: String = other.chars().take(MAX_MESSAGE).collect();
            ("grpc_status", format!("grpc-status {}", shown.escape_debug()))
        }
    };
    let (kind, mut words) = what;
    if let Some(message) = text("grpc-message").filter(|message| !message.is_empty()) {
        let shown: String = message.chars().take(MAX_MESSAGE).collect();
        words.push_str(&format!(": {}", shown.escape_debug()));
    }
    Some(Err(failed(kind, words)))
}

/// Whether the message in the body says `SERVING`.
fn serving(body: &[u8]) -> Result<(), Fault> {
    let message = match body {
        [] => body,
        [0, a, b, c, d, message @ ..]
            if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len() =>
        {
            message
        }
        _ => return Err(failed("invalid_response", "not one uncompressed gRPC message")),
    };
    match status(message) {
        Some(1) => Ok(()),
        Some(0) => Err(failed("not_serving", "the server says UNKNOWN")),
        Some(2) => Err(failed("not_serving", "the server says NOT_SERVING")),
        Some(3) => Err(failed("not_serving", "the server says SERVICE_UNKNOWN")),
        Some(other) => Err(failed("not_serving", format_args!("the server says status {other}"))),
        None => Err(failed("invalid_response", "not a message of the health service")),
    }
}

const FIELD_1: u8 = 1 << 3;
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED_32: u64 = 5;

/// The value of field 1, or 0 if it is left out; `None` if this is no protobuf message. Other fields
/// are skipped, as newer servers may have more.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let (field, wire) = (tag >> 3, tag & 7);
        let skipped = match wire {
            VARINT => {
                let value = varint(&mut message)?;
                if field == 1 {
                    status = value;
                }
                0
            }
            FIXED_64 => 8,
            FIXED_32 => 4,
            wire if wire == u64::from(LENGTH_DELIMITED) => {
                usize::try_from(varint(&mut message)?).ok()?
            }
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(result: Result<(), Fault>) -> &'static str {
        match result {
            Ok(()) => "passed",
            Err(Fault::Endpoint(failure)) => failure.kind,
            Err(Fault::Own) => "own",
        }
    }

    #[test]
    fn the_request_is_the_one_of_the_health_service() {
        assert_eq!(ask(""), [0, 0, 0, 0, 0]);
        assert_eq!(ask("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = ask(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn only_serving_passes() {
        for (message, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], "passed"),
            (&[0, 0, 0, 0, 2, 8, 2], "not_serving"),
            (&[0, 0, 0, 0, 2, 8, 3], "not_serving"),
            (&[0, 0, 0, 0, 2, 8, 9], "not_serving"),
            (&[0, 0, 0, 0, 0], "not_serving"),
            (&[], "not_serving"),
            // A field that is not known yet, before the known one.
            (&[0, 0, 0, 0, 5, 0x12, 1, b'x', 8, 1], "passed"),
            (&[1, 0, 0, 0, 2, 8, 1], "invalid_response"),
            (&[0, 0, 0, 0, 9, 8, 1], "invalid_response"),
            (&[0, 0, 0, 0, 2, 8, 0x80], "invalid_response"),
            (&[0, 0, 0, 0, 2, 0x12, 9], "invalid_response"),
            (&[8, 1], "invalid_response"),
        ] {
            assert_eq!(kind(serving(message)), expected, "{message:?}");
        }
    }

    #[test]
    fn a_server_without_the_health_service_fails_unless_told_otherwise() {
        let of = |status: &'static str, unimplemented| {
            let trailers = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static(status),
            )]);
            let config = Grpc { service: "a".to_owned(), unimplemented };
            of_status(&trailers, &config).map_or("undecided", kind)
        };
        assert_eq!(of("12", Unimplemented::Unhealthy), "unimplemented");
        assert_eq!(of("12", Unimplemented::Healthy), "passed");
        assert_eq!(of("5", Unimplemented::Healthy), "not_serving");
        assert_eq!(of("14", Unimplemented::Healthy), "grpc_status");
        assert_eq!(of("0", Unimplemented::Healthy), "undecided");
    }
}
