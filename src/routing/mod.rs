//! From a request to its route, on one canonical path.

mod criteria;
pub mod host;
pub mod path;
mod pattern;

pub use criteria::{Choice, Match, Verb};
pub use pattern::{Params, Pattern};
