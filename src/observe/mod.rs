//! What can be observed from outside: metrics, traces, and the process log.

pub mod access_log;
mod append;
pub mod colour;
pub mod events;
mod json;
pub mod logs;
pub mod metrics;
pub mod otlp;
pub mod trace;
