//! The head of an HTTP/1 request, checked before Pingora parses it.
//!
//! Pingora repairs some heads, refuses others with an empty response, and limits the number of
//! fields to [`MAX_FIELDS`]. The gateway looks first: it finds the end of the head, enforces its
//! limits, finds how the body is framed, and reports faults in its own words ([`Fault`]). What only
//! Pingora refuses is explained afterwards, by [`diagnose`].

use std::ops::Range;

pub use fault::Fault;
pub use replacement::stand_in;

use crate::proxy::downstream::framing::Framing;
use crate::proxy::downstream::limits::Limits;

/// Limit of Pingora's parser on the fields of a request or response.
pub const MAX_FIELDS: usize = 256;
/// Longest target that `http::Uri` accepts, in bytes.
const MAX_TARGET: usize = u16::MAX as usize - 1;
/// Longest head that Pingora reads, in bytes.
const MAX_HEAD: usize = 1024 * 1024 - 1;
/// The line that ends a head; it does not count towards the limit on fields.
const EMPTY_LINE: usize = 2;
/// Method, spaces, version and line end of the longest request line, besides its target.
const BESIDES_TARGET: usize = 64;

/// A head that is complete and may be parsed.
#[derive(Debug)]
pub struct Head {
    /// Bytes, including the empty line.
    pub length: usize,
    /// Of the body.
    pub framing: Framing,
    /// The target contains characters that clients send and `http::Uri` refuses: see [`escape`].
    pub must_escape: bool,
    /// Where it is in the head.
    pub target: Range<usize>,
}

/// Scans a head as its bytes arrive, looking at each byte once.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Where to look for the next line end.
    searched: usize,
    /// Where the current line begins.
    line: usize,
    /// Where the header fields begin; 0 until the request line is complete.
    fields_at: usize,
    fields: usize,
    target: Range<usize>,
    must_escape: bool,
    is_http10: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Scanner {
    /// Scans `bytes`, everything received of the head so far.
    ///
    /// # Errors
    /// The first [`Fault`] found. Limits are also checked on incomplete lines.
    pub fn scan(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<Head>, Fault> {
        while let Some(offset) = memchr::memchr(b'\n', &bytes[self.searched..]) {
            let end = self.searched + offset;
            // Checked first, as for an incomplete line, so that the verdict does not depend on how
            // the bytes arrive.
            self.check_size(end + 1, limits)?;
            let line = &bytes[self.line..end];
            let Some((b'\r', line)) = line.split_last() else { return Err(Fault::LineEnding) };
            let start = std::mem::replace(&mut self.line, end + 1);
            self.searched = end + 1;
            if self.fields_at == 0 {
                self.request_line(line, start, limits)?;
                self.fields_at = end + 1;
            } else if line.is_empty() {
                return self.complete(end + 1).map(Some);
            } else {
                self.field(line)?;
            }
        }
        self.searched = bytes.len();
        self.check_size(bytes.len(), limits)?;
        Ok(None)
    }

    fn check_size(&self, end: usize, limits: &Limits) -> Result<(), Fault> {
        if self.fields_at == 0 {
            let longest = within(limits.max_path_bytes, MAX_TARGET) + BESIDES_TARGET;
            return if end > longest { Err(Fault::TargetTooLong) } else { Ok(()) };
        }
        let longest = within(limits.max_header_bytes, MAX_HEAD - EMPTY_LINE) + EMPTY_LINE;
        if end - self.fields_at > longest {
            return Err(Fault::TooLarge);
        }
        Ok(())
    }

    fn request_line(&mut self, line: &[u8], start: usize, limits: &Limits) -> Result<(), Fault> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::RequestLine);
        };
        self.is_http10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(Fault::RequestLine),
        };
        if method == b"CONNECT" {
            return Err(Fault::Connect);
        }
        let is_absolute = target.starts_with(b"http://") || target.starts_with(b"https://");
        if !(target.starts_with(b"/") || is_absolute || target == b"*") {
            return Err(Fault::RequestLine);
        }
        if target.len() > within(limits.max_path_bytes, MAX_TARGET) {
            return Err(Fault::TargetTooLong);
        }
        if memchr::memchr(b'#', target).is_some() {
            return Err(Fault::Fragment);
        }
        self.must_escape = memchr::memchr3(b'<', b'>', b'"', target).is_some()
            || memchr::memchr(b'`', target).is_some();
        let at = start + method.len() + 1;
        self.target = at..at + target.len();
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(Fault::TooManyFields);
        }
        match line[0] {
            b' ' | b'\t' => Err(Fault::FoldedField),
            b'c' | b'C' => match value_of(line, b"content-length") {
                Some(value) => self.content_length(value),
                None => Ok(()),
            },
            b't' | b'T' => match value_of(line, b"transfer-encoding") {
                Some(value) => self.transfer_encoding(value),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Repeated equal lengths count as one (RFC 9110, section 8.6).
    fn content_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        for length in value.split(|byte| *byte == b',') {
            let length = length_of(length.trim_ascii()).ok_or(Fault::Length)?;
            if *self.length.get_or_insert(length) != length {
                return Err(Fault::TwoLengths);
            }
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.chunked || self.is_http10 || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Fault::Coding);
        }
        self.chunked = true;
        Ok(())
    }

    fn complete(&mut self, length: usize) -> Result<Head, Fault> {
        let framing = match (self.chunked, self.length) {
            (true, Some(_)) => return Err(Fault::TwoFramings),
            (true, None) => Framing::chunked(),
            (false, length) => Framing::Length(length.unwrap_or(0)),
        };
        let target = self.target.clone();
        Ok(Head { length, framing, must_escape: self.must_escape, target })
    }
}

fn within(limit: usize, most: usize) -> usize {
    if limit == 0 { most } else { limit.min(most) }
}

/// The trimmed value of `line`, if its field has this name.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let (colon, value) = rest.split_first()?;
    (*colon == b':' && found.eq_ignore_ascii_case(name)).then(|| value.trim_ascii())
}

/// Digits only: no sign, no space, no overflow.
fn length_of(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    text?.parse().ok()
}

/// Percent-encodes in the target of `head` the illegal characters that clients send and `http::Uri`
/// refuses: `<`, `>`, `` ` `` in a path, `"`, `<`, `>` in a query. Returns by how many bytes the
/// head has grown.
pub fn escape(head: &mut Vec<u8>, target: Range<usize>) -> usize {
    let mut in_query = false;
    let mut escaped = Vec::with_capacity(target.len() + 16);
    for &byte in &head[target.clone()] {
        in_query |= byte == b'?';
        match byte {
            b'<' => escaped.extend_from_slice(b"%3C"),
            b'>' => escaped.extend_from_slice(b"%3E"),
            b'"' if in_query => escaped.extend_from_slice(b"%22"),
            b'`' if !in_query => escaped.extend_from_slice(b"%60"),
            _ => escaped.push(byte),
        }
    }
    let longer = escaped.len() - target.len();
    head.splice(target, escaped);
    longer
}

/// What is wrong with a `head` that Pingora has refused.
pub fn diagnose(head: &[u8]) -> Fault {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    let method = lines.next().unwrap_or_default().split(|byte| *byte == b' ').next();
    if !method.is_some_and(is_token) {
        return Fault::Method;
    }
    let mut nominates = false;
    for line in lines.take_while(|line| !line.is_empty()) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next());
        let Some(value) = value.filter(|_| is_token(name)) else { return Fault::FieldName };
        if value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Fault::FieldValue;
        }
        if name.eq_ignore_ascii_case(b"connection") {
            nominates |= value.split(|byte| *byte == b',').any(|nominated| {
                let nominated = nominated.trim_ascii();
                nominated.eq_ignore_ascii_case(b"host")
                    || nominated.to_ascii_lowercase().starts_with(b"x-forwarded-")
            });
        }
    }
    if nominates {
        return Fault::Nominated;
    }
    // Pingora's last checks concern the host and the target.
    Fault::Host
}

fn is_token(text: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_tchar)
}

mod fault;
mod replacement;

#[cfg(test)]
mod tests;
