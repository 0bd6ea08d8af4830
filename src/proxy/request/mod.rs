//! The request's half: from a head to what goes upstream.

pub mod admission;
pub mod assertions;
pub mod body;
pub mod compression;
pub mod envelopes;
pub mod fault;
pub mod head;
pub mod headers;
pub mod identifiers;
pub mod key;
pub mod length;
pub mod nominations;
pub mod rpc_timeout;
pub mod transcode;
