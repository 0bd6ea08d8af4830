//! The HTTP side of a method, compiled: turns its messages into requests, and requests into
//! messages.

use std::fmt::Write as _;

use http::Method;
use percent_encoding::{percent_decode_str, utf8_percent_encode};
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor};
use serde_json::Value;

use super::body::Body;
use super::config;
use super::field::{self, FieldPath};
use super::message::{self, Codec};
use super::path::{ENCODED, PathTemplate};
use super::{Fault, HttpRequest, Mistake};

/// One binding of a method.
pub(super) struct Binding {
    pub method: Method,
    pub path: PathTemplate,
    query: Query,
    body: Body,
    answer: Answer,
}

enum Query {
    None,
    Named(Vec<(String, FieldPath)>),
    /// Every field that neither the path nor the body takes.
    Rest,
}

/// How the JSON of a response maps to its message.
enum Answer {
    Whole,
    /// Fields, and where each is in the JSON.
    Fields(Vec<(FieldPath, Vec<String>)>),
}

impl Binding {
    /// `response` is that of `config::Config`; if empty, the binding's own `response_body` is used.
    ///
    /// # Errors
    /// The first key that does not fit the descriptors.
    pub(super) fn compile(
        config: &config::Binding,
        response: impl Iterator<Item = (String, String)>,
        input: &MessageDescriptor,
        output: &MessageDescriptor,
    ) -> Result<Self, Mistake> {
        let method = Method::from_bytes(config.method.as_bytes());
        let method = method.map_err(|_| {
            Mistake::at(&["http", "method"], format!("`{}` is no method", config.method))
        })?;
        let path = PathTemplate::parse(&config.path, input)
            .map_err(|error| Mistake::at(&["http", "path"], error))?;
        let body = Body::compile(&config.body, input)
            .map_err(|error| Mistake::at(&["http", "body"], error))?;
        if matches!(method, Method::GET | Method::HEAD) && !matches!(body, Body::None) {
            return Err(Mistake::at(&["http", "body"], format!("{method} has no body")));
        }
        let query = match (&config.query, &body) {
            (Some(named), _) => Query::Named(named_query(named, input)?),
            (None, Body::None | Body::Field(_)) => Query::Rest,
            (None, Body::Rest | Body::Template(_)) => Query::None,
        };
        let mut fields = Vec::new();
        for (name, way) in response {
            let resolved = FieldPath::resolve(output, &name);
            let resolved = resolved.map_err(|error| Mistake::at(&["response", &name], error))?;
            fields.push((resolved, steps(&way)));
        }
        if let (true, Some(name)) = (fields.is_empty(), &config.response_body) {
            let resolved = FieldPath::resolve(output, name);
            let resolved = resolved.map_err(|error| Mistake::at(&["http"], error))?;
            fields.push((resolved, Vec::new()));
        }
        let answer = if fields.is_empty() { Answer::Whole } else { Answer::Fields(fields) };
        Ok(Binding { method, path, query, body, answer })
    }

    /// The HTTP request for a message.
    ///
    /// # Errors
    /// The path has no place for a field's value, or the message cannot be written as JSON.
    pub(super) fn to_http(&self, message: &DynamicMessage) -> Result<HttpRequest, Fault> {
        let holds_fields = self.path.fields().next().is_some();
        let method = self.method.clone();
        if let (Body::Rest, Query::None, false) = (&self.body, &self.query, holds_fields) {
            // The message is the body as it is, so there is no need to take it apart.
            let target = self.path.expand(&Value::Null)?;
            let body = message::write(message, Codec::Json)?;
            return Ok(HttpRequest { method, target, body: Some(body.into()) });
        }
        let mut tree = message::to_tree(message)?;
        let mut target = self.path.expand(&tree)?;
        if let Query::Named(named) = &self.query {
            write_named(named, &tree, &mut target);
        }
        let filled = match &self.body {
            Body::Template(template) => Some(template.fill(&tree)),
            Body::None | Body::Rest | Body::Field(_) => None,
        };
        for field in self.path.fields() {
            field.take(&mut tree);
        }
        let body = match &self.body {
            Body::None => None,
            Body::Rest => Some(std::mem::take(&mut tree)),
            Body::Field(field) => {
                let empty = || field.value(&Value::Null).clone();
                Some(field.take(&mut tree).unwrap_or_else(empty))
            }
            Body::Template(_) => filled,
        };
        if let Query::Rest = self.query {
            flatten(&tree, &mut String::new(), &mut target);
        }
        // A JSON value always serializes.
        let body = body.map(|body| serde_json::to_vec(&body).unwrap_or_default().into());
        Ok(HttpRequest { method, target, body })
    }

    /// The message for an HTTP request; `captured` is what the path holds, decoded.
    ///
    /// # Errors
    /// The request does not fit the method's message.
    pub(super) fn to_message(
        &self,
        captured: Vec<(&FieldPath, String)>,
        query: Option<&str>,
        body: &[u8],
        input: &MessageDescriptor,
        options: &DeserializeOptions,
        refuse_unknown: bool,
    ) -> Result<DynamicMessage, Fault> {
        let unfit = Fault::Malformed("the body has no place for a field of the path or query");
        let json = || match body.trim_ascii() {
            b"" => Ok(Value::Null),
            body => serde_json::from_slice(body)
                .map_err(|_| Fault::Malformed("the body is not valid JSON")),
        };
        let mut tree = match &self.body {
            Body::None => Value::Null,
            Body::Rest => json()?,
            Body::Field(field) => {
                let mut tree = Value::Null;
                field.put(&mut tree, json()?);
                tree
            }
            // Such a route is refused when it is compiled.
            Body::Template(_) => return Err(Fault::NoMethod),
        };
        if tree.is_null() {
            tree = Value::Object(serde_json::Map::new());
        }
        for (name, text) in query.into_iter().flat_map(parameters) {
            let field = match &self.query {
                Query::None => None,
                Query::Named(named) => {
                    named.iter().find(|(known, _)| *known == name).map(|(_, field)| field.clone())
                }
                Query::Rest => FieldPath::resolve(input, &name).ok(),
            };
            let placed = match field {
                Some(field) if field.last().is_list() => {
                    field.append(&mut tree, field::of_text(field.last(), text))
                }
                Some(field) => field.put(&mut tree, field::of_text(field.last(), text)),
                None if refuse_unknown => {
                    return Err(Fault::Malformed("the query has a parameter that is no field"));
                }
                None => true,
            };
            if !placed {
                return Err(unfit);
            }
        }
        for (field, text) in captured {
            if !field.put(&mut tree, field::of_text(field.last(), text)) {
                return Err(unfit);
            }
        }
        message::from_tree(input, tree, options)
    }

    /// The message for a response's JSON.
    ///
    /// # Errors
    /// The JSON is invalid, or does not fit the message.
    pub(super) fn to_answer(
        &self,
        json: &[u8],
        output: &MessageDescriptor,
    ) -> Result<DynamicMessage, Fault> {
        let lenient = DeserializeOptions::new().deny_unknown_fields(false);
        if json.trim_ascii().is_empty() {
            return Ok(DynamicMessage::new(output.clone()));
        }
        let fields = match &self.answer {
            Answer::Whole => return message::read(output, Codec::Json, json, &lenient),
            Answer::Fields(fields) => fields,
        };
        let json: Value = serde_json::from_slice(json)
            .map_err(|_| Fault::Malformed("the answer is not valid JSON"))?;
        let mut tree = Value::Object(serde_json::Map::new());
        for (field, way) in fields {
            let found = way.iter().try_fold(&json, |value, step| match value {
                Value::Array(list) => list.get(step.parse::<usize>().ok()?),
                value => value.get(step),
            });
            if let Some(value) = found {
                field.put(&mut tree, value.clone());
            }
        }
        message::from_tree(output, tree, &lenient)
    }

    /// The JSON for a response's message.
    ///
    /// # Errors
    /// The message cannot be written as JSON.
    pub(super) fn of_answer(&self, answer: &DynamicMessage) -> Result<Vec<u8>, Fault> {
        match &self.answer {
            Answer::Whole => message::write(answer, Codec::Json),
            Answer::Fields(fields) => {
                let whole = message::to_tree(answer)?;
                let body = fields.first().map(|(field, _)| field.value(&whole));
                Ok(serde_json::to_vec(&body).unwrap_or_default())
            }
        }
    }

    /// Whether a request can be turned into a message: a template works only the other way.
    pub(super) fn is_readable(&self) -> bool {
        !matches!(self.body, Body::Template(_))
    }
}

fn named_query(
    named: &std::collections::BTreeMap<String, String>,
    input: &MessageDescriptor,
) -> Result<Vec<(String, FieldPath)>, Mistake> {
    let resolve = |(parameter, name): (&String, &String)| match FieldPath::resolve(input, name) {
        Ok(field) => Ok((parameter.clone(), field)),
        Err(error) => Err(Mistake::at(&["http", "query", parameter], error)),
    };
    named.iter().map(resolve).collect()
}

fn write_named(named: &[(String, FieldPath)], message: &Value, target: &mut String) {
    for (name, field) in named {
        match field.value(message) {
            Value::Array(list) => list.iter().for_each(|value| parameter(name, value, target)),
            value => parameter(name, value, target),
        }
    }
}

/// The steps of `a.b.0`; `*` is the whole value, which takes none.
fn steps(way: &str) -> Vec<String> {
    match way {
        "*" => Vec::new(),
        way => way.split('.').map(str::to_owned).collect(),
    }
}

/// Adds every scalar under `value` as a query parameter.
fn flatten(value: &Value, name: &mut String, target: &mut String) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let length = name.len();
                if length != 0 {
                    name.push('.');
                }
                name.push_str(key);
                flatten(value, name, target);
                name.truncate(length);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| flatten(value, name, target)),
        scalar => parameter(name, scalar, target),
    }
}

fn parameter(name: &str, value: &Value, target: &mut String) {
    let Some(text) = field::to_text(value) else { return };
    target.push(if target.contains('?') { '&' } else { '?' });
    let name = utf8_percent_encode(name, ENCODED);
    // Writing to a string does not fail.
    let _ = write!(target, "{name}={}", utf8_percent_encode(&text, ENCODED));
}

fn parameters(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    query.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}
