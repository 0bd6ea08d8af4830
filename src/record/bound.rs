//! Bounds on what a row is made of: on text that comes from outside, and on times.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The end of the year 9999.
const LAST: Duration = Duration::from_micros(253_402_300_799_999_999);

pub(crate) fn has_nul(text: &str) -> bool {
    memchr::memchr(0, text.as_bytes()).is_some()
}

/// Cuts `text` to at most `most` bytes, at a character boundary, and replaces NUL, which PostgreSQL
/// does not accept.
pub(crate) fn bound_string(text: &mut String, most: usize) {
    if has_nul(text) {
        // Replace before cutting: the replacement is longer.
        *text = text.replace('\0', "\u{fffd}");
    }
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
}

/// The nearest time to `time` that can be written as text: from 1970 on, with a year of four
/// digits.
pub(crate) fn within_text(time: SystemTime) -> SystemTime {
    time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST)
}
