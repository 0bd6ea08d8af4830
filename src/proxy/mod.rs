//! The request path, on Pingora.
//!
//! [`gateway`] does little work in each of Pingora's phases, and hands the rest to the other rooms:
//!
//! | room | what happens there |
//! |---|---|
//! | [`gateway`] | each phase of Pingora, in the order in which they come |
//! | [`acceptor`] | a connection is accepted and given its place |
//! | [`listener`] | its protocol is found, and its requests are handed to the gateway |
//! | [`downstream`] | its protocol, its deadline, its bytes, between the client and Pingora |
//! | [`request`] | from a head to what goes upstream: route, order of policies, headers, body |
//! | [`attempt`] | one call after the other: where, how it ended, whether there is another |
//! | [`response`] | from an upstream's head to what the client gets |
//! | [`reply`] | responses of the gateway's own: refusals, replays, what a route serves |
//! | [`rejection`] | which status, code and words a refusal has |
//! | [`dialect`] | one error written in each protocol |
//! | [`report`] | who is told how a request ended |
//! | [`exchange`] | the facts of one request, which all of these share |
//!
//! A feature that spans phases has a file in each room: idempotency keys in `request::key`,
//! `response::keeping` and `exchange::keyed`; transcoding in `request::transcode`, `response::transcode`,
//! `reply::call` and `exchange::call`; compression in `request` and `response`.

pub mod acceptor;
pub mod attempt;
pub mod dialect;
pub mod downstream;
pub mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod gateway;
pub mod listener;
pub mod rejection;
pub mod reply;
pub mod report;
pub mod request;
pub mod response;
