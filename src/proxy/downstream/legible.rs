//! What can be read of a head that is refused, for its line in the log.
//!
//! Pingora is given another head in its place (`super::head`), so nothing of this takes part in the
//! request. Nothing is guessed either: what is cut off or malformed is left out.

use http::{HeaderValue, Method};

/// Longest method that is told, in bytes.
const METHOD: usize = 32;
/// Longest path that is told, in bytes: a bit more than a line shows, so that it shows the cut.
const PATH: usize = 2100;
/// Lines that are looked at for the host.
const LINES: usize = 300;

/// The parts of a refused head that can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Legible {
    /// A token.
    pub method: Option<Method>,
    /// As far as it has come, without its query.
    pub path: Option<String>,
    /// The first `Host`.
    pub host: Option<HeaderValue>,
}

impl Legible {
    /// Reads as much as can be read of `head`, which may be cut off or no head at all.
    pub fn of(head: &[u8]) -> Self {
        let mut lines = head.split(|byte| *byte == b'\n');
        let mut words = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next());
        // A method that nothing follows may be anything.
        let Some(target) = target.filter(|_| (1..=METHOD).contains(&method.len())) else {
            return Legible::default();
        };
        let host =
            lines.take(LINES).take_while(|line| !line.trim_ascii().is_empty()).find_map(|line| {
                let colon = memchr::memchr(b':', line)?;
                let (name, value) = (&line[..colon], &line[colon + 1..]);
                // A line that is cut off has no end.
                let is_host = name.eq_ignore_ascii_case(b"host") && line.ends_with(b"\r");
                is_host.then(|| HeaderValue::from_bytes(value.trim_ascii()).ok()).flatten()
            });
        Legible { method: Method::from_bytes(method).ok(), path: path_of(target), host }
    }
}

/// The path of a target in one of the forms of RFC 9112, section 3.2; `None` for anything else.
fn path_of(target: &[u8]) -> Option<String> {
    let target = target.strip_suffix(b"\r").unwrap_or(target);
    let absolute = [&b"http://"[..], b"https://"].iter().find_map(|s| target.strip_prefix(*s));
    let path = match absolute {
        Some(rest) => &rest[memchr::memchr(b'/', rest)?..],
        None if target.starts_with(b"/") || target == b"*" => target,
        None => return None,
    };
    let path = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    Some(String::from_utf8_lossy(&path[..path.len().min(PATH)]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(head: &[u8]) -> (Option<String>, Option<String>, Option<String>) {
        let Legible { method, path, host } = Legible::of(head);
        let host = host.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        (method.map(|method| method.to_string()), path, host)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_head_is_read_as_far_as_it_goes() {
        let head = b"GET /a/b?key=secret HTTP/1.1\r\nX: y\r\nHost: one.test\r\n\r\n";
        assert_eq!(told(head), (some("GET"), some("/a/b"), some("one.test")));
        let head = b"PUT http://one.test/a HTTP/1.1\r\nHost: one.te";
        assert_eq!(told(head), (some("PUT"), some("/a"), None), "a host that is cut off");
        assert_eq!(told(b"GET /aaaa"), (some("GET"), some("/aaaa"), None));
        let long = [&b"GET /"[..], &[b'x'; 9000]].concat();
        assert_eq!(told(&long).1.map(|path| path.len()), Some(PATH));
    }

    #[test]
    fn what_is_no_head_says_nothing() {
        for head in [&b""[..], b"GET", b"\x16\x03\x01\x02\x00\x01", b"\0\0\0", b"\r\n\r\n"] {
            assert_eq!(Legible::of(head), Legible::default(), "{head:?}");
        }
        assert_eq!(told(b"CONNECT one.test:443 HTTP/1.1\r\n\r\n"), (some("CONNECT"), None, None));
        assert_eq!(told(b"G(T / HTTP/1.1\r\n\r\n"), (None, some("/"), None));
    }

    #[test]
    fn a_body_is_not_read_for_a_host() {
        assert_eq!(told(b"POST / HTTP/1.1\r\n\r\nHost: two.test\r\n").2, None);
    }
}
