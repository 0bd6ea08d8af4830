//! Calls of RPC as plain HTTP with JSON, and back, by what a descriptor set says of their messages.
//!
//! No Pingora, no I/O: bytes in, bytes out, each bounded. What a caller sent in which protocol, and
//! how an error is written for it, is `proxy`'s business.
//!
//! - [`Config`]: what the operator writes; [`Transcoder`]: compiled from it
//! - [`Descriptors`]: the types of messages, the methods
//! - [`wire`]: messages in the frames of each protocol
//! - `message`, `field`: messages as JSON, and fields in them
//! - `path`, `body`, `binding`, `annotation`: the HTTP side of a method

// Nothing that holds a descriptor is `Debug`: of a type that holds itself, it has no end.

mod annotation;
mod binding;
mod body;
pub mod config;
mod descriptors;
mod field;
mod message;
mod path;
mod request;
mod transcoder;
pub mod wire;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use descriptors::Descriptors;
pub use message::Codec;
pub use request::HttpRequest;
pub use transcoder::{Method, RpcRequest, Transcoder};

/// Why a message goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not what it says it is, or not what the method takes.
    Malformed(&'static str),
    TooLarge,
    /// It is compressed, by an encoding that is not read here.
    Compressed,
    /// It is compressed, and its sender never said how.
    UnannouncedCompression,
    /// Nothing is called that.
    NoMethod,
    /// Something is, but not by this method of HTTP; by these.
    WrongMethod(String),
}

/// What is wrong with a [`Config`], and under which of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub key: Vec<String>,
    pub message: String,
}

impl Mistake {
    fn at(key: &[&str], message: impl Into<String>) -> Self {
        Mistake {
            key: key.iter().map(|step| (*step).to_owned()).collect(),
            message: message.into(),
        }
    }
}
