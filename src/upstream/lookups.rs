//! What an operator can see of the look-ups of an upstream's names.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::time::Moment;

/// Written by the task that resolves, read by metrics and by requests that find no endpoint.
#[derive(Debug)]
pub struct Lookups {
    failed: AtomicU64,
    /// Since when a name has not been resolved, in nanoseconds; [`NEVER`] while all are.
    failing_since: AtomicU64,
    /// Why the latest one failed.
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
    /// Look-ups that found no address, or no answer.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// How long the name has not been resolved that has failed for longest; zero while all are.
    pub fn unresolved_for(&self, now: Moment) -> Duration {
        match self.failing_since.load(Ordering::Relaxed) {
            NEVER => Duration::ZERO,
            since => now.since(Moment::from_nanos(since)),
        }
    }

    /// Why the latest look-up failed, while one does.
    pub fn error(&self) -> Option<Arc<str>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A round of look-ups is over. Relaxed, all of it: nothing else follows from these numbers.
    pub(super) fn note(&self, errors: &[String], failing_since: Option<Moment>) {
        self.failed.fetch_add(errors.len() as u64, Ordering::Relaxed);
        let since = failing_since.map_or(NEVER, Moment::as_nanos);
        self.failing_since.store(since, Ordering::Relaxed);
        let error = errors.first().map(|error| error.as_str().into());
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}
