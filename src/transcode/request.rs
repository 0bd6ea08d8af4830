//! An RPC call as a plain HTTP request.

use bytes::Bytes;

/// An RPC call as a plain HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// That of the binding.
    pub method: http::Method,
    /// Path and query.
    pub target: String,
    /// JSON.
    pub body: Option<Bytes>,
}
