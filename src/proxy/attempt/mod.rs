//! One attempt at an upstream after the other.
//!
//! | file | what it is for |
//! |---|---|
//! | [`draw`] | which of several upstreams a request goes to |
//! | [`next`] | where the next attempt goes, and when |
//! | [`peer`] | an endpoint as Pingora connects to it: address, TLS, time limits |
//! | [`ended`] | how an attempt without a response ended, read out of Pingora's errors |
//! | [`failed`] | an attempt that ended without a response, or in the middle of one: retry, fall back, or refuse |
//! | [`conclude`] | circuits, metrics and the log are told what became of an attempt |
//! | [`breakers`] | which circuits hear of a request's attempts |
//! | [`retry`] | the one decision on another attempt, and what it costs |
//! | [`dry_run`] | what a request holds of policies that are not enforced, once they would have refused it |
//! | [`divert`] | the one call to the upstream that a route falls back on |

pub mod breakers;
pub mod conclude;
pub mod divert;
pub mod draw;
pub mod dry_run;
pub mod ended;
pub mod failed;
pub mod next;
pub mod peer;
pub mod retry;
