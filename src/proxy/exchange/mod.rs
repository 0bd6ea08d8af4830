//! The facts of one request and its response.

pub mod call;
pub mod context;
pub mod diverted;
pub mod fields;
pub mod keyed;
pub mod sent;
pub mod signal;
