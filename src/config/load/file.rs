//! Reads a file that an operator named, whatever kind of file it is.
//!
//! [`super::parse`] interprets the text.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::fault::{Fault, Position};
use crate::config::code::Code;
use crate::files::text::{NotText, text_of};
use crate::units::reason;

/// The most bytes a file may have.
pub(super) const MAX_FILE: u64 = 8 * 1024 * 1024;

/// The most brackets open at once. Far more than the nesting that is accepted, because text may
/// contain brackets.
const MAX_OPEN: usize = 1000;

/// Reads `path`.
///
/// # Errors
/// What is wrong with the file, phrased to follow its name.
pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>, (Code, String)> {
    let file = File::open(path).map_err(unreadable)?;
    read_all(file)
}

/// Reads the standard input.
///
/// # Errors
/// As of [`read_bounded`].
pub(super) fn read_stdin() -> Result<Vec<u8>, (Code, String)> {
    read_all(io::stdin().lock())
}

fn unreadable(error: io::Error) -> (Code, String) {
    (Code::FileUnreadable, format!("cannot be read: {}", reason(&error)))
}

fn read_all(file: impl Read) -> Result<Vec<u8>, (Code, String)> {
    let mut bytes = Vec::new();
    // Reads up to the limit instead of trusting the size that the file system reports: a device has
    // none, and never ends.
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        let message = format!("is larger than {} MiB", MAX_FILE / (1024 * 1024));
        return Err((Code::FileTooLarge, message));
    }
    Ok(bytes)
}

/// The text of a file. Refuses what the parser would refuse without a position, or only after
/// minutes.
pub(super) fn decode(bytes: &[u8]) -> Result<String, Fault> {
    let text = text_of(bytes).map_err(|NotText { good, reason }| {
        let before = text_of(&bytes[..good]).unwrap_or_default();
        let message = format!("the file {reason}");
        Fault::new(end_of(before), Code::FileNotUtf8, message)
    })?;
    let refused = |at: usize, code, message: String| Fault::new(end_of(&text[..at]), code, message);
    if let Some((at, c)) = text.char_indices().find(|&(_, c)| is_forbidden(c)) {
        let message = format!("control character U+{:04X} is not allowed", u32::from(c));
        return Err(refused(at, Code::ControlCharacter, message));
    }
    if let Some(at) = text.find("\n\u{feff}") {
        // The parser would read it as part of the next key.
        let message = "a byte order mark in the middle of the file: it is two files in one";
        return Err(refused(at + 1, Code::ByteOrderMark, message.to_owned()));
    }
    if let Some(at) = unbalanced(text) {
        let message = format!("nested more than {MAX_OPEN} levels deep");
        return Err(refused(at, Code::TooDeep, message));
    }
    Ok(text.to_owned())
}

fn is_forbidden(c: char) -> bool {
    let layout = matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    (c.is_control() && !layout) || matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Finds where more than [`MAX_OPEN`] brackets are open, because the parser's time is quadratic in
/// their number. Brackets inside strings count too, which does no harm at this limit.
fn unbalanced(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    text.bytes().position(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > MAX_OPEN
    })
}

fn end_of(text: &str) -> Position {
    let last = text.rsplit('\n').next().unwrap_or(text);
    Position { line: text.matches('\n').count() + 1, column: last.chars().count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("large");
        let file = File::create(&path).expect("created");
        file.set_len(MAX_FILE + 1).expect("sized");
        let too_large = (Code::FileTooLarge, "is larger than 8 MiB".to_owned());
        assert_eq!(read_bounded(&path), Err(too_large));
        file.set_len(MAX_FILE).expect("sized");
        assert!(read_bounded(&path).is_ok());
    }

    #[test]
    fn a_directory_is_not_a_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = read_bounded(directory.path()).expect_err("not a file");
        assert_eq!(error.1, "cannot be read: Is a directory");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_their_place() {
        let fault = |bytes: &[u8]| decode(bytes).expect_err("a fault");
        assert_eq!(fault(b"a: 1\nb: \xff").position, Position { line: 2, column: 4 });
        assert_eq!(fault(b"a\0").message, "control character U+0000 is not allowed");
    }

    #[test]
    fn a_byte_order_mark_before_a_text_is_not_part_of_it() {
        assert_eq!(decode("\u{feff}a: 1".as_bytes()), Ok("a: 1".to_owned()));
        let fault = decode(b"\xef\xbb\xbfa: \xff").expect_err("a fault");
        assert_eq!(fault.position, Position { line: 1, column: 4 });
        let fault = decode("a: 1\n\u{feff}b: 2\n".as_bytes()).expect_err("two files");
        assert_eq!(fault.position, Position { line: 2, column: 1 });
        assert!(fault.message.starts_with("a byte order mark in the middle"), "{}", fault.message);
    }

    #[test]
    fn utf_16_is_named() {
        let units = |text: &str| -> Vec<u16> { text.encode_utf16().collect() };
        let little = |text| units(text).into_iter().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let big = |text| units(text).into_iter().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
        for bytes in [little("a: 1"), big("a: 1"), little("\u{feff}a: 1"), big("\u{feff}a: 1")] {
            let fault = decode(&bytes).expect_err("a fault");
            assert_eq!(fault.message, "the file is in UTF-16");
            assert_eq!(fault.position, Position::START);
        }
    }

    #[test]
    fn brackets_without_end_do_not_reach_the_parser() {
        let fault = decode(format!("a:\n{}", "{b: [".repeat(600)).as_bytes());
        let fault = fault.expect_err("a fault");
        assert_eq!(fault.message, "nested more than 1000 levels deep");
        assert_eq!(fault.position, Position { line: 2, column: 2501 });
        assert!(decode("[{}]".repeat(10_000).as_bytes()).is_ok());
    }
}
