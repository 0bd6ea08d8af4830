//! A list of expected HTTP statuses.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use crate::units::schema::written_as;

/// Statuses from 200 to 599, as single ones and as classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(Vec<Entry>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    One(u16),
    /// The first digit.
    Class(u16),
}

impl Statuses {
    /// Whether the status is in the list.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|entry| match entry {
            Entry::One(one) => *one == status,
            Entry::Class(class) => *class == status / 100,
        })
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Statuses(vec![Entry::Class(2)])
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, entry) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            match entry {
                Entry::One(status) => write!(f, "{separator}{status}")?,
                Entry::Class(class) => write!(f, "{separator}{class}xx")?,
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = Statuses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of statuses such as [200, 204] or [2xx]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Statuses, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        match entries.is_empty() {
            true => Err(de::Error::custom("must name at least one status, such as 200")),
            false => Ok(Statuses(entries)),
        }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl Visitor<'_> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status from 200 to 599, or 2xx, 3xx, 4xx or 5xx")
    }

    fn visit_u64<E: de::Error>(self, status: u64) -> Result<Entry, E> {
        let number = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
        let wrong = || E::invalid_value(de::Unexpected::Unsigned(status), &self);
        number.map(Entry::One).ok_or_else(wrong)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Entry, E> {
        match (text, text.parse()) {
            ("2xx", _) => Ok(Entry::Class(2)),
            ("3xx", _) => Ok(Entry::Class(3)),
            ("4xx", _) => Ok(Entry::Class(4)),
            ("5xx", _) => Ok(Entry::Class(5)),
            (_, Ok(status)) => self.visit_u64(status),
            (_, Err(_)) => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

impl serde::Serialize for Statuses {
    /// A list that reads as the same one.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.to_string().split(", "))
    }
}

written_as!(Statuses, "Statuses", {
    "description": "HTTP statuses from 200 to 599, and classes of them.",
    "type": "array",
    "minItems": 1,
    "items": {
        "anyOf": [
            { "type": "integer", "minimum": 200, "maximum": 599 },
            { "type": "string", "pattern": "^\\+?0*[2-5][0-9][0-9]$" },
            { "enum": ["2xx", "3xx", "4xx", "5xx"] },
        ],
    },
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_listed_singly_or_by_class() {
        let list: Statuses = serde_yaml::from_str("[204, 4xx, '503']").expect("a list");
        let expected = [200, 204, 299, 400, 499, 500, 503].map(|status| list.contains(status));
        assert_eq!(expected, [false, true, false, true, true, false, true]);
        assert_eq!(list.to_string(), "204, 4xx, 503");
    }

    #[test]
    fn what_no_response_can_have_is_refused() {
        for wrong in ["[]", "[100]", "[600]", "[ok]", "[1xx]", "200"] {
            assert!(serde_yaml::from_str::<Statuses>(wrong).is_err(), "{wrong}");
        }
    }
}
