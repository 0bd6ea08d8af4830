//! Bounds on what a row is made of: on text that comes from outside, and on times.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The most bytes kept of a path, and of any other text.
pub(super) const PATH_BYTES: usize = 2048;
pub(super) const TEXT_BYTES: usize = 256;

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

pub(super) fn bound_shared(text: &mut Arc<str>) {
    if text.len() <= TEXT_BYTES && !has_nul(text) {
        return;
    }
    let mut owned = text.to_string();
    bound_string(&mut owned, TEXT_BYTES);
    *text = owned.into();
}

/// Usually one of our own constants, unless it was read from a file or a store.
pub(super) fn bound_word(text: &mut Cow<'static, str>) {
    match text {
        Cow::Borrowed(_) => {}
        Cow::Owned(text) => bound_string(text, TEXT_BYTES),
    }
}
