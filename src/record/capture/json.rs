//! A row as one JSON object, its fields named like the columns. The table of dead letters holds it,
//! and `portcullis invocations` prints it. Journals of earlier versions held it too.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use http::Method;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::record::bound::within_text;
use crate::record::capture::captured::Captured;
use crate::record::invocation::Invocation;

type Text<'a> = Cow<'a, str>;

/// Absent fields are left out and unknown ones ignored, so that older and newer releases read each
/// other's rows. The short names are those of journals before [`crate::record::binary`], which are
/// read after an upgrade.
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
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    cause: Option<Text<'a>>,
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

/// Appends the row to `out`.
pub(crate) fn write(it: &Invocation, completed: bool, out: &mut Vec<u8>) {
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
        cause: it.cause.as_deref().map(Cow::Borrowed),
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
    // Serializing text and numbers into memory does not fail.
    serde_json::to_writer(out, &object).ok();
}

/// The row that [`write`] has written, and whether it was complete; `None` for any other text.
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
        cause: object.cause.map(|text| Cow::Owned(text.into_owned())),
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
    humantime::format_rfc3339_micros(within_text(time)).to_string()
}

pub(crate) fn time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::invocation::tests::full;

    #[test]
    fn what_is_written_is_what_is_read() {
        let row = full();
        for completed in [false, true] {
            let mut text = Vec::new();
            write(&row, completed, &mut text);
            assert_eq!(read(&text), Some((row.clone(), completed)));
        }
    }

    #[test]
    fn short_names_are_read() {
        let text = br#"{"i":"00000000-0000-7000-8000-000000000001","t":"2023-11-14T22:13:20.123456Z",
            "q":"request-1","r":"invoke","m":"POST","p":"/invoke","s":200,"ok":true,"n":1,"d":7,"bi":0,
            "bo":2,"l":"http","na":"Ada","z":false}"#;
        let (row, completed) = read(text).expect("a row");
        assert_eq!((row.status, &*row.route, completed), (200, "invoke", false));
        assert_eq!(row.captured.name.as_deref(), Some("Ada"));
    }

    #[test]
    fn what_is_no_row_is_none() {
        for text in [&b""[..], b"{}", b"[]", b"\xff", br#"{"id":"no uuid"}"#] {
            assert_eq!(read(text), None);
        }
    }
}
