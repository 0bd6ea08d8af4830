//! One row for each cause of a rejection: everything that a client, a record or a metric is told of it.
//!
//! A new cause does not compile until it has its row here.

use std::time::Duration;

use http::StatusCode;

use super::Rejection;
use crate::config::rpc_code::RpcCode;
use crate::policy::auth::{Denial, Refusal, Verdict};
use crate::policy::failure::{Cause as Failed, Fault};
use crate::policy::fallback::Cause;
use crate::policy::idempotency;
use crate::policy::{self, Taken};

/// What follows from a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// The stable name: the problem's `code`, the metric's label, the record's `rejection`.
    pub code: &'static str,
    /// What a client of HTTP gets.
    pub status: StatusCode,
    /// What a client of RPC gets. It does not follow from the status: 429 and 503 each mean more than
    /// one thing.
    pub rpc: Rpc,
    /// Whose fault it is.
    pub fault: Fault,
    /// What went wrong, for a person. Never what the client sent, never a credential.
    pub detail: &'a str,
    /// When the client may try again, if that is known; guessed where a store or a name is away.
    pub retry_after: Option<Duration>,
    /// What a route's fallback calls it; `None` for what is the caller's or the gateway's own fault.
    pub fallback: Option<Cause>,
    /// The request itself cannot be trusted, and with it what follows on its connection (RFC 9112,
    /// section 9.6).
    pub closes: bool,
}

/// Where the code of RPC comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rpc {
    /// The same for every route.
    Code(RpcCode),
    /// The route's table says what this status of its upstream means.
    OfStatus(u16),
}

impl<'a> Row<'a> {
    const fn new(code: &'static str, status: StatusCode, rpc: RpcCode, detail: &'a str) -> Self {
        let rpc = Rpc::Code(rpc);
        // As the class of the status says, unless the row says otherwise.
        let fault = if status.as_u16() < 500 { Fault::Client } else { Fault::Gateway };
        Row { code, status, rpc, fault, detail, retry_after: None, fallback: None, closes: false }
    }

    const fn closing(self) -> Self {
        Row { closes: true, ..self }
    }

    const fn after(self, retry_after: Option<Duration>) -> Self {
        Row { retry_after, ..self }
    }

    const fn falling_back(self, cause: Cause) -> Self {
        Row { fallback: Some(cause), ..self }
    }

    const fn by(self, fault: Fault) -> Self {
        Row { fault, ..self }
    }

    /// The upstream has been asked, and the fallback may take its place.
    const fn spent(self) -> Self {
        self.by(Fault::Upstream).falling_back(Cause::AttemptsSpent)
    }
}

const SECOND: Option<Duration> = Some(Duration::from_secs(1));

/// The row of `rejection`.
pub fn of(rejection: &Rejection) -> Row<'_> {
    use {RpcCode as Rpc, StatusCode as Http};
    match rejection {
        Rejection::BadRequest(what) => {
            Row::new("bad_request", Http::BAD_REQUEST, Rpc::InvalidArgument, what).closing()
        }
        Rejection::PathTooLong => Row::new(
            "path_too_long",
            Http::URI_TOO_LONG,
            Rpc::ResourceExhausted,
            "the path is longer than this listener allows",
        )
        .closing(),
        Rejection::HeadersTooLarge => {
            headers_too_large("the header fields are larger than this listener allows")
        }
        Rejection::TooManyHeaders => {
            headers_too_large("the request has more than 256 header fields")
        }
        Rejection::BodyTooLarge => Row::new(
            "body_too_large",
            Http::PAYLOAD_TOO_LARGE,
            Rpc::ResourceExhausted,
            "the body is larger than this route allows",
        ),
        Rejection::RequestTimeout => Row::new(
            "request_timeout",
            Http::REQUEST_TIMEOUT,
            Rpc::Canceled,
            "the request was sent too slowly",
        )
        .closing(),
        Rejection::InvalidBody(what) => {
            Row::new("invalid_body", Http::BAD_REQUEST, Rpc::InvalidArgument, what)
        }
        Rejection::InvalidRpc(what) => {
            Row::new("invalid_rpc", Http::BAD_REQUEST, Rpc::InvalidArgument, what)
        }
        Rejection::UnexpectedCompression => Row::new(
            "unexpected_compression",
            Http::BAD_REQUEST,
            Rpc::Internal,
            "a message of the request is compressed, and its head names no encoding",
        ),
        Rejection::UnsupportedCompression => Row::new(
            "unsupported_compression",
            Http::UNSUPPORTED_MEDIA_TYPE,
            Rpc::Unimplemented,
            "the message is compressed by an encoding that this route does not read",
        ),
        Rejection::UnsupportedMediaType(_) => Row::new(
            "unsupported_media_type",
            Http::UNSUPPORTED_MEDIA_TYPE,
            Rpc::Unimplemented,
            "the content type is none that this route reads",
        ),
        Rejection::NotForRpc => Row::new(
            "not_for_rpc",
            Http::NOT_FOUND,
            Rpc::Unimplemented,
            "this route has no response for callers of RPC",
        ),
        Rejection::NoRoute => Row::new(
            "no_route",
            Http::NOT_FOUND,
            Rpc::Unimplemented,
            "no route matches this request",
        ),
        Rejection::Loop => Row::new(
            "loop",
            Http::LOOP_DETECTED,
            Rpc::FailedPrecondition,
            "the request has come back to the gateway that it has passed through before",
        ),
        Rejection::MethodNotAllowed(_) => Row::new(
            "method_not_allowed",
            Http::METHOD_NOT_ALLOWED,
            Rpc::Unimplemented,
            "the method is not allowed here",
        ),
        Rejection::Flood { retry_after } => Row::new(
            "flood",
            Http::TOO_MANY_REQUESTS,
            Rpc::ResourceExhausted,
            "too many requests from this address",
        )
        .after(Some(*retry_after)),
        Rejection::Policy(rejection) => of_policy(rejection),
        Rejection::Upstream(cause) => of_upstream(*cause).spent().by(cause.fault()),
        Rejection::MalformedResponse(what) => {
            Row { detail: what, ..of_upstream(Failed::InvalidResponse).spent() }
        }
        Rejection::DeadlineExceeded => Row::new(
            "deadline_exceeded",
            Http::GATEWAY_TIMEOUT,
            Rpc::DeadlineExceeded,
            "the request's deadline has passed",
        )
        .spent(),
        Rejection::RecordUnavailable => Row::new(
            "record_unavailable",
            Http::SERVICE_UNAVAILABLE,
            Rpc::Unavailable,
            "the record of this request could not be committed",
        )
        .after(SECOND),
        Rejection::Internal => {
            Row::new("internal", Http::INTERNAL_SERVER_ERROR, Rpc::Internal, "the gateway failed")
        }
    }
}

fn headers_too_large(detail: &str) -> Row<'_> {
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    Row::new("headers_too_large", status, RpcCode::ResourceExhausted, detail).closing()
}

/// The upstream failed the request. The code is the cause, in the word that the record and the log
/// have for it too.
fn of_upstream(cause: Failed) -> Row<'static> {
    use {RpcCode as Rpc, StatusCode as Http};
    let word = cause.as_str();
    let (gateway, unavailable) = (Http::BAD_GATEWAY, Rpc::Unavailable);
    match cause {
        Failed::Dns => {
            let detail = "the upstream's name cannot be resolved";
            Row::new(word, Http::SERVICE_UNAVAILABLE, unavailable, detail).after(SECOND)
        }
        Failed::NoEndpoint => {
            let detail = "no endpoint of the upstream is known";
            Row::new(word, Http::SERVICE_UNAVAILABLE, unavailable, detail).after(SECOND)
        }
        Failed::EndpointsFull => {
            let detail = "every endpoint of the upstream has as many connections as it may";
            Row::new(word, Http::SERVICE_UNAVAILABLE, unavailable, detail).after(SECOND)
        }
        Failed::NoneAvailable => {
            let detail = "no endpoint of the upstream is available";
            Row::new(word, Http::SERVICE_UNAVAILABLE, unavailable, detail).after(SECOND)
        }
        Failed::AttemptTimeout | Failed::IdleTimeout | Failed::DeadlineExceeded => Row::new(
            word,
            Http::GATEWAY_TIMEOUT,
            Rpc::DeadlineExceeded,
            "the upstream did not answer in time",
        ),
        Failed::ConnectTimeout => Row::new(
            word,
            Http::GATEWAY_TIMEOUT,
            Rpc::DeadlineExceeded,
            "the upstream could not be reached in time",
        ),
        Failed::ConnectRefused
        | Failed::Unreachable
        | Failed::ConnectFailed
        | Failed::TlsExpired
        | Failed::TlsNotYetValid
        | Failed::TlsWrongName
        | Failed::TlsUnknownAuthority
        | Failed::TlsUnpinned
        | Failed::TlsCertificate
        | Failed::TlsFailed => {
            Row::new(word, gateway, unavailable, "the upstream could not be reached")
        }
        Failed::RefusedStream | Failed::StaleConnection | Failed::Reset | Failed::Closed => {
            Row::new(word, gateway, unavailable, "the upstream broke off")
        }
        Failed::InvalidResponse => {
            Row::new(word, gateway, unavailable, "the upstream's answer was malformed")
        }
        Failed::AnswerUnreadable => {
            Row::new(word, gateway, Rpc::Internal, "the upstream's answer cannot be read")
        }
        Failed::Answered(status) => {
            let row = Row::new(word, gateway, unavailable, "the upstream failed");
            Row { rpc: self::Rpc::OfStatus(status), ..row }
        }
        Failed::Grpc(_) => Row::new(word, gateway, unavailable, "the upstream failed"),
    }
}

/// A policy refused. Its names and words are its own; what they are in HTTP and RPC is said here.
fn of_policy(rejection: &policy::Rejection) -> Row<'_> {
    use policy::Rejection as Of;
    use {RpcCode as Rpc, StatusCode as Http};
    let (status, rpc, fallback) = match rejection {
        Of::Credentials(Refusal::Unauthenticated(
            Denial::KeysUnavailable { .. } | Denial::Unanswered { .. },
        )) => (Http::SERVICE_UNAVAILABLE, Rpc::Unavailable, None),
        Of::Credentials(Refusal::Unauthenticated(Denial::NotAllowed { .. })) => {
            (Http::FORBIDDEN, Rpc::PermissionDenied, None)
        }
        Of::Credentials(Refusal::Unauthenticated(Denial::Said(said))) => match &said.verdict {
            Verdict::Unauthorized => (Http::UNAUTHORIZED, Rpc::Unauthenticated, None),
            Verdict::Forbidden => (Http::FORBIDDEN, Rpc::PermissionDenied, None),
            // A caller of RPC is not sent elsewhere.
            Verdict::Redirect { status, .. } => (*status, Rpc::Unauthenticated, None),
        },
        Of::Credentials(Refusal::Unauthenticated(_)) => {
            (Http::UNAUTHORIZED, Rpc::Unauthenticated, None)
        }
        Of::Address(_) | Of::Credentials(Refusal::Forbidden(_)) => {
            (Http::FORBIDDEN, Rpc::PermissionDenied, None)
        }
        Of::RateLimited(_) => (Http::TOO_MANY_REQUESTS, Rpc::ResourceExhausted, None),
        Of::LimitStoreUnavailable => (Http::SERVICE_UNAVAILABLE, Rpc::Unavailable, None),
        // The statuses of the IETF draft on the `Idempotency-Key` header.
        Of::Idempotency(refusal) => match refusal {
            idempotency::Refusal::Missing | idempotency::Refusal::Invalid => {
                (Http::BAD_REQUEST, Rpc::InvalidArgument, None)
            }
            idempotency::Refusal::Mismatch => {
                (Http::UNPROCESSABLE_ENTITY, Rpc::InvalidArgument, None)
            }
            idempotency::Refusal::InFlight
            | idempotency::Refusal::Undecided
            | idempotency::Refusal::NotKept => (Http::CONFLICT, Rpc::Aborted, None),
            idempotency::Refusal::Unavailable => {
                (Http::SERVICE_UNAVAILABLE, Rpc::Unavailable, None)
            }
        },
        Of::CircuitOpen { .. } => {
            (Http::SERVICE_UNAVAILABLE, Rpc::Unavailable, Some(Cause::CircuitOpen))
        }
        Of::BulkheadFull { status, .. } | Of::BulkheadWaitExceeded { status, .. } => {
            let status = Http::from_u16(*status).unwrap_or(Http::TOO_MANY_REQUESTS);
            // A caller beyond its share would go on there without a bound.
            let is_share = matches!(rejection, Of::BulkheadFull { what: Taken::Share, .. });
            (status, Rpc::ResourceExhausted, (!is_share).then_some(Cause::BulkheadFull))
        }
    };
    let row = Row::new(rejection.code(), status, rpc, rejection.detail());
    let row = Row { fallback, ..row.after(rejection.retry_after()) };
    match rejection {
        Of::CircuitOpen { .. } => row.by(Fault::Upstream),
        Of::BulkheadFull { .. } | Of::BulkheadWaitExceeded { .. } => row.by(Fault::Gateway),
        // The client has kept to the rules: it is the gateway that lacks the first response.
        Of::Idempotency(idempotency::Refusal::Undecided | idempotency::Refusal::NotKept) => {
            row.by(Fault::Gateway)
        }
        Of::Address(_)
        | Of::Credentials(_)
        | Of::RateLimited(_)
        | Of::LimitStoreUnavailable
        | Of::Idempotency(
            idempotency::Refusal::Missing
            | idempotency::Refusal::Invalid
            | idempotency::Refusal::InFlight
            | idempotency::Refusal::Mismatch
            | idempotency::Refusal::Unavailable,
        ) => row,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::words::{Facet, Facets};
    use crate::policy::auth::{Forbidden, Unpermitted};

    const OF_UPSTREAM: [Failed; 26] = [
        Failed::Dns,
        Failed::NoEndpoint,
        Failed::ConnectRefused,
        Failed::Unreachable,
        Failed::ConnectTimeout,
        Failed::ConnectFailed,
        Failed::TlsExpired,
        Failed::TlsNotYetValid,
        Failed::TlsWrongName,
        Failed::TlsUnknownAuthority,
        Failed::TlsUnpinned,
        Failed::TlsCertificate,
        Failed::TlsFailed,
        Failed::RefusedStream,
        Failed::StaleConnection,
        Failed::Reset,
        Failed::Closed,
        Failed::AttemptTimeout,
        Failed::IdleTimeout,
        Failed::DeadlineExceeded,
        Failed::InvalidResponse,
        Failed::AnswerUnreadable,
        Failed::Answered(404),
        Failed::Answered(503),
        Failed::Answered(302),
        Failed::Grpc(14),
    ];

    /// One of each kind.
    fn all() -> Vec<Rejection> {
        let of_policy = [
            policy::Rejection::Address(policy::networks::Refusal::Denied),
            policy::Rejection::Credentials(Refusal::Unauthenticated(Denial::Missing)),
            policy::Rejection::Credentials(Refusal::Unauthenticated(Denial::Malformed)),
            policy::Rejection::Credentials(Refusal::Unauthenticated(Denial::Expired { at: 1 })),
            policy::Rejection::Credentials(Refusal::Forbidden(Forbidden::Scopes)),
            policy::Rejection::Credentials(Refusal::Forbidden(Forbidden::Role)),
            policy::Rejection::Credentials(Refusal::Forbidden(Forbidden::Call(Unpermitted::Path))),
            policy::Rejection::LimitStoreUnavailable,
            policy::Rejection::Idempotency(idempotency::Refusal::Missing),
            policy::Rejection::Idempotency(idempotency::Refusal::Invalid),
            policy::Rejection::Idempotency(idempotency::Refusal::InFlight),
            policy::Rejection::Idempotency(idempotency::Refusal::Mismatch),
            policy::Rejection::Idempotency(idempotency::Refusal::Undecided),
            policy::Rejection::Idempotency(idempotency::Refusal::NotKept),
            policy::Rejection::Idempotency(idempotency::Refusal::Unavailable),
            policy::Rejection::CircuitOpen {
                of: policy::CircuitOf::Route,
                retry_after: Duration::ZERO,
            },
            policy::Rejection::BulkheadFull { what: policy::Taken::Slots, status: 503 },
        ];
        let others = [
            Rejection::BadRequest("".into()),
            Rejection::PathTooLong,
            Rejection::HeadersTooLarge,
            Rejection::TooManyHeaders,
            Rejection::BodyTooLarge,
            Rejection::RequestTimeout,
            Rejection::UnexpectedCompression,
            Rejection::UnsupportedCompression,
            Rejection::NotForRpc,
            Rejection::NoRoute,
            Rejection::Loop,
            Rejection::Flood { retry_after: Duration::ZERO },
            Rejection::DeadlineExceeded,
            Rejection::RecordUnavailable,
            Rejection::Internal,
        ];
        let of_policy = of_policy.into_iter().map(Rejection::Policy);
        let of_upstream = OF_UPSTREAM.into_iter().map(Rejection::Upstream);
        others.into_iter().chain(of_policy).chain(of_upstream).collect()
    }

    #[test]
    fn every_code_is_among_the_words_that_metrics_show_as_zero() {
        let facets = [
            Facet::Route,
            Facet::None,
            Facet::Upstream,
            Facet::Messages,
            Facet::Networks,
            Facet::Credentials,
            Facet::RateLimit,
            Facet::SharedLimit,
            Facet::Idempotency,
            Facet::Circuit,
            Facet::Bulkhead,
            Facet::BodySize,
            Facet::Commit,
        ];
        let facets = facets.into_iter().fold(Facets::default(), |all, one| all.with(one, true));
        let words: Vec<_> = facets.codes().collect();
        for rejection in all() {
            assert!(words.contains(&rejection.code()), "{}", rejection.code());
        }
    }
}
