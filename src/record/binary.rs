//! A row in a compact binary form, as the journal holds it: half the size of JSON, and much faster.
//!
//! The format is postcard's encoding of the fields below, in their order. Nothing in it names the
//! fields: a change to them needs a new [`VERSION`], and older versions must still be read.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use http::Method;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::invocation::Invocation;
use crate::record::capture::captured::Captured;

/// The first byte. No text begins with it.
const VERSION: u8 = 2;
/// The fields, then the cause. Used only for rows that have one, so that older releases can read
/// all others.
const WITH_CAUSE: u8 = 3;

#[derive(Serialize, Deserialize)]
struct Fields<'a> {
    id: [u8; 16],
    created_at_us: u64,
    request_id: &'a str,
    /// Big-endian; all zeros if there is no trace.
    trace_id: [u8; 16],
    route: &'a str,
    upstream: Option<&'a str>,
    endpoint: Option<&'a str>,
    consumer: Option<&'a str>,
    client_address: Option<IpAddr>,
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    status: u16,
    upstream_status: Option<u16>,
    success: bool,
    attempts: u32,
    rejection: Option<&'a str>,
    duration_us: u64,
    upstream_duration_us: Option<u64>,
    bytes_in: u64,
    bytes_out: u64,
    protocol: &'a str,
    name: Option<&'a str>,
    result_message: Option<&'a str>,
    #[serde(borrow)]
    captured: Vec<(&'a str, &'a str)>,
    completed: bool,
}

/// Appends the row to `out`.
pub(crate) fn write(it: &Invocation, completed: bool, out: &mut Vec<u8>) {
    let since = it.created_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let fields = Fields {
        id: *it.id.as_bytes(),
        created_at_us: micros(since),
        request_id: &it.request_id,
        trace_id: it.trace_id.to_be_bytes(),
        route: &it.route,
        upstream: it.upstream.as_deref(),
        endpoint: it.endpoint.as_deref(),
        consumer: it.consumer.as_deref(),
        client_address: it.client_address,
        method: it.method.as_str(),
        path: &it.path,
        query: it.query.as_deref(),
        status: it.status,
        upstream_status: it.upstream_status,
        success: it.success,
        attempts: it.attempts,
        rejection: it.rejection.as_deref(),
        duration_us: micros(it.duration),
        upstream_duration_us: it.upstream_duration.map(micros),
        bytes_in: it.bytes_in,
        bytes_out: it.bytes_out,
        protocol: &it.protocol,
        name: it.captured.name.as_deref(),
        result_message: it.captured.result_message.as_deref(),
        captured: it.captured.other.iter().map(|(k, v)| (&**k, v.as_str())).collect(),
        completed,
    };
    out.push(if it.cause.is_some() { WITH_CAUSE } else { VERSION });
    append(&fields, out);
    if let Some(cause) = it.cause.as_deref() {
        append(cause, out);
    }
}

fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    // Fails only for sequences of unknown length, and the fields have none.
    if let Ok(written) = postcard::to_extend(value, std::mem::take(out)) {
        *out = written;
    }
}

/// The row that [`write`] has written, and whether it was complete; `None` for any other bytes.
pub(crate) fn read(bytes: &[u8]) -> Option<(Invocation, bool)> {
    let (version, fields) = bytes.split_first()?;
    if ![VERSION, WITH_CAUSE].contains(version) {
        return None;
    }
    let (it, rest) = postcard::take_from_bytes::<Fields<'_>>(fields).ok()?;
    let (cause, rest) = match *version {
        WITH_CAUSE => postcard::take_from_bytes::<&str>(rest).map(|(c, rest)| (Some(c), rest)),
        _ => Ok((None, rest)),
    }
    .ok()?;
    if !rest.is_empty() {
        return None;
    }
    let invocation = Invocation {
        id: Uuid::from_bytes(it.id),
        created_at: UNIX_EPOCH.checked_add(Duration::from_micros(it.created_at_us))?,
        request_id: it.request_id.into(),
        trace_id: u128::from_be_bytes(it.trace_id),
        route: it.route.into(),
        upstream: it.upstream.map(Into::into),
        endpoint: it.endpoint.map(Into::into),
        consumer: it.consumer.map(Into::into),
        client_address: it.client_address,
        method: Method::from_bytes(it.method.as_bytes()).ok()?,
        path: it.path.to_owned(),
        query: it.query.map(str::to_owned),
        status: it.status,
        upstream_status: it.upstream_status,
        success: it.success,
        attempts: it.attempts,
        rejection: it.rejection.map(|code| Cow::Owned(code.to_owned())),
        cause: cause.map(|cause| Cow::Owned(cause.to_owned())),
        duration: Duration::from_micros(it.duration_us),
        upstream_duration: it.upstream_duration_us.map(Duration::from_micros),
        bytes_in: it.bytes_in,
        bytes_out: it.bytes_out,
        protocol: Cow::Owned(it.protocol.to_owned()),
        captured: Captured {
            name: it.name.map(str::to_owned),
            result_message: it.result_message.map(str::to_owned),
            other: it.captured.into_iter().map(|(k, v)| (k.into(), v.to_owned())).collect(),
        },
    };
    Some((invocation, it.completed))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::capture::json;
    use crate::record::invocation::tests::full;

    #[test]
    fn what_is_written_is_what_is_read() {
        let row = full();
        let without_cause = Invocation { cause: None, ..full() };
        for (row, completed) in [(row.clone(), false), (row, true), (without_cause, true)] {
            let (mut bytes, mut text) = (Vec::new(), Vec::new());
            write(&row, completed, &mut bytes);
            assert_eq!(read(&bytes), Some((row.clone(), completed)));
            json::write(&row, completed, &mut text);
            assert!(bytes.len() < text.len() / 2, "{} and {}", bytes.len(), text.len());
        }
    }

    #[test]
    fn what_is_no_row_is_none() {
        let mut bytes = Vec::new();
        write(&full(), true, &mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), None, "{end}");
        }
        assert_eq!(read(&[&bytes[..], &[0]].concat()), None);
        bytes[0] = WITH_CAUSE + 1;
        assert_eq!(read(&bytes), None);
    }
}
