//! The request path, on Pingora.
//!
//! [`listener`] takes connections, [`gateway`] has the phases. What they use: [`intake`]
//! (head to route), [`attempt`] (what became of it, and is there another), [`headers`],
//! [`body`], [`cors`], [`answer`] and [`dialect`] (the gateway's own answers),
//! [`rejection`] (which status), [`recording`], [`spans`].

pub mod answer;
pub mod attempt;
pub mod body;
pub mod client_address;
pub mod context;
pub mod cors;
pub mod dialect;
pub mod gateway;
pub mod guard;
pub mod headers;
pub mod identifiers;
pub mod intake;
pub mod listener;
pub mod peer;
pub mod recording;
pub mod rejection;
pub mod spans;
