//! Scanning heads, whole and in pieces.

use super::replacement::UNREAD;
use super::*;

const LIMITS: Limits = Limits { max_header_bytes: 1024, max_path_bytes: 64 };

fn scanned(text: &str, size: usize) -> Result<Option<Head>, Fault> {
    let mut scanner = Scanner::default();
    let mut received = Vec::new();
    for piece in text.as_bytes().chunks(size) {
        received.extend_from_slice(piece);
        if let Some(head) = scanner.scan(&received, &LIMITS)? {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

#[test]
fn a_head_ends_with_its_empty_line_however_it_arrives() {
    for (fields, framing) in [
        ("", Framing::Length(0)),
        ("Content-Length: 12\r\n", Framing::Length(12)),
        ("content-length:7\r\nA: b\r\nCONTENT-LENGTH: 7, 7\r\n", Framing::Length(7)),
        ("Transfer-Encoding: Chunked\r\n", Framing::chunked()),
        ("Content-Lengthy: 3\r\nTransfer: chunked\r\n", Framing::Length(0)),
    ] {
        let head = format!("POST /a?b HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let followed = format!("{head}GET / HTTP/1.1\r\n");
        for size in [1, 2, 5, 1000] {
            let found = scanned(&followed, size).expect("a good head").expect("a whole head");
            assert_eq!((found.length, found.framing), (head.len(), framing), "{head:?} by {size}");
            assert_eq!(&followed[found.target], "/a?b");
        }
    }
}

#[test]
fn each_fault_is_named() {
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(64));
    let unending = format!("GET /{}", "a".repeat(200));
    let large = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(1100));
    for (head, fault) in [
        ("GET / HTTP/1.2\r\n", Fault::RequestLine),
        ("GET  / HTTP/1.1\r\n", Fault::RequestLine),
        ("GET /a b HTTP/1.1\r\n", Fault::RequestLine),
        ("GET a HTTP/1.1\r\n", Fault::RequestLine),
        ("GET /\r\n", Fault::RequestLine),
        ("GET / HTTP/1.1\n", Fault::LineEnding),
        ("GET / HTTP/1.1\r\nA: b\n", Fault::LineEnding),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n", Fault::FoldedField),
        ("GET /#a HTTP/1.1\r\n", Fault::Fragment),
        ("CONNECT a:1 HTTP/1.1\r\n", Fault::Connect),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n", Fault::Coding),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", Fault::Coding),
        (
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            Fault::TwoFramings,
        ),
        ("GET / HTTP/1.1\r\nContent-Length: +1\r\n", Fault::Length),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n", Fault::TwoLengths),
        ("GET / HTTP/1.1\r\nContent-Length:\r\n", Fault::Length),
        (&long, Fault::TargetTooLong),
        (&unending, Fault::TargetTooLong),
        (&large, Fault::TooLarge),
    ] {
        for size in [1, 3, 10_000] {
            assert_eq!(scanned(head, size).map(|_| ()), Err(fault), "{head:?} by {size}");
        }
    }
}

#[test]
fn a_head_has_as_many_fields_as_pingora_parses() {
    let with = |fields: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a:\r\n".repeat(fields));
    let limits = Limits { max_header_bytes: 0, ..LIMITS };
    let scanned = |fields| Scanner::default().scan(with(fields).as_bytes(), &limits);
    assert!(scanned(MAX_FIELDS).expect("good").is_some());
    assert_eq!(scanned(MAX_FIELDS + 1).map(|_| ()), Err(Fault::TooManyFields));
}

#[test]
fn limits_are_the_same_however_a_head_arrives() {
    let method = format!("{} /{} HTTP/1.1\r\n\r\n", "A".repeat(70), "b".repeat(60));
    let with = |fields: usize| {
        format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(fields - "A: \r\n".len()))
    };
    for size in [1, 7, 10_000] {
        assert_eq!(scanned(&method, size).map(|_| ()), Err(Fault::TargetTooLong), "by {size}");
        assert!(scanned(&with(1024), size).expect("within the limit").is_some(), "by {size}");
        assert_eq!(scanned(&with(1025), size).map(|_| ()), Err(Fault::TooLarge), "by {size}");
    }
}

#[test]
fn what_uris_may_not_hold_is_escaped_in_path_and_query_alike() {
    let mut head = b"GET /a<b>`?c=\"<`> HTTP/1.1\r\nA: <\r\n\r\n".to_vec();
    let before = head.len();
    let found = scanned(std::str::from_utf8(&head).expect("text"), 1000);
    let found = found.expect("good").expect("whole");
    assert!(found.must_escape);
    let longer = escape(&mut head, found.target);
    let expected = "GET /a%3Cb%3E%60?c=%22%3C`%3E HTTP/1.1\r\nA: <\r\n\r\n";
    assert_eq!(std::str::from_utf8(&head).expect("text"), expected);
    assert_eq!(before + longer, head.len());
}

#[test]
fn what_pingora_refuses_is_explained() {
    for (head, fault) in [
        ("G@T / HTTP/1.1\r\n\r\n", Fault::Method),
        ("GET / HTTP/1.1\r\nA B: c\r\n\r\n", Fault::FieldName),
        ("GET / HTTP/1.1\r\nnonsense\r\n\r\n", Fault::FieldName),
        ("GET / HTTP/1.1\r\nA: \0\r\n\r\n", Fault::FieldValue),
        ("GET / HTTP/1.1\r\nConnection: close, Host\r\n\r\n", Fault::Nominated),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Fault::Host),
    ] {
        assert_eq!(diagnose(head.as_bytes()), fault, "{head:?}");
    }
}

#[test]
fn a_refused_head_keeps_its_fields_and_loses_what_frames_it() {
    let refused = b"GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nContent-Type: \
        application/grpc\r\nbad name: 1\r\nX-Request-Id: 7\r\n\r\n";
    let (head, framing) = stand_in(refused);
    let head = String::from_utf8(head).expect("text");
    assert!(head.contains("Content-Type: application/grpc\r\nX-Request-Id: 7\r\n"), "{head}");
    assert!(!head.contains("bad name") && !head.contains("/x"), "{head}");
    assert_eq!(framing, Framing::Length(UNREAD));
    assert!(scanned(&head, 1000).expect("good").is_some());
    assert_eq!(stand_in(b"GET / HTTP/1.1\r\n\r\n").1, Framing::Length(0));
    // The rest of the target has not arrived, but what there is was already too long.
    let (head, _) = stand_in(b"GET /s/M?connect=v1&encoding=json&message=aaaa");
    assert!(head.starts_with(b"GET /?connect=v1 HTTP/1.1\r\n"));
}

#[test]
fn a_fault_is_found_by_its_number() {
    for fault in Fault::ALL {
        assert_eq!(Fault::of_number(fault as u8), Some(fault));
    }
    assert_eq!(Fault::of_number(0), None);
}
