//! Fuzz target for the text in a row, on its way into a store.

pub(super) mod rows;

use serde_json::{Value, json};

use super::bound::{PATH_BYTES, TEXT_BYTES};
use super::capture::captured::CAPTURED_BYTES;
use super::capture::{Capture, Findings, Tap};
use super::config::Policy;
use super::invocation::{Bounded, Invocation};
use super::query::Query;
use super::row::value::texts_json;
use super::row::{binary, json};

use self::rows::{invocation, sorted, split};

pub use super::journal::fuzzing::{frames, journal, salvage};

/// The fields of a row, and a body and a query to capture from. Every text fits its column and can
/// be stored; a row that is written reads back the same, in both formats.
pub fn row_text(input: &[u8]) {
    let (body, rest) = split(input);
    let (query, rest) = split(rest);
    check_capture(body);
    check_query(&String::from_utf8_lossy(query));
    let bounded = Bounded::from(invocation(rest));
    assert_eq!(Bounded::from(Invocation::clone(&bounded)), bounded, "bounded once is bounded");
    for (text, most) in texts(&bounded) {
        assert!(text.len() <= most, "{} bytes of {most}: {text:?}", text.len());
        assert!(!text.contains('\0'), "{text:?}");
    }
    check_json(&texts_json(&bounded.captured.other));
    for completed in [false, true] {
        let (mut bytes, mut text) = (Vec::new(), Vec::new());
        binary::write(&bounded, completed, &mut bytes);
        json::write(&bounded, completed, &mut text);
        let row = Invocation::clone(&bounded);
        assert_eq!(binary::read(&bytes), Some((row.clone(), completed)));
        check_json(std::str::from_utf8(&text).expect("JSON is text"));
        let (read, _) = json::read(&text).expect("a row");
        assert_eq!(sorted(read), sorted(row));
    }
}

/// Checks that PostgreSQL can store the JSON: its `jsonb` accepts neither NUL nor an unpaired
/// surrogate.
fn check_json(text: &str) {
    assert!(!text.contains('\0'));
    let value: Value = serde_json::from_str(text).expect("JSON");
    let mut left = vec![&value];
    while let Some(value) = left.pop() {
        match value {
            Value::String(text) => assert!(!text.contains('\0')),
            Value::Array(items) => left.extend(items),
            Value::Object(fields) => {
                assert!(fields.keys().all(|name| !name.contains('\0')));
                left.extend(fields.values());
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Checks that the captured fields do not depend on how the body is cut into chunks.
fn check_capture(body: &[u8]) {
    let capture =
        json!({"name": "request.a", "result_message": "request.a.b", "other": "request.c.0"});
    let policy: Policy = serde_json::from_value(json!({ "capture": capture })).expect("a policy");
    let capture = Capture::compile(&policy).expect("something to capture");
    let captured = |size: usize| {
        let tap: Option<Tap> = capture.request(Some(b"application/json"), None);
        let mut tap = tap.expect("JSON is looked into");
        body.chunks(size.max(1)).for_each(|piece| tap.push(piece));
        let mut findings = Findings::default();
        tap.finish(&mut findings);
        findings.captured().clone()
    };
    let whole = captured(body.len());
    assert_eq!(captured(3), whole);
    let mut row = invocation(b"");
    row.captured = whole;
    let row = Bounded::from(row);
    assert!(texts(&row).all(|(text, most)| text.len() <= most && !text.contains('\0')));
}

fn check_query(query: &str) {
    let policy = json!({"query": true, "redact": ["customer"]});
    let policy: Policy = serde_json::from_value(policy).expect("a policy");
    let kept = Query::compile(&policy).expect("queries are kept");
    let redacted = kept.redacted(query);
    assert_eq!(kept.redacted(&redacted), redacted);
    assert_eq!(redacted.matches('&').count(), query.matches('&').count());
    for parameter in redacted.split('&') {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy().to_lowercase();
        assert!(!name.contains("token") || value == "***", "{parameter}");
    }
}

/// Every text of a row, and its maximum length.
fn texts(row: &Invocation) -> impl Iterator<Item = (&str, usize)> {
    let short = [
        Some(&*row.request_id),
        Some(&*row.route),
        row.upstream.as_deref(),
        row.endpoint.as_deref(),
        row.consumer.as_deref(),
        Some(row.method.as_str()),
        row.rejection.as_deref(),
        row.cause.as_deref(),
        row.would_refuse.as_deref(),
        row.host.as_deref(),
        row.limit_keys.as_deref(),
        Some(&*row.protocol),
    ];
    let long = [Some(&*row.path), row.query.as_deref()];
    let captured = [row.captured.name.as_deref(), row.captured.result_message.as_deref()];
    let captured = captured.into_iter().flatten();
    let other = row.captured.other.iter().map(|(_, value)| value.as_str());
    let short = short.into_iter().flatten().map(|text| (text, TEXT_BYTES));
    let long = long.into_iter().flatten().map(|text| (text, PATH_BYTES));
    short.chain(long).chain(captured.chain(other).map(|text| (text, CAPTURED_BYTES)))
}
