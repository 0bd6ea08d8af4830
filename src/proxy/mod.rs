//! The request path, on Pingora.
//!
//! [`listener`] takes connections, [`gateway`] has the phases. What they use:
//!
//! - `admission`, [`intake`], `idempotency`: from a head to its route, through the policies
//! - `dispatch`, [`peer`], [`headers`], [`body`]: what goes upstream, and where
//! - [`attempt`]: what became of it, and is there another
//! - `own`, [`answer`], [`cors`], [`rejection`], [`dialect`]: the gateway's own answers
//! - `quota`: what an answer says about limits
//! - [`recording`], [`spans`]: the row, the trace

mod admission;
mod alarm;
pub mod answer;
pub mod attempt;
pub mod body;
pub mod client_address;
pub mod context;
pub mod cors;
mod detachment;
pub mod dialect;
mod dispatch;
mod divert;
mod fallback;
pub mod gateway;
pub mod guard;
pub mod headers;
mod idempotency;
pub mod identifiers;
pub mod intake;
pub mod listener;
mod own;
pub mod peer;
mod quota;
pub mod recording;
pub mod rejection;
mod response;
pub mod spans;
