//! Bounds of what a row is made of: of text that comes from outside, and of times.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The end of the year 9999.
const LAST: Duration = Duration::from_micros(253_402_300_799_999_999);

pub(crate) fn has_nul(text: &str) -> bool {
    memchr::memchr(0, text.as_bytes()).is_some()
}

/// Cut `text` to at most `most` bytes, between characters, and let it have no NUL: PostgreSQL takes none.
pub(crate) fn bound_string(text: &mut String, most: usize) {
    if has_nul(text) {
        // Before it is cut: what takes its place is longer.
        *text = text.replace('\0', "\u{fffd}");
    }
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
}

/// The time nearest to `time` that can be written as text: years are four digits from 1970 on.
pub(crate) fn within_text(time: SystemTime) -> SystemTime {
    time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST)
}
