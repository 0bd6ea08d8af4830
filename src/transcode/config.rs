//! What an operator writes under `routes.NAME.transcode`, and under `descriptors`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::units::Size;

/// A file with descriptors, as `protoc --include_imports --descriptor_set_out` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescriptorFile {
    /// Relative to the configuration.
    pub file: PathBuf,
}

/// How the calls of a route become calls of its upstream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// An entry of `descriptors`.
    pub descriptors: String,
    /// `package.Service/Method`. Exactly one of this and `service`.
    pub method: Option<String>,
    /// `package.Service`: every unary method that is annotated.
    pub service: Option<String>,
    /// What the upstream speaks.
    #[serde(default)]
    pub upstream: Upstream,
    /// The HTTP side of `method`. Absent: what its `google.api.http` says.
    pub http: Option<Binding>,
    /// Values for fields of the request that are empty.
    #[serde(default)]
    pub defaults: BTreeMap<String, Value>,
    /// Fields of the answer, and where in the upstream's JSON each is found; `*` is all of it.
    /// Absent: the upstream's JSON is the answer.
    #[serde(default)]
    pub response: BTreeMap<String, String>,
    #[serde(default)]
    pub unknown_fields: UnknownFields,
    /// The largest message in either direction, in any of its forms.
    #[serde(default = "max_message")]
    pub max_message: Size,
    /// The smallest answer that is compressed for a caller who accepts it.
    #[serde(default = "compress_from")]
    pub compress_from: Size,
}

fn max_message() -> Size {
    Size::mib(1)
}

fn compress_from() -> Size {
    Size::kib(1)
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// Plain HTTP with JSON; callers speak RPC.
    #[default]
    Http,
    /// gRPC; callers speak plain HTTP with JSON.
    Grpc,
}

/// What is done with what a client sends and its message has no field for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownFields {
    #[default]
    Ignore,
    Refuse,
}

/// A request of HTTP, in terms of a message's fields.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    #[serde(default = "post")]
    pub method: String,
    /// `/v1/{name}`, `/v1/{name=shelves/*}`, `/v1/{name=**}:verb`, as in `google.api.http`.
    pub path: String,
    /// Parameters of the query, and the field each holds. Absent: one for each field that neither
    /// the path nor the body holds.
    pub query: Option<BTreeMap<String, String>>,
    /// Absent: none.
    #[serde(default)]
    pub body: Body,
    /// The field of the answer that the answer's body is; of annotations.
    #[serde(skip)]
    pub response_body: Option<String>,
}

fn post() -> String {
    "POST".to_owned()
}

/// What of a message is the body.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Body {
    #[default]
    None,
    /// `*`: every field that the path does not hold.
    Rest,
    /// One field.
    Field(String),
    /// JSON whose strings may hold `{field}`.
    Template(Value),
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Null => Body::None,
            Value::String(text) => Body::of_annotation(&text),
            template => Body::Template(template),
        })
    }
}

impl Body {
    /// As `google.api.http` writes it.
    pub(super) fn of_annotation(text: &str) -> Self {
        match text {
            "" => Body::None,
            "*" => Body::Rest,
            field => Body::Field(field.to_owned()),
        }
    }
}
