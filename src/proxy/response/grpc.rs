//! How a gRPC response reports that its call failed.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use percent_encoding::percent_decode;

use crate::policy::idempotency::Answer;
use crate::policy::outcome::Outcome;
use crate::proxy::dialect;
use crate::proxy::dialect::Protocol;
use crate::proxy::dialect::names::{GRPC_MESSAGE, GRPC_STATUS};
use crate::transcode::wire;

/// Prefix of the content types of gRPC and its variants.
const GRPC: &[u8] = b"application/grpc";

/// The code that clients use for a status that is not a number.
const GRPC_UNKNOWN: u8 = 2;

/// Whether a stored response reports that its call failed, whatever its HTTP status.
pub fn has_failed(protocol: Protocol, answer: &Answer) -> bool {
    let mut fields = answer.trailers.as_deref().into_iter().chain([&answer.headers]);
    if let Some(status) = fields.find_map(|fields| fields.get(&GRPC_STATUS)) {
        return is_grpc(&answer.headers) && grpc_failure(status.as_bytes()).is_some();
    }
    let body = answer.body.as_deref().unwrap_or_default();
    let is_zero = |status: Option<&[u8]>| status.is_none_or(|status| status == b"0");
    match protocol {
        Protocol::GrpcWeb => !is_zero(dialect::web_status(body)),
        Protocol::GrpcWebText => {
            wire::of_base64(body).is_ok_and(|body| !is_zero(dialect::web_status(&body)))
        }
        Protocol::Http | Protocol::Connect | Protocol::ConnectStream | Protocol::Grpc => false,
    }
}

/// Whether this is gRPC or one of its variants, by its content type.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    content_type(headers).starts_with(GRPC)
}

/// The value of `Content-Type`; empty if there is none.
pub fn content_type(headers: &HeaderMap) -> &[u8] {
    headers.get(CONTENT_TYPE).map_or(b"", |value| value.as_bytes())
}

/// The failure in trailers, or in a head; `None` if they have no `grpc-status` or it is 0.
pub fn failure_in(fields: &HeaderMap) -> Option<Outcome> {
    grpc_failure(fields.get(&GRPC_STATUS)?.as_bytes())
}

/// The failure that a `grpc-status` stands for; `None` for status 0.
pub fn grpc_failure(status: &[u8]) -> Option<Outcome> {
    match str::from_utf8(status).ok().and_then(|text| text.parse().ok()) {
        Some(0) => None,
        Some(code) => Some(Outcome::Grpc(code)),
        None => Some(Outcome::Grpc(GRPC_UNKNOWN)),
    }
}

/// The error message of gRPC, decoded.
pub fn grpc_message(fields: &HeaderMap) -> Option<String> {
    decoded(fields.get(&GRPC_MESSAGE)?.as_bytes())
}

/// The error message in a stored response, in the gRPC protocols.
pub fn kept_message(protocol: Protocol, answer: &Answer) -> Option<String> {
    let mut fields = answer.trailers.as_deref().into_iter().chain([&answer.headers]);
    let body = answer.body.as_deref().unwrap_or_default();
    match protocol {
        Protocol::Grpc | Protocol::Http => fields.find_map(grpc_message),
        Protocol::GrpcWeb => decoded(dialect::web_message(body)?),
        Protocol::GrpcWebText => decoded(dialect::web_message(&wire::of_base64(body).ok()?)?),
        Protocol::Connect | Protocol::ConnectStream => None,
    }
}

fn decoded(message: &[u8]) -> Option<String> {
    let text = percent_decode(message).decode_utf8_lossy();
    (!text.is_empty()).then(|| text.into_owned())
}
