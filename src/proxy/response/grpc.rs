//! How a response of gRPC says that its call failed.

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName};
use percent_encoding::percent_decode;

use crate::policy::idempotency::Answer;
use crate::policy::outcome::Outcome;
use crate::proxy::dialect;
use crate::proxy::dialect::Protocol;
use crate::transcode::wire;

/// How the content types of gRPC and of its variants begin.
const GRPC: &[u8] = b"application/grpc";

pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What a client makes of a status that is no number.
const GRPC_UNKNOWN: u8 = 2;

/// Whether an answer that was kept says that its call failed, whatever its status of HTTP.
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

pub fn is_grpc(headers: &HeaderMap) -> bool {
    content_type(headers).starts_with(GRPC)
}

pub fn content_type(headers: &HeaderMap) -> &[u8] {
    headers.get(CONTENT_TYPE).map_or(b"", |value| value.as_bytes())
}

pub fn failure_in(fields: &HeaderMap) -> Option<Outcome> {
    grpc_failure(fields.get(&GRPC_STATUS)?.as_bytes())
}

/// What a `grpc-status` says, unless it is 0.
pub fn grpc_failure(status: &[u8]) -> Option<Outcome> {
    match str::from_utf8(status).ok().and_then(|text| text.parse().ok()) {
        Some(0) => None,
        Some(code) => Some(Outcome::Grpc(code)),
        None => Some(Outcome::Grpc(GRPC_UNKNOWN)),
    }
}

/// What gRPC says of an error, for a person.
pub fn grpc_message(fields: &HeaderMap) -> Option<String> {
    decoded(fields.get(&GRPC_MESSAGE)?.as_bytes())
}

/// What an answer that was kept says of its error, in the protocols of gRPC.
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
