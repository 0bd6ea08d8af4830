//! What a client gets: the one place where a refusal is given its status.
//!
//! How it is written down for the caller is the business of [`super::dialect`].

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use crate::config::error_codes::ErrorCodes;
use crate::config::rpc_code::RpcCode;
use crate::policy;
use crate::policy::auth::{Denial, Refusal};
use crate::policy::fallback::Cause;
use crate::policy::idempotency;
use crate::policy::outcome::Outcome;

/// Why the gateway answers by itself instead of the upstream.
#[derive(Debug, Clone)]
pub enum Rejection {
    /// Malformed or ambiguous; the connection is closed after it. The words say what.
    BadRequest(Cow<'static, str>),
    PathTooLong,
    HeadersTooLarge,
    /// More fields than Pingora parses.
    TooManyHeaders,
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
    /// This route cannot read what the body is, but these content types.
    UnsupportedMediaType(&'static str),
    /// The upstream's answer is complete, and cannot be made into what the caller asked for.
    AnswerUnreadable,
    NoRoute,
    /// The methods that would have been allowed.
    MethodNotAllowed(HeaderValue),
    /// The client's address sends too much, whoever it is.
    Flood {
        retry_after: Duration,
    },
    /// A policy said no.
    Policy(policy::Rejection),
    /// No endpoint of the upstream is known.
    NoEndpoint,
    /// The last attempt got no answer that could be passed on.
    Attempt(Outcome),
    /// The last attempt got a response that cannot be passed on. The words say why.
    MalformedResponse(&'static str),
    /// The request's own deadline passed.
    DeadlineExceeded,
    /// The record could not be committed.
    RecordUnavailable,
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
        match self {
            Rejection::BadRequest(_) => "bad_request",
            Rejection::PathTooLong => "path_too_long",
            Rejection::HeadersTooLarge | Rejection::TooManyHeaders => "headers_too_large",
            Rejection::BodyTooLarge => "body_too_large",
            Rejection::RequestTimeout => "request_timeout",
            Rejection::InvalidBody(_) => "invalid_body",
            Rejection::InvalidRpc(_) => "invalid_rpc",
            Rejection::UnexpectedCompression => "unexpected_compression",
            Rejection::UnsupportedCompression => "unsupported_compression",
            Rejection::UnsupportedMediaType(_) => "unsupported_media_type",
            Rejection::AnswerUnreadable => "answer_unreadable",
            Rejection::NoRoute => "no_route",
            Rejection::MethodNotAllowed(_) => "method_not_allowed",
            Rejection::Flood { .. } => "flood",
            Rejection::Policy(rejection) => rejection.code(),
            Rejection::NoEndpoint => "no_endpoint",
            Rejection::Attempt(Outcome::Timeout) => "attempt_timeout",
            Rejection::Attempt(Outcome::ConnectTimeout) => "connect_timeout",
            Rejection::Attempt(Outcome::ConnectFailure | Outcome::TlsFailure) => {
                "upstream_unreachable"
            }
            Rejection::Attempt(Outcome::Reset | Outcome::RefusedStream) => "upstream_reset",
            Rejection::Attempt(Outcome::Protocol) | Rejection::MalformedResponse(_) => {
                "upstream_protocol_error"
            }
            Rejection::Attempt(Outcome::Response(_) | Outcome::Grpc(_)) => "upstream_error",
            Rejection::DeadlineExceeded => "deadline_exceeded",
            Rejection::RecordUnavailable => "record_unavailable",
            Rejection::Internal => "internal",
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Rejection::BadRequest(_)
            | Rejection::InvalidBody(_)
            | Rejection::InvalidRpc(_)
            | Rejection::UnexpectedCompression => StatusCode::BAD_REQUEST,
            Rejection::PathTooLong => StatusCode::URI_TOO_LONG,
            Rejection::HeadersTooLarge | Rejection::TooManyHeaders => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Rejection::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Rejection::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Rejection::NoRoute => StatusCode::NOT_FOUND,
            Rejection::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Rejection::Flood { .. } => StatusCode::TOO_MANY_REQUESTS,
            Rejection::Policy(rejection) => match rejection {
                policy::Rejection::Credentials(Refusal::Unauthenticated(
                    Denial::KeysUnavailable { .. },
                )) => StatusCode::SERVICE_UNAVAILABLE,
                policy::Rejection::Credentials(Refusal::Unauthenticated(_)) => {
                    StatusCode::UNAUTHORIZED
                }
                policy::Rejection::Credentials(Refusal::Forbidden(_)) => StatusCode::FORBIDDEN,
                policy::Rejection::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
                policy::Rejection::Idempotency(refusal) => key_status(*refusal),
                policy::Rejection::CircuitOpen { .. }
                | policy::Rejection::LimitStoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
                policy::Rejection::BulkheadFull { status } => {
                    StatusCode::from_u16(*status).unwrap_or(StatusCode::TOO_MANY_REQUESTS)
                }
            },
            Rejection::UnsupportedCompression | Rejection::UnsupportedMediaType(_) => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Rejection::AnswerUnreadable | Rejection::MalformedResponse(_) => {
                StatusCode::BAD_GATEWAY
            }
            Rejection::NoEndpoint | Rejection::RecordUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Rejection::Attempt(Outcome::Timeout | Outcome::ConnectTimeout)
            | Rejection::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Rejection::Attempt(
                Outcome::ConnectFailure
                | Outcome::TlsFailure
                | Outcome::RefusedStream
                | Outcome::Reset
                | Outcome::Protocol
                | Outcome::Response(_)
                | Outcome::Grpc(_),
            ) => StatusCode::BAD_GATEWAY,
            Rejection::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The code an RPC client gets. Not derived from the status: 429 and 503 each mean
    /// more than one thing.
    fn rpc_code(&self, codes: &ErrorCodes) -> RpcCode {
        match self {
            Rejection::BadRequest(_) | Rejection::InvalidBody(_) | Rejection::InvalidRpc(_) => {
                RpcCode::InvalidArgument
            }
            Rejection::UnexpectedCompression => RpcCode::Internal,
            Rejection::PathTooLong
            | Rejection::HeadersTooLarge
            | Rejection::TooManyHeaders
            | Rejection::BodyTooLarge
            | Rejection::Flood { .. } => RpcCode::ResourceExhausted,
            Rejection::RequestTimeout => RpcCode::Canceled,
            Rejection::NoRoute
            | Rejection::MethodNotAllowed(_)
            | Rejection::UnsupportedCompression
            | Rejection::UnsupportedMediaType(_) => RpcCode::Unimplemented,
            Rejection::Policy(rejection) => match rejection {
                policy::Rejection::Credentials(Refusal::Unauthenticated(
                    Denial::KeysUnavailable { .. },
                )) => RpcCode::Unavailable,
                policy::Rejection::Credentials(Refusal::Unauthenticated(_)) => {
                    RpcCode::Unauthenticated
                }
                policy::Rejection::Credentials(Refusal::Forbidden(_)) => RpcCode::PermissionDenied,
                policy::Rejection::RateLimited(_) | policy::Rejection::BulkheadFull { .. } => {
                    RpcCode::ResourceExhausted
                }
                policy::Rejection::Idempotency(refusal) => key_rpc_code(*refusal),
                policy::Rejection::CircuitOpen { .. }
                | policy::Rejection::LimitStoreUnavailable => RpcCode::Unavailable,
            },
            Rejection::Attempt(Outcome::Timeout | Outcome::ConnectTimeout)
            | Rejection::DeadlineExceeded => RpcCode::DeadlineExceeded,
            Rejection::Attempt(Outcome::Response(status)) => codes.of_status(*status),
            Rejection::NoEndpoint
            | Rejection::RecordUnavailable
            | Rejection::MalformedResponse(_)
            | Rejection::Attempt(
                Outcome::ConnectFailure
                | Outcome::TlsFailure
                | Outcome::RefusedStream
                | Outcome::Reset
                | Outcome::Protocol
                | Outcome::Grpc(_),
            ) => RpcCode::Unavailable,
            Rejection::AnswerUnreadable | Rejection::Internal => RpcCode::Internal,
        }
    }

    /// As an error of RPC.
    pub fn to_rpc(&self, codes: &ErrorCodes) -> RpcError<'_> {
        RpcError {
            code: self.rpc_code(codes),
            message: self.detail(),
            retry_after: self.retry_after(),
        }
    }

    /// What went wrong, for a person. Never what the client sent, never a credential.
    pub fn detail(&self) -> &str {
        match self {
            Rejection::BadRequest(what) => what,
            Rejection::MalformedResponse(what) => what,
            Rejection::InvalidBody(what) | Rejection::InvalidRpc(what) => what,
            Rejection::UnexpectedCompression => {
                "a message is compressed, though no encoding was agreed on"
            }
            Rejection::PathTooLong => "the path is longer than this listener allows",
            Rejection::HeadersTooLarge => "the header fields are larger than this listener allows",
            Rejection::TooManyHeaders => "the request has more than 256 header fields",
            Rejection::UnsupportedCompression => {
                "the message is compressed by an encoding that this route does not read"
            }
            Rejection::UnsupportedMediaType(_) => "the content type is none that this route reads",
            Rejection::AnswerUnreadable => "the upstream's answer cannot be read",
            Rejection::BodyTooLarge => "the body is larger than this route allows",
            Rejection::RequestTimeout => "the request was sent too slowly",
            Rejection::NoRoute => "no route matches this request",
            Rejection::MethodNotAllowed(_) => "the method is not allowed here",
            Rejection::Flood { .. } => "too many requests from this address",
            Rejection::Policy(rejection) => rejection.detail(),
            Rejection::NoEndpoint => "no endpoint of the upstream is known",
            Rejection::Attempt(Outcome::Timeout) => "the upstream did not answer in time",
            Rejection::Attempt(Outcome::ConnectFailure | Outcome::TlsFailure) => {
                "the upstream could not be reached"
            }
            Rejection::Attempt(Outcome::ConnectTimeout) => {
                "the upstream could not be reached in time"
            }
            Rejection::Attempt(Outcome::Reset | Outcome::RefusedStream) => "the upstream broke off",
            Rejection::Attempt(Outcome::Protocol) => "the upstream's answer was malformed",
            Rejection::Attempt(Outcome::Response(_) | Outcome::Grpc(_)) => "the upstream failed",
            Rejection::DeadlineExceeded => "the request's deadline has passed",
            Rejection::RecordUnavailable => "the record of this request could not be committed",
            Rejection::Internal => "the gateway failed",
        }
    }

    /// When a client may try again, if that is known; guessed where a store or a name is away.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Rejection::Flood { retry_after } => Some(*retry_after),
            Rejection::Policy(rejection) => rejection.retry_after(),
            Rejection::NoEndpoint | Rejection::RecordUnavailable => Some(Duration::from_secs(1)),
            Rejection::BadRequest(_)
            | Rejection::PathTooLong
            | Rejection::HeadersTooLarge
            | Rejection::TooManyHeaders
            | Rejection::BodyTooLarge
            | Rejection::RequestTimeout
            | Rejection::InvalidBody(_)
            | Rejection::InvalidRpc(_)
            | Rejection::UnexpectedCompression
            | Rejection::UnsupportedCompression
            | Rejection::UnsupportedMediaType(_)
            | Rejection::AnswerUnreadable
            | Rejection::NoRoute
            | Rejection::MethodNotAllowed(_)
            | Rejection::Attempt(_)
            | Rejection::MalformedResponse(_)
            | Rejection::DeadlineExceeded
            | Rejection::Internal => None,
        }
    }

    /// What a route's fallback would call it; `None` for what is the caller's or our own fault.
    pub fn fallback_cause(&self) -> Option<Cause> {
        match self {
            Rejection::Policy(policy::Rejection::CircuitOpen { .. }) => Some(Cause::CircuitOpen),
            Rejection::Policy(policy::Rejection::BulkheadFull { .. }) => Some(Cause::BulkheadFull),
            Rejection::Attempt(_)
            | Rejection::MalformedResponse(_)
            | Rejection::AnswerUnreadable
            | Rejection::DeadlineExceeded
            | Rejection::NoEndpoint => Some(Cause::AttemptsSpent),
            Rejection::Policy(
                policy::Rejection::Credentials(_)
                | policy::Rejection::RateLimited(_)
                | policy::Rejection::LimitStoreUnavailable
                | policy::Rejection::Idempotency(_),
            )
            | Rejection::BadRequest(_)
            | Rejection::PathTooLong
            | Rejection::HeadersTooLarge
            | Rejection::TooManyHeaders
            | Rejection::BodyTooLarge
            | Rejection::RequestTimeout
            | Rejection::InvalidBody(_)
            | Rejection::InvalidRpc(_)
            | Rejection::UnexpectedCompression
            | Rejection::UnsupportedCompression
            | Rejection::UnsupportedMediaType(_)
            | Rejection::NoRoute
            | Rejection::MethodNotAllowed(_)
            | Rejection::RecordUnavailable
            | Rejection::Flood { .. }
            | Rejection::Internal => None,
        }
    }

    /// Whether the request itself cannot be trusted, and with it whatever follows it on
    /// the connection (RFC 9112, section 9.6).
    pub fn closes_connection(&self) -> bool {
        matches!(
            self,
            Rejection::BadRequest(_)
                | Rejection::PathTooLong
                | Rejection::HeadersTooLarge
                | Rejection::TooManyHeaders
                | Rejection::RequestTimeout
        )
    }
}

/// The statuses of the IETF draft on the `Idempotency-Key` header.
fn key_status(refusal: idempotency::Refusal) -> StatusCode {
    use idempotency::Refusal;
    match refusal {
        Refusal::Missing | Refusal::Invalid => StatusCode::BAD_REQUEST,
        Refusal::InFlight | Refusal::Undecided | Refusal::NotKept => StatusCode::CONFLICT,
        Refusal::Mismatch => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn key_rpc_code(refusal: idempotency::Refusal) -> RpcCode {
    use idempotency::Refusal;
    match refusal {
        Refusal::Missing | Refusal::Invalid | Refusal::Mismatch => RpcCode::InvalidArgument,
        Refusal::InFlight | Refusal::Undecided | Refusal::NotKept => RpcCode::Aborted,
        Refusal::Unavailable => RpcCode::Unavailable,
    }
}

/// What every RPC protocol says of an error.
pub struct RpcError<'a> {
    pub code: RpcCode,
    pub message: &'a str,
    pub retry_after: Option<Duration>,
}
