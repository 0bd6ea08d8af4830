//! What an upstream or a client says about retries in its header fields.

use std::time::{Duration, UNIX_EPOCH};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::policy::outcome::Outcome;

/// What a response says about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Not before this long; at most 24 h, even if more was asked for.
    After(Duration),
    /// Not at all.
    Never,
}

impl Pushback {
    /// What a response asks for: `grpc-retry-pushback-ms` (gRPC proposal A6), else `Retry-After`
    /// (RFC 9110, section 10.2.3) of a 429 or 503. A date in the past means now; an invalid
    /// `Retry-After` is ignored. `unix_now` is the wall clock, as the time since the Unix epoch.
    pub fn of_answer(outcome: Outcome, headers: &HeaderMap, unix_now: Duration) -> Option<Self> {
        if let Some(milliseconds) = headers.get(GRPC_PUSHBACK) {
            return Some(Pushback::from_grpc(milliseconds));
        }
        match outcome {
            Outcome::Response(429 | 503) => {
                let asked = retry_after(headers.get(RETRY_AFTER)?, unix_now)?;
                Some(Pushback::After(asked.min(LONGEST)))
            }
            Outcome::Response(_)
            | Outcome::ConnectFailure
            | Outcome::TlsFailure
            | Outcome::ConnectTimeout
            | Outcome::RefusedStream
            | Outcome::Reset
            | Outcome::Timeout
            | Outcome::Protocol
            | Outcome::Grpc(_) => None,
        }
    }

    /// A negative number, or anything but a number, means not to retry.
    fn from_grpc(milliseconds: &HeaderValue) -> Self {
        let milliseconds = milliseconds.to_str().ok().and_then(|text| text.trim().parse().ok());
        milliseconds.map_or(Pushback::Never, |milliseconds| {
            Pushback::After(Duration::from_millis(milliseconds).min(LONGEST))
        })
    }
}

/// Whether a request says that it is itself a retry: the number in the field `attempt_count`
/// (Envoy's `x-envoy-attempt-count`) is above 1, or gRPC's count of earlier attempts is above 0.
/// Only a trusted client's word should count.
pub fn is_retry(request: &HeaderMap, attempt_count: &HeaderName) -> bool {
    let above = |value: Option<&HeaderValue>, bound: u64| {
        let number = value.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        number.is_some_and(|number: u64| number > bound)
    };
    above(request.get(attempt_count), 1) || above(request.get(GRPC_PREVIOUS_ATTEMPTS), 0)
}

const GRPC_PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";
const GRPC_PUSHBACK: &str = "grpc-retry-pushback-ms";
const LONGEST: Duration = Duration::from_secs(24 * 3600);

fn retry_after(value: &HeaderValue, unix_now: Duration) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number with too many digits means a very long time.
        return Some(text.parse().map_or(LONGEST, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH);
    Some(date.map_or(Duration::ZERO, |date| date.saturating_sub(unix_now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
    const NOW: Duration = Duration::from_secs(784_111_777);

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    fn after(seconds: u64) -> Option<Pushback> {
        Some(Pushback::After(Duration::from_secs(seconds)))
    }

    #[test]
    fn a_retry_after_is_seconds_or_any_date_of_http() {
        for (value, expected) in [
            ("7", after(7)),
            (" 7 ", after(7)),
            ("0", after(0)),
            ("Sun, 06 Nov 1994 08:49:39 GMT", after(2)),
            ("Sunday, 06-Nov-94 08:49:39 GMT", after(2)),
            ("Sun Nov  6 08:49:39 1994", after(2)),
            // In the past, far too long, and invalid.
            ("Sun, 06 Nov 1994 08:49:30 GMT", after(0)),
            ("99999999999999999999999", after(86_400)),
            ("Mon, 06 Nov 1995 08:49:37 GMT", after(86_400)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
        ] {
            let headers = headers(&[("retry-after", value)]);
            let asked = Pushback::of_answer(Outcome::Response(503), &headers, NOW);
            assert_eq!(asked, expected, "{value}");
        }
    }

    #[test]
    fn a_retry_after_counts_where_it_is_about_retries() {
        let headers = headers(&[("retry-after", "7")]);
        let asked = |status| Pushback::of_answer(Outcome::Response(status), &headers, NOW);
        assert_eq!([429, 503].map(asked), [after(7); 2]);
        assert_eq!([200, 301, 500, 502].map(asked), [None; 4]);
    }

    #[test]
    fn a_pushback_of_grpc_is_milliseconds_or_a_no() {
        let milliseconds = |n| Pushback::After(Duration::from_millis(n));
        for (value, expected) in [
            ("1500", milliseconds(1500)),
            ("0", milliseconds(0)),
            ("-1", Pushback::Never),
            ("soon", Pushback::Never),
            ("", Pushback::Never),
        ] {
            let headers = headers(&[("grpc-retry-pushback-ms", value), ("retry-after", "7")]);
            let asked = Pushback::of_answer(Outcome::Grpc(14), &headers, NOW);
            assert_eq!(asked, Some(expected), "{value}");
        }
    }

    #[test]
    fn a_retry_is_known_by_its_attempt_number() {
        const COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
        for (name, value, expected) in [
            ("x-envoy-attempt-count", "1", false),
            ("x-envoy-attempt-count", "2", true),
            ("grpc-previous-rpc-attempts", "0", false),
            ("grpc-previous-rpc-attempts", "1", true),
            ("x-envoy-attempt-count", "many", false),
        ] {
            let headers = headers(&[(name, value)]);
            assert_eq!(is_retry(&headers, &COUNT), expected, "{name}: {value}");
        }
        assert!(!is_retry(&HeaderMap::new(), &COUNT));
    }
}
