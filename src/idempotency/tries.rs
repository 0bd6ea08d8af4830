//! How often a step is tried again that the store of keys has failed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Between two attempts at a step that failed, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

pub const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// How often a step is tried again.
pub(super) struct Tries {
    pub(crate) pause: Duration,
    pub(crate) deadline: Instant,
}

impl Tries {
    pub(super) fn until(deadline: Instant) -> Self {
        Tries { pause: FIRST_PAUSE, deadline }
    }
}
