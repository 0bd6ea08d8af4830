//! The text of a file that an operator wrote.

/// The byte order mark, which has no meaning in UTF-8.
const MARK: char = '\u{feff}';

/// Why bytes are not text; the first `good` of them are.
#[derive(Debug, PartialEq, Eq)]
pub struct NotText {
    /// The number of bytes before the first one that is wrong; 0 if all of them are in another
    /// encoding.
    pub good: usize,
    /// Phrased to follow the name of the file.
    pub reason: &'static str,
}

/// The text in `bytes`, without the UTF-8 byte order mark that some editors write.
///
/// # Errors
/// The bytes are in another encoding.
pub fn text_of(bytes: &[u8]) -> Result<&str, NotText> {
    if is_utf16(bytes) {
        return Err(NotText { good: 0, reason: "is in UTF-16" });
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix(MARK).unwrap_or(text)),
        Err(error) => Err(NotText { good: error.valid_up_to(), reason: "is not valid UTF-8" }),
    }
}

/// `bytes` without the UTF-8 byte order mark that some editors write before a text, for what is read as
/// bytes, such as PEM.
pub fn unmarked(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Detected by the byte order mark, or by the first two characters if there is none.
fn is_utf16(bytes: &[u8]) -> bool {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [0, b, 0, d, ..] | [b, 0, d, 0, ..] => *b != 0 && *d != 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_before_a_text_is_not_part_of_it() {
        assert_eq!(text_of("\u{feff}a\n\u{feff}b".as_bytes()), Ok("a\n\u{feff}b"));
        assert_eq!(text_of("a".as_bytes()), Ok("a"));
        assert_eq!(text_of(b""), Ok(""));
    }

    #[test]
    fn only_a_byte_order_mark_at_the_beginning_is_skipped() {
        assert_eq!(unmarked(b"\xef\xbb\xbfa\xef\xbb\xbf\xff"), b"a\xef\xbb\xbf\xff");
        assert_eq!(unmarked(b"\xef\xbba"), b"\xef\xbba");
        assert_eq!(unmarked(b"\xef\xbb\xbf"), b"");
        assert_eq!(unmarked(b""), b"");
    }

    #[test]
    fn other_encodings_are_named() {
        let not_utf8 = NotText { good: 4, reason: "is not valid UTF-8" };
        assert_eq!(text_of(b"\xef\xbb\xbfa\xff"), Err(not_utf8));
        let utf16 = NotText { good: 0, reason: "is in UTF-16" };
        assert_eq!(text_of(b"\xff\xfea\0b\0"), Err(utf16));
    }
}
