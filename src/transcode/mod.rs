//! Translates RPC calls to plain HTTP with JSON, and back, using a descriptor set.
//!
//! No Pingora, no I/O: bytes in, bytes out, each bounded. `proxy` knows which protocol a client
//! speaks, and how an error is written in it.
//!
//! - [`Config`]: what the operator configures; [`Transcoder`]: compiled from it, with its [`Method`]s
//! - [`Descriptors`]: the types of messages, the methods
//! - [`wire`]: messages in the frames of each protocol
//! - `message`, `field`: messages as JSON, and fields in them
//! - `path`, `body`, `binding`, `annotation`: the HTTP side of a method

// No type that holds a descriptor is `Debug`: printing one that refers to itself would not end.

mod annotation;
mod binding;
mod body;
pub mod config;
mod descriptors;
mod field;
mod message;
mod method;
mod path;
mod request;
mod transcoder;
pub mod wire;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use descriptors::Descriptors;
pub use message::Codec;
pub use method::Method;
pub use request::HttpRequest;
pub use transcoder::{RpcRequest, Transcoder};

/// Why a message cannot be translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is malformed, or not of the type that the method takes.
    Malformed(&'static str),
    /// It exceeds `max_message`, compressed or not.
    TooLarge,
    /// It is compressed in an encoding that is not supported.
    Compressed,
    /// It is compressed, but the sender did not say how.
    UnannouncedCompression,
    /// No method has this name or path.
    NoMethod,
    /// The path exists, but not for this HTTP method; it does for these.
    WrongMethod(String),
}

/// What is wrong with a [`Config`], and under which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Keys below `transcode`, from the outermost.
    pub key: Vec<String>,
    /// What would be right, in lower case.
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
