//! The words that counters of refusals, retries and attempts can count.
//!
//! Prometheus does not see the first event of a series that begins with it: `increase` needs the zero
//! before. So all series that a route can have are shown with its first request, and all of an
//! upstream from the start. Which ones a route can have follows from its configuration.

/// Something a route does, for which it can refuse a request or count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facet {
    /// A route of the configuration, and not what stands for requests without one.
    Route,
    /// What stands for requests that reached no route.
    None,
    /// It sends requests to an upstream.
    Upstream,
    /// It reads or writes messages of RPC or JSON.
    Messages,
    /// It looks at the client's address.
    Networks,
    /// It needs credentials.
    Credentials,
    /// It has a rate limit.
    RateLimit,
    /// It has a rate limit that replicas count together.
    SharedLimit,
    /// It takes idempotency keys.
    Idempotency,
    /// It, or its upstream, has a circuit.
    Circuit,
    /// It has a bulkhead.
    Bulkhead,
    /// It limits the size of bodies.
    BodySize,
    /// A row is committed before its responses.
    Commit,
    /// It retries.
    Retry,
    /// Its fallback has a response of its own.
    FallbackBody,
    /// Its fallback is another upstream.
    FallbackUpstream,
    /// It counts responses by their exact status.
    ExactStatus,
}

/// What a route does, and which of that is a dry run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facets {
    has: u32,
    dry: u32,
}

/// How a health check can end.
pub(super) const CHECK_RESULTS: [&str; 21] = [
    "passed",
    "status",
    "redirect",
    "timeout",
    "not_serving",
    "unimplemented",
    "grpc_status",
    "protocol",
    "invalid_response",
    "closed",
    "reset",
    "connect_refused",
    "connect_failed",
    "unreachable",
    "tls_expired",
    "tls_not_yet_valid",
    "tls_wrong_name",
    "tls_unknown_authority",
    "tls_unpinned",
    "tls_certificate",
    "tls_failed",
];

/// The codes with which each facet refuses.
const CODES: [(Facet, &[&str]); 12] = [
    (
        Facet::Route,
        &[
            "bad_request",
            "request_timeout",
            "invalid_body",
            "deadline_exceeded",
            "flood",
            "loop",
            "internal",
        ],
    ),
    (
        Facet::None,
        &[
            "no_route",
            "method_not_allowed",
            "bad_request",
            "path_too_long",
            "headers_too_large",
            "request_timeout",
            "internal",
        ],
    ),
    (
        Facet::Upstream,
        &[
            "dns",
            "no_endpoint",
            "endpoints_full",
            "none_available",
            "connect_refused",
            "unreachable",
            "connect_timeout",
            "connect_failed",
            "tls_expired",
            "tls_not_yet_valid",
            "tls_wrong_name",
            "tls_unknown_authority",
            "tls_unpinned",
            "tls_certificate",
            "tls_failed",
            "refused_stream",
            "stale_connection",
            "reset",
            "closed",
            "attempt_timeout",
            "idle_timeout",
            "invalid_response",
        ],
    ),
    (
        Facet::Messages,
        &[
            "invalid_rpc",
            "unexpected_compression",
            "unsupported_compression",
            "unsupported_media_type",
            "not_for_rpc",
            "answer_unreadable",
            "upstream_4xx",
            "upstream_5xx",
            "upstream_status",
            "grpc_status",
        ],
    ),
    (Facet::Networks, &["address_denied"]),
    (
        Facet::Credentials,
        &[
            "credentials_missing",
            "credentials_invalid",
            "token_expired",
            "keys_unavailable",
            "auth_unavailable",
            "caller_denied",
            "auth_denied",
            "auth_redirect",
            "scope_missing",
            "role_missing",
            "call_denied",
        ],
    ),
    (Facet::RateLimit, &["rate_limited"]),
    (Facet::SharedLimit, &["limit_store_unavailable"]),
    (
        Facet::Idempotency,
        &[
            "idempotency_key_missing",
            "idempotency_key_invalid",
            "idempotency_in_flight",
            "idempotency_key_reused",
            "idempotency_undecided",
            "idempotency_answer_not_kept",
            "idempotency_unavailable",
        ],
    ),
    (Facet::Circuit, &["circuit_open"]),
    (Facet::Bulkhead, &["bulkhead_full", "bulkhead_wait_exceeded"]),
    (Facet::BodySize, &["body_too_large"]),
];
const COMMIT: &str = "record_unavailable";
/// Why a failed attempt is not retried.
const RETRY_REASONS: [&str; 11] = [
    "client_gone",
    "response_started",
    "not_retryable",
    "nested",
    "method",
    "exhausted",
    "body_too_large",
    "pushback",
    "deadline",
    "budget",
    "circuit_open",
];
const FALLBACK_REASONS: [&str; 3] = ["circuit_open", "bulkhead_full", "attempts_spent"];
/// What becomes of an attempt.
pub(super) const OUTCOMES: [&str; 19] = [
    "1xx",
    "2xx",
    "3xx",
    "4xx",
    "5xx",
    "other",
    "connect_failure",
    "tls_failure",
    "connect_timeout",
    "refused_stream",
    "reset",
    "timeout",
    "protocol",
    "grpc_cancelled",
    "grpc_deadline_exceeded",
    "grpc_resource_exhausted",
    "grpc_internal",
    "grpc_unavailable",
    "grpc_other",
];

impl Facets {
    /// The same with `facet`, if `has`.
    #[must_use]
    pub const fn with(self, facet: Facet, has: bool) -> Self {
        Facets { has: self.has | ((has as u32) << facet as u32), ..self }
    }

    /// The same where `facet` only decides and counts, if `dry`.
    #[must_use]
    pub const fn dry(self, facet: Facet, dry: bool) -> Self {
        Facets { dry: self.dry | ((dry as u32) << facet as u32), ..self }
    }

    pub(super) const fn has(self, facet: Facet) -> bool {
        self.has & 1 << facet as u32 != 0
    }

    const fn is_dry(self, facet: Facet) -> bool {
        self.dry & 1 << facet as u32 != 0
    }

    pub(super) const fn to_bits(self) -> u64 {
        (self.dry as u64) << 32 | self.has as u64
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        Facets { has: bits as u32, dry: (bits >> 32) as u32 }
    }

    /// The codes of its refusals.
    pub fn codes(self) -> impl Iterator<Item = &'static str> {
        let codes = CODES.into_iter().filter(move |(facet, _)| self.has(*facet));
        let commit = self.has(Facet::Commit).then_some(COMMIT);
        codes.flat_map(|(_, codes)| codes).copied().chain(commit)
    }

    /// The codes of refusals that dry runs do not make.
    pub(super) fn dry_codes(self) -> impl Iterator<Item = &'static str> {
        let codes = CODES.into_iter().filter(move |(facet, _)| self.is_dry(*facet));
        codes.flat_map(|(_, codes)| codes).copied()
    }

    pub(super) fn retry_reasons(self) -> impl Iterator<Item = &'static str> {
        RETRY_REASONS.into_iter().filter(move |_| self.has(Facet::Retry))
    }

    pub(super) fn fallbacks(self, facet: Facet) -> impl Iterator<Item = &'static str> {
        FALLBACK_REASONS.into_iter().filter(move |_| self.has(facet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fallback::Cause;
    use crate::policy::outcome::Outcome;

    #[test]
    fn no_code_is_there_twice() {
        for last in [Facet::Route, Facet::None] {
            let all = CODES.into_iter().map(|(facet, _)| facet);
            let all =
                all.filter(|facet| ![Facet::Route, Facet::None].contains(facet)).chain([last]);
            let facets = all.fold(Facets::default(), |facets, facet| facets.with(facet, true));
            let mut codes: Vec<_> = facets.codes().collect();
            let count = codes.len();
            codes.sort_unstable();
            codes.dedup();
            assert_eq!(codes.len(), count);
        }
    }

    #[test]
    fn facets_survive_as_bits() {
        let facets = Facets::default().with(Facet::ExactStatus, true).dry(Facet::Bulkhead, true);
        let same = Facets::from_bits(facets.to_bits());
        assert_eq!(same, facets);
        let codes = ["bulkhead_full", "bulkhead_wait_exceeded"];
        assert_eq!(same.dry_codes().collect::<Vec<_>>(), codes);
        assert_eq!(same.codes().count(), 0);
    }

    #[test]
    fn every_outcome_of_an_attempt_is_shown_from_the_start() {
        let plain = [
            Outcome::ConnectFailure,
            Outcome::TlsFailure,
            Outcome::ConnectTimeout,
            Outcome::RefusedStream,
            Outcome::Reset,
            Outcome::Timeout,
            Outcome::Protocol,
        ];
        let statuses = (0..1000).map(Outcome::Response).chain((0..=255).map(Outcome::Grpc));
        let mut words: Vec<_> = statuses.chain(plain).map(Outcome::as_str).collect();
        words.sort_unstable();
        words.dedup();
        let mut shown = OUTCOMES;
        shown.sort_unstable();
        assert_eq!(words, shown);
    }

    #[test]
    fn every_reason_of_a_fallback_is_shown() {
        let causes = [Cause::CircuitOpen, Cause::BulkheadFull, Cause::AttemptsSpent];
        assert_eq!(causes.map(Cause::as_str), FALLBACK_REASONS);
    }
}
