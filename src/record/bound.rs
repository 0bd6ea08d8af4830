//! Bounds of text that comes from outside.

pub fn has_nul(text: &str) -> bool {
    memchr::memchr(0, text.as_bytes()).is_some()
}

pub(crate) fn bound_string(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    if has_nul(text) {
        *text = text.replace('\0', "\u{fffd}");
    }
}
