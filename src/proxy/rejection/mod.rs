//! Why the gateway answers by itself instead of the upstream, and what the client is told then.
//!
//! [`row`] has one row for each cause. How it is written for the caller is the business of
//! [dialect](crate::proxy::dialect).

pub mod row;

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use self::row::Rpc;
use crate::config::error_codes::ErrorCodes;
use crate::config::rpc_code::RpcCode;
use crate::policy;
use crate::policy::failure;
use crate::policy::fallback::Cause;

/// Why the gateway answers by itself instead of the upstream.
#[derive(Debug, Clone)]
pub enum Rejection {
    /// Malformed or ambiguous; the connection is closed after it. The words say what.
    BadRequest(Cow<'static, str>),
    /// The path, with its query, exceeds `max_path_bytes`.
    PathTooLong,
    /// The header fields exceed `max_header_bytes`.
    HeadersTooLarge,
    /// More fields than Pingora parses.
    TooManyHeaders,
    /// The body exceeds the route's `max_body`, or what a step can hold of it.
    BodyTooLarge,
    /// The client sent its request too slowly.
    RequestTimeout,
    /// The request's body is not what the route needs of it.
    InvalidBody(&'static str),
    /// The request is not what its own protocol of RPC wants it to be.
    InvalidRpc(&'static str),
    /// A message is compressed, and the request has not said how (both protocols of streams make
    /// this the code `internal`).
    UnexpectedCompression,
    /// It is compressed by a coding that is not read here, and this route must read it.
    UnsupportedCompression,
    /// This route does not read the body's content type, but these.
    UnsupportedMediaType(&'static str),
    /// The caller speaks RPC, and the route answers in a way that only plain HTTP has.
    NotForRpc,
    /// No route takes the host and the path.
    NoRoute,
    /// This process has sent the request itself.
    Loop,
    /// The methods that would have been allowed.
    MethodNotAllowed(HeaderValue),
    /// The client's address sends too much, whatever its credentials.
    Flood {
        /// Until the guard's interval ends.
        retry_after: Duration,
    },
    /// A policy said no.
    Policy(policy::Rejection),
    /// The upstream failed the request: there is no endpoint to ask, or the last attempt got no
    /// response that could be passed on.
    Upstream(failure::Cause),
    /// The last attempt got a response that cannot be passed on. The words say why.
    MalformedResponse(&'static str),
    /// The request's own deadline passed.
    DeadlineExceeded,
    /// The record could not be committed.
    RecordUnavailable,
    /// A fault of the gateway's own.
    Internal,
}

impl From<policy::Rejection> for Rejection {
    fn from(rejection: policy::Rejection) -> Self {
        Rejection::Policy(rejection)
    }
}

impl Rejection {
    /// The stable name: the problem's `code`, the metric's label, the record's `rejection`.
    pub fn code(&self) -> &'static str {
        row::of(self).code
    }

    /// What a client of HTTP gets.
    pub fn status(&self) -> StatusCode {
        row::of(self).status
    }

    /// As an error of RPC, by the route's table of `codes`.
    pub fn to_rpc(&self, codes: &ErrorCodes) -> RpcError<'_> {
        let row = row::of(self);
        let code = match row.rpc {
            Rpc::Code(code) => code,
            Rpc::OfStatus(status) => codes.of_status(status),
        };
        RpcError { code, message: row.detail, retry_after: row.retry_after }
    }

    /// What went wrong, for a person.
    pub fn detail(&self) -> &str {
        row::of(self).detail
    }

    /// When the client may try again, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        row::of(self).retry_after
    }

    /// What a route's fallback calls it, if one may take its place.
    pub fn fallback_cause(&self) -> Option<Cause> {
        row::of(self).fallback
    }

    /// Whether the connection closes after it.
    pub fn closes_connection(&self) -> bool {
        row::of(self).closes
    }
}

/// What every RPC protocol says of an error.
pub struct RpcError<'a> {
    /// By the cause, or by the route's `error_codes`.
    pub code: RpcCode,
    /// For a person.
    pub message: &'a str,
    /// `None` if a retry makes no sense or its time is unknown.
    pub retry_after: Option<Duration>,
}
