//! What an operator can see of the DNS lookups for an upstream.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::time::Moment;

/// Written by the task that resolves names, read by metrics and by requests that find no endpoint.
#[derive(Debug)]
pub struct Lookups {
    failed: AtomicU64,
    /// Since when a name cannot be resolved, in nanoseconds; [`NEVER`] while all can.
    failing_since: AtomicU64,
    /// Why the latest lookup failed.
    error: Mutex<Option<Arc<str>>>,
}

const NEVER: u64 = u64::MAX;

impl Default for Lookups {
    fn default() -> Self {
        Lookups {
            failed: AtomicU64::new(0),
            failing_since: AtomicU64::new(NEVER),
            error: Mutex::default(),
        }
    }
}

impl Lookups {
    /// Lookups that failed or found no address.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// How long the name that has failed longest has been unresolved; zero while all are resolved.
    pub fn unresolved_for(&self, now: Moment) -> Duration {
        match self.failing_since.load(Ordering::Relaxed) {
            NEVER => Duration::ZERO,
            since => now.since(Moment::from_nanos(since)),
        }
    }

    /// Why the latest lookup failed, while one is failing.
    pub fn error(&self) -> Option<Arc<str>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records a round of lookups. Relaxed: nothing else depends on these numbers.
    pub(super) fn note(&self, errors: &[String], failing_since: Option<Moment>) {
        self.failed.fetch_add(errors.len() as u64, Ordering::Relaxed);
        let since = failing_since.map_or(NEVER, Moment::as_nanos);
        self.failing_since.store(since, Ordering::Relaxed);
        let error = errors.first().map(|error| error.as_str().into());
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}
