//! How often a failed step on the store of keys is retried.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Between two attempts at a failed step, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// How long to retry a step, and the pause before the next try.
pub(super) struct Tries {
    pub(crate) pause: Duration,
    pub(crate) deadline: Instant,
}

impl Tries {
    pub(super) fn until(deadline: Instant) -> Self {
        Tries { pause: FIRST_PAUSE, deadline }
    }
}
