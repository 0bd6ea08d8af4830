//! `application/problem+json`, RFC 9457.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::{Rendered, RpcError};
use crate::config::status_map::StatusMap;
use crate::proxy::rejection::Rejection;

#[derive(Serialize)]
struct Problem<'a> {
    /// `about:blank`: the status gives the kind of problem, `code` the exact one.
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    request_id: &'a str,
}

pub(super) fn render(rejection: &Rejection, request_id: &str) -> Rendered {
    write(rejection.status(), rejection.detail(), rejection.code(), request_id)
}

/// An upstream's RPC error, for a client that called over plain HTTP.
pub(super) fn of_rpc(
    error: &RpcError<'_>,
    statuses: Option<&StatusMap>,
    request_id: &str,
) -> Rendered {
    let of_code = error.code.http_status();
    let status = statuses
        .and_then(|statuses| statuses.get(of_code))
        .or_else(|| StatusCode::from_u16(of_code).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    write(status, error.message, error.code.as_str(), request_id)
}

fn write(status: StatusCode, detail: &str, code: &str, request_id: &str) -> Rendered {
    let title = status.canonical_reason().unwrap_or("Error");
    let number = status.as_u16();
    let problem = Problem { kind: "about:blank", title, status: number, detail, code, request_id };
    // Strings and a number always serialize.
    let body = serde_json::to_vec(&problem).unwrap_or_default().into();
    let content_type = HeaderValue::from_static("application/problem+json");
    Rendered::new(number, vec![(CONTENT_TYPE, content_type)], body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_and_which_request() {
        let rendered = render(&Rejection::NoRoute, "r-1");
        let body: serde_json::Value = serde_json::from_slice(&rendered.body).expect("JSON");
        assert_eq!(rendered.status, 404);
        assert_eq!(body["type"], "about:blank");
        assert_eq!(body["title"], "Not Found");
        assert_eq!(body["status"], 404);
        assert_eq!(body["code"], "no_route");
        assert_eq!(body["request_id"], "r-1");
        assert!(body["detail"].is_string());
    }
}
