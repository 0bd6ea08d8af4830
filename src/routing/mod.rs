//! From a request to its route, on one canonical path.

mod conflict;
mod criteria;
mod hash;
pub mod host;
#[cfg(test)]
mod model;
pub mod path;
mod pattern;
mod router;
mod tree;

pub use conflict::Conflict;
pub use criteria::{Choice, Match, Verb};
pub use pattern::{Params, Pattern};
pub use router::{Found, NoRoute, Router};
