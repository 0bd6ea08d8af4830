//! The running process: the configuration compiled, the state that outlives a reload, the
//! work in the background, start and end.
//!
//! [`snapshot`] says what a configuration is compiled into, `carry` and `kept` what survives a
//! reload; [`shared`] is what everybody holds; [`server`] puts the process together.

mod carry;
mod compile;
pub mod descriptors;
pub mod drain;
pub mod flood_guard;
pub mod jwks;
mod kept;
pub mod lifecycle;
pub mod memory;
pub mod reload;
pub mod server;
pub mod shared;
mod signals;
pub mod snapshot;
mod socket_check;
pub mod status;
pub mod tls;
mod transcoders;
