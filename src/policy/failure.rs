//! Why a request to an upstream failed: one word for each cause.
//!
//! Finer than [`Outcome`], which policies decide by: causes are for the log, the record and other
//! explanations to people. `proxy` determines the cause.

use super::outcome::Outcome;

/// Why there is no response to pass on, or none that is a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The upstream's name cannot be resolved, and no address of it is known.
    Dns,
    /// No endpoint of the upstream is known.
    NoEndpoint,
    /// Every endpoint has as many connections as `max_connections` allows.
    EndpointsFull,
    /// No endpoint is available, and `when_none_available` is `refuse`.
    NoneAvailable,
    /// Nothing listens at the endpoint's address.
    ConnectRefused,
    /// There is no route to the endpoint's network or host.
    Unreachable,
    /// No connection within the connect timeout, TLS included.
    ConnectTimeout,
    /// No connection for another reason.
    ConnectFailed,
    /// The certificate's time is over.
    TlsExpired,
    /// The certificate's time has not begun.
    TlsNotYetValid,
    /// The certificate is for another name.
    TlsWrongName,
    /// The certificate is from an authority that the gateway does not trust.
    TlsUnknownAuthority,
    /// The certificate is not one of those that `tls.pins` names.
    TlsUnpinned,
    /// The certificate is invalid for another reason: revoked, not for servers, malformed.
    TlsCertificate,
    /// The handshake failed for another reason.
    TlsFailed,
    /// HTTP/2: the upstream says it has not processed the request.
    RefusedStream,
    /// A pooled connection was already closed, and the request could not be sent again.
    StaleConnection,
    /// The connection or the stream broke before the response was complete.
    Reset,
    /// The upstream closed the connection before the response was complete.
    Closed,
    /// No complete response within the attempt timeout.
    AttemptTimeout,
    /// The upstream neither sent nor read anything for longer than the idle timeout.
    IdleTimeout,
    /// The request's own deadline passed.
    DeadlineExceeded,
    /// The upstream's response is not HTTP, or exceeds the limits.
    InvalidResponse,
    /// The response is complete, but cannot be translated into what the client asked for.
    AnswerUnreadable,
    /// The upstream responded with this status.
    Answered(u16),
    /// The upstream responded with this gRPC status.
    Grpc(u8),
}

/// Whose fault it was that a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It asked for something that it may not have, or left.
    Client,
    /// The gateway, or a store that it asks.
    Gateway,
    /// It gave no response, or one that is an error.
    Upstream,
}

impl Fault {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Fault::Client => "client",
            Fault::Gateway => "gateway",
            Fault::Upstream => "upstream",
        }
    }
}

impl Cause {
    /// Whose fault it was. A response that declines the request, and says nothing of a failure, is
    /// the client's.
    pub const fn fault(self) -> Fault {
        match self {
            Cause::Answered(400..=499) => Fault::Client,
            Cause::Grpc(_) if !self.is_server_error() => Fault::Client,
            // As of a bulkhead.
            Cause::EndpointsFull => Fault::Gateway,
            Cause::Dns
            | Cause::NoEndpoint
            | Cause::NoneAvailable
            | Cause::ConnectRefused
            | Cause::Unreachable
            | Cause::ConnectTimeout
            | Cause::ConnectFailed
            | Cause::TlsExpired
            | Cause::TlsNotYetValid
            | Cause::TlsWrongName
            | Cause::TlsUnknownAuthority
            | Cause::TlsUnpinned
            | Cause::TlsCertificate
            | Cause::TlsFailed
            | Cause::RefusedStream
            | Cause::StaleConnection
            | Cause::Reset
            | Cause::Closed
            | Cause::AttemptTimeout
            | Cause::IdleTimeout
            | Cause::DeadlineExceeded
            | Cause::InvalidResponse
            | Cause::AnswerUnreadable
            | Cause::Answered(_)
            | Cause::Grpc(_) => Fault::Upstream,
        }
    }

    /// The cause for a response's outcome; `None` for an attempt without a response.
    pub const fn of_answer(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Response(status) => Some(Cause::Answered(status)),
            Outcome::Grpc(code) => Some(Cause::Grpc(code)),
            Outcome::ConnectFailure
            | Outcome::TlsFailure
            | Outcome::ConnectTimeout
            | Outcome::RefusedStream
            | Outcome::Reset
            | Outcome::Timeout
            | Outcome::Protocol => None,
        }
    }

    /// The outcome that policies see; `None` if nothing was attempted.
    pub const fn outcome(self) -> Option<Outcome> {
        Some(match self {
            Cause::Dns | Cause::NoEndpoint | Cause::EndpointsFull | Cause::NoneAvailable => {
                return None;
            }
            Cause::ConnectRefused | Cause::Unreachable | Cause::ConnectFailed => {
                Outcome::ConnectFailure
            }
            Cause::ConnectTimeout => Outcome::ConnectTimeout,
            Cause::TlsExpired
            | Cause::TlsNotYetValid
            | Cause::TlsWrongName
            | Cause::TlsUnknownAuthority
            | Cause::TlsUnpinned
            | Cause::TlsCertificate
            | Cause::TlsFailed => Outcome::TlsFailure,
            Cause::RefusedStream => Outcome::RefusedStream,
            Cause::StaleConnection | Cause::Reset | Cause::Closed => Outcome::Reset,
            Cause::AttemptTimeout | Cause::IdleTimeout | Cause::DeadlineExceeded => {
                Outcome::Timeout
            }
            Cause::InvalidResponse | Cause::AnswerUnreadable => Outcome::Protocol,
            Cause::Answered(status) => Outcome::Response(status),
            Cause::Grpc(code) => Outcome::Grpc(code),
        })
    }

    /// The stable name in the log and in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Dns => "dns",
            Cause::NoEndpoint => "no_endpoint",
            Cause::EndpointsFull => "endpoints_full",
            Cause::NoneAvailable => "none_available",
            Cause::ConnectRefused => "connect_refused",
            Cause::Unreachable => "unreachable",
            Cause::ConnectTimeout => "connect_timeout",
            Cause::ConnectFailed => "connect_failed",
            Cause::TlsExpired => "tls_expired",
            Cause::TlsNotYetValid => "tls_not_yet_valid",
            Cause::TlsWrongName => "tls_wrong_name",
            Cause::TlsUnknownAuthority => "tls_unknown_authority",
            Cause::TlsUnpinned => "tls_unpinned",
            Cause::TlsCertificate => "tls_certificate",
            Cause::TlsFailed => "tls_failed",
            Cause::RefusedStream => "refused_stream",
            Cause::StaleConnection => "stale_connection",
            Cause::Reset => "reset",
            Cause::Closed => "closed",
            Cause::AttemptTimeout => "attempt_timeout",
            Cause::IdleTimeout => "idle_timeout",
            Cause::DeadlineExceeded => "deadline_exceeded",
            Cause::InvalidResponse => "invalid_response",
            Cause::AnswerUnreadable => "answer_unreadable",
            Cause::Answered(400..=499) => "upstream_4xx",
            Cause::Answered(500..=599) => "upstream_5xx",
            Cause::Answered(_) => "upstream_status",
            Cause::Grpc(_) => "grpc_status",
        }
    }

    /// What happened, in words.
    pub const fn phrase(self) -> &'static str {
        match self {
            Cause::Dns => "name not resolved",
            Cause::NoEndpoint => "no endpoint known",
            Cause::EndpointsFull => "every endpoint has as many connections as it may",
            Cause::NoneAvailable => "no endpoint available",
            Cause::ConnectRefused => "connection refused",
            Cause::Unreachable => "no route",
            Cause::ConnectTimeout => "no connection within the connect timeout",
            Cause::ConnectFailed => "no connection",
            Cause::TlsExpired => "certificate expired",
            Cause::TlsNotYetValid => "certificate not yet valid",
            Cause::TlsWrongName => "certificate for another name",
            Cause::TlsUnknownAuthority => "certificate of an unknown authority",
            Cause::TlsUnpinned => "certificate is not pinned",
            Cause::TlsCertificate => "certificate not accepted",
            Cause::TlsFailed => "TLS handshake failed",
            Cause::RefusedStream => "stream refused",
            Cause::StaleConnection => "pooled connection already closed",
            Cause::Reset => "connection broke",
            Cause::Closed => "connection closed early",
            Cause::AttemptTimeout => "no complete response within the attempt timeout",
            Cause::IdleTimeout => "silent for longer than the idle timeout",
            Cause::DeadlineExceeded => "the request's deadline passed",
            Cause::InvalidResponse => "response is not valid HTTP",
            Cause::AnswerUnreadable => "response cannot be read",
            Cause::Answered(_) | Cause::Grpc(_) => "answered with an error",
        }
    }

    /// Whether a response with this status says that the upstream itself failed, and did not merely
    /// decline the request. In gRPC these are unknown, deadline_exceeded, unimplemented, internal,
    /// unavailable and data_loss, which correspond to HTTP statuses from 500 on.
    pub const fn is_server_error(self) -> bool {
        match self {
            Cause::Answered(status) => status >= 500,
            Cause::Grpc(code) => matches!(code, 2 | 4 | 12 | 13 | 14 | 15),
            Cause::Dns
            | Cause::NoEndpoint
            | Cause::EndpointsFull
            | Cause::NoneAvailable
            | Cause::ConnectRefused
            | Cause::Unreachable
            | Cause::ConnectTimeout
            | Cause::ConnectFailed
            | Cause::TlsExpired
            | Cause::TlsNotYetValid
            | Cause::TlsWrongName
            | Cause::TlsUnknownAuthority
            | Cause::TlsUnpinned
            | Cause::TlsCertificate
            | Cause::TlsFailed
            | Cause::RefusedStream
            | Cause::StaleConnection
            | Cause::Reset
            | Cause::Closed
            | Cause::AttemptTimeout
            | Cause::IdleTimeout
            | Cause::DeadlineExceeded
            | Cause::InvalidResponse
            | Cause::AnswerUnreadable => false,
        }
    }
}
