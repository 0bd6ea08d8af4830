//! Latencies of a short window, put together without a lock.

use std::time::Duration;

use crate::policy::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::time::Moment;

/// The latencies of the window under way. Between two threads one of them may fall into the next
/// window with a part of itself: an average of many does not mind.
#[derive(Debug, Default)]
pub(super) struct Samples {
    wanted: AtomicBool,
    /// Nanoseconds.
    total: AtomicU64,
    count: AtomicU32,
    peak: AtomicU32,
    /// Nanoseconds of the moment from which on the window is full.
    ends: AtomicU64,
}

/// A window that is full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) mean: Duration,
    /// The most requests that were in flight as one ended.
    pub(super) peak: u32,
}

const WINDOW: Duration = Duration::from_millis(100);
const FEWEST: u32 = 10;

// Relaxed throughout: numbers for an average; nothing else hangs on them.
impl Samples {
    pub(super) fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    pub(super) fn set_wanted(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Takes in a latency; whether the window is full.
    pub(super) fn add(&self, latency: Duration, in_flight: u32, now: Moment) -> bool {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.total.fetch_add(nanos, Ordering::Relaxed);
        if in_flight > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(in_flight, Ordering::Relaxed);
        }
        let count = self.count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.is_full(count, now)
    }

    /// The window, if it is full, and the beginning of the next. One thread at a time.
    pub(super) fn take(&self, now: Moment) -> Option<Window> {
        if !self.is_full(self.count.load(Ordering::Relaxed), now) {
            return None;
        }
        self.ends.store((now + WINDOW).as_nanos(), Ordering::Relaxed);
        let count = self.count.swap(0, Ordering::Relaxed);
        let total = self.total.swap(0, Ordering::Relaxed);
        let peak = self.peak.swap(0, Ordering::Relaxed);
        Some(Window { mean: Duration::from_nanos(total / u64::from(count.max(1))), peak })
    }

    fn is_full(&self, count: u32, now: Moment) -> bool {
        count >= FEWEST && now.as_nanos() >= self.ends.load(Ordering::Relaxed)
    }
}
