//! A call as plain HTTP.

use bytes::Bytes;

/// A call as plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    pub method: http::Method,
    /// Path and query.
    pub target: String,
    /// JSON.
    pub body: Option<Bytes>,
}
