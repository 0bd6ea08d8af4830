//! A row as one JSON object, its fields named like the columns: what the journal and the table of dead
//! letters hold, and what `portcullis invocations` prints.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use http::Method;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::invocation::{Captured, Invocation};

type Text<'a> = Cow<'a, str>;

/// Fields that an older or newer product does not know are left out or ignored, so a journal
/// survives an upgrade.
#[derive(Serialize, Deserialize)]
struct Object<'a> {
    #[serde(borrow, alias = "i")]
    id: Text<'a>,
    #[serde(borrow, alias = "t")]
    created_at: Text<'a>,
    #[serde(borrow, alias = "q")]
    request_id: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", alias = "w")]
    trace_id: Option<Text<'a>>,
    #[serde(borrow, alias = "r")]
    route: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", alias = "u")]
    upstream: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", alias = "e")]
    endpoint: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", alias = "c")]
    consumer: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "a")]
    client_address: Option<IpAddr>,
    #[serde(borrow, alias = "m")]
    method: Text<'a>,
    #[serde(borrow, alias = "p")]
    path: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", alias = "y")]
    query: Option<Text<'a>>,
    #[serde(alias = "s")]
    status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "us")]
    upstream_status: Option<u16>,
    #[serde(alias = "ok")]
    success: bool,
    #[serde(alias = "n")]
    attempts: u32,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", alias = "x")]
    rejection: Option<Text<'a>>,
    #[serde(alias = "d")]
    duration_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "ud")]
    upstream_duration_us: Option<u64>,
    #[serde(alias = "bi")]
    bytes_in: u64,
    #[serde(alias = "bo")]
    bytes_out: u64,
    #[serde(borrow, alias = "l")]
    protocol: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", alias = "na")]
    name: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", alias = "rm")]
    result_message: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", alias = "f")]
    captured: BTreeMap<String, String>,
    #[serde(alias = "z")]
    completed: bool,
}

/// The same, where its size counts.
#[derive(Serialize)]
struct Short<'a> {
    #[serde(rename = "i")]
    id: Text<'a>,
    #[serde(rename = "t")]
    created_at: Text<'a>,
    #[serde(rename = "q")]
    request_id: Text<'a>,
    #[serde(rename = "w", skip_serializing_if = "Option::is_none")]
    trace_id: Option<Text<'a>>,
    #[serde(rename = "r")]
    route: Text<'a>,
    #[serde(rename = "u", skip_serializing_if = "Option::is_none")]
    upstream: Option<Text<'a>>,
    #[serde(rename = "e", skip_serializing_if = "Option::is_none")]
    endpoint: Option<Text<'a>>,
    #[serde(rename = "c", skip_serializing_if = "Option::is_none")]
    consumer: Option<Text<'a>>,
    #[serde(rename = "a", skip_serializing_if = "Option::is_none")]
    client_address: Option<IpAddr>,
    #[serde(rename = "m")]
    method: Text<'a>,
    #[serde(rename = "p")]
    path: Text<'a>,
    #[serde(rename = "y", skip_serializing_if = "Option::is_none")]
    query: Option<Text<'a>>,
    #[serde(rename = "s")]
    status: u16,
    #[serde(rename = "us", skip_serializing_if = "Option::is_none")]
    upstream_status: Option<u16>,
    #[serde(rename = "ok")]
    success: bool,
    #[serde(rename = "n")]
    attempts: u32,
    #[serde(rename = "x", skip_serializing_if = "Option::is_none")]
    rejection: Option<Text<'a>>,
    #[serde(rename = "d")]
    duration_us: u64,
    #[serde(rename = "ud", skip_serializing_if = "Option::is_none")]
    upstream_duration_us: Option<u64>,
    #[serde(rename = "bi")]
    bytes_in: u64,
    #[serde(rename = "bo")]
    bytes_out: u64,
    #[serde(rename = "l")]
    protocol: Text<'a>,
    #[serde(rename = "na", skip_serializing_if = "Option::is_none")]
    name: Option<Text<'a>>,
    #[serde(rename = "rm", skip_serializing_if = "Option::is_none")]
    result_message: Option<Text<'a>>,
    #[serde(rename = "f", skip_serializing_if = "BTreeMap::is_empty")]
    captured: BTreeMap<String, String>,
    #[serde(rename = "z")]
    completed: bool,
}

impl<'a> From<Object<'a>> for Short<'a> {
    fn from(it: Object<'a>) -> Self {
        Short {
            id: it.id,
            created_at: it.created_at,
            request_id: it.request_id,
            trace_id: it.trace_id,
            route: it.route,
            upstream: it.upstream,
            endpoint: it.endpoint,
            consumer: it.consumer,
            client_address: it.client_address,
            method: it.method,
            path: it.path,
            query: it.query,
            status: it.status,
            upstream_status: it.upstream_status,
            success: it.success,
            attempts: it.attempts,
            rejection: it.rejection,
            duration_us: it.duration_us,
            upstream_duration_us: it.upstream_duration_us,
            bytes_in: it.bytes_in,
            bytes_out: it.bytes_out,
            protocol: it.protocol,
            name: it.name,
            result_message: it.result_message,
            captured: it.captured,
            completed: it.completed,
        }
    }
}

/// Appends the row to `out`.
pub(crate) fn write(it: &Invocation, completed: bool, out: &mut Vec<u8>) {
    // Writing text and numbers into memory does not fail.
    with_object(it, completed, |object| serde_json::to_writer(out, &object).ok());
}

/// Appends the row to `out` with names of a letter or two, for those who read it with [`read`].
pub(crate) fn write_short(it: &Invocation, completed: bool, out: &mut Vec<u8>) {
    with_object(it, completed, |object| serde_json::to_writer(out, &Short::from(object)).ok());
}

fn with_object<T>(it: &Invocation, completed: bool, work: impl FnOnce(Object<'_>) -> T) -> T {
    let (mut id, mut trace_id) = (Uuid::encode_buffer(), [0; 32]);
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let object = Object {
        id: Cow::Borrowed(it.id.hyphenated().encode_lower(&mut id)),
        created_at: timestamp(it.created_at).into(),
        request_id: Cow::Borrowed(&it.request_id),
        trace_id: it.trace_id_text(&mut trace_id).map(Cow::Borrowed),
        route: Cow::Borrowed(&it.route),
        upstream: it.upstream.as_deref().map(Cow::Borrowed),
        endpoint: it.endpoint.as_deref().map(Cow::Borrowed),
        consumer: it.consumer.as_deref().map(Cow::Borrowed),
        client_address: it.client_address,
        method: Cow::Borrowed(it.method.as_str()),
        path: Cow::Borrowed(&it.path),
        query: it.query.as_deref().map(Cow::Borrowed),
        status: it.status,
        upstream_status: it.upstream_status,
        success: it.success,
        attempts: it.attempts,
        rejection: it.rejection.as_deref().map(Cow::Borrowed),
        duration_us: micros(it.duration),
        upstream_duration_us: it.upstream_duration.map(micros),
        bytes_in: it.bytes_in,
        bytes_out: it.bytes_out,
        protocol: Cow::Borrowed(&it.protocol),
        name: it.captured.name.as_deref().map(Cow::Borrowed),
        result_message: it.captured.result_message.as_deref().map(Cow::Borrowed),
        captured: it.captured.other.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
        completed,
    };
    work(object)
}

/// The row that [`write`] or [`write_short`] has written, and whether it was complete; `None` for anything else.
pub(crate) fn read(text: &[u8]) -> Option<(Invocation, bool)> {
    let object: Object<'_> = serde_json::from_slice(text).ok()?;
    let shared = |text: Option<Text<'_>>| text.map(|text| text.as_ref().into());
    let invocation = Invocation {
        id: object.id.parse().ok()?,
        created_at: time(&object.created_at)?,
        request_id: object.request_id.as_ref().into(),
        trace_id: object.trace_id.and_then(|t| u128::from_str_radix(&t, 16).ok()).unwrap_or(0),
        route: object.route.as_ref().into(),
        upstream: shared(object.upstream),
        endpoint: shared(object.endpoint),
        consumer: shared(object.consumer),
        client_address: object.client_address,
        method: Method::from_str(&object.method).ok()?,
        path: object.path.into_owned(),
        query: object.query.map(Cow::into_owned),
        status: object.status,
        upstream_status: object.upstream_status,
        success: object.success,
        attempts: object.attempts,
        rejection: object.rejection.map(|text| Cow::Owned(text.into_owned())),
        duration: Duration::from_micros(object.duration_us),
        upstream_duration: object.upstream_duration_us.map(Duration::from_micros),
        bytes_in: object.bytes_in,
        bytes_out: object.bytes_out,
        protocol: Cow::Owned(object.protocol.into_owned()),
        captured: Captured {
            name: object.name.map(Cow::into_owned),
            result_message: object.result_message.map(Cow::into_owned),
            other: object.captured.into_iter().map(|(k, v)| (k.into(), v)).collect(),
        },
    };
    Some((invocation, object.completed))
}

/// RFC 3339 in UTC with microseconds: sorts as text, and SQLite's date functions understand it.
pub(crate) fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

pub(crate) fn time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::invocation::tests::invocation;

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut row = invocation("Ada\u{0}\"\\\u{1f980}");
        row.trace_id = 0xabc;
        row.query = Some("a=1&b=".to_owned());
        row.consumer = Some("acme".into());
        row.client_address = Some("2001:db8::1".parse().expect("an address"));
        row.upstream_status = Some(201);
        row.rejection = Some("rate_limited".into());
        row.upstream_duration = Some(Duration::from_micros(7));
        row.bytes_out = u64::MAX;
        row.captured.insert(&"sku".into(), "a".into());
        for completed in [false, true] {
            let (mut long, mut short) = (Vec::new(), Vec::new());
            write(&row, completed, &mut long);
            write_short(&row, completed, &mut short);
            assert!(short.len() < long.len());
            for text in [long, short] {
                assert_eq!(read(&text), Some((row.clone(), completed)));
            }
        }
    }

    #[test]
    fn what_is_no_row_is_none() {
        for text in [&b""[..], b"{}", b"[]", b"\xff", br#"{"id":"no uuid"}"#] {
            assert_eq!(read(text), None);
        }
    }
}
