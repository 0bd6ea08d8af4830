//! What can be seen from outside: metrics, and the log of the process.

pub mod logs;
pub mod metrics;
