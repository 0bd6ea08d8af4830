//! From a request to its route, on one canonical path.
//!
//! [`path`] and [`host`] bring what a client sent into the one form everything else works on, or
//! refuse it. A [`Match`] is what an operator writes: hosts, path patterns and methods. The
//! [`Router`] is compiled from all of them, refuses two that cannot be told apart, and finds the
//! route of a request. A [`Rewrite`] makes the path that is forwarded.
//!
//! A route is an index here; its name is used in conflicts only. Policies, upstreams and HTTP are
//! left to others, and so are bounds on the length of a path: they belong to the listener.

mod conflict;
mod criteria;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod hash;
pub mod host;
#[cfg(test)]
mod model;
pub mod path;
mod pattern;
mod rewrite;
mod router;
mod template;
mod tree;

pub use conflict::Conflict;
pub use criteria::{Choice, Match, Slashes, Verb};
pub use pattern::{Params, Pattern};
pub use rewrite::{Prefix, Rewrite, Strip, Unfit};
pub use router::{Found, NoRoute, Router};
pub use template::Template;
