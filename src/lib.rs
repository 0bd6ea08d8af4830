//! Portcullis, a resilience gateway.

pub mod config;
pub mod policy;
pub mod record;
pub mod routing;
pub mod runtime;
pub mod time;
pub mod units;
