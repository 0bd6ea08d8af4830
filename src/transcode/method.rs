//! One method of a route that transcodes: its messages, and its HTTP side.

use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor};
use serde_json::Value;

use super::binding::Binding;
use super::config::{Config, Upstream};
use super::field::FieldPath;
use super::message::Codec;
use super::wire::Framing;
use super::{Fault, Mistake, config, descriptors, message, wire};
use crate::coding::Encoding;

/// A method, and the size limit of its messages.
pub struct Method {
    /// `/package.Service/Method`.
    pub(super) path: String,
    pub(super) input: MessageDescriptor,
    output: MessageDescriptor,
    defaults: Vec<(FieldPath, prost_reflect::Value)>,
    has_no_side_effects: bool,
    /// At least one.
    pub(super) bindings: Vec<Binding>,
    max_message: usize,
}

impl Method {
    pub(super) fn compile(
        config: &Config,
        descriptor: &MethodDescriptor,
        bindings: &[config::Binding],
    ) -> Result<Self, Mistake> {
        let (input, output) = (descriptor.input(), descriptor.output());
        let response = || config.response.iter().map(|(name, way)| (name.clone(), way.clone()));
        let compiled = bindings.iter().map(|b| Binding::compile(b, response(), &input, &output));
        let compiled = compiled.collect::<Result<Vec<_>, _>>()?;
        match config.upstream {
            Upstream::Http if !compiled[0].path.is_complete() => {
                let message = "a wildcard outside of a field cannot be filled in";
                return Err(Mistake::at(&["http", "path"], message));
            }
            Upstream::Grpc if !compiled.iter().all(Binding::is_readable) => {
                let message = "a request cannot be read by a template: `*` or a field";
                return Err(Mistake::at(&["http", "body"], message));
            }
            Upstream::Grpc if !config.response.is_empty() => {
                let message = "maps the JSON of an upstream, and this one speaks gRPC";
                return Err(Mistake::at(&["response"], message));
            }
            Upstream::Http | Upstream::Grpc => {}
        }
        let default = |(name, value): (&String, &Value)| default(&input, name, value);
        Ok(Method {
            path: descriptors::path_of(descriptor),
            defaults: config.defaults.iter().map(default).collect::<Result<_, _>>()?,
            has_no_side_effects: descriptors::has_no_side_effects(descriptor),
            bindings: compiled,
            max_message: config.max_message.as_usize(),
            input,
            output,
        })
    }

    /// `/package.Service/Method`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The largest message, in bytes, in any encoding.
    pub fn max_message(&self) -> usize {
        self.max_message
    }

    /// Whether it may be called by GET: its `idempotency_level` is `NO_SIDE_EFFECTS`.
    pub fn has_no_side_effects(&self) -> bool {
        self.has_no_side_effects
    }

    /// The response message for the upstream's JSON.
    ///
    /// # Errors
    /// The JSON is too large or malformed, or does not fit the message.
    pub fn answer(&self, json: &[u8]) -> Result<DynamicMessage, Fault> {
        message::bound(json.len(), self.max_message)?;
        self.bindings[0].to_answer(json, &self.output)
    }

    /// Writes a response message for the client.
    ///
    /// # Errors
    /// It is too large, or JSON cannot express it.
    pub fn write(&self, answer: &DynamicMessage, codec: Codec) -> Result<Vec<u8>, Fault> {
        let answer = message::write(answer, codec)?;
        message::bound(answer.len(), self.max_message)?;
        Ok(answer)
    }

    /// Reads a response message that was written before.
    ///
    /// # Errors
    /// It is too large or malformed. Fields that the message does not have are skipped.
    pub fn read(&self, answer: &[u8], codec: Codec) -> Result<DynamicMessage, Fault> {
        message::bound(answer.len(), self.max_message)?;
        let lenient = DeserializeOptions::new().deny_unknown_fields(false);
        message::read(&self.output, codec, answer, &lenient)
    }

    /// The JSON response for the upstream's gRPC message.
    ///
    /// # Errors
    /// The message is too large or malformed, or JSON cannot express it.
    pub fn reply(&self, binding: usize, body: &[u8], encoding: Encoding) -> Result<Vec<u8>, Fault> {
        let message = wire::unwrap(Framing::Grpc, body, encoding, self.max_message)?;
        let answer = self.read(&message, Codec::Proto)?;
        let json = self.bindings[binding].of_answer(&answer)?;
        message::bound(json.len(), self.max_message)?;
        Ok(json)
    }

    /// Sets the fields that are empty and have a default.
    pub(super) fn fill_in(&self, message: &mut DynamicMessage) {
        for (path, value) in &self.defaults {
            let Some((last, way)) = path.steps().split_last() else { continue };
            let within = way.iter().try_fold(&mut *message, |message, step| {
                message.get_field_mut(step).as_message_mut()
            });
            let Some(within) = within else { continue };
            if within.get_field(last).is_default_for_field(last) {
                within.set_field(last, value.clone());
            }
        }
    }
}

/// The value of a default, in the type of its field.
fn default(
    input: &MessageDescriptor,
    name: &str,
    value: &Value,
) -> Result<(FieldPath, prost_reflect::Value), Mistake> {
    let mistake = |error| Mistake::at(&["defaults", name], error);
    let path = FieldPath::resolve(input, name).map_err(mistake)?;
    let mut tree = Value::Null;
    path.put(&mut tree, value.clone());
    let unfit = || mistake(format!("`{name}` cannot be {value}"));
    let message = message::from_tree(input, tree, &DeserializeOptions::new());
    let mut value = prost_reflect::Value::Message(message.map_err(|_| unfit())?);
    for step in path.steps() {
        let within = value.as_message().filter(|message| message.has_field(step));
        value = within.map(|message| message.get_field(step).into_owned()).ok_or_else(unfit)?;
    }
    Ok((path, value))
}
