//! Bounds of text that comes from outside.

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
