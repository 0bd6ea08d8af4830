//! Reads the tree as typed values: serde's view of a [`Node`].
//!
//! Enums are written as a plain string or as a mapping with one key. An absent value where a
//! mapping or a list belongs is an empty one. An interpolated string is read as a number or boolean
//! if the type asks for one; a type that takes anything gets a string.

mod access;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use super::error::{Error, Kind, one_of};
use super::node::{Element, Entry, Node, Value};
use super::path::Step;
use crate::config::code::Code;
use crate::config::load::deserialize::access::{KeyDeserializer, SingleKey, Word};

/// Mappings with more entries than this skip the entries that already fit.
const MANY: usize = 64;

#[derive(Clone, Copy)]
pub(super) struct NodeDeserializer<'a>(pub(super) &'a Node);

impl<'a> NodeDeserializer<'a> {
    fn integer<'de, V: Visitor<'de>>(value: i128, visitor: V) -> Result<V::Value, Error> {
        if let Ok(value) = u64::try_from(value) {
            return visitor.visit_u64(value);
        }
        if let Ok(value) = i64::try_from(value) {
            return visitor.visit_i64(value);
        }
        Err(Error::invalid_value(Unexpected::Other("a large number"), &visitor))
    }

    fn interpolated(self) -> Option<&'a str> {
        match &self.0.value {
            Value::Text(text) if !text.origins.is_empty() => Some(text.value.trim()),
            _ => None,
        }
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Some(text) = self.interpolated() else { return self.deserialize_any(visitor) };
        if let Ok(value) = text.parse() {
            return NodeDeserializer::integer(value, visitor);
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => visitor.visit_f64(value),
            _ => self.deserialize_any(visitor),
        }
    }

    fn elements<'de, V: Visitor<'de>>(
        elements: &'a [Element],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut rest = Elements(elements.iter());
        let value = visitor.visit_seq(&mut rest)?;
        match rest.0.len() {
            0 => Ok(value),
            surplus => {
                let (taken, all) = (elements.len() - surplus, elements.len());
                let message = format!("expected a list of {taken}, found {all}");
                Err(Error::new(Kind::Message(Code::WrongType, message)))
            }
        }
    }
}

impl<'de> Deserializer<'de> for NodeDeserializer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => NodeDeserializer::integer(*value, visitor),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_str(&text.value),
            Value::Sequence(elements) => NodeDeserializer::elements(elements, visitor),
            Value::Mapping(_) => visitor.visit_map(Entries::new(self.0)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.interpolated().map(str::to_ascii_lowercase).as_deref() {
            Some("true") => visitor.visit_bool(true),
            Some("false") => visitor.visit_bool(false),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.value {
            Value::Null => visitor.visit_none(),
            Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Sequence(_)
            | Value::Mapping(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.value {
            Value::Null => NodeDeserializer::elements(&[], visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Null => visitor.visit_map(Entries::new(self.0)),
            Value::Mapping(_) => visitor.visit_map(Entries::of_names(self.0)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        // serde would accept a list of the fields in order, but operators write a mapping.
        match self.0.value {
            Value::Sequence(_) => Err(Error::invalid_type(Unexpected::Seq, &"a mapping")),
            Value::Null => self.deserialize_map(visitor),
            _ => self.deserialize_any(visitor).map_err(|error| error.with_keys(known)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let wanted = |found: &str| {
            let names = one_of(known).unwrap_or_else(|| "one of the known names".to_owned());
            Error::new(Kind::Message(Code::NotOneOf, format!("expected {names}, found {found}")))
        };
        match &self.0.value {
            Value::Text(text) => visitor.visit_enum(Word(&text.value)),
            // Of two variants, one of them from beneath, the mapping's own one counts.
            Value::Mapping(entries) => match entries.as_slice() {
                [entry] => visitor.visit_enum(SingleKey(entry)),
                [] => Err(wanted("nothing")),
                several => match several.iter().find(|e| !known.contains(&e.key.as_str())) {
                    Some(Entry { key, .. }) => {
                        Err(Error::new(Kind::UnknownKey { key: key.clone(), known }).at_key(key))
                    }
                    None => Err(wanted("several; keep one")),
                },
            },
            Value::Null => Err(wanted("nothing")),
            Value::Bool(_) => Err(wanted("true or false")),
            Value::Integer(_) | Value::Float(_) => Err(wanted("a number")),
            Value::Sequence(_) => Err(wanted("a list")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct identifier
    }
}

struct Elements<'a>(std::slice::Iter<'a, Element>);

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let Some(element) = self.0.next() else { return Ok(None) };
        let value = seed.deserialize(NodeDeserializer(&element.node));
        value.map(Some).map_err(|error| error.under(Step::Index(element.index)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Entries<'a> {
    own: &'a [Entry],
    rest: std::slice::Iter<'a, Entry>,
    /// Read after its own, without those that it has itself.
    beneath: std::slice::Iter<'a, Entry>,
    value: Option<&'a Entry>,
    /// Skips entries that have [fitted](Entry::fits) before.
    only_unread: bool,
}

impl<'a> Entries<'a> {
    fn new(mapping: &'a Node) -> Self {
        let own = mapping.own_entries();
        let beneath = mapping.beneath.as_deref().map_or(&[][..], Node::own_entries);
        Entries { own, rest: own.iter(), beneath: beneath.iter(), value: None, only_unread: false }
    }

    /// For a type that takes any key. Only large mappings skip entries: a type with few entries may
    /// count them, and reading those again costs nothing.
    fn of_names(mapping: &'a Node) -> Self {
        let entries = Entries::new(mapping);
        Entries { only_unread: entries.own.len() > MANY, ..entries }
    }

    fn next(&mut self) -> Option<&'a Entry> {
        let lacks = |entry: &&Entry| self.own.iter().all(|own| own.key != entry.key);
        self.rest.next().or_else(|| self.beneath.find(lacks))
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let entry = loop {
            let Some(entry) = self.next() else { return Ok(None) };
            // The last one is read in any case: a type may want one entry at least.
            let is_last = self.rest.as_slice().is_empty();
            if is_last || !(self.only_unread && entry.fits.get()) {
                break entry;
            }
        };
        self.value = Some(entry);
        let key = seed.deserialize(KeyDeserializer(&entry.key));
        key.map(Some).map_err(|error| error.at_key(&entry.key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let Some(entry) = self.value.take() else {
            return Err(Error::custom("a value was asked for before its key"));
        };
        let value = seed.deserialize(NodeDeserializer(&entry.node));
        entry.fits.set(value.is_ok());
        value.map_err(|error| error.under(Step::Key(entry.key.clone())))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}
