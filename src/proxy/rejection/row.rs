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
use crate::policy::{self, ASK_AGAIN, Notice, Taken};

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
            "this route does not read this content type",
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
        .after(Some(ASK_AGAIN)),
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
            Row::new(word, Http::SERVICE_UNAVAILABLE, unavailable, detail).after(Some(ASK_AGAIN))
        }
        Failed::NoEndpoint => {
            let detail = "no endpoint of the upstream is known";
            Row::new(word, Http::SERVICE_UNAVAILABLE, unavailable, detail).after(Some(ASK_AGAIN))
        }
        Failed::EndpointsFull => {
            let detail = "every endpoint of the upstream has as many connections as it may";
            Row::new(word, Http::SERVICE_UNAVAILABLE, unavailable, detail).after(Some(ASK_AGAIN))
        }
        Failed::NoneAvailable => {
            let detail = "no endpoint of the upstream is available";
            Row::new(word, Http::SERVICE_UNAVAILABLE, unavailable, detail).after(Some(ASK_AGAIN))
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
            Row::new(word, gateway, unavailable, "the upstream's response was malformed")
        }
        Failed::AnswerUnreadable => {
            Row::new(word, gateway, Rpc::Internal, "the upstream's response cannot be read")
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
    use idempotency::Refusal as Key;
    use policy::Rejection as Of;
    use {RpcCode as Rpc, StatusCode as Http};
    let Notice { code, detail, retry_after } = rejection.notice();
    let row = |status, rpc| Row::new(code, status, rpc, detail).after(retry_after);
    let full = |status| {
        let status = Http::from_u16(status).unwrap_or(Http::TOO_MANY_REQUESTS);
        row(status, Rpc::ResourceExhausted).by(Fault::Gateway)
    };
    match rejection {
        Of::Credentials(Refusal::Unauthenticated(
            Denial::KeysUnavailable { .. } | Denial::Unanswered { .. },
        )) => row(Http::SERVICE_UNAVAILABLE, Rpc::Unavailable),
        Of::Credentials(Refusal::Unauthenticated(Denial::NotAllowed { .. })) => {
            row(Http::FORBIDDEN, Rpc::PermissionDenied)
        }
        Of::Credentials(Refusal::Unauthenticated(Denial::Said(said))) => match &said.verdict {
            Verdict::Unauthorized => row(Http::UNAUTHORIZED, Rpc::Unauthenticated),
            Verdict::Forbidden => row(Http::FORBIDDEN, Rpc::PermissionDenied),
            // A caller of RPC is not sent elsewhere.
            Verdict::Redirect { status, .. } => row(*status, Rpc::Unauthenticated),
        },
        Of::Credentials(Refusal::Unauthenticated(_)) => {
            row(Http::UNAUTHORIZED, Rpc::Unauthenticated)
        }
        Of::Address(_) | Of::Credentials(Refusal::Forbidden(_)) => {
            row(Http::FORBIDDEN, Rpc::PermissionDenied)
        }
        Of::RateLimited(_) => row(Http::TOO_MANY_REQUESTS, Rpc::ResourceExhausted),
        Of::LimitStoreUnavailable => row(Http::SERVICE_UNAVAILABLE, Rpc::Unavailable),
        // The statuses of the IETF draft on the `Idempotency-Key` header.
        Of::Idempotency(refusal) => match refusal {
            Key::Missing | Key::Invalid => row(Http::BAD_REQUEST, Rpc::InvalidArgument),
            Key::Mismatch => row(Http::UNPROCESSABLE_ENTITY, Rpc::InvalidArgument),
            Key::InFlight => row(Http::CONFLICT, Rpc::Aborted),
            // The client has kept to the rules: it is the gateway that lacks the first response.
            Key::Undecided | Key::NotKept => row(Http::CONFLICT, Rpc::Aborted).by(Fault::Gateway),
            Key::Unavailable => row(Http::SERVICE_UNAVAILABLE, Rpc::Unavailable),
        },
        Of::CircuitOpen { .. } => row(Http::SERVICE_UNAVAILABLE, Rpc::Unavailable)
            .by(Fault::Upstream)
            .falling_back(Cause::CircuitOpen),
        // At the fallback, a caller beyond its share would go on without a bound.
        Of::BulkheadFull { what: Taken::Share, status } => full(*status),
        Of::BulkheadFull { what: Taken::Slots, status }
        | Of::BulkheadWaitExceeded { status, .. } => {
            full(*status).falling_back(Cause::BulkheadFull)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderValue;

    use super::*;
    use crate::observe::metrics::words::{Facet, Facets};
    use crate::policy::auth::{Forbidden, Said, Unpermitted};
    use crate::policy::bulkhead::InVain;
    use crate::policy::{CircuitOf, networks, rate_limit};

    /// Values of each variant of an enum. A variant without its line here does not compile.
    macro_rules! each {
        ($($name:ident of $type:ty { $($pattern:pat => $values:expr,)+ })+) => {
            $(fn $name() -> Vec<$type> {
                // Only so that a variant without a line does not compile.
                fn _every_variant_has_a_line(value: &$type) {
                    match value { $($pattern => {})+ }
                }
                let mut values: Vec<$type> = Vec::new();
                $(values.extend($values);)+
                values
            })+
        };
    }

    each! {
        rejections of Rejection {
            Rejection::BadRequest(_) => [Rejection::BadRequest("".into())],
            Rejection::PathTooLong => [Rejection::PathTooLong],
            Rejection::HeadersTooLarge => [Rejection::HeadersTooLarge],
            Rejection::TooManyHeaders => [Rejection::TooManyHeaders],
            Rejection::BodyTooLarge => [Rejection::BodyTooLarge],
            Rejection::RequestTimeout => [Rejection::RequestTimeout],
            Rejection::InvalidBody(_) => [Rejection::InvalidBody("")],
            Rejection::InvalidRpc(_) => [Rejection::InvalidRpc("")],
            Rejection::UnexpectedCompression => [Rejection::UnexpectedCompression],
            Rejection::UnsupportedCompression => [Rejection::UnsupportedCompression],
            Rejection::UnsupportedMediaType(_) => [Rejection::UnsupportedMediaType("")],
            Rejection::NotForRpc => [Rejection::NotForRpc],
            Rejection::NoRoute => [Rejection::NoRoute],
            Rejection::Loop => [Rejection::Loop],
            Rejection::MethodNotAllowed(_) => {
                [Rejection::MethodNotAllowed(HeaderValue::from_static("GET"))]
            },
            Rejection::Flood { .. } => [Rejection::Flood { retry_after: Duration::ZERO }],
            Rejection::Policy(_) => policies().into_iter().map(Rejection::Policy),
            Rejection::Upstream(_) => failures().into_iter().map(Rejection::Upstream),
            Rejection::MalformedResponse(_) => [Rejection::MalformedResponse("")],
            Rejection::DeadlineExceeded => [Rejection::DeadlineExceeded],
            Rejection::RecordUnavailable => [Rejection::RecordUnavailable],
            Rejection::Internal => [Rejection::Internal],
        }
        policies of policy::Rejection {
            policy::Rejection::Address(_) => {
                [policy::Rejection::Address(networks::Refusal::Denied)]
            },
            policy::Rejection::Credentials(_) => {
                credentials().into_iter().map(policy::Rejection::Credentials)
            },
            policy::Rejection::RateLimited(_) => [policy::Rejection::RateLimited(used_up())],
            policy::Rejection::LimitStoreUnavailable => [policy::Rejection::LimitStoreUnavailable],
            policy::Rejection::Idempotency(_) => {
                keys().into_iter().map(policy::Rejection::Idempotency)
            },
            policy::Rejection::CircuitOpen { .. } => {
                [CircuitOf::Route, CircuitOf::Upstream].map(|of| {
                    policy::Rejection::CircuitOpen { of, retry_after: Duration::ZERO }
                })
            },
            policy::Rejection::BulkheadFull { .. } => {
                [Taken::Slots, Taken::Share]
                    .map(|what| policy::Rejection::BulkheadFull { what, status: 503 })
            },
            policy::Rejection::BulkheadWaitExceeded { .. } => {
                [InVain::Overload, InVain::Expired]
                    .map(|why| policy::Rejection::BulkheadWaitExceeded { why, status: 503 })
            },
        }
        credentials of Refusal {
            Refusal::Unauthenticated(_) => denials().into_iter().map(Refusal::Unauthenticated),
            Refusal::Forbidden(_) => forbidden().into_iter().map(Refusal::Forbidden),
        }
        denials of Denial {
            Denial::Missing => [Denial::Missing],
            Denial::Malformed => [Denial::Malformed],
            Denial::Algorithm => [Denial::Algorithm],
            Denial::Critical => [Denial::Critical],
            Denial::UnknownKey { .. } => {
                [Denial::UnknownKey { authority: authority(), kid: "key".into() }]
            },
            Denial::BadSignature => [Denial::BadSignature],
            Denial::NotVerified { .. } => {
                [Denial::NotVerified { authority: authority(), kid: None, generation: 0 }]
            },
            Denial::Claims => [Denial::Claims],
            Denial::Expired { .. } => [Denial::Expired { at: 1 }],
            Denial::NotYetValid => [Denial::NotYetValid],
            Denial::Issuer => [Denial::Issuer],
            Denial::Audience => [Denial::Audience],
            Denial::Consumer => [Denial::Consumer],
            Denial::KeysUnavailable { .. } => {
                [Denial::KeysUnavailable { authority: authority(), retry_after: Duration::ZERO }]
            },
            Denial::UnknownApiKey => [Denial::UnknownApiKey],
            Denial::NotAllowed { .. } => [Denial::NotAllowed { authority: authority() }],
            Denial::Unnamed { .. } => [Denial::Unnamed { authority: authority() }],
            Denial::Inactive { .. } => [Denial::Inactive { authority: authority() }],
            Denial::Said(_) => verdicts().into_iter().map(said),
            Denial::Unanswered { .. } => {
                [Denial::Unanswered { authority: authority(), why: "no answer".into() }]
            },
        }
        verdicts of Verdict {
            Verdict::Unauthorized => [Verdict::Unauthorized],
            Verdict::Forbidden => [Verdict::Forbidden],
            Verdict::Redirect { .. } => {
                let location = HeaderValue::from_static("/login");
                [Verdict::Redirect { status: StatusCode::FOUND, location }]
            },
        }
        forbidden of Forbidden {
            Forbidden::Scopes => [Forbidden::Scopes],
            Forbidden::Role => [Forbidden::Role],
            Forbidden::Call(_) => [Forbidden::Call(Unpermitted::Path)],
        }
        keys of idempotency::Refusal {
            idempotency::Refusal::Missing => [idempotency::Refusal::Missing],
            idempotency::Refusal::Invalid => [idempotency::Refusal::Invalid],
            idempotency::Refusal::InFlight => [idempotency::Refusal::InFlight],
            idempotency::Refusal::Mismatch => [idempotency::Refusal::Mismatch],
            idempotency::Refusal::Undecided => [idempotency::Refusal::Undecided],
            idempotency::Refusal::NotKept => [idempotency::Refusal::NotKept],
            idempotency::Refusal::Unavailable => [idempotency::Refusal::Unavailable],
        }
        failures of Failed {
            Failed::Dns => [Failed::Dns],
            Failed::NoEndpoint => [Failed::NoEndpoint],
            Failed::EndpointsFull => [Failed::EndpointsFull],
            Failed::NoneAvailable => [Failed::NoneAvailable],
            Failed::ConnectRefused => [Failed::ConnectRefused],
            Failed::Unreachable => [Failed::Unreachable],
            Failed::ConnectTimeout => [Failed::ConnectTimeout],
            Failed::ConnectFailed => [Failed::ConnectFailed],
            Failed::TlsExpired => [Failed::TlsExpired],
            Failed::TlsNotYetValid => [Failed::TlsNotYetValid],
            Failed::TlsWrongName => [Failed::TlsWrongName],
            Failed::TlsUnknownAuthority => [Failed::TlsUnknownAuthority],
            Failed::TlsUnpinned => [Failed::TlsUnpinned],
            Failed::TlsCertificate => [Failed::TlsCertificate],
            Failed::TlsFailed => [Failed::TlsFailed],
            Failed::RefusedStream => [Failed::RefusedStream],
            Failed::StaleConnection => [Failed::StaleConnection],
            Failed::Reset => [Failed::Reset],
            Failed::Closed => [Failed::Closed],
            Failed::AttemptTimeout => [Failed::AttemptTimeout],
            Failed::IdleTimeout => [Failed::IdleTimeout],
            Failed::DeadlineExceeded => [Failed::DeadlineExceeded],
            Failed::InvalidResponse => [Failed::InvalidResponse],
            Failed::AnswerUnreadable => [Failed::AnswerUnreadable],
            Failed::Answered(_) => [404, 503, 302].map(Failed::Answered),
            Failed::Grpc(_) => [Failed::Grpc(14)],
        }
    }

    fn authority() -> Arc<str> {
        "issuer".into()
    }

    fn said(verdict: Verdict) -> Denial {
        let (challenges, cookies) = (Box::default(), Box::default());
        Denial::Said(Arc::new(Said { authority: authority(), verdict, challenges, cookies }))
    }

    fn used_up() -> rate_limit::Verdict {
        let (reset_after, retry_after) = (Duration::ZERO, Duration::ZERO);
        rate_limit::Verdict { admitted: false, limit: 1, remaining: 0, reset_after, retry_after }
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
        for rejection in rejections() {
            assert!(words.contains(&rejection.code()), "{}", rejection.code());
        }
    }
}
