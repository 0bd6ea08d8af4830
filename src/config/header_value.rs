//! The value of a header that a route sets: fixed, or with placeholders that each request fills in.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use serde::{Deserialize, Deserializer};

use crate::units::schema::written_as;

use crate::units::placeholder::{self, Part};

/// A header value. A literal brace is written twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The same for every request.
    Fixed(HeaderValue),
    /// Literals and placeholders in their order, with at least one placeholder.
    Filled(Box<[Part<Placeholder>]>),
}

/// A property of a request that can be part of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    /// The request's id.
    RequestId,
    /// When the request arrived, as RFC 3339 in UTC.
    RequestTime,
    /// When the request arrived, in milliseconds since 1970.
    RequestUnixMs,
    /// Time from the request's head to the response's, in milliseconds. Only in response headers.
    ResponseDurationMs,
}

impl Value {
    /// Whether the value depends on the response.
    pub fn is_of_response(&self) -> bool {
        match self {
            Value::Fixed(_) => false,
            Value::Filled(parts) => {
                parts.contains(&Part::Placeholder(Placeholder::ResponseDurationMs))
            }
        }
    }

    /// The value for a request with this id that arrived at `came_at`. `elapsed` is called only if
    /// the value needs it.
    pub fn fill(
        &self,
        id: &HeaderValue,
        came_at: SystemTime,
        elapsed: impl Fn() -> Duration,
    ) -> HeaderValue {
        let parts = match self {
            Value::Fixed(value) => return value.clone(),
            Value::Filled(parts) => parts,
        };
        let mut text = String::with_capacity(32);
        for part in parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Placeholder(Placeholder::RequestId) => {
                    text.push_str(id.to_str().unwrap_or_default());
                }
                Part::Placeholder(Placeholder::RequestTime) => {
                    text.push_str(&humantime::format_rfc3339_millis(came_at).to_string());
                }
                Part::Placeholder(Placeholder::RequestUnixMs) => {
                    let since = came_at.duration_since(UNIX_EPOCH).unwrap_or_default();
                    text.push_str(&since.as_millis().to_string());
                }
                Part::Placeholder(Placeholder::ResponseDurationMs) => {
                    text.push_str(&elapsed().as_millis().to_string());
                }
            }
        }
        // Literals were checked when they were parsed; ids and times are ASCII.
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl FromStr for Value {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fixed = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| "a header's value must be one line of text".to_owned())
        };
        let parts = placeholder::parse(text)?;
        match &*parts {
            [] => return fixed("").map(Value::Fixed),
            [Part::Literal(text)] => return fixed(text).map(Value::Fixed),
            _ => {}
        }
        for part in &parts {
            if let Part::Literal(literal) = part {
                fixed(literal)?;
            }
        }
        Ok(Value::Filled(parts))
    }
}

impl FromStr for Placeholder {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "request.id" => Ok(Placeholder::RequestId),
            "request.time" => Ok(Placeholder::RequestTime),
            "request.unix_ms" => Ok(Placeholder::RequestUnixMs),
            "response.duration_ms" => Ok(Placeholder::ResponseDurationMs),
            other => Err(format!(
                "unknown placeholder `{{{other}}}`, expected {{request.id}}, {{request.time}}, \
                 {{request.unix_ms}} or {{response.duration_ms}}; a brace itself is written twice"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

written_as!(Value, "HeaderValue", {
    "description": "A value that may contain {request.id}, {request.time}, {request.unix_ms} and, in the \
                    response, {response.duration_ms}; a brace is written twice.",
    "type": "string",
    "writeOnly": true,
});

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<String, String> {
        let value: Value = text.parse()?;
        let came_at = UNIX_EPOCH + Duration::from_millis(1_704_067_200_123);
        let id = HeaderValue::from_static("r-1");
        let filled = value.fill(&id, came_at, || Duration::from_micros(41_999));
        Ok(filled.to_str().expect("text").to_owned())
    }

    #[test]
    fn placeholders_stand_for_what_differs_from_request_to_request() {
        assert_eq!(fill("{request.id}").as_deref(), Ok("r-1"));
        assert_eq!(fill("{request.time}").as_deref(), Ok("2024-01-01T00:00:00.123Z"));
        assert_eq!(fill("at {request.unix_ms}").as_deref(), Ok("at 1704067200123"));
        assert_eq!(fill("{response.duration_ms}ms").as_deref(), Ok("41ms"));
    }

    #[test]
    fn a_value_without_placeholders_is_fixed() {
        for (text, expected) in [("gateway", "gateway"), ("", ""), ("{{a}}", "{a}")] {
            let fixed = Value::Fixed(HeaderValue::from_static(expected));
            assert_eq!(text.parse(), Ok(fixed), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in ["{request.ip}", "{", "{}", "a\nb", "{request.time}\n", "{request.time"] {
            assert!(fill(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_an_answer_knows_how_long_it_took() {
        let is_of_response = |text: &str| text.parse().map(|value: Value| value.is_of_response());
        assert_eq!(is_of_response("{response.duration_ms}"), Ok(true));
        assert_eq!(is_of_response("{request.time}"), Ok(false));
    }
}
