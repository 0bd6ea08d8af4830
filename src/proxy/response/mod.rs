//! The response's half: from an upstream's head to what the client gets.

pub mod body;
pub mod compression;
pub mod cors;
pub mod grpc;
pub mod head;
pub mod headers;
pub mod keeping;
pub mod quota;
pub mod rpc_end;
pub mod transcode;
pub mod translation;
pub mod well_formed;
