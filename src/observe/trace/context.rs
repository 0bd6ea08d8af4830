//! W3C trace context: reads and writes `traceparent`, and the ids in it.
//!
//! Strict about the caller's header: one that breaks a rule of the recommendation begins a new
//! trace. [`super`] decides which requests are sampled.

use std::num::{NonZeroU64, NonZeroU128};

use http::{HeaderMap, HeaderName, HeaderValue};

/// W3C Trace Context, section 3.2.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// W3C Trace Context, section 3.3; forwarded unchanged.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-` trace id `-` span id `-` flags.
const LENGTH: usize = 55;
const SAMPLED: u8 = 0x01;
/// The flag that the trace id is random; forwarded unchanged (Trace Context Level 2).
const RANDOM: u8 = 0x02;

/// Names a trace. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// 128 random bits.
    pub fn random() -> Self {
        TraceId(NonZeroU128::new(fastrand::u128(..)).unwrap_or(NonZeroU128::MIN))
    }

    /// Its 16 bytes, the first one highest.
    pub fn as_u128(self) -> u128 {
        self.0.get()
    }
}

/// 32 lower-case hexadecimal digits.
impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Names a span in its trace. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// 64 random bits.
    pub fn random() -> Self {
        SpanId(NonZeroU64::new(fastrand::u64(..)).unwrap_or(NonZeroU64::MIN))
    }

    /// Its 8 bytes, the first one highest.
    pub fn as_u64(self) -> u64 {
        self.0.get()
    }
}

/// The contents of a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The same for all spans of a trace.
    pub trace: TraceId,
    /// The span that sent it: the parent of the receiver's.
    pub span: SpanId,
    flags: u8,
}

impl TraceParent {
    /// Without the flag that the trace id is random.
    pub fn new(trace: TraceId, span: SpanId, sampled: bool) -> Self {
        TraceParent { trace, span, flags: if sampled { SAMPLED } else { 0 } }
    }

    /// The caller's, if there is exactly one and it is well formed.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        match (all.next(), all.next()) {
            (Some(only), None) => TraceParent::parse(only.as_bytes()),
            (None, _) | (Some(_), Some(_)) => None,
        }
    }

    /// Parses version 00 exactly; of a later version, the part it has in common with 00 (section
    /// 3.2.4).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let version = hex(&head[..2])?;
        let whole = match version {
            0x00 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        if !whole || [2, 35, 52].iter().any(|dash| head[*dash] != b'-') {
            return None;
        }
        let trace = TraceId(NonZeroU128::new(hex(&head[3..35])?)?);
        let span = SpanId(NonZeroU64::new(u64::try_from(hex(&head[36..52])?).ok()?)?);
        let flags = u8::try_from(hex(&head[53..])?).ok()?;
        Some(TraceParent { trace, span, flags: flags & (SAMPLED | RANDOM) })
    }

    /// Whether the sender records its spans.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace and flags, with another parent span.
    pub fn with_span(self, span: SpanId) -> Self {
        TraceParent { span, ..self }
    }

    /// Formats version 00. Done on the stack, because every attempt sends one.
    pub fn to_header(self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], self.trace.as_u128());
        write_hex(&mut text[36..52], self.span.as_u64().into());
        write_hex(&mut text[53..], self.flags.into());
        // Hexadecimal digits and hyphens always form a header value.
        let value = HeaderValue::from_bytes(&text);
        let mut value = value.unwrap_or_else(|_| HeaderValue::from_static(""));
        // The value differs for each attempt, so HTTP/2 must not index it.
        value.set_sensitive(true);
        value
    }
}

/// Parses lower-case digits only, as the recommendation requires; at most 32 of them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Writes the lowest digits of `number`, as many as fit.
fn write_hex(room: &mut [u8], mut number: u128) {
    for digit in room.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<TraceParent> {
        TraceParent::parse(text.as_bytes())
    }

    #[test]
    fn a_valid_parent_is_read() {
        let parent = parse(VALID).expect("valid");
        assert_eq!(parent.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parent.span.as_u64(), 0x00f0_67aa_0ba9_02b7);
        assert!(parent.is_sampled());
    }

    #[test]
    fn a_malformed_parent_is_none() {
        for text in [
            "",
            "00",
            // Zero ids.
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            // Upper case, foreign digits, a sign.
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            // Dashes elsewhere, too long, too short.
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            // A forbidden version, and one that is not a number.
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = format!("cc{}-what-the-future-will-bring", &VALID[2..]);
        assert_eq!(parse(&later), parse(VALID));
        assert_eq!(parse(&format!("cc{}", &VALID[2..])), parse(VALID));
    }

    #[test]
    fn flags_that_nobody_knows_are_not_passed_on() {
        let parent = parse(&format!("{}ff", &VALID[..53])).expect("valid");
        assert!(parent.to_header().as_bytes().ends_with(b"-03"));
    }

    #[test]
    fn two_parents_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(VALID));
        assert!(TraceParent::of(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(VALID));
        assert_eq!(TraceParent::of(&headers), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(
            trace in 1..=u128::MAX,
            span in 1..=u64::MAX,
            sampled: bool,
        ) {
            let trace = TraceId(NonZeroU128::new(trace).expect("not zero"));
            let span = SpanId(NonZeroU64::new(span).expect("not zero"));
            let parent = TraceParent::new(trace, span, sampled);
            prop_assert_eq!(TraceParent::parse(parent.to_header().as_bytes()), Some(parent));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..80)) {
            // Random bytes are never a valid parent, and never cause a panic.
            prop_assert_eq!(TraceParent::parse(&text), None);
        }
    }
}
