//! The value of one column of one row, and the text that some values have in stores and in JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::record::bound::within_text;

/// What a column holds. Each kind has one type in each store, and one form in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Id,
    /// In microseconds.
    Time,
    Text,
    /// The id of a trace: 32 hexadecimal digits.
    Trace,
    Address,
    /// An integer of 32 bits in a store.
    Small,
    /// An integer of 64 bits in a store. Durations are counts of microseconds.
    Big,
    Flag,
    /// A JSON object whose values are texts.
    Texts,
}

/// A value, borrowed from its row or from what a row is read from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Absent,
    Id(Uuid),
    Time(SystemTime),
    Text(&'a str),
    Trace(TraceId),
    Address(IpAddr),
    Small(u32),
    Big(u64),
    Flag(bool),
    Texts(&'a Texts),
}

/// Big-endian.
pub(crate) type TraceId = [u8; 16];
/// Texts by name.
pub(crate) type Texts = [(Arc<str>, String)];

/// As JSON has it.
impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Absent => to.serialize_none(),
            Value::Id(id) => {
                to.serialize_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
            Value::Time(at) => to.serialize_str(&timestamp(*at)),
            Value::Text(text) => to.serialize_str(text),
            Value::Trace(id) => to.serialize_str(trace_text(*id, &mut [0; 32])),
            Value::Address(address) => address.serialize(to),
            Value::Small(n) => to.serialize_u32(*n),
            Value::Big(n) => to.serialize_u64(*n),
            Value::Flag(flag) => to.serialize_bool(*flag),
            Value::Texts(texts) => by_name(texts).serialize(to),
        }
    }
}

/// The texts as one JSON object, its names sorted.
pub(crate) fn texts_json(texts: &Texts) -> String {
    // Text in memory can always be serialized.
    serde_json::to_string(&by_name(texts)).unwrap_or_default()
}

/// The texts of a JSON object.
pub(crate) fn texts(json: &str) -> serde_json::Result<Vec<(Arc<str>, String)>> {
    let object: BTreeMap<String, String> = serde_json::from_str(json)?;
    Ok(object.into_iter().map(|(name, text)| (name.into(), text)).collect())
}

fn by_name(texts: &Texts) -> BTreeMap<&str, &str> {
    texts.iter().map(|(name, text)| (&**name, text.as_str())).collect()
}

/// The id of a trace as text, written into `room`.
pub(crate) fn trace_text(id: TraceId, room: &mut [u8; 32]) -> &str {
    Uuid::from_bytes(id).simple().encode_lower(room)
}

/// A trace whose id cannot be read counts as absent.
pub(crate) fn trace(text: &str) -> Value<'static> {
    u128::from_str_radix(text, 16).map_or(Value::Absent, |id| Value::Trace(id.to_be_bytes()))
}

/// RFC 3339 in UTC with microseconds: sorts as text, and SQLite's date functions understand it.
pub(crate) fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(within_text(time)).to_string()
}

pub(crate) fn time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
