//! Pure decisions: no Pingora, no I/O, no clock reads.

pub mod auth;
pub mod breaker;
pub mod bulkhead;
pub mod outcome;
pub mod rate_limit;
pub mod retry;
