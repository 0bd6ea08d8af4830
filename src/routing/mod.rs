//! Finds the route of a request, by one canonical path.
//!
//! [`path`] and [`host`] bring what a client sent into the one form that everything else uses, or
//! refuse it. A [`Match`] is what the operator configures: the scheme, hosts, path patterns, methods, and
//! [`Conditions`] on headers, query and cookies. The
//! [`Router`] is compiled from all of them, refuses two that cannot be told apart, and finds the
//! route of a request. A [`Rewrite`] makes the path that is forwarded, a [`Redirect`] the URL that the
//! client is sent to.
//!
//! A route is an index here; its name occurs in conflicts only. This module knows nothing of
//! policies, upstreams and HTTP. Bounds on the length of a path belong to the listener.

pub mod conditions;
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
pub mod precedence;
mod redirect;
mod rewrite;
mod router;
pub mod shadow;
mod template;
mod tree;

pub use conditions::{Asked, Conditions};
pub use conflict::Conflict;
pub use criteria::{Choice, Match, Methods, Scheme, Slashes, Verb};
pub use pattern::{Params, Pattern};
pub use redirect::{Redirect, Requested};
pub use rewrite::{Prefix, Rewrite, Strip, Unfit};
pub use router::{Found, NoRoute, Router};
pub use template::Template;
