//! The request path, on Pingora.

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
