//! One refusal, written for its caller.
//!
//! What is refused, and with which status, was decided in [`super::rejection`]. Here it
//! becomes bytes.

mod connect;
mod problem;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use super::rejection::Rejection;
use crate::config::route::Dialect;
use crate::policy::idempotency::Answer;

pub use connect::translate as translate_upstream_error;

/// A refusal as a response.
pub struct Rendered {
    pub status: u16,
    pub content_type: HeaderValue,
    pub body: Bytes,
}

impl Rendered {
    /// To be given again.
    pub fn to_answer(&self) -> Answer {
        let headers = [(CONTENT_TYPE, self.content_type.clone())].into_iter().collect();
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY);
        Answer { status, headers, body: Some(self.body.clone()) }
    }
}

/// Write `rejection` in `dialect`. `request_id` lets a person find it in the record.
pub fn render(dialect: Dialect, rejection: &Rejection, request_id: &str) -> Rendered {
    match dialect {
        Dialect::Problem => problem::render(rejection, request_id),
        Dialect::Connect => connect::render(rejection),
    }
}
