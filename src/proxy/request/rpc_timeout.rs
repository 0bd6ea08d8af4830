//! The timeout in an RPC request: read from the caller's, and written in the same form to the
//! upstream's.
//!
//! Sources: "gRPC over HTTP2" (Timeout), the Connect protocol (Timeout).

use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::proxy::dialect::Protocol;
use crate::proxy::rejection::Rejection;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const CONNECT_TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
/// The most digits of each protocol's timeout.
const GRPC_DIGITS: usize = 8;
const CONNECT_DIGITS: usize = 10;

/// The timeout that the caller sets, if any.
///
/// # Errors
/// The rejection of a malformed timeout.
pub fn of_caller(protocol: Protocol, headers: &HeaderMap) -> Result<Option<Duration>, Rejection> {
    let Some(name) = header(protocol) else { return Ok(None) };
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let parsed = match name == GRPC_TIMEOUT {
        true => of_grpc(value.as_bytes()),
        false => number(value.as_bytes(), CONNECT_DIGITS).map(Duration::from_millis),
    };
    match parsed.filter(|_| values.next().is_none()) {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(Rejection::InvalidRpc("the timeout is malformed")),
    }
}

/// The field that holds the timeout of a caller, if that cannot be read.
pub fn malformed(protocol: Protocol, headers: &HeaderMap) -> Option<HeaderName> {
    of_caller(protocol, headers).is_err().then(|| header(protocol))?
}

/// Tells the upstream that `left` is all the time that remains. `always`: every attempt of the route
/// has this same time.
pub fn tell(protocol: Protocol, headers: &mut HeaderMap, left: Duration, always: bool) {
    let Some(name) = header(protocol) else { return };
    let mut value = match name == GRPC_TIMEOUT {
        true => to_grpc(left),
        false => whole(left.as_millis(), CONNECT_DIGITS).into(),
    };
    // Otherwise the value differs for each attempt, so HTTP/2 must not index it.
    value.set_sensitive(!always);
    headers.insert(name, value);
}

fn header(protocol: Protocol) -> Option<HeaderName> {
    match protocol {
        Protocol::Http => None,
        Protocol::Connect | Protocol::ConnectStream => Some(CONNECT_TIMEOUT),
        Protocol::Grpc | Protocol::GrpcWeb | Protocol::GrpcWebText => Some(GRPC_TIMEOUT),
    }
}

fn of_grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let amount = number(digits, GRPC_DIGITS)?;
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Uses the finest unit in which the time fits. Formatted on the stack, because every attempt sends
/// one.
fn to_grpc(left: Duration) -> HeaderValue {
    let fits = |amount: u128| amount < 10_u128.pow(GRPC_DIGITS as u32);
    let (amount, unit) = if fits(left.as_micros()) {
        (left.as_micros(), b'u')
    } else if fits(left.as_millis()) {
        (left.as_millis(), b'm')
    } else {
        (left.as_secs().into(), b'S')
    };
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(whole(amount, GRPC_DIGITS)).as_bytes();
    let mut text = [unit; GRPC_DIGITS + 1];
    text[..digits.len()].copy_from_slice(digits);
    // Digits and a letter always form a header value.
    let value = HeaderValue::from_bytes(&text[..=digits.len()]);
    value.unwrap_or_else(|_| HeaderValue::from_static("0u"))
}

/// `amount`, or the largest number with that many digits.
fn whole(amount: u128, digits: usize) -> u64 {
    let most = 10_u64.pow(digits as u32) - 1;
    u64::try_from(amount).map_or(most, |amount| amount.min(most))
}

/// Parses ASCII digits: at least one, at most `most`.
fn number(digits: &[u8], most: usize) -> Option<u64> {
    let fits = (1..=most).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| fits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(protocol: Protocol, value: &'static str) -> Result<Option<Duration>, Rejection> {
        let name = header(protocol).expect("a protocol of RPC");
        of_caller(protocol, &HeaderMap::from_iter([(name, HeaderValue::from_static(value))]))
    }

    #[test]
    fn every_unit_of_grpc_is_known() {
        for (value, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("4S", Duration::from_secs(4)),
            ("5m", Duration::from_millis(5)),
            ("6u", Duration::from_micros(6)),
            ("99999999n", Duration::from_nanos(99_999_999)),
        ] {
            assert_eq!(timeout(Protocol::Grpc, value).ok().flatten(), Some(expected), "{value}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for value in ["", "S", "5", "5s", "-1S", "1.5S", "+1S", "100000000m", " 5S", "5S5S"] {
            assert!(timeout(Protocol::Grpc, value).is_err(), "{value:?}");
        }
        for value in ["", "5m", "-1", "10000000000", "1e3"] {
            assert!(timeout(Protocol::Connect, value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn what_is_told_is_what_is_read_and_never_more() {
        for left in [0, 999, 1_500_000, 99_999_999_000, 100_000_000_123, 3_600_000_000_123_456] {
            let left = Duration::from_nanos(left);
            for protocol in [Protocol::Grpc, Protocol::Connect] {
                let mut headers = HeaderMap::new();
                tell(protocol, &mut headers, left, false);
                let read = of_caller(protocol, &headers).ok().flatten().expect("a time");
                assert!(read <= left && left - read < Duration::from_secs(1), "{headers:?}");
            }
        }
    }
}
