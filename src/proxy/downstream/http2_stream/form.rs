//! The form of heads over HTTP/2, beyond what `h2` sees to.

use http::Method;
use http::header::{CONNECTION, HeaderName, TRANSFER_ENCODING, UPGRADE};
use pingora_core::protocols::http::authority::{
    RawTargetAuthority, raw_target_authority, validate_request_authority,
};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::proxy::downstream::head::Fault;
use crate::proxy::request;

/// Fields that only HTTP/1 connections have (RFC 9113, section 8.2.2).
const OF_CONNECTION: [HeaderName; 5] = [
    TRANSFER_ENCODING,
    CONNECTION,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Why the request must be refused because of its head; `None` if nothing is wrong with it. A byte
/// may end its target early, the length of its body may be ambiguous, or it may name several hosts.
/// A request without a host is refused with those of HTTP/1, when its host is read.
pub(super) fn fault(request: &RequestHeader) -> Option<Fault> {
    if request.method == Method::CONNECT {
        return Some(Fault::Connect);
    }
    let breaks_off = |byte: &u8| matches!(byte, 0 | b'\n' | b'\r' | b' ');
    if request.raw_path().iter().any(breaks_off) {
        return Some(Fault::RequestLine);
    }
    if request::length::repaired(&request.headers).is_err() {
        return Some(Fault::Length);
    }
    let is_addressed = validate_request_authority(request).is_ok()
        && raw_target_authority(request.raw_path()) == RawTargetAuthority::None;
    (!is_addressed).then_some(Fault::Host)
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
