//! Names in registries, which hold far more than names in the DNS do.

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use crate::units::schema::written_as;

/// The longest name.
const LONGEST: usize = 512;

/// A name in a registry, of a service, a tag or a datacenter; or another short text of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The first two would be another path, even if they are encoded.
        let is_right = ![".", ".."].contains(&text.as_str())
            && (1..=LONGEST).contains(&text.len())
            && !text.chars().any(char::is_control);
        match is_right {
            true => Ok(Name(text)),
            false => Err(de::Error::custom(format_args!(
                "a name has 1 to {LONGEST} bytes without control characters, and is not `.` or `..`"
            ))),
        }
    }
}

written_as!(Name, "RegistryName", {
    "description": "A name in a registry.",
    "type": "string",
    "minLength": 1,
    "maxLength": LONGEST,
});

/// One name, or a list of them.
///
/// # Errors
/// There is none, or one is wrong.
pub(super) fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Name>, D::Error> {
    one_or_several(deserializer, "a name, or a list of names")
}

/// One value that is written as text, or a list of them that is not empty.
///
/// # Errors
/// There is none, or one is wrong.
pub(super) fn one_or_several<'de, T, D>(
    deserializer: D,
    expected: &'static str,
) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(OneOrSeveral(expected, std::marker::PhantomData))
}

struct OneOrSeveral<T>(&'static str, std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrSeveral<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
        T::deserialize(de::value::StrDeserializer::new(text)).map(|value| vec![value])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<T>, A::Error> {
        let values = Vec::deserialize(SeqAccessDeserializer::new(list))?;
        match values.is_empty() {
            true => Err(de::Error::custom("expected at least one")),
            false => Ok(values),
        }
    }
}
