//! Keys and enum variants, as serde sees them.

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, EnumAccess, IntoDeserializer, VariantAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use crate::config::code::Code;
use crate::config::load::deserialize::NodeDeserializer;
use crate::config::load::error::{Error, Kind};
use crate::config::load::node::{Entry, Value};
use crate::config::load::path::Step;

/// A key: a string, or a number if the key's type is one.
#[derive(Clone, Copy)]
pub(in crate::config::load) struct KeyDeserializer<'a>(pub(super) &'a str);

impl KeyDeserializer<'_> {
    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Ok(number) = self.0.parse() {
            return visitor.visit_u64(number);
        }
        match self.0.parse() {
            Ok(number) => visitor.visit_i64(number),
            Err(_) => visitor.visit_str(self.0),
        }
    }
}

impl<'de> Deserializer<'de> for KeyDeserializer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.0)
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

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(Word(self.0))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map struct identifier ignored_any
    }
}

/// A variant without settings, written as a plain string.
pub(in crate::config::load) struct Word<'a>(pub(super) &'a str);

impl<'de, 'a> EnumAccess<'de> for Word<'a> {
    type Error = Error;
    type Variant = Word<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl Word<'_> {
    fn needs_settings<T>(self) -> Result<T, Error> {
        let name = self.0;
        let message = format!("`{name}` needs its settings: write `{{{name}: …}}`");
        Err(Error::new(Kind::Message(Code::NoSettings, message)))
    }
}

impl<'de> VariantAccess<'de> for Word<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, Error> {
        self.needs_settings()
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        self.needs_settings()
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.needs_settings()
    }
}

/// A variant with settings, written as a mapping with one key.
pub(in crate::config::load) struct SingleKey<'a>(pub(super) &'a Entry);

impl<'de, 'a> EnumAccess<'de> for SingleKey<'a> {
    type Error = Error;
    type Variant = SingleKey<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let key = &self.0.key;
        let name: StrDeserializer<'_, Error> = key.as_str().into_deserializer();
        let variant = seed.deserialize(name).map_err(|error| match error.kind {
            Kind::UnknownValue { value, known } => {
                Error::new(Kind::UnknownKey { key: value, known }).at_key(key)
            }
            Kind::Message(..) | Kind::MissingKey(_) | Kind::UnknownKey { .. } => error.at_key(key),
        })?;
        Ok((variant, self))
    }
}

impl SingleKey<'_> {
    fn settings<T>(
        &self,
        read: impl FnOnce(NodeDeserializer<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        read(NodeDeserializer(&self.0.node))
            .map_err(|error| error.under(Step::Key(self.0.key.clone())))
    }
}

impl<'de> VariantAccess<'de> for SingleKey<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        let name = &self.0.key;
        let nothing = match &self.0.node.value {
            Value::Null => true,
            Value::Mapping(entries) => entries.is_empty(),
            Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Sequence(_) => false,
        };
        if nothing {
            return Ok(());
        }
        let message = format!("`{name}` takes no settings; write just `{name}`");
        Err(Error::new(Kind::Message(Code::NoSettings, message)).under(Step::Key(name.clone())))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        self.settings(|node| seed.deserialize(node))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        self.settings(|node| node.deserialize_tuple(length, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.settings(|node| node.deserialize_struct("", fields, visitor))
    }
}
