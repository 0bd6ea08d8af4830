//! Connect unary errors: `{"code", "message"}` with the code's HTTP status.
//!
//! Source: the Connect protocol's "Error End-Stream" and "Error Codes" sections.

use bytes::Bytes;
use http::HeaderValue;
use serde::Serialize;

use super::Rendered;
use crate::proxy::rejection::{Rejection, RpcCode};

#[derive(Serialize)]
struct ConnectError<'a> {
    code: &'static str,
    message: &'a str,
}

pub(super) fn render(rejection: &Rejection) -> Rendered {
    let code = rejection.rpc_code();
    Rendered {
        status: code.http_status(),
        content_type: HeaderValue::from_static("application/json"),
        body: body(code, rejection.detail()),
    }
}

/// A plain HTTP upstream's error body as a Connect error. Its message is the upstream's own
/// where it sent JSON with an `error` or a `message`. An upstream that speaks Connect already
/// (a `code` of the protocol's) is passed on as it came: `None`.
pub fn translate(status: u16, upstream_body: &[u8]) -> Option<Bytes> {
    let json: serde_json::Value = serde_json::from_slice(upstream_body).unwrap_or_default();
    if json.get("code").and_then(|c| c.as_str()).is_some_and(is_connect_code) {
        return None;
    }
    let message = ["error", "message"]
        .iter()
        .find_map(|field| json.get(field)?.as_str())
        .unwrap_or("the upstream failed");
    Some(body(RpcCode::from_upstream_status(status), message))
}

fn body(code: RpcCode, message: &str) -> Bytes {
    let error = ConnectError { code: code.as_str(), message };
    // Two strings always serialize.
    serde_json::to_vec(&error).unwrap_or_default().into()
}

fn is_connect_code(text: &str) -> bool {
    const CODES: [&str; 16] = [
        "canceled",
        "unknown",
        "invalid_argument",
        "deadline_exceeded",
        "not_found",
        "already_exists",
        "permission_denied",
        "resource_exhausted",
        "failed_precondition",
        "aborted",
        "out_of_range",
        "unimplemented",
        "internal",
        "unavailable",
        "data_loss",
        "unauthenticated",
    ];
    CODES.contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_error_becomes_a_connect_error_with_its_message() {
        let body = translate(409, br#"{"error":"taken"}"#).expect("translated");
        assert_eq!(&body[..], br#"{"code":"already_exists","message":"taken"}"#);
    }

    #[test]
    fn an_upstream_that_speaks_connect_is_not_remapped() {
        assert!(translate(404, br#"{"code":"failed_precondition"}"#).is_none());
    }

    #[test]
    fn a_body_that_is_no_json_still_gives_the_code() {
        let body = translate(503, b"<html>").expect("translated");
        assert!(body.starts_with(br#"{"code":"unavailable""#));
    }
}
