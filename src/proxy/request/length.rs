//! `Content-Length`, reduced to one plain value.
//!
//! Repeated equal lengths count as one, and a gateway that forwards them must reduce them to one
//! (RFC 9110, section 8.6): another server may read `2, 2` or `02` differently.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HeaderValue};

/// The lengths differ, or one is not a number.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid;

/// The value to replace `Content-Length` with; `None` if it can stay as it is.
///
/// # Errors
/// [`Invalid`], if the length is not certain.
pub fn repaired(headers: &HeaderMap) -> Result<Option<HeaderValue>, Invalid> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    if lines.next().is_none() && is_plain(first.as_bytes()) {
        return Ok(None);
    }
    let mut length = None;
    for line in headers.get_all(CONTENT_LENGTH) {
        for item in line.as_bytes().split(|byte| *byte == b',') {
            let item = number(item.trim_ascii()).ok_or(Invalid)?;
            if length.replace(item).is_some_and(|before| before != item) {
                return Err(Invalid);
            }
        }
    }
    Ok(length.map(HeaderValue::from))
}

/// Whether a length is written in the usual way and fits into a `u64`.
fn is_plain(length: &[u8]) -> bool {
    let begins = length == b"0" || matches!(length.first(), Some(b'1'..=b'9'));
    begins && length.len() < 20 && length.iter().all(u8::is_ascii_digit)
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> Result<Option<String>, Invalid> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_LENGTH, line.parse().expect("a value"));
        }
        let repaired = repaired(&headers)?;
        Ok(repaired.map(|length| length.to_str().expect("digits").to_owned()))
    }

    #[test]
    fn a_plain_length_stays_as_it_is() {
        for plain in ["0", "2", "1000000000000"] {
            assert_eq!(of(&[plain]), Ok(None), "{plain}");
        }
        assert_eq!(of(&[]), Ok(None));
    }

    #[test]
    fn equal_lengths_become_one_and_zeros_in_front_go() {
        for lines in [&["2", "2"][..], &["2, 2"], &["2,02"], &["02"], &["2", "2 ,2"]] {
            assert_eq!(of(lines), Ok(Some("2".to_owned())), "{lines:?}");
        }
        assert_eq!(of(&["00"]), Ok(Some("0".to_owned())));
    }

    #[test]
    fn lengths_that_differ_or_are_no_number_are_invalid() {
        for lines in [&["2", "3"][..], &["2, 3"], &["+2"], &["-2"], &["2,"], &[""], &["0x2"]] {
            assert_eq!(of(lines), Err(Invalid), "{lines:?}");
        }
        assert_eq!(of(&["99999999999999999999"]), Err(Invalid));
    }
}
