//! Fuzz targets for HTTP/1: how the gateway reads a head and a body, and how Pingora reads the same
//! bytes. Where the two disagree about the end of a request, requests can be smuggled.

pub mod announced;
pub mod rpc;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use percent_encoding::percent_decode;
use pingora_core::protocols::http::v1::server::HttpSession;
use tokio::io::AsyncWriteExt;

use super::downstream::framing::{Framing, Malformed};
use super::downstream::head::{self, Fault, Head, Scanner};
use super::downstream::limits::Limits;

/// Sizes of the pieces that input is cut into. Every input is read whole as well.
const CUTS: [usize; 4] = [1, 2, 5, 64];
const LIMITS: Limits = Limits { max_header_bytes: 2048, max_path_bytes: 512 };
/// No limits: a head that replaces a refused one is not bounded by the listener's limits.
const NO_LIMITS: Limits = Limits { max_header_bytes: 0, max_path_bytes: 0 };
const CHUNKED: &[u8] = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What a client sends on a new connection: a head, and what follows it.
///
/// The verdict does not depend on how the bytes are split. A head that the gateway accepts means
/// the same to Pingora, or Pingora refuses it. The replacement for a refused head is always
/// accepted.
pub fn head(input: &[u8]) {
    let whole = scan(input, input.len());
    for size in CUTS {
        assert_eq!(summary(&scan(input, size)), summary(&whole), "in pieces of {size}");
    }
    head::diagnose(input);
    match whole {
        Err(_) => check_stand_in(input),
        Ok(None) => {}
        Ok(Some(found)) => check_request(input, found),
    }
}

/// A chunked body, and what follows it: Pingora finds the same end and the same data as the
/// gateway.
pub fn body(input: &[u8]) {
    let request = [CHUNKED, input].concat();
    match scan(&request, request.len()) {
        Ok(Some(found)) => check_request(&request, found),
        other => panic!("the head is sound: {other:?}"),
    }
}

fn scan(input: &[u8], size: usize) -> Result<Option<Head>, Fault> {
    scan_within(input, size, &LIMITS)
}

/// Scans as a connection does: all bytes received so far, each time more have arrived.
fn scan_within(input: &[u8], size: usize, limits: &Limits) -> Result<Option<Head>, Fault> {
    let mut scanner = Scanner::default();
    for end in ends(input.len(), size) {
        if let Some(head) = scanner.scan(&input[..end], limits)? {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

fn ends(length: usize, size: usize) -> impl Iterator<Item = usize> {
    (1..=length.div_ceil(size.max(1))).map(move |piece| (piece * size).min(length))
}

type Summary = Result<Option<(usize, Framing, bool, std::ops::Range<usize>)>, Fault>;

fn summary(scanned: &Result<Option<Head>, Fault>) -> Summary {
    scanned
        .as_ref()
        .map_err(|fault| *fault)
        .map(|head| head.as_ref().map(|h| (h.length, h.framing, h.must_escape, h.target.clone())))
}

fn check_request(input: &[u8], found: Head) {
    let Head { mut length, framing, must_escape, target } = found;
    assert!(input[..length].ends_with(b"\r\n\r\n") && target.end < length);
    let mut bytes = input.to_vec();
    let mut target_end = target.end;
    if must_escape {
        let longer = head::escape(&mut bytes, target.clone());
        (length, target_end) = (length + longer, target_end + longer);
    }
    let target = &bytes[target.start..target_end];
    let (head, rest) = bytes.split_at(length);
    let outcome = take(framing, rest, rest.len());
    for size in CUTS {
        assert_eq!(take(framing, rest, size).map_err(drop), outcome.map_err(drop), "by {size}");
    }
    let Ok((taken, is_done)) = outcome else { return };
    let mut session = session(&bytes[..length + taken]);
    let Ok(end) = at_once(session.read_request()) else { return check_stand_in(head) };
    let request = session.req_header();
    assert!(head.starts_with(request.method.as_str().as_bytes()));
    // Pingora percent-encodes characters that are illegal in a target, such as control characters,
    // and reads the result.
    let read = request.raw_path();
    let means = |target| percent_decode(target).collect::<Vec<u8>>();
    assert!(read == target || means(read) == means(target), "Pingora sees another target");
    let end = end.expect("something was sent");
    assert_eq!(end + target.len(), length + read.len(), "Pingora sees another end of the head");
    let fields = &request.headers;
    match framing {
        Framing::Chunks(_) => assert!(fields.contains_key("transfer-encoding")),
        Framing::Length(_) | Framing::Tunnel => assert!(!fields.contains_key("transfer-encoding")),
    }
    let mut read = Vec::new();
    let is_complete = loop {
        match at_once(session.read_body_bytes()) {
            Ok(Some(piece)) => read.extend_from_slice(&piece),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    assert_eq!(is_complete, is_done, "Pingora sees another end of the body");
    if is_done {
        assert_eq!(read, data(framing, &rest[..taken]), "Pingora reads another body");
    }
}

/// How many of `bytes` belong to the body, and whether the body is complete.
fn take(mut framing: Framing, bytes: &[u8], size: usize) -> Result<(usize, bool), Malformed> {
    let mut all = 0;
    for piece in bytes.chunks(size.max(1)) {
        let taken = framing.take(piece)?;
        all += taken;
        if taken < piece.len() {
            assert!(framing.is_done(), "what is not over takes everything");
            break;
        }
    }
    Ok((all, framing.is_done()))
}

/// The data of a body known to be well formed, decoded by a second, independent reader of RFC 9112.
fn data(framing: Framing, mut body: &[u8]) -> Vec<u8> {
    if !matches!(framing, Framing::Chunks(_)) {
        return body.to_vec();
    }
    let mut data = Vec::new();
    loop {
        let digits = body.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = std::str::from_utf8(&body[..digits]).expect("digits");
        let size = usize::from_str_radix(size, 16).expect("a size");
        let line = memchr::memmem::find(body, b"\r\n").expect("the end of a size");
        if size == 0 {
            return data;
        }
        data.extend_from_slice(&body[line + 2..][..size]);
        body = &body[line + 2 + size + 2..];
    }
}

/// The replacement for a refused head is a valid request to Pingora, of the stated length.
fn check_stand_in(refused: &[u8]) {
    let (head, framing) = head::stand_in(refused);
    let found = scan_within(&head, head.len(), &NO_LIMITS).expect("a sound head");
    let found = found.expect("a whole head");
    assert_eq!((found.length, found.framing), (head.len(), framing));
    let mut session = session(&head);
    let end = at_once(session.read_request()).expect("Pingora takes it");
    assert_eq!(end, Some(head.len()));
    assert_eq!(session.is_body_empty(), framing.is_done());
}

/// Pingora's request reader, on a connection on which `bytes` have arrived and no more will.
fn session(bytes: &[u8]) -> HttpSession {
    let (mut client, server) = tokio::io::duplex(bytes.len().max(1));
    at_once(client.write_all(bytes)).expect("there is room");
    HttpSession::new(Box::new(server))
}

/// The result of a future that never has to wait.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("waits, though everything is there"),
    }
}
