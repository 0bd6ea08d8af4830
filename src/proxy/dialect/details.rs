//! The delay before a retry, as a detail of an RPC error: `google.rpc.RetryInfo`.
//!
//! Encodes three small protobuf messages by hand: their fields have not changed in years.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::RpcError;

/// The message's full name.
pub(super) const RETRY_INFO: &str = "google.rpc.RetryInfo";

/// A `google.rpc.RetryInfo`: `{1: Duration {1: seconds, 2: nanos}}`.
pub(super) fn retry_info(after: Duration) -> Vec<u8> {
    let mut duration = Vec::new();
    put_number(&mut duration, 1, after.as_secs());
    put_number(&mut duration, 2, after.subsec_nanos().into());
    let mut info = Vec::new();
    put_bytes(&mut info, 1, &duration);
    info
}

/// A `google.rpc.Status` for `grpc-status-details-bin`, if the error has a detail: `{1: code, 2:
/// message, 3: Any {1: type URL, 2: value}}`.
pub(super) fn grpc_status(error: &RpcError<'_>) -> Option<String> {
    let after = error.retry_after?;
    let mut any = Vec::new();
    put_bytes(&mut any, 1, format!("type.googleapis.com/{RETRY_INFO}").as_bytes());
    put_bytes(&mut any, 2, &retry_info(after));
    let mut status = Vec::new();
    put_number(&mut status, 1, error.code.number().into());
    put_bytes(&mut status, 2, error.message.as_bytes());
    put_bytes(&mut status, 3, &any);
    Some(in_base64(&status))
}

/// Base64 as both gRPC and Connect want it.
pub(super) fn in_base64(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

/// A numeric field; proto3 omits it if the number is zero.
fn put_number(message: &mut Vec<u8>, field: u8, number: u64) {
    if number != 0 {
        message.push(field << 3);
        put_varint(message, number);
    }
}

fn put_bytes(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | 2);
    put_varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

fn put_varint(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_seconds_and_nanoseconds() {
        assert_eq!(retry_info(Duration::from_secs(300)), [0x0a, 3, 0x08, 0xac, 0x02]);
        assert_eq!(retry_info(Duration::from_nanos(5)), [0x0a, 2, 0x10, 5]);
    }
}
