//! The head that Pingora reads in place of a refused one.

use super::super::framing::Framing;
use super::is_token;

/// Fields carried over from a refused head: those that decide how the refusal is written and found
/// again.
const CARRIED: usize = 32;
/// In bytes; more than the gateway reads of a client that is still sending when the connection
/// closes.
pub(super) const UNREAD: u64 = 1024 * 1024 + 1;

/// A head in place of a refused one, so that the refusal is handled like any other: written in the
/// caller's protocol, with ids and metrics. It keeps the valid fields. If the client may still be
/// sending, it announces a body, because the connection must then be read to its end.
pub fn stand_in(refused: &[u8]) -> (Vec<u8>, Framing) {
    const DROPPED: [&[u8]; 7] = [
        b"host",
        b"connection",
        b"content-length",
        b"transfer-encoding",
        b"expect",
        b"upgrade",
        b"te",
    ];
    let mut lines = refused.split(|byte| *byte == b'\n');
    let line = lines.next().unwrap_or_default();
    // Of the target, only the sign of the protocol is kept: a GET is Connect by its query.
    let is_connect = |line: &[u8]| {
        let mut pairs = line.split(|byte| matches!(byte, b'?' | b'&' | b' ' | b'\r'));
        pairs.any(|pair| pair == b"connect=v1")
    };
    let start = match line {
        [b'H', b'E', b'A', b'D', b' ', ..] => "HEAD /",
        [b'G', b'E', b'T', b' ', ..] if is_connect(line) => "GET /?connect=v1",
        _ => "POST /",
    };
    let mut head = format!("{start} HTTP/1.1\r\nhost: -\r\nconnection: close\r\n").into_bytes();
    let mut may_go_on = !refused.ends_with(b"\r\n\r\n");
    let fields = lines.filter_map(|line| line.strip_suffix(b"\r"));
    for field in fields.take_while(|line| !line.is_empty()).take(CARRIED) {
        let Some(colon) = memchr::memchr(b':', field) else { continue };
        let (name, value) = field.split_at(colon);
        let is = |other: &&[u8]| name.trim_ascii().eq_ignore_ascii_case(other);
        may_go_on |= DROPPED[2..4].iter().any(is);
        let is_legal = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
        if is_token(name) && value.iter().all(is_legal) && !DROPPED.iter().any(is) {
            head.extend_from_slice(field);
            head.extend_from_slice(b"\r\n");
        }
    }
    let unread = if may_go_on { UNREAD } else { 0 };
    head.extend_from_slice(format!("content-length: {unread}\r\n\r\n").as_bytes());
    (head, Framing::Length(unread))
}
