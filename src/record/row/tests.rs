//! What holds for every column of the list, in every form of a row.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::Method;

use super::columns::{COLUMNS, Draft, names};
use super::value::Value;
use super::{binary, json};
use crate::record::invocation::{Invocation, tests};

/// A row with a value in every column, and none as in a new row.
pub(crate) fn full() -> Invocation {
    let mut row = tests::full();
    row.method = Method::DELETE;
    (row.status, row.success, row.attempts) = (429, true, 3);
    (row.bytes_in, row.bytes_out) = (1 << 40, 2);
    row.duration = Duration::from_micros(1 << 33);
    row.protocol = "grpc".into();
    row
}

/// Asserts, column by column, that a row was read as it was written.
pub(crate) fn assert_same(form: &str, read: &Invocation, written: &Invocation) {
    for column in COLUMNS {
        let [read, written] = [read, written].map(|it| column.value(it, true));
        assert_eq!(read, written, "{}, as {form}", column.name);
    }
}

#[test]
fn every_column_survives_every_form_and_is_in_it_once() {
    let row = full();
    let nothing = Arc::<str>::default();
    let blank =
        Invocation::new(UNIX_EPOCH, Arc::clone(&nothing), nothing, Method::GET, String::new());
    for (column, index) in COLUMNS.iter().zip(0..) {
        let value = column.value(&row, true);
        assert_ne!(value, column.value(&blank, false), "{} is tested", column.name);
        let mut draft = Draft::new();
        assert_eq!(draft.set(index, value), Some(()), "{}", column.name);
        assert_eq!(draft.set(index, value), None, "{} is set twice", column.name);
    }
    for completed in [false, true] {
        let (mut bytes, mut text) = (Vec::new(), Vec::new());
        binary::write(&row, completed, &mut bytes);
        json::write(&row, completed, &mut text);
        for (form, read) in [("bytes", binary::read(&bytes)), ("JSON", json::read(&text))] {
            let (read, was_completed) = read.expect(form);
            assert_same(form, &read, &row);
            assert_eq!((read, was_completed), (row.clone(), completed), "{form}");
        }
        let text = String::from_utf8(text).expect("JSON");
        for name in names() {
            assert_eq!(text.matches(&format!("\"{name}\":")).count(), 1, "{name} in {text}");
        }
    }
}

#[test]
fn names_are_unique_and_only_what_was_always_there_is_not_nullable() {
    assert_eq!(names().collect::<BTreeSet<_>>().len(), COLUMNS.len());
    assert_eq!(names().next(), Some("id"), "statements name it by its place");
    let completed = names().position(|name| name == "completed").expect("it is there");
    for column in &COLUMNS[completed + 1..] {
        assert!(column.nullable, "{}: rows of older builds lack it", column.name);
    }
}

#[test]
fn a_row_without_what_may_be_absent_is_read() {
    let row = tests::invocation("Ada");
    let (mut bytes, mut text) = (Vec::new(), Vec::new());
    binary::write(&row, true, &mut bytes);
    json::write(&row, true, &mut text);
    assert_eq!(binary::read(&bytes), Some((row.clone(), true)));
    assert_eq!(json::read(&text), Some((row, true)));
    let text = String::from_utf8(text).expect("JSON");
    assert!(!text.contains("null") && !text.contains("consumer"), "{text}");
    let with_null = text.replacen('{', "{\"consumer\":null,\"captured\":null,", 1);
    assert!(json::read(with_null.as_bytes()).is_some(), "{with_null}");
}

#[test]
fn a_row_is_none_without_what_every_row_has() {
    let mut text = Vec::new();
    json::write(&full(), true, &mut text);
    let object: serde_json::Map<_, _> = serde_json::from_slice(&text).expect("an object");
    for column in COLUMNS {
        let mut object = object.clone();
        object.remove(column.name).expect("a full row has each");
        let text = serde_json::to_vec(&object).expect("JSON");
        assert_eq!(json::read(&text).is_some(), column.nullable, "without {}", column.name);
        object.insert(column.name.to_owned(), serde_json::Value::Null);
        let text = serde_json::to_vec(&object).expect("JSON");
        assert_eq!(json::read(&text).is_some(), column.nullable, "{} is null", column.name);
    }
}

/// A build that knows a column more writes it at the end.
#[test]
fn rows_of_newer_and_older_builds_are_read() {
    let row = full();
    let mut bytes = Vec::new();
    binary::write(&row, true, &mut bytes);
    let (head, values) = bytes.split_at(2);
    let (present, values) = values.split_at(usize::from(head[1]));
    // Another column, and one so far away that its bit is in another byte.
    for places in [vec![COLUMNS.len()], vec![8 * present.len() + 3], vec![COLUMNS.len(), 63]] {
        let mut present = present.to_vec();
        present.resize(8, 0);
        places.iter().for_each(|place| present[place / 8] |= 1 << (place % 8));
        let newer = [&[head[0], 8], &present[..], values, b"\x05whois"].concat();
        assert_eq!(binary::read(&newer), Some((row.clone(), true)), "{places:?}");
    }
    let mut present = present.to_vec();
    present.push(0);
    let as_long = [&[head[0], head[1] + 1], &present[..], values].concat();
    assert_eq!(binary::read(&as_long), Some((row.clone(), true)), "it knows more, and has none");
    // A build whose list ended with `completed` has no bits for what came later.
    let older =
        Invocation { trace_id: 0, query: None, cause: None, would_refuse: None, ..row.clone() };
    bytes.clear();
    binary::write(&older, true, &mut bytes);
    let (present, values) = bytes[2..].split_at(usize::from(bytes[1]));
    assert_eq!(present[3..], [0]);
    let shorter = [&[bytes[0], 3], &present[..3], values].concat();
    assert_eq!(binary::read(&shorter), Some((older, true)));

    let mut text = Vec::new();
    json::write(&row, true, &mut text);
    let newer = String::from_utf8(text).expect("JSON").replacen('{', "{\"whois\":[{\"a\":1}],", 1);
    assert_eq!(json::read(newer.as_bytes()), Some((row, true)));
}

#[test]
fn what_is_no_row_is_none() {
    let mut bytes = Vec::new();
    binary::write(&full(), true, &mut bytes);
    for end in 0..bytes.len() {
        assert_eq!(binary::read(&bytes[..end]), None, "{end}");
    }
    assert_eq!(binary::read(&[&bytes[..], &[0]].concat()), None);
    let known = bytes[0];
    for version in (0..=u8::MAX).filter(|version| *version != known) {
        bytes[0] = version;
        assert_eq!(binary::read(&bytes), None, "version {version}");
    }
    for text in [&b""[..], b"{}", b"[]", b"\xff", br#"{"id":"no uuid"}"#] {
        assert_eq!(json::read(text), None);
    }
}

#[test]
fn bytes_are_half_as_long_as_text() {
    let (mut bytes, mut text) = (Vec::new(), Vec::new());
    binary::write(&full(), true, &mut bytes);
    json::write(&full(), true, &mut text);
    assert!(bytes.len() < text.len() / 2, "{} and {}", bytes.len(), text.len());
}

/// Written by the build before this form.
#[test]
fn journals_of_the_build_before_are_read() {
    let bytes = |hex: &str| -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
        digits.map(|pair| u8::from_str_radix(pair, 16).expect("a byte")).collect()
    };
    let (row, completed) = binary::read(&bytes(
        "020192f1d2444470008000001234567890c0c480c1c1c482032430313932663164322d343434342d373030302d\
         383030302d31323334353637383930616200000000000000000000000000000abc06696e766f6b650106746869\
         6e6773010e3132372e302e302e313a38303830010461636d65010120010db80000000000000000000000010450\
         4f53540e2f6170692f7468696e67732f343200c80101c901010100d2090189060c801b0468747470010a416461\
         00225cf09fa680000001",
    ))
    .expect("version 2");
    assert_eq!((row.trace_id, row.status, row.bytes_out, completed), (0xabc, 200, 3456, true));
    assert_eq!((row.upstream.as_deref(), row.cause), (Some("things"), None));
    let (row, completed) = binary::read(&bytes(
        "030192f1d2444470008000001234567890c0c480c1c1c482032430313932663164322d343434342d373030302d\
         383030302d31323334353637383930616200000000000000000000000000000abc06696e766f6b650106746869\
         6e6773010e3132372e302e302e313a38303830010461636d65010120010db80000000000000000000000010450\
         4f53540e2f6170692f7468696e67732f34320106613d3126623dc80101c9010101010c726174655f6c696d6974\
         6564d2090189060cffffffffffffffffff010468747470010a41646100225cf09fa68001000103736b75016101\
         0c757073747265616d5f357878",
    ))
    .expect("version 3");
    assert_eq!((row.query.as_deref(), row.bytes_out, completed), (Some("a=1&b="), u64::MAX, true));
    assert_eq!(row.captured.other, [("sku".into(), "a".to_owned())]);
    assert_eq!((row.cause.as_deref(), &*row.protocol), (Some("upstream_5xx"), "http"));
    let value = |name: &str| {
        let column = COLUMNS.iter().find(|column| column.name == name).expect("a column");
        column.value(&row, completed)
    };
    assert_eq!(value("client_address"), Value::Address("2001:db8::1".parse().expect("one")));
}
