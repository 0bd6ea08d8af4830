//! The service's two messages, each of one text, in the frames of gRPC-Web.

use serde_json::{Value, json};

use crate::Result;

/// A flag and four bytes of length.
const PREFIX: usize = 5;
/// The first field, of variable length.
const TEXT: u8 = 0x0a;

/// A call that says `name`.
pub fn call(name: &str) -> Result<Vec<u8>> {
    let length = u8::try_from(name.len())?;
    let mut framed = vec![0, 0, 0, 0, length + 2, TEXT, length];
    framed.extend_from_slice(name.as_bytes());
    Ok(framed)
}

/// What an answer says, as Connect would write it; null for what is no good answer.
pub fn answer(body: &[u8]) -> Value {
    let Some(([0, TEXT, length], rest)) = head(body).zip(body.get(PREFIX + 2..)) else {
        return Value::Null;
    };
    let text = rest.get(..length.into()).and_then(|text| std::str::from_utf8(text).ok());
    text.map_or(Value::Null, |text| json!({"message": text}))
}

/// The flag, the field, and its length.
fn head(body: &[u8]) -> Option<[u8; 3]> {
    Some([*body.first()?, *body.get(PREFIX)?, *body.get(PREFIX + 1)?])
}
