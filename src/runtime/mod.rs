//! The running process: the compiled configuration, the state that outlives a reload, the
//! background work, start and shutdown.
//!
//! [`snapshot`] says what a configuration is compiled into, `carry` and `kept` what survives a
//! reload; [`shared`] is the state that all parts hold; [`server`] puts the process together.

mod added;
mod authorities;
pub mod authority;
mod carry;
mod changes;
mod claims;
mod compile;
pub mod descriptors;
pub mod desk;
mod discovery;
pub mod drain;
pub mod exports;
mod facets;
mod fetch;
pub mod flood_guard;
mod follow;
mod health;
pub mod inquiry;
pub mod jwks;
mod kept;
mod lasting;
pub mod lifecycle;
pub mod listening;
pub mod memory;
mod mounts;
pub mod notify;
pub mod orders;
pub mod peer;
pub mod pins;
mod race;
pub mod reload;
mod rotate;
pub mod server;
pub mod shared;
mod signals;
pub mod snapshot;
pub mod socket_check;
mod socket_file;
pub mod sockets;
pub mod start_error;
pub mod status;
pub mod task;
pub mod tls;
mod transcoders;
pub mod trust;
pub mod upgrade;
mod warnings;
