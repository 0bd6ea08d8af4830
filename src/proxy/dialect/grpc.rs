//! Errors of gRPC and gRPC-Web: a status beside the messages.
//!
//! Sources: "gRPC over HTTP2" (Trailers-Only, Status-Message), "gRPC-Web" (Message framing).

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};

use super::names::{GRPC_MESSAGE, GRPC_STATUS};
use super::{Rendered, RpcError, details, envelope};

/// Limit in bytes on a message taken from an upstream. Many clients accept 8 KiB of metadata in
/// all.
const MAX_MESSAGE: usize = 4 * 1024;
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// The fields that say how a call has ended.
pub const END: [HeaderName; 3] = [GRPC_STATUS, GRPC_MESSAGE, GRPC_STATUS_DETAILS];
/// The flag of the frame that holds gRPC-Web's trailers.
const TRAILERS: u8 = 0x80;

/// The status as header fields, for a Trailers-Only head or for trailers.
pub(super) fn fields(error: &RpcError<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut fields = vec![(GRPC_STATUS, HeaderValue::from(u16::from(error.code.number())))];
    let mut put = |name, text: String| {
        // Both encodings produce only characters that a header value may hold.
        fields.extend(HeaderValue::try_from(text).ok().map(|value| (name, value)));
    };
    put(GRPC_MESSAGE, percent_encoded(error.message));
    if let Some(status) = details::grpc_status(error) {
        put(GRPC_STATUS_DETAILS, status);
    }
    fields
}

pub(super) fn trailers(error: &RpcError<'_>) -> HeaderMap {
    fields(error).into_iter().collect()
}

/// "Trailers-Only": the response is a head without a body.
pub(super) fn head_only(error: &RpcError<'_>, content_type: HeaderValue) -> Rendered {
    let mut headers = vec![(CONTENT_TYPE, content_type)];
    headers.extend(fields(error));
    Rendered { bare: true, ..Rendered::new(200, headers, Bytes::new()) }
}

pub(super) fn web(error: &RpcError<'_>, content_type: HeaderValue, as_text: bool) -> Rendered {
    let mut block = String::new();
    for (name, value) in fields(error) {
        // Writing to a string does not fail; the values are ASCII.
        let _ = write!(block, "{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    let frame = envelope(TRAILERS, block.as_bytes());
    let body = if as_text { STANDARD.encode(&frame).into() } else { frame };
    Rendered::new(200, vec![(CONTENT_TYPE, content_type)], body)
}

/// The status at the end of a gRPC-Web response, if it has one.
pub fn web_status(body: &[u8]) -> Option<&[u8]> {
    web_field(body, &GRPC_STATUS)
}

/// The error message in it, percent-encoded.
pub fn web_message(body: &[u8]) -> Option<&[u8]> {
    web_field(body, &GRPC_MESSAGE)
}

/// The status in a frame of trailers.
pub fn trailer_status(block: &[u8]) -> Option<&[u8]> {
    trailer(block, &GRPC_STATUS)
}

/// A frame of trailers as header fields.
pub fn trailers_of(block: &[u8]) -> HeaderMap {
    let fields = block.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let value = HeaderValue::from_bytes(value[1..].trim_ascii()).ok()?;
        Some((HeaderName::from_bytes(name).ok()?, value))
    });
    fields.collect()
}

fn trailer<'a>(block: &'a [u8], wanted: &HeaderName) -> Option<&'a [u8]> {
    block.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(wanted.as_str().len())?;
        let value = value.strip_prefix(b":")?.trim_ascii();
        name.eq_ignore_ascii_case(wanted.as_str().as_bytes()).then_some(value)
    })
}

fn web_field<'a>(mut body: &'a [u8], wanted: &HeaderName) -> Option<&'a [u8]> {
    while let Some(([flags, length @ ..], rest)) = body.split_first_chunk::<5>() {
        let frame = rest.split_at_checked(u32::from_be_bytes(*length) as usize);
        let (data, rest) = frame?;
        if flags & TRAILERS != 0 {
            return trailer(data, wanted);
        }
        body = rest;
    }
    None
}

/// Percent-encodes everything but printable ASCII, and the percent sign itself, and cuts the result
/// to the limit.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len().min(MAX_MESSAGE));
    for character in text.chars() {
        let before = encoded.len();
        if matches!(character, ' '..='~') && character != '%' {
            encoded.push(character);
        } else {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        if encoded.len() > MAX_MESSAGE {
            encoded.truncate(before);
            break;
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_grpc_web_is_in_its_last_frame() {
        let web =
            |trailers: &[u8]| [envelope(0, b"\x80abc"), envelope(TRAILERS, trailers)].concat();
        let good = web(b"x-a: 1\r\nGrpc-Status: 0\r\n");
        assert_eq!(web_status(&good), Some(&b"0"[..]));
        assert_eq!(web_status(&web(b"grpc-status:5\r\n")), Some(&b"5"[..]));
        assert_eq!(web_status(&web(b"grpc-message:5\r\n")), None);
        assert_eq!(
            web_message(&web(b"grpc-status: 5\r\ngrpc-message: so%20\r\n")),
            Some(&b"so%20"[..])
        );
        for end in 0..good.len() {
            assert_eq!(web_status(&good[..end]), None, "{end}");
        }
    }

    #[test]
    fn a_message_is_percent_encoded() {
        assert_eq!(percent_encoded("so it is"), "so it is");
        assert_eq!(percent_encoded("100%\r\nü"), "100%25%0D%0A%C3%BC");
        assert_eq!(percent_encoded(&"a".repeat(5000)), "a".repeat(4096));
        assert_eq!(percent_encoded(&"ü".repeat(5000)), "%C3%BC".repeat(682));
    }
}
