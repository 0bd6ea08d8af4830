//! Where endpoints are known from, and the one rule for all sources.
//!
//! What asks a source is in `runtime::discovery`; here is what its answers mean, and what is kept of
//! them.

pub mod config;
pub mod consul;
pub mod directory;
pub mod eureka;
pub mod file;
pub mod instance;
pub mod known;
pub mod kubernetes;
pub mod pace;
pub mod place;
pub mod registry;
pub mod srv;
