//! One refusal, written for its caller.
//!
//! What is refused, and with which status, was decided in [`super::rejection`]. Here it
//! becomes bytes.

mod connect;
mod problem;

use bytes::Bytes;
use http::HeaderValue;

use super::rejection::Rejection;
use crate::config::route::Dialect;

pub use connect::translate as translate_upstream_error;

/// A refusal as a response.
pub struct Rendered {
    pub status: u16,
    pub content_type: HeaderValue,
    pub body: Bytes,
}

/// Write `rejection` in `dialect`. `request_id` lets a person find it in the record.
pub fn render(dialect: Dialect, rejection: &Rejection, request_id: &str) -> Rendered {
    match dialect {
        Dialect::Problem => problem::render(rejection, request_id),
        Dialect::Connect => connect::render(rejection),
    }
}
