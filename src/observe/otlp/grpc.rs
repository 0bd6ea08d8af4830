//! A unary gRPC call, as far as an export needs it: a message to the collector, and a status back.

use bytes::Bytes;
use http::HeaderMap;

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Statuses after which the OTLP specification allows a retry. RESOURCE_EXHAUSTED is not among
/// them: it is temporary only if the collector says so in details, which are not read.
const TEMPORARY: [u32; 6] = [
    1,  // CANCELLED
    4,  // DEADLINE_EXCEEDED
    10, // ABORTED
    11, // OUT_OF_RANGE
    14, // UNAVAILABLE
    15, // DATA_LOSS
];

/// The status of a call that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub code: u32,
    pub message: String,
}

impl Status {
    /// `Ok` if the call succeeded. The status is in the trailers, or in the head of a response
    /// without a body.
    pub(super) fn of(head: &HeaderMap, trailers: Option<&HeaderMap>) -> Result<(), Status> {
        let from = trailers.filter(|trailers| trailers.contains_key("grpc-status")).unwrap_or(head);
        let text = |name: &str| from.get(name).and_then(|value| value.to_str().ok());
        let Some(code) = text("grpc-status").and_then(|code| code.parse().ok()) else {
            let message = "the answer has no grpc-status: is this a port for gRPC?".to_owned();
            return Err(Status { code: 2, message });
        };
        if code == 0 {
            return Ok(());
        }
        let message = text("grpc-message").unwrap_or_default();
        let message = percent_encoding::percent_decode_str(message).decode_utf8_lossy();
        Err(Status { code, message: message.into_owned() })
    }

    pub(super) fn is_temporary(&self) -> bool {
        TEMPORARY.contains(&self.code)
    }
}

/// `message` with its prefix.
pub(super) fn frame(message: &[u8], compressed: bool) -> Bytes {
    let mut framed = Vec::with_capacity(PREFIX + message.len());
    framed.push(compressed.into());
    // Always fits: a batch is far below 4 GiB.
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(message);
    framed.into()
}

/// The message of a response; `None` unless there is exactly one, uncompressed as requested.
pub(super) fn unframe(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let (compressed, length) = prefix.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (*compressed == 0 && usize::try_from(length).ok()? == message.len()).then_some(message)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn a_status_comes_after_the_body_or_without_one() {
        let failed = fields(&[("grpc-status", "14"), ("grpc-message", "not%20now")]);
        let status = Status { code: 14, message: "not now".to_owned() };
        assert_eq!(Status::of(&HeaderMap::new(), Some(&failed)), Err(status));
        assert!(Status::of(&failed, None).expect_err("failed").is_temporary());
        assert_eq!(Status::of(&HeaderMap::new(), Some(&fields(&[("grpc-status", "0")]))), Ok(()));
    }

    #[test]
    fn an_answer_without_a_status_is_not_a_success() {
        assert!(Status::of(&HeaderMap::new(), None).is_err());
        assert!(Status::of(&fields(&[("grpc-status", "zero")]), None).is_err());
    }

    #[test]
    fn what_is_framed_can_be_taken_apart() {
        assert_eq!(unframe(&frame(b"message", false)), Some(&b"message"[..]));
        assert_eq!(unframe(&frame(b"message", true)), None);
        for broken in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x02a", b"\0\0\0\0\x01ab"] {
            assert_eq!(unframe(broken), None);
        }
    }
}
