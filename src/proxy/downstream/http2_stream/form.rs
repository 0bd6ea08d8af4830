//! The form of heads over HTTP/2, beyond what `h2` sees to.

use http::Method;
use http::header::{CONNECTION, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use pingora_core::protocols::http::authority::{
    RawTargetAuthority, raw_target_authority, validate_request_authority,
};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::proxy::request;

/// Fields that only HTTP/1 connections have (RFC 9113, section 8.2.2).
const OF_CONNECTION: [HeaderName; 5] = [
    TRANSFER_ENCODING,
    CONNECTION,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Whether the request could be written as one HTTP/1 request: no byte in it ends the target early,
/// and the length of its body is unambiguous.
pub(super) fn is_framed(request: &RequestHeader) -> bool {
    let breaks_off = |byte: &u8| matches!(byte, 0 | b'\n' | b'\r' | b' ');
    !request.raw_path().iter().any(breaks_off)
        && request::length::repaired(&request.headers).is_ok()
}

/// Whether the request names exactly one host. `CONNECT` is refused later.
pub(super) fn is_addressed(request: &RequestHeader) -> bool {
    let is_named = request.uri.authority().is_some() || request.headers.contains_key(HOST);
    let is_connect = request.method == Method::CONNECT;
    let is_path = || raw_target_authority(request.raw_path()) == RawTargetAuthority::None;
    is_named && validate_request_authority(request).is_ok() && (is_connect || is_path())
}

/// Removes what a response may not have.
pub(super) fn settle(head: &mut ResponseHeader) {
    // One pass is cheaper than a look-up for each name that is absent.
    if head.headers.keys().any(|name| OF_CONNECTION.contains(name)) {
        for name in &OF_CONNECTION {
            head.remove_header(name);
        }
    }
}
