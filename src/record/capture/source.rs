//! Where the fields of a row come from, as the operator configures it.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, de};

use crate::units::schema::{self, written_as};

/// Where a captured field comes from: `request.user.id`, `response.items.0.sku`, `error.message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A field of the request's JSON: names and indices from the outermost.
    Request(Vec<String>),
    /// The same of the response's.
    Response(Vec<String>),
    /// The message that the client of a failed request got: that of an RPC error, or the gateway's
    /// own.
    ErrorMessage,
}

/// One source, or a list of them; the first one that is present is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// The sources, in order of precedence.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "expected request.<field>, response.<field> or error.message, such as request.user.id"
                .to_owned()
        };
        let text = text.trim();
        if text == "error.message" {
            return Ok(Source::ErrorMessage);
        }
        let (side, path) = text.split_once('.').ok_or_else(wrong)?;
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err(wrong());
        }
        match side {
            "request" => Ok(Source::Request(path)),
            "response" => Ok(Source::Response(path)),
            _ => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Sources;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a source such as response.message, or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Sources, E> {
                text.parse().map(|source| Sources(vec![source])).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Sources, A::Error> {
                let mut sources = Vec::new();
                while let Some(text) = seq.next_element::<String>()? {
                    let source: Source = text.parse().map_err(de::Error::custom)?;
                    if sources.contains(&source) {
                        return Err(de::Error::custom(format!("{text} is there twice")));
                    }
                    sources.push(source);
                }
                if sources.is_empty() {
                    return Err(de::Error::custom("name at least one source, such as response.id"));
                }
                Ok(Sources(sources))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

written_as!(Source, "CaptureSource", {
    "description": "request.FIELD, response.FIELD (nested: a.0.b) or error.message.",
    "type": "string",
    "pattern": "^\\s*((request|response)(\\.[^.]+)+|error\\.message)\\s*$",
});

impl schemars::JsonSchema for Sources {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        schema::one_or_many_name::<Source>()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schema::one_or_many::<Source>(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(yaml: &str) -> Result<Vec<Source>, String> {
        let parsed: Result<Sources, _> = serde_yaml::from_str(yaml);
        parsed.map(|sources| sources.0).map_err(|error| error.to_string())
    }

    #[test]
    fn a_capture_names_its_side_and_its_field() {
        let path = ["items", "0", "sku"].map(str::to_owned).to_vec();
        assert_eq!(sources("response.items.0.sku"), Ok(vec![Source::Response(path)]));
        for wrong in ["name", "request", "request.", "upstream.name", "request.a..b", "error.code"]
        {
            assert!(sources(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn several_sources_keep_their_order() {
        let field = |name: &str| vec![name.to_owned()];
        assert_eq!(
            sources("[response.message, request.name, error.message]"),
            Ok(vec![
                Source::Response(field("message")),
                Source::Request(field("name")),
                Source::ErrorMessage
            ])
        );
        for wrong in ["[]", "[response.a, response.a]", "[response.a, [response.b]]", "{a: b}"] {
            assert!(sources(wrong).is_err(), "{wrong}");
        }
    }
}
