//! What can be seen from outside: metrics, traces, and the log of the process.

pub mod events;
pub mod logs;
pub mod metrics;
pub mod otlp;
pub mod seldom;
pub mod trace;
