//! What runs: the tasks around the request path.

pub mod jwks;
