//! Reading a file that an operator named, whatever it turns out to be.
//!
//! What the text says is left to [`super::parse`].

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::parse::{Fault, Position};

/// Bytes a file may have.
pub(super) const MAX_FILE: u64 = 8 * 1024 * 1024;

/// Brackets that may be open at once: far more than the nesting that is accepted, as text may hold some.
const MAX_OPEN: usize = 1000;

/// The content of `path`.
///
/// # Errors
/// What is wrong with the file, to follow its name.
pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {}", reason(&error));
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // Not the size that the file system states: a device has none, and never ends.
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("is larger than {} MiB", MAX_FILE / (1024 * 1024)));
    }
    Ok(bytes)
}

/// The text of a file. Refuses what the parser would refuse without saying where, or only after
/// minutes.
pub(super) fn decode(bytes: Vec<u8>) -> Result<String, Fault> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
        Fault { position: end_of(&before), message: "the file is not valid UTF-8".to_owned() }
    })?;
    let refused = |at: usize, message: String| Fault { position: end_of(&text[..at]), message };
    if let Some((at, c)) = text.char_indices().find(|&(_, c)| is_forbidden(c)) {
        let message = format!("control character U+{:04X} is not allowed", u32::from(c));
        return Err(refused(at, message));
    }
    if let Some(at) = unbalanced(&text) {
        return Err(refused(at, format!("nested more than {MAX_OPEN} levels deep")));
    }
    Ok(text)
}

fn is_forbidden(c: char) -> bool {
    let layout = matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    (c.is_control() && !layout) || matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Where more than [`MAX_OPEN`] brackets are open at once. The parser's time is quadratic in
/// their number. Those inside strings count too, which at this number does no harm.
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

/// The system's words without the number behind them.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
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
        assert_eq!(read_bounded(&path), Err("is larger than 8 MiB".to_owned()));
        file.set_len(MAX_FILE).expect("sized");
        assert!(read_bounded(&path).is_ok());
    }

    #[test]
    fn a_directory_is_not_a_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = read_bounded(directory.path()).expect_err("not a file");
        assert_eq!(error, "cannot be read: Is a directory");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_their_place() {
        let fault = |bytes: &[u8]| decode(bytes.to_vec()).expect_err("a fault");
        assert_eq!(fault(b"a: 1\nb: \xff").position, Position { line: 2, column: 4 });
        assert_eq!(fault(b"a\0").message, "control character U+0000 is not allowed");
    }

    #[test]
    fn brackets_without_end_do_not_reach_the_parser() {
        let fault = decode(format!("a:\n{}", "{b: [".repeat(600)).into_bytes());
        let fault = fault.expect_err("a fault");
        assert_eq!(fault.message, "nested more than 1000 levels deep");
        assert_eq!(fault.position, Position { line: 2, column: 2501 });
        assert!(decode("[{}]".repeat(10_000).into_bytes()).is_ok());
    }
}
