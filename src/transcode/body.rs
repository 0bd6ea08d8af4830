//! Which part of a message is the body of a request: nothing, a field, the remaining fields, or
//! JSON from a template.

use std::str::FromStr;

use prost_reflect::MessageDescriptor;
use serde_json::{Map, Value};

use super::config;
use super::field::{self, FieldPath};
use crate::units::placeholder;

/// A body, compiled.
pub(super) enum Body {
    None,
    Rest,
    Field(FieldPath),
    Template(Template),
}

impl Body {
    /// # Errors
    /// A field that the message does not have, or an invalid placeholder.
    pub(super) fn compile(
        config: &config::Body,
        message: &MessageDescriptor,
    ) -> Result<Self, String> {
        Ok(match config {
            config::Body::None => Body::None,
            config::Body::Rest => Body::Rest,
            config::Body::Field(name) => Body::Field(FieldPath::resolve(message, name)?),
            config::Body::Template(value) => Body::Template(Template::compile(value, message)?),
        })
    }
}

/// JSON whose strings may contain fields.
pub(super) enum Template {
    /// Contains no field.
    Constant(Value),
    /// A string that consists of one field takes the field's JSON value, whatever its type.
    Field(FieldPath),
    Text(Vec<Part>),
    List(Vec<Template>),
    Object(Vec<(String, Template)>),
}

pub(super) enum Part {
    Literal(String),
    Field(FieldPath),
}

/// The name of a field, not yet looked up in a message.
struct Name(String);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Name(text.to_owned()))
    }
}

impl Template {
    fn compile(value: &Value, message: &MessageDescriptor) -> Result<Self, String> {
        Ok(match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Template::Constant(value.clone()),
            Value::String(text) => Template::of_text(text, message)?,
            Value::Array(list) => Template::List(
                list.iter()
                    .map(|value| Template::compile(value, message))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(object) => {
                let entry = |(key, value): (&String, &Value)| {
                    Ok::<_, String>((key.clone(), Template::compile(value, message)?))
                };
                Template::Object(object.iter().map(entry).collect::<Result<_, _>>()?)
            }
        })
    }

    fn of_text(text: &str, message: &MessageDescriptor) -> Result<Self, String> {
        let part = |part: &placeholder::Part<Name>| {
            Ok::<_, String>(match part {
                placeholder::Part::Literal(text) => Part::Literal(text.to_string()),
                placeholder::Part::Placeholder(Name(name)) => {
                    Part::Field(FieldPath::resolve(message, name)?)
                }
            })
        };
        let parts = placeholder::parse(text)?;
        let parts: Vec<Part> = parts.iter().map(part).collect::<Result<_, _>>()?;
        Ok(match <[Part; 1]>::try_from(parts) {
            Ok([Part::Literal(text)]) => Template::Constant(Value::String(text)),
            Ok([Part::Field(field)]) => Template::Field(field),
            Err(parts) => Template::Text(parts),
        })
    }

    /// The template's JSON, filled in from a message's JSON.
    pub(super) fn fill(&self, message: &Value) -> Value {
        match self {
            Template::Constant(value) => value.clone(),
            Template::Field(field) => field.value(message).clone(),
            Template::Text(parts) => Value::String(parts.iter().map(|p| p.fill(message)).collect()),
            Template::List(list) => list.iter().map(|template| template.fill(message)).collect(),
            Template::Object(entries) => {
                let fill = |(key, value): &(String, Template)| (key.clone(), value.fill(message));
                Value::Object(entries.iter().map(fill).collect::<Map<_, _>>())
            }
        }
    }
}

impl Part {
    fn fill(&self, message: &Value) -> String {
        match self {
            Part::Literal(text) => text.clone(),
            Part::Field(field) => {
                let value = field.value(message);
                field::to_text(value).unwrap_or_else(|| match value {
                    Value::Null => String::new(),
                    value => value.to_string(),
                })
            }
        }
    }
}
