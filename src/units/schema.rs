//! What a value with a unit looks like in JSON Schema, for editors of the configuration.
//!
//! A schema may accept a value that the loader refuses, but must never refuse one that it accepts.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::{Percent, Secret, Size, Timespan};

/// Implements [`JsonSchema`] for a type that reads itself: its name, and what is written for it.
macro_rules! written_as {
    ($type:ty, $name:literal, $($schema:tt)+) => {
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($($schema)+)
            }
        }
    };
}
pub(crate) use written_as;

// Every spelling that humantime reads.
const TIMESPAN: &str = "^\\s*(0|([0-9][0-9\\s]*(\\.[0-9\\s]*)?\
    (nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|hr|h|\
    days?|d|weeks?|wks?|w|months?|M|years?|yrs?|y)\\s*)+)$";

// Every spelling that bytesize reads, with its unit.
const SIZE: &str = "^\\s*(0|[0-9]*\\.?[0-9]*\\s*([bB]|[kKmMgGtTpPeE]([bB]|[iI][bB]?)?))\\s*$";

const PERCENT: &str =
    "^\\s*\\+?(0*100(\\.0*)?|0*[0-9]{1,2}(\\.[0-9]*)?|\\.[0-9]+|[0-9.]+[eE][+-]?[0-9]+)\\s*%\\s*$";

written_as!(Timespan, "Timespan", {
    "description": "A length of time with its unit: 250ms, 5s, 1m 30s, 24h.",
    "anyOf": [{ "type": "string", "pattern": TIMESPAN }, { "type": "integer", "const": 0 }],
});

written_as!(Size, "Size", {
    "description": "A number of bytes with its unit: 512B, 64KiB, 10MB.",
    "anyOf": [{ "type": "string", "pattern": SIZE }, { "type": "integer", "const": 0 }],
});

written_as!(Percent, "Percent", {
    "description": "A share from 0% to 100%, with its sign: 50%.",
    "type": "string",
    "pattern": PERCENT,
});

// A secret of digits alone is a number in YAML.
written_as!(Secret, "Secret", {
    "description": "A secret; better ${VARIABLE} or ${file:path} than the secret itself.",
    "type": ["string", "integer"],
    "minLength": 1,
    "writeOnly": true,
});

/// In a schema: a string that may hold a secret, or be empty.
#[derive(Debug)]
pub struct SecretText;

written_as!(SecretText, "SecretText", { "type": "string", "writeOnly": true });

impl Serialize for Timespan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written())
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value of `T`, or a list of them that is not empty.
pub fn one_or_many<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let one = generator.subschema_for::<T>();
    json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
}

/// The name of [`one_or_many`] of `T`.
pub fn one_or_many_name<T: JsonSchema>() -> Cow<'static, str> {
    format!("OneOrMany{}", T::schema_name()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: impl Serialize) -> String {
        serde_json::to_value(value).expect("a string").as_str().expect("a string").to_owned()
    }

    #[test]
    fn a_value_reads_as_it_is_written() {
        for span in [0, 1, 999, 1000, 60_000, 90_000, 86_400_000 * 30] {
            let span = Timespan::from_millis(span);
            assert_eq!(written(span).parse(), Ok(span));
        }
        for size in [0, 1, 1000, 1024, 10_000_000, 64 << 10, 3 << 30] {
            let size = Size(size);
            assert_eq!(written(size).parse(), Ok(size));
        }
        for percent in 0..=100 {
            let percent = Percent::new(percent);
            let text = written(percent);
            assert_eq!(text.parse(), Ok(percent));
            assert!(text.len() <= 4, "{text}");
        }
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(written(Size::kib(64)), "64KiB");
        assert_eq!(written(Size(1500)), "1500B");
    }
}
