//! `headers:`, `query:` and `cookies:` of a `match`, as the operator configures them.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use http::HeaderName;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Unexpected, Visitor};

use super::Test;
use crate::fields;

/// The most conditions of a kind.
const MAX_TESTS: usize = 16;
/// The longest name or value, in bytes.
const MAX_TEXT: usize = 1024;

/// What values must be, by their names. Every one of them must be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tests<N>(Box<[(N, Test)]>);

impl<N> Tests<N> {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&N, &Test)> {
        self.0.iter().map(|(name, test)| (name, test))
    }
}

impl<N> Default for Tests<N> {
    fn default() -> Self {
        Tests(Box::default())
    }
}

/// The name of something that a request may have, and which texts it can be at all.
pub trait Name: FromStr<Err = String> + PartialEq + fmt::Display {
    /// What is wrong with this text as a value, if no request can have it.
    fn mistake(text: &str) -> Option<&'static str>;
}

/// The name of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header(pub(super) HeaderName);

/// The name of a parameter of the query, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter(pub(super) Box<str>);

/// The name of a cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie(pub(super) Box<str>);

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| format!("`{text}` is not a header name, such as X-Version");
        let name: HeaderName = text.parse().map_err(wrong)?;
        match name.as_str() {
            "host" => Err("write `match.host` instead of the header".to_owned()),
            "cookie" => Err("write `match.cookies` instead of the header".to_owned()),
            _ => Ok(Header(name)),
        }
    }
}

impl FromStr for Parameter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("expected the name of a parameter, such as version".to_owned()),
            name => Ok(Parameter(name.into())),
        }
    }
}

impl FromStr for Cookie {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match fields::is_cookie_name(text) {
            true => Ok(Cookie(text.into())),
            false => Err(format!("`{text}` is not the name of a cookie, such as session")),
        }
    }
}

impl Name for Header {
    fn mistake(text: &str) -> Option<&'static str> {
        let is_bare = text.trim_matches([' ', '\t']) == text && !text.contains(is_control);
        (!is_bare).then_some("must have no blanks around it and no control characters")
    }
}

impl Name for Parameter {
    fn mistake(_: &str) -> Option<&'static str> {
        None
    }
}

impl Name for Cookie {
    fn mistake(text: &str) -> Option<&'static str> {
        let is_bare = text.trim_ascii() == text && !text.contains(is_control);
        let is_quoted = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
        (!is_bare || is_quoted || text.contains(';'))
            .then_some("must have no blanks or quotes around it, and no semicolons")
    }
}

fn is_control(c: char) -> bool {
    c.is_ascii_control() && c != '\t'
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de, N: Name> Deserialize<'de> for Tests<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TestsVisitor(PhantomData))
    }
}

struct TestsVisitor<N>(PhantomData<N>);

impl<'de, N: Name> Visitor<'de> for TestsVisitor<N> {
    type Value = Tests<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names with what their values must be")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tests<N>, A::Error> {
        let mut tests: Vec<(N, Test)> = Vec::new();
        while let Some(Named(name)) = map.next_key::<Named<N>>()? {
            let Tested(test) = map.next_value()?;
            if tests.iter().any(|(other, _)| *other == name) {
                return Err(de::Error::custom(format_args!("`{name}` is there twice")));
            }
            if tests.len() == MAX_TESTS {
                return Err(de::Error::custom(format_args!("there must be at most {MAX_TESTS}")));
            }
            if let Test::Exact(text) | Test::Prefix(text) = &test {
                let long = (text.len() > MAX_TEXT).then_some("must be at most 1024 bytes");
                if let Some(mistake) = N::mistake(text).or(long) {
                    return Err(de::Error::custom(format_args!("{name}: the value {mistake}")));
                }
            }
            tests.push((name, test));
        }
        Ok(Tests(tests.into()))
    }
}

struct Named<N>(N);

impl<'de, N: Name> Deserialize<'de> for Named<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() > MAX_TEXT {
            return Err(de::Error::custom("the name must be at most 1024 bytes"));
        }
        text.parse().map(Named).map_err(de::Error::custom)
    }
}

/// A test as it is written: the exact value, or one of three keys.
struct Tested(Test);

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The whole value.
    #[serde(default)]
    exact: Option<String>,
    /// How the value begins; not empty.
    #[serde(default)]
    prefix: Option<String>,
    /// Whether there is a value, even an empty one.
    #[serde(default)]
    present: Option<bool>,
}

impl<'de> Deserialize<'de> for Tested {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TestedVisitor)
    }
}

struct TestedVisitor;

impl<'de> Visitor<'de> for TestedVisitor {
    type Value = Tested;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the exact value, or one of {exact: TEXT}, {prefix: TEXT}, {present: true}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Tested, E> {
        Ok(Tested(Test::Exact(text.into())))
    }

    // Values that YAML takes for something else: what is missing are quotes.
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Tested, E> {
        Err(E::invalid_type(Unexpected::Bool(value), &"a string"))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Tested, E> {
        Err(E::invalid_type(Unexpected::Unsigned(value), &"a string"))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Tested, E> {
        Err(E::invalid_type(Unexpected::Signed(value), &"a string"))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Tested, E> {
        Err(E::invalid_type(Unexpected::Float(value), &"a string"))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tested, A::Error> {
        let Written { exact, prefix, present } =
            Written::deserialize(MapAccessDeserializer::new(map))?;
        let test = match (exact, prefix, present) {
            (Some(text), None, None) => Test::Exact(text.into()),
            (None, Some(text), None) if !text.is_empty() => Test::Prefix(text.into()),
            (None, Some(_), None) => {
                return Err(de::Error::custom(
                    "prefix: an empty prefix fits every value: write `{present: true}` instead, or \
                     the text that values begin with",
                ));
            }
            (None, None, Some(true)) => Test::Present,
            (None, None, Some(false)) => Test::Absent,
            (_, _, _) => {
                return Err(de::Error::custom("expected one of `exact`, `prefix` and `present`"));
            }
        };
        Ok(Tested(test))
    }
}

impl<N> schemars::JsonSchema for Tests<N> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ValueTests".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let written = generator.subschema_for::<Written>();
        schemars::json_schema!({
            "type": "object",
            "maxProperties": MAX_TESTS,
            "additionalProperties": { "anyOf": [{ "type": "string" }, written] },
        })
    }
}
