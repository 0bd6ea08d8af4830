//! Messages as bytes: protocol buffers, or their JSON mapping.
//!
//! Both parsers bound the depth (100 and 128 levels); the caller bounds the size.

use prost_reflect::prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

use super::Fault;

/// The encoding of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// The JSON mapping of protocol buffers.
    Json,
    /// The binary form.
    Proto,
}

/// Checks that a message of `length` bytes is within the limit.
///
/// # Errors
/// [`Fault::TooLarge`].
pub(super) fn bound(length: usize, most: usize) -> Result<(), Fault> {
    if length > most { Err(Fault::TooLarge) } else { Ok(()) }
}

/// Reads a message.
///
/// # Errors
/// The bytes are not a message of this type.
pub(super) fn read(
    descriptor: &MessageDescriptor,
    codec: Codec,
    bytes: &[u8],
    options: &DeserializeOptions,
) -> Result<DynamicMessage, Fault> {
    match codec {
        Codec::Proto => DynamicMessage::decode(descriptor.clone(), bytes)
            .map_err(|_| Fault::Malformed("the message is not of the method's type")),
        Codec::Json => {
            let malformed = Fault::Malformed("the message is not JSON of the method's type");
            let mut json = serde_json::Deserializer::from_slice(bytes);
            let message =
                DynamicMessage::deserialize_with_options(descriptor.clone(), &mut json, options);
            match message.and_then(|message| json.end().map(|()| message)) {
                Ok(message) => Ok(message),
                Err(_) => Err(malformed),
            }
        }
    }
}

/// Reads a message from a JSON value.
///
/// # Errors
/// The value does not fit the message.
pub(super) fn from_tree(
    descriptor: &MessageDescriptor,
    tree: Value,
    options: &DeserializeOptions,
) -> Result<DynamicMessage, Fault> {
    DynamicMessage::deserialize_with_options(descriptor.clone(), tree, options)
        .map_err(|_| Fault::Malformed("the fields are not those of this method's message"))
}

/// Writes a message; empty fields are left out.
///
/// # Errors
/// JSON cannot express the message.
pub(super) fn write(message: &DynamicMessage, codec: Codec) -> Result<Vec<u8>, Fault> {
    match codec {
        Codec::Proto => Ok(message.encode_to_vec()),
        Codec::Json => {
            let mut json = Vec::with_capacity(128);
            let mut serializer = serde_json::Serializer::new(&mut json);
            message
                .serialize_with_options(&mut serializer, &SerializeOptions::new())
                .map_err(|_| UNWRITABLE)?;
            Ok(json)
        }
    }
}

/// A message as a JSON value; empty fields are left out.
///
/// # Errors
/// JSON cannot express the message.
pub(super) fn to_tree(message: &DynamicMessage) -> Result<Value, Fault> {
    message
        .serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new())
        .map_err(|_| UNWRITABLE)
}

/// For example a timestamp out of range, or an `Any` of a type without a descriptor.
const UNWRITABLE: Fault = Fault::Malformed("the message holds what JSON cannot");
