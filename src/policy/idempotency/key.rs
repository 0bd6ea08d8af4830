//! The header field, as clients write it.

use http::{HeaderMap, HeaderName};

/// The field that holds the key. Goes upstream unchanged.
pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

const LONGEST: usize = 255;

/// 1 to 255 characters that a client chose for one request and all its repetitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Box<[u8]>);

/// Why the header does not hold exactly one valid key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidKey {
    /// More than one header.
    Repeated,
    /// An empty key.
    Empty,
    /// More than 255 characters.
    Long,
    /// A character that a key without quotes may not have.
    Character,
    /// A key in quotes that is not a string of structured fields.
    Quoting,
}

impl InvalidKey {
    /// The rule that is broken, for the operator.
    pub const fn as_str(self) -> &'static str {
        match self {
            InvalidKey::Repeated => "there is more than one Idempotency-Key",
            InvalidKey::Empty => "the key is empty",
            InvalidKey::Long => "the key has more than 255 characters",
            InvalidKey::Character => {
                "without quotes, a key may not have spaces, commas, semicolons, quotes, or characters \
                 outside of ASCII"
            }
            InvalidKey::Quoting => {
                "the key begins with a quote, and is not a string as RFC 9651 has them"
            }
        }
    }
}

impl Key {
    /// The key of a request; `None` without the header.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn of(headers: &HeaderMap) -> Result<Option<Key>, InvalidKey> {
        let mut values = headers.get_all(&HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(InvalidKey::Repeated);
        }
        let value = value.as_bytes().trim_ascii();
        let text = match value.strip_prefix(b"\"") {
            Some(rest) => unquoted(rest)?,
            None => bare(value)?,
        };
        if text.is_empty() {
            return Err(InvalidKey::Empty);
        }
        if text.len() > LONGEST {
            return Err(InvalidKey::Long);
        }
        Ok(Some(Key(text.into())))
    }

    /// Without the quotes that the header may have.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A string in structured-field syntax after its first quote (RFC 9651, section 3.3.3). Parameters
/// have no meaning here and are refused.
fn unquoted(rest: &[u8]) -> Result<Vec<u8>, InvalidKey> {
    let mut text = Vec::with_capacity(rest.len());
    let mut bytes = rest.iter();
    loop {
        match bytes.next() {
            Some(b'"') if bytes.as_slice().is_empty() => return Ok(text),
            Some(b'\\') => match bytes.next() {
                Some(escaped @ (b'"' | b'\\')) => text.push(*escaped),
                Some(_) | None => return Err(InvalidKey::Quoting),
            },
            Some(byte @ (b' ' | b'!' | b'#'..=b'~')) => text.push(*byte),
            Some(_) | None => return Err(InvalidKey::Quoting),
        }
    }
}

/// A bare key, as most clients send it. A comma would mean that a proxy has joined two headers.
fn bare(value: &[u8]) -> Result<Vec<u8>, InvalidKey> {
    let may_hold = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';');
    if value.iter().all(may_hold) { Ok(value.to_vec()) } else { Err(InvalidKey::Character) }
}
