//! When the next probe of an upstream is due. There is no timer: each choice of an endpoint looks at
//! this one number.

use crate::policy::sync::{AtomicU64, Ordering};
use crate::time::Moment;

/// The earliest moment at which an ejected endpoint may be probed.
#[derive(Debug)]
pub(in super::super) struct Due(AtomicU64);

const NEVER: u64 = u64::MAX;

impl Default for Due {
    fn default() -> Self {
        Due(AtomicU64::new(NEVER))
    }
}

impl Due {
    /// Whether a probe may be due.
    pub(in super::super) fn is_over(&self, now: Moment) -> bool {
        // Relaxed: to see it a little later is as good.
        now.as_nanos() >= self.0.load(Ordering::Relaxed)
    }

    /// To be called before all endpoints are looked at, of which each that waits is noted again. What
    /// another thread notes meanwhile is either kept, or its endpoint is seen to be waiting: it
    /// changes the endpoint first, then this number (Release, and Acquire here).
    pub(in super::super) fn begin(&self) {
        self.0.swap(NEVER, Ordering::AcqRel);
    }

    /// A probe is due at this moment.
    pub(in super::super) fn note(&self, at: Moment) {
        self.0.fetch_min(at.as_nanos(), Ordering::AcqRel);
    }
}
