//! JSON with placeholders in its strings: `{service: "{upstream}", status: fallback}`.
//!
//! `{route}`, `{upstream}`, `{timestamp}`, `{unix_ms}`, `{request_id}` and `{code}` are filled in;
//! a literal brace is written twice. A string that consists of `{unix_ms}` alone becomes a number.
//! Keys, and values that are not strings, stay unchanged.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Number;

use crate::units::placeholder::{self, Part};

/// A JSON value with placeholders. Objects keep the order in which they are written.
#[derive(Debug, Clone, PartialEq)]
pub enum Template {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// With as many digits as were written.
    Number(Number),
    /// Filled in.
    Text(Text),
    /// Each element on its own.
    List(Vec<Template>),
    /// Keys are not filled in.
    Object(Vec<(String, Template)>),
}

/// A string with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Box<[Part<Placeholder>]>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Route,
    Upstream,
    Timestamp,
    UnixMs,
    RequestId,
    Code,
}

/// The values of the placeholders for one response.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// The route's name.
    pub route: &'a str,
    /// Empty for a route without an upstream.
    pub upstream: &'a str,
    /// RFC 3339.
    pub timestamp: &'a str,
    /// The same time in milliseconds since 1970.
    pub unix_ms: u64,
    /// The request's id, as the client gets it.
    pub request_id: &'a str,
    /// The code of the refusal that it replaces.
    pub code: &'a str,
}

impl Template {
    /// The JSON text with all placeholders filled in.
    pub fn fill(&self, values: &Values<'_>) -> Vec<u8> {
        // Strings, finite numbers and containers of them always serialize.
        serde_json::to_vec(&Filled(self, values)).unwrap_or_default()
    }
}

struct Filled<'a>(&'a Template, &'a Values<'a>);

impl Serialize for Filled<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Filled(template, values) = self;
        match template {
            Template::Null => serializer.serialize_unit(),
            Template::Bool(value) => serializer.serialize_bool(*value),
            Template::Number(number) => number.serialize(serializer),
            Template::Text(text) if text.is_number() => serializer.serialize_u64(values.unix_ms),
            Template::Text(text) => serializer.serialize_str(&text.fill(values)),
            Template::List(list) => {
                serializer.collect_seq(list.iter().map(|element| Filled(element, values)))
            }
            Template::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, &Filled(value, values))?;
                }
                map.end()
            }
        }
    }
}

impl Text {
    /// Whether it consists of one numeric placeholder.
    fn is_number(&self) -> bool {
        matches!(*self.0, [Part::Placeholder(Placeholder::UnixMs)])
    }

    fn fill(&self, values: &Values<'_>) -> String {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => filled.push_str(text),
                Part::Placeholder(Placeholder::Route) => filled.push_str(values.route),
                Part::Placeholder(Placeholder::Upstream) => filled.push_str(values.upstream),
                Part::Placeholder(Placeholder::Timestamp) => filled.push_str(values.timestamp),
                Part::Placeholder(Placeholder::UnixMs) => {
                    filled.push_str(&values.unix_ms.to_string());
                }
                Part::Placeholder(Placeholder::RequestId) => filled.push_str(values.request_id),
                Part::Placeholder(Placeholder::Code) => filled.push_str(values.code),
            }
        }
        filled
    }
}

impl FromStr for Text {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        placeholder::parse(text).map(Text)
    }
}

impl FromStr for Placeholder {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "route" => Ok(Placeholder::Route),
            "upstream" => Ok(Placeholder::Upstream),
            "timestamp" => Ok(Placeholder::Timestamp),
            "unix_ms" => Ok(Placeholder::UnixMs),
            "request_id" => Ok(Placeholder::RequestId),
            "code" => Ok(Placeholder::Code),
            other => Err(format!(
                "unknown placeholder `{{{other}}}`, expected {{route}}, {{upstream}}, {{timestamp}}, \
                 {{unix_ms}}, {{request_id}} or {{code}}; a brace itself is written twice"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TemplateVisitor)
    }
}

struct TemplateVisitor;

impl<'de> Visitor<'de> for TemplateVisitor {
    type Value = Template;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON, such as {status: fallback, timestamp: \"{timestamp}\"}")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Template, E> {
        Ok(Template::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Template, E> {
        Ok(Template::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Template, E> {
        Ok(Template::Number(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Template, E> {
        Ok(Template::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Template, E> {
        let number = Number::from_f64(value);
        number.map(Template::Number).ok_or_else(|| E::custom("JSON has finite numbers only"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Template, E> {
        text.parse().map(Template::Text).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Template, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            elements.push(element);
        }
        Ok(Template::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Template, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Template::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'static> = Values {
        route: "a\"route",
        upstream: "users",
        timestamp: "2024-01-02T03:04:05.678Z",
        unix_ms: 1_704_164_645_678,
        request_id: "r-1",
        code: "circuit_open",
    };

    fn fill(yaml: &str) -> Result<String, String> {
        let template: Template = serde_yaml::from_str(yaml).map_err(|e| e.to_string())?;
        Ok(String::from_utf8(template.fill(&VALUES)).expect("JSON is UTF-8"))
    }

    #[test]
    fn placeholders_are_filled_in_wherever_there_is_a_string() {
        let yaml =
            "{z: '{upstream} is down', a: ['{code}', {at: '{timestamp}'}], id: '{request_id}'}";
        let json = r#"{"z":"users is down","a":["circuit_open",{"at":"2024-01-02T03:04:05.678Z"}],"id":"r-1"}"#;
        assert_eq!(fill(yaml).as_deref(), Ok(json), "in the order in which it is written");
    }

    #[test]
    fn what_is_no_string_stays_what_it_is() {
        let yaml = "{a: 1, b: -2, c: 1.5, d: true, e: null, f: [], g: {}, h: ''}";
        let json = r#"{"a":1,"b":-2,"c":1.5,"d":true,"e":null,"f":[],"g":{},"h":""}"#;
        assert_eq!(fill(yaml).as_deref(), Ok(json));
    }

    #[test]
    fn milliseconds_alone_are_a_number_and_in_a_text_are_text() {
        let yaml = "{at: '{unix_ms}', since: '{unix_ms} ms'}";
        let json = r#"{"at":1704164645678,"since":"1704164645678 ms"}"#;
        assert_eq!(fill(yaml).as_deref(), Ok(json));
    }

    #[test]
    fn a_value_cannot_break_out_of_its_string() {
        assert_eq!(fill("'{route}'").as_deref(), Ok(r#""a\"route""#));
    }

    #[test]
    fn a_brace_is_written_twice() {
        assert_eq!(fill("'{{code}} is }}{{'").as_deref(), Ok("\"{code} is }{\""));
    }

    #[test]
    fn what_is_no_placeholder_is_refused() {
        for (yaml, why) in [
            ("'{'", "stands alone"),
            ("'}'", "stands alone"),
            ("'{code'", "stands alone"),
            ("'{}'", "unknown placeholder `{}`"),
            ("{a: ['{stack}']}", "unknown placeholder `{stack}`, expected {route}"),
            (".inf", "finite"),
        ] {
            let error = fill(yaml).expect_err(yaml);
            assert!(error.contains(why), "{yaml}: {error}");
        }
    }
}
