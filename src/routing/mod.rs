//! From a request to its route, on one canonical path.

pub mod host;
pub mod path;
