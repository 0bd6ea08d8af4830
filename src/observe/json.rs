//! JSON objects, one in a line: safe to read whatever went into them.
//!
//! Whatever a client or an upstream sent, a line is valid JSON and has no control character: those,
//! and characters that turn the direction of text, are escaped.

use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use crate::observe::append;

/// The most bytes of a text that has no limit of its own.
pub(super) const TEXT: usize = 256;

/// A JSON object that is being written.
pub(super) struct Object {
    pub(super) out: Vec<u8>,
    is_empty: bool,
}

impl Object {
    pub(super) fn begin(mut out: Vec<u8>) -> Self {
        out.push(b'{');
        Object { out, is_empty: true }
    }

    pub(super) fn close(mut self) -> Vec<u8> {
        self.out.push(b'}');
        self.out
    }

    pub(super) fn end(self) -> Vec<u8> {
        let mut out = self.close();
        out.push(b'\n');
        out
    }

    /// `name` is a word of the code's own.
    pub(super) fn name(&mut self, name: &str) {
        if !std::mem::replace(&mut self.is_empty, false) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    pub(super) fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        append::number(&mut self.out, number);
    }

    pub(super) fn truth(&mut self, name: &str, truth: bool) {
        self.name(name);
        self.out.extend_from_slice(if truth { b"true" } else { b"false" });
    }

    /// With one decimal, rounded. Below 0 is 0.
    pub(super) fn tenths(&mut self, name: &str, number: f64) {
        self.name(name);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rounded, and the cast saturates"
        )]
        let tenths = (number * 10.0).round() as u64;
        append::tenths(&mut self.out, tenths);
    }

    pub(super) fn micros(&mut self, name: &str, time: Duration) {
        self.number(name, append::micros(time));
    }

    pub(super) fn text(&mut self, name: &str, text: &str, limit: usize) {
        self.name(name);
        self.out.push(b'"');
        escape(&mut self.out, text, limit);
        self.out.push(b'"');
    }

    pub(super) fn word(&mut self, name: &str, word: Option<&str>) {
        if let Some(word) = word {
            self.text(name, word, TEXT);
        }
    }

    /// `value` is shown without anything to escape.
    pub(super) fn shown(&mut self, name: &str, value: impl std::fmt::Display) {
        self.name(name);
        let _ = write!(self.out, "\"{value}\"");
    }

    /// In 32 hexadecimal digits.
    pub(super) fn hex(&mut self, name: &str, number: u128) {
        self.name(name);
        self.out.push(b'"');
        append::hex(&mut self.out, number);
        self.out.push(b'"');
    }

    pub(super) fn address(&mut self, name: &str, address: IpAddr) {
        self.name(name);
        self.out.push(b'"');
        append::address(&mut self.out, address);
        self.out.push(b'"');
    }

    pub(super) fn time(&mut self, name: &str, time: SystemTime) {
        self.shown(name, humantime::format_rfc3339_micros(within_years(time)));
    }
}

/// The member as it stands in every object that has it.
pub(super) fn member(name: &str, text: &str) -> Vec<u8> {
    let mut object = Object { out: Vec::new(), is_empty: true };
    object.text(name, text, TEXT);
    object.out
}

/// Times that can be written with a year of four digits.
pub(super) fn within_years(time: SystemTime) -> SystemTime {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    time.clamp(SystemTime::UNIX_EPOCH, last)
}

/// Appends at most `limit` bytes of `text`, escaped.
fn escape(out: &mut Vec<u8>, text: &str, limit: usize) {
    let (text, is_cut) = cut(text, limit);
    let mut plain = 0;
    let suspect = if is_plain(text) { "" } else { text };
    for (at, character) in suspect.char_indices() {
        if !must_escape(character) {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        plain = at + character.len_utf8();
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            // All of them are below U+FFFF.
            other => {
                let _ = write!(out, "\\u{:04x}", u32::from(other));
            }
        }
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
    if is_cut {
        out.extend_from_slice("…".as_bytes());
    }
}

/// Whether `text` is of ASCII that is written as it is, in JSON and to a terminal. Nearly all texts
/// are; so all bytes are looked at, without a branch, which the compiler does many at a time.
pub(super) fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\');
    text.bytes().fold(true, |all, byte| all & plain(byte))
}

fn must_escape(character: char) -> bool {
    matches!(character, '"' | '\\') || is_unsafe(character)
}

/// Control characters, and those that turn the direction of the text around them or break lines in
/// some readers.
pub(super) fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most `limit` bytes of `text`, whole characters, and whether that is not all.
pub(super) fn cut(text: &str, limit: usize) -> (&str, bool) {
    if text.len() <= limit {
        return (text, false);
    }
    let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    (&text[..end], true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str, limit: usize) -> String {
        let mut out = Vec::new();
        escape(&mut out, text, limit);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_a_terminal_or_a_parser_would_obey_is_escaped() {
        let hostile = "a\"b\\c\n\u{1b}[31m\u{7f}\u{9b}\u{202e}\u{2028}\0é";
        let written = escaped(hostile, 100);
        assert!(!written.chars().any(is_unsafe), "{written}");
        let read: String = serde_json::from_str(&format!("\"{written}\"")).expect("JSON");
        assert_eq!(read, hostile);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(escaped("ééé", 5), "éé…");
        assert_eq!(escaped("abc", 3), "abc");
    }
}
