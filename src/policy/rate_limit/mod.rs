//! Rate limits: how many requests a consumer, an address or a route may make.
//!
//! [`Limiter`] counts one limit, in bounded memory and by atomics alone for keys it knows. A
//! request that is refused is not counted. Finding out who makes the request, writing the limit
//! headers, and limits that replicas share are left to others.

mod config;
mod fixed_window;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

pub use config::{Algorithm, Config, FixedWindow, KeySource, Subject};
use table::Table;

use crate::time::Moment;

/// One limit, shared by all requests it applies to.
pub struct Limiter {
    config: Config,
    /// Keyed at random, so that nobody can choose whom to collide with.
    hasher: RandomState,
    table: Table,
}

/// What the limit says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub admitted: bool,
    /// Requests the limit allows.
    pub limit: u32,
    /// Requests left after this one.
    pub remaining: u32,
    /// Until the limit is back in full.
    pub reset_after: Duration,
    /// Until the next request can be admitted; zero if this one was. As a header, through
    /// [`retry_after_seconds`](crate::units::retry_after_seconds).
    pub retry_after: Duration,
}

impl Limiter {
    pub fn new(config: Config) -> Self {
        let table = Table::new(config.max_keys);
        Limiter { config, hasher: RandomState::new(), table }
    }

    /// What it was made from. A reload keeps a limiter whose configuration is unchanged.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counts a request of `subject`, if it is within the limit.
    pub fn check(&self, subject: &Subject<'_>, now: Moment) -> Verdict {
        // SipHash, 64 bits: among a million keys, two share one with a chance of 1 in 10^7. Zero
        // marks a free slot.
        let key = self.hasher.hash_one(subject).max(1);
        match &self.config.algorithm {
            Algorithm::FixedWindow(limit) => self.table.update(
                key,
                |state| fixed_window::worth(state, now),
                |state| fixed_window::step(limit, state, now),
            ),
        }
    }

    /// Keys that were forgotten, for want of room, before their time; if this grows, `max_keys`
    /// is too small.
    pub fn evictions(&self) -> u64 {
        self.table.evictions()
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("config", &self.config).finish_non_exhaustive()
    }
}
