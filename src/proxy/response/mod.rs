//! The response's half: from an upstream's head to what the client gets.
//!
//! | file | what it is for |
//! |---|---|
//! | [`head`] | the upstream's head: what it amounts to, whether it is passed on, and what goes with it; trailers |
//! | [`well_formed`] | whether a response is framed so that it can be passed on |
//! | [`headers`] | header fields on their way to the client |
//! | [`body`] | the body on its way to the client: translated, kept, captured, counted |
//! | [`grpc`] | how a response of gRPC says that its call failed |
//! | [`rpc_end`] | the same where it says so at the end of its body: gRPC-Web, Connect streams |
//! | [`translation`] | an upstream's plain error, written in the caller's protocol |
//! | [`transcode`] | the response to a transcoded call: collected, then written as a whole |
//! | [`compression`] | responses that the gateway makes, compressed for their reader |
//! | [`keeping`] | the response to a request with an idempotency key, kept for a replay |
//! | [`quota`] | what a response says about its route's limits |
//! | [`cors`] | cross-origin requests: preflights, and header fields |

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
