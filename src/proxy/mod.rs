//! The request path, on Pingora.
//!
//! [`acceptor`] takes connections, [`listener`] serves them, [`gateway`] has the phases. What they use:
//!
//! - `place`, [`guard`], [`guarded_io`], `date`, `sniff`, `h2`, `h2_stream`, `stream`: a connection's time, its protocol, its streams
//! - `head`, `framing`: HTTP/1 requests as they arrive, before Pingora parses them
//! - `admission`, [`intake`], `nominations`, `length`, `idempotency`: from a head to its route, through the policies
//! - `dispatch`, [`peer`], [`headers`], `assertions`, [`body`]: what goes upstream, and where
//! - [`ended`], [`attempt`], `response`, `well_formed`: what became of it, and is there another
//! - `own`, [`answer`], `linger`, [`cors`], [`rejection`], [`dialect`]: the gateway's own answers
//! - `rpc_timeout`, `envelopes`, `rpc_end`: what requests and answers of RPC say beyond HTTP
//! - [`transcoding`], `transcoded`: calls of RPC to upstreams of plain HTTP
//! - `compression`: bodies in gzip and deflate, where they are read or written here
//! - `quota`: what an answer says about limits
//! - [`recording`], [`spans`]: the row, the trace

pub mod acceptor;
mod admission;
mod alarm;
pub mod answer;
mod assertions;
pub mod attempt;
pub mod body;
pub mod client_address;
mod compression;
pub mod context;
pub mod cors;
mod date;
mod detachment;
pub mod dialect;
mod dispatch;
mod divert;
pub mod ended;
mod envelopes;
mod fallback;
mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod gateway;
pub mod guard;
pub mod guarded_io;
mod h2;
mod h2_stream;
mod head;
pub mod headers;
mod idempotency;
pub mod identifiers;
mod in_time;
pub mod intake;
mod length;
mod linger;
pub mod listener;
mod nominations;
mod own;
pub mod peer;
mod place;
mod quota;
pub mod recording;
pub mod rejection;
mod response;
mod rpc_end;
mod rpc_timeout;
mod sniff;
pub mod spans;
mod stream;
mod transcoded;
pub mod transcoding;
mod well_formed;
