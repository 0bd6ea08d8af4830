//! Every word that can stand as the cause of a request's end.
//!
//! The words come from the enums of the gateway, by matches without `_`: a variant without its row
//! here does not compile, and a word without its scenario fails a test.

use std::collections::BTreeSet;

use portcullis::policy;
use portcullis::policy::auth::{Denial, Forbidden, Refusal, Verdict};
use portcullis::policy::failure::Cause;
use portcullis::policy::idempotency;
use portcullis::proxy::rejection::Rejection;
use portcullis::summary::ending::{Cut, Ending, NoRequest};

/// The words of an enum's variants, in the order of the rows. Those of other enums stand at these.
macro_rules! words {
    ($($name:ident of $type:ty { $($pattern:pat => $words:expr,)+ })+) => {
        $(fn $name() -> Vec<&'static str> {
            // Only so that a variant without a row does not compile.
            fn _every_variant_has_a_row(value: &$type) {
                match value { $($pattern => {})+ }
            }
            let rows: Vec<Vec<&'static str>> = vec![$($words.into_iter().collect()),+];
            rows.concat()
        })+
    };
}

words! {
    of_ending of Ending<'_> {
        Ending::Answered | Ending::Replayed { .. } | Ending::Unforwarded => [],
        Ending::Failed { .. } => of_cause(),
        Ending::Refused(_) | Ending::BrokeOff(_) => of_rejection(),
        Ending::ClientGone { .. } => ["client_gone"],
        Ending::Cut { .. } => of_cut(),
        Ending::NoRequest(_) => of_no_request(),
    }
    of_cause of Cause {
        Cause::Dns => ["dns"],
        Cause::NoEndpoint => ["no_endpoint"],
        Cause::EndpointsFull => ["endpoints_full"],
        Cause::NoneAvailable => ["none_available"],
        Cause::ConnectRefused => ["connect_refused"],
        Cause::Unreachable => ["unreachable"],
        Cause::ConnectTimeout => ["connect_timeout"],
        Cause::ConnectFailed => ["connect_failed"],
        Cause::TlsExpired => ["tls_expired"],
        Cause::TlsNotYetValid => ["tls_not_yet_valid"],
        Cause::TlsWrongName => ["tls_wrong_name"],
        Cause::TlsUnknownAuthority => ["tls_unknown_authority"],
        Cause::TlsUnpinned => ["tls_unpinned"],
        Cause::TlsCertificate => ["tls_certificate"],
        Cause::TlsFailed => ["tls_failed"],
        Cause::RefusedStream => ["refused_stream"],
        Cause::StaleConnection => ["stale_connection"],
        Cause::Reset => ["reset"],
        Cause::Closed => ["closed"],
        Cause::AttemptTimeout => ["attempt_timeout"],
        Cause::IdleTimeout => ["idle_timeout"],
        Cause::DeadlineExceeded => ["deadline_exceeded"],
        Cause::InvalidResponse => ["invalid_response"],
        Cause::AnswerUnreadable => ["answer_unreadable"],
        Cause::Answered(400..=499) => ["upstream_4xx"],
        Cause::Answered(500..=599) => ["upstream_5xx"],
        Cause::Answered(_) => ["upstream_status"],
        Cause::Grpc(_) => ["grpc_status"],
    }
    of_rejection of Rejection {
        Rejection::BadRequest(_) => ["bad_request"],
        Rejection::PathTooLong => ["path_too_long"],
        Rejection::HeadersTooLarge | Rejection::TooManyHeaders => ["headers_too_large"],
        Rejection::BodyTooLarge => ["body_too_large"],
        Rejection::RequestTimeout => ["request_timeout"],
        Rejection::InvalidBody(_) => ["invalid_body"],
        Rejection::InvalidRpc(_) => ["invalid_rpc"],
        Rejection::UnexpectedCompression => ["unexpected_compression"],
        Rejection::UnsupportedCompression => ["unsupported_compression"],
        Rejection::UnsupportedMediaType(_) => ["unsupported_media_type"],
        Rejection::NotForRpc => ["not_for_rpc"],
        Rejection::NoRoute => ["no_route"],
        Rejection::Loop => ["loop"],
        Rejection::MethodNotAllowed(_) => ["method_not_allowed"],
        Rejection::Flood { .. } => ["flood"],
        Rejection::Policy(_) => of_policy(),
        Rejection::Upstream(_) | Rejection::MalformedResponse(_) => of_cause(),
        Rejection::DeadlineExceeded => ["deadline_exceeded"],
        Rejection::RecordUnavailable => ["record_unavailable"],
        Rejection::Internal => ["internal"],
    }
    of_policy of policy::Rejection {
        policy::Rejection::Address(_) => ["address_denied"],
        policy::Rejection::Credentials(_) => of_credentials(),
        policy::Rejection::RateLimited(_) => ["rate_limited"],
        policy::Rejection::LimitStoreUnavailable => ["limit_store_unavailable"],
        policy::Rejection::Idempotency(_) => of_idempotency(),
        policy::Rejection::CircuitOpen { .. } => ["circuit_open"],
        policy::Rejection::BulkheadFull { .. } => ["bulkhead_full"],
        policy::Rejection::BulkheadWaitExceeded { .. } => ["bulkhead_wait_exceeded"],
    }
    of_credentials of Refusal {
        Refusal::Unauthenticated(_) => of_denial(),
        Refusal::Forbidden(_) => of_forbidden(),
    }
    of_denial of Denial {
        Denial::Missing => ["credentials_missing"],
        Denial::Expired { .. } => ["token_expired"],
        Denial::KeysUnavailable { .. } => ["keys_unavailable"],
        Denial::Malformed
        | Denial::Algorithm
        | Denial::Critical
        | Denial::UnknownKey { .. }
        | Denial::NotVerified { .. }
        | Denial::BadSignature
        | Denial::Claims
        | Denial::NotYetValid
        | Denial::Issuer
        | Denial::Audience
        | Denial::Consumer
        | Denial::UnknownApiKey
        | Denial::Unnamed { .. }
        | Denial::Inactive { .. } => ["credentials_invalid"],
        Denial::NotAllowed { .. } => ["caller_denied"],
        Denial::Said(_) => of_verdict(),
        Denial::Unanswered { .. } => ["auth_unavailable"],
    }
    of_verdict of Verdict {
        Verdict::Unauthorized => ["credentials_invalid"],
        Verdict::Forbidden => ["auth_denied"],
        Verdict::Redirect { .. } => ["auth_redirect"],
    }
    of_forbidden of Forbidden {
        Forbidden::Scopes => ["scope_missing"],
        Forbidden::Role => ["role_missing"],
        Forbidden::Call(_) => ["call_denied"],
    }
    of_idempotency of idempotency::Refusal {
        idempotency::Refusal::Missing => ["idempotency_key_missing"],
        idempotency::Refusal::Invalid => ["idempotency_key_invalid"],
        idempotency::Refusal::InFlight => ["idempotency_in_flight"],
        idempotency::Refusal::Mismatch => ["idempotency_key_reused"],
        idempotency::Refusal::Undecided => ["idempotency_undecided"],
        idempotency::Refusal::NotKept => ["idempotency_answer_not_kept"],
        idempotency::Refusal::Unavailable => ["idempotency_unavailable"],
    }
    of_cut of Cut {
        Cut::Overdue => ["overdue"],
        Cut::Panic => ["panic"],
        Cut::Shutdown => ["shutdown"],
    }
    of_no_request of NoRequest {
        NoRequest::ProxyHeader => ["proxy_header"],
        NoRequest::Handshake => ["tls_handshake"],
        NoRequest::HeadLate => ["header_timeout"],
        NoRequest::HeadCutOff => ["head_cut_off"],
        NoRequest::Http2 => ["http2_violation"],
    }
}

/// All of them.
pub fn all() -> BTreeSet<&'static str> {
    of_ending().into_iter().collect()
}

/// The words that no scenario provokes are those of the gateway all the same.
#[test]
fn a_word_that_cannot_be_provoked_is_the_gateways_word_too() {
    assert_eq!(Cause::NoEndpoint.as_str(), "no_endpoint");
    assert_eq!(Cause::Unreachable.as_str(), "unreachable");
    assert_eq!(Cause::Answered(302).as_str(), "upstream_status");
    assert_eq!(Rejection::Internal.code(), "internal");
    assert_eq!(Cut::Panic.as_str(), "panic");
}
