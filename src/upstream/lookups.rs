//! What an operator can see of the questions after an upstream's endpoints: DNS lookups, and those to its
//! source.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::time::Moment;

/// Written by the tasks that ask, read by metrics and by requests that find no endpoint.
#[derive(Debug, Default)]
pub struct Lookups {
    /// The DNS lookups of names.
    pub(super) names: Asked,
    /// What `discover` names.
    pub(super) source: Asked,
}

impl Lookups {
    /// Lookups and questions that failed, or found nothing.
    pub fn failed(&self) -> u64 {
        self.names.failed() + self.source.failed()
    }

    /// How long the name that has failed longest has been unresolved, or the source without an answer;
    /// zero while all is known.
    pub fn unresolved_for(&self, now: Moment) -> Duration {
        self.names.failing_for(now).max(self.source.failing_for(now))
    }

    /// Why the latest lookup failed, while one is failing.
    pub fn error(&self) -> Option<Arc<str>> {
        self.names.error()
    }

    /// Why the source's latest question failed, while it fails.
    pub fn source_error(&self) -> Option<Arc<str>> {
        self.source.error()
    }
}

/// How asking goes.
#[derive(Debug)]
pub(super) struct Asked {
    failed: AtomicU64,
    /// Since when something is not known, in nanoseconds; [`NEVER`] while all is.
    failing_since: AtomicU64,
    /// Why the latest question failed.
    error: Mutex<Option<Arc<str>>>,
}

const NEVER: u64 = u64::MAX;

impl Default for Asked {
    fn default() -> Self {
        Asked {
            failed: AtomicU64::new(0),
            failing_since: AtomicU64::new(NEVER),
            error: Mutex::default(),
        }
    }
}

impl Asked {
    fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn failing_for(&self, now: Moment) -> Duration {
        match self.failing_since.load(Ordering::Relaxed) {
            NEVER => Duration::ZERO,
            since => now.since(Moment::from_nanos(since)),
        }
    }

    fn error(&self) -> Option<Arc<str>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records a round of questions. Relaxed: nothing else depends on these numbers.
    pub(super) fn note(&self, errors: &[String], failing_since: Option<Moment>) {
        self.failed.fetch_add(errors.len() as u64, Ordering::Relaxed);
        let since = failing_since.map_or(NEVER, Moment::as_nanos);
        self.failing_since.store(since, Ordering::Relaxed);
        let error = errors.first().map(|error| error.as_str().into());
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}
