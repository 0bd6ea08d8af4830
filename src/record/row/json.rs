//! A row as one JSON object, its fields named like the columns: in the table of dead letters, in what
//! `portcullis invocations` reads from PostgreSQL and prints, and in the journal where bytes will not
//! do.
//!
//! Absent columns are left out and unknown fields ignored, so that older and newer builds read each
//! other's rows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{Formatter, Result as Formatted};
use std::net::IpAddr;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::columns::{COLUMNS, Draft};
use super::value::{Kind, Value, time, trace};
use crate::record::invocation::Invocation;

/// Appends the row to `out`.
pub(crate) fn write(it: &Invocation, completed: bool, out: &mut Vec<u8>) {
    // Serializing text and numbers into memory does not fail.
    serde_json::to_writer(out, &Object { it, completed }).ok();
}

/// The row that [`write`] has written, and whether it was complete; `None` for any other text.
pub(crate) fn read(text: &[u8]) -> Option<(Invocation, bool)> {
    let mut from = serde_json::Deserializer::from_slice(text);
    let read = from.deserialize_map(Row).ok()?;
    from.end().ok()?;
    read.finish()
}

struct Object<'a> {
    it: &'a Invocation,
    completed: bool,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_map(None)?;
        for column in COLUMNS {
            match column.value(self.it, self.completed) {
                Value::Absent => {}
                value => object.serialize_entry(column.name, &value)?,
            }
        }
        object.end()
    }
}

/// Text that is borrowed unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Row;

impl<'de> Visitor<'de> for Row {
    type Value = Draft;

    fn expecting(&self, out: &mut Formatter<'_>) -> Formatted {
        out.write_str("a row")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut object: M) -> Result<Draft, M::Error> {
        let mut draft = Draft::new();
        while let Some(Text(name)) = object.next_key()? {
            match COLUMNS.iter().position(|column| column.name == name) {
                Some(index) => object.next_value_seed(Cell { draft: &mut draft, index })?,
                None => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(draft)
    }
}

/// The place for one value; null counts as absent.
struct Cell<'d> {
    draft: &'d mut Draft,
    index: usize,
}

impl Cell<'_> {
    fn set<E: Error>(self, value: Value<'_>) -> Result<(), E> {
        let name = COLUMNS[self.index].name;
        let set = self.draft.set(self.index, value);
        set.ok_or_else(|| E::custom(format!("{name}: not a value of this column")))
    }
}

impl<'de> DeserializeSeed<'de> for Cell<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Cell<'_> {
    type Value = ();

    fn expecting(&self, out: &mut Formatter<'_>) -> Formatted {
        write!(out, "{:?}, or null", COLUMNS[self.index].kind)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.set(Value::Absent)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.set(Value::Absent)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        match COLUMNS[self.index].kind {
            Kind::Id => {
                let id = Text::deserialize(from)?.0.parse().map_err(D::Error::custom)?;
                self.set(Value::Id(id))
            }
            Kind::Time => {
                let at = time(&Text::deserialize(from)?.0);
                self.set(Value::Time(at.ok_or_else(|| D::Error::custom("not a time"))?))
            }
            Kind::Text => self.set(Value::Text(&Text::deserialize(from)?.0)),
            Kind::Trace => self.set(trace(&Text::deserialize(from)?.0)),
            Kind::Address => self.set(Value::Address(IpAddr::deserialize(from)?)),
            Kind::Small => self.set(Value::Small(u32::deserialize(from)?)),
            Kind::Big => self.set(Value::Big(u64::deserialize(from)?)),
            Kind::Flag => self.set(Value::Flag(bool::deserialize(from)?)),
            Kind::Texts => {
                let texts = BTreeMap::<String, String>::deserialize(from)?;
                let texts: Vec<(Arc<str>, String)> =
                    texts.into_iter().map(|(name, text)| (name.into(), text)).collect();
                self.set(Value::Texts(&texts))
            }
        }
    }
}
