//! What has gone to the client, as Pingora's session knows it.

use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::proxy::exchange::context::Context;

/// Whether a final head has gone to the client: nothing can be taken back then.
pub fn is_answered(session: &Session) -> bool {
    session
        .as_ref()
        .response_written()
        .is_some_and(|head| !head.status.is_informational() || head.status == 101)
}

/// The status the client got; 499 if it left before it got one.
pub fn status_of(session: &Session, ctx: &Context) -> u16 {
    match session.as_ref().response_written() {
        Some(head) if !head.status.is_informational() || head.status == 101 => head.status.as_u16(),
        Some(_) | None if ctx.end.is_client_gone() => 499,
        Some(_) | None => 0,
    }
}

/// Whether anything will come after `response`'s head.
pub fn has_body(session: &Session, response: &ResponseHeader) -> bool {
    let empty = response.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
    let head_only = session.req_header().method == Method::HEAD
        || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    !empty && !head_only
}
