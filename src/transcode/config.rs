//! What the operator configures under `routes.NAME.transcode`, and under `descriptors`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::units::Size;
use crate::units::schema::written_as;

/// A file with descriptors, as written by `protoc --include_imports --descriptor_set_out`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DescriptorFile {
    /// Relative to the configuration file. Every reload reads the file again.
    pub file: PathBuf,
}

/// How calls of a route are translated into calls of its upstream.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of an entry in `descriptors`.
    pub descriptors: String,
    /// `package.Service/Method`. Exactly one of this and `service`.
    pub method: Option<String>,
    /// `package.Service`: all its unary methods with a `google.api.http` option.
    pub service: Option<String>,
    /// The protocol of the upstream; default `http`.
    #[serde(default)]
    pub upstream: Upstream,
    /// The HTTP side of `method`. Absent: that of its `google.api.http` option.
    pub http: Option<Binding>,
    /// Values for fields that are empty in the request, by their paths; default: none.
    #[serde(default)]
    pub defaults: BTreeMap<String, Value>,
    /// Fields of the response, and where each is found in the upstream's JSON; `*` is all of it.
    /// Default: the upstream's JSON is the response.
    #[serde(default)]
    pub response: BTreeMap<String, String>,
    /// What happens to data for which the message has no field; default `ignore`.
    #[serde(default)]
    pub unknown_fields: UnknownFields,
    /// The largest message in bytes, in either direction and in any encoding; default 1 MiB.
    #[serde(default = "max_message")]
    pub max_message: Size,
    /// The smallest response in bytes that is compressed for a client that accepts it; above
    /// `max_message`, none is. Default 1 KiB.
    #[serde(default = "compress_from")]
    pub compress_from: Size,
}

fn max_message() -> Size {
    Size::mib(1)
}

fn compress_from() -> Size {
    Size::kib(1)
}

/// What an upstream speaks, and so which way calls are converted.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// Plain HTTP with JSON; clients speak RPC.
    #[default]
    Http,
    /// gRPC; clients speak plain HTTP with JSON.
    Grpc,
}

/// What happens to data from the client for which its message has no field.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum UnknownFields {
    /// It is dropped.
    #[default]
    Ignore,
    /// The client gets 400.
    Refuse,
}

/// An HTTP request in terms of a message's fields.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The HTTP method, in upper case; default POST.
    #[serde(default = "post")]
    pub method: String,
    /// `/v1/{name}`, `/v1/{name=shelves/*}`, `/v1/{name=**}:verb`, as in `google.api.http`.
    pub path: String,
    /// Query parameters, and the field each holds. Absent: one for each field that neither the path
    /// nor the body holds.
    pub query: Option<BTreeMap<String, String>>,
    /// Which part of the message is the body; default: none.
    #[serde(default)]
    pub body: Body,
    /// The field of the response message that is the response's body. Set by annotations only.
    #[serde(skip)]
    pub response_body: Option<String>,
}

fn post() -> String {
    "POST".to_owned()
}

/// Which part of a message is the body.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Body {
    /// No body.
    #[default]
    None,
    /// `*`: every field that is not in the path.
    Rest,
    /// One field.
    Field(String),
    /// JSON whose strings may contain `{field}`.
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
    /// The body as `google.api.http` writes it.
    pub(super) fn of_annotation(text: &str) -> Self {
        match text {
            "" => Body::None,
            "*" => Body::Rest,
            field => Body::Field(field.to_owned()),
        }
    }
}

written_as!(Body, "TranscodeBody", {
    "description": "`*` for the whole message, the name of a field, or JSON whose strings may contain {field}.",
});
