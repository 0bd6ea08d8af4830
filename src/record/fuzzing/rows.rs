//! Rows made from an input: fields separated by [`NEXT`], a byte that no text contains.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::Method;

use crate::record::capture::captured::Captured;
use crate::record::invocation::Invocation;

/// Separates two fields.
const NEXT: u8 = 0xff;

/// A row with the fields of `input`; missing ones are empty or absent.
pub(in crate::record) fn invocation(input: &[u8]) -> Invocation {
    let mut fields = input.split(|byte| *byte == NEXT).map(String::from_utf8_lossy);
    let mut next = || fields.next().filter(|field| !field.is_empty()).map(Cow::into_owned);
    let path = next().unwrap_or_default();
    let numbers = next().unwrap_or_default();
    let number = |at: usize| u64::from(numbers.as_bytes().get(at).copied().unwrap_or(0));
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_000 + number(0));
    let request_id = next().unwrap_or_default().into();
    let route = next().unwrap_or_default().into();
    let method = next().and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    let mut row = Invocation::new(at, request_id, route, method.unwrap_or(Method::POST), path);
    row.id = uuid::Uuid::from_u128(crc32fast::hash(input).into());
    row.trace_id = u128::from(number(1));
    row.status = 200 + number(2) as u16;
    row.attempts = number(3) as u32;
    row.success = number(4) == 0;
    row.duration = Duration::from_micros(number(5));
    row.bytes_in = number(6) << 40;
    row.upstream = next().map(Into::into);
    row.endpoint = next().map(Into::into);
    row.consumer = next().map(Into::into);
    row.query = next();
    row.rejection = next().map(Cow::Owned);
    row.cause = next().map(Cow::Owned);
    row.would_refuse = next().map(Cow::Owned);
    row.captured = Captured { name: next(), result_message: next(), other: Vec::new() };
    while let Some(value) = next() {
        // Remove the replacement character: two names must not become equal once NUL is replaced.
        let name = value.replace('\u{fffd}', "").chars().rev().take(3).collect::<String>();
        row.captured.insert(&name.into(), value);
    }
    row
}

/// The row with its further captured fields sorted by name, as they are in JSON.
pub(in crate::record) fn sorted(mut row: Invocation) -> Invocation {
    row.captured.other.sort();
    row
}

/// The bytes up to the next separator, and those after it.
pub(in crate::record) fn split(input: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(NEXT, input).unwrap_or(input.len());
    (&input[..end], input.get(end + 1..).unwrap_or_default())
}
