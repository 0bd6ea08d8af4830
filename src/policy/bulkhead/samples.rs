//! Latencies of a short window, put together without a lock, lane by lane.

use std::sync::OnceLock;
use std::time::Duration;

use crate::policy::lanes::Lanes;
use crate::policy::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::time::Moment;

/// The latencies of the window under way. Between two threads one of them may fall into the next
/// window with a part of itself: an average of many does not mind.
#[derive(Debug, Default)]
pub(super) struct Samples {
    wanted: AtomicBool,
    /// Nanoseconds of the moment from which on the window is full. Written once a window.
    ends: AtomicU64,
    /// Made when samples are first wanted.
    lanes: OnceLock<Lanes<Sum>>,
}

/// What one lane adds to the window.
#[derive(Debug, Default)]
struct Sum {
    /// Nanoseconds.
    total: AtomicU64,
    count: AtomicU32,
    peak: AtomicU32,
}

/// A window that is full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) mean: Duration,
    /// The most requests that were in flight as one ended, of those at whose end that was counted.
    pub(super) peak: u32,
}

const WINDOW: Duration = Duration::from_millis(100);
const FEWEST: u32 = 10;
/// Of so many requests that end in a lane, the first counts those in flight: it looks into every
/// lane.
const PEAK_EVERY: u32 = 16;

// Relaxed throughout: numbers for an average; nothing else hangs on them.
impl Samples {
    pub(super) fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    pub(super) fn set_wanted(&self, wanted: bool) {
        if wanted {
            self.lanes.get_or_init(Lanes::default);
        }
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Takes in a latency; whether the window is full.
    pub(super) fn add(
        &self,
        lane: usize,
        latency: Duration,
        in_flight: impl FnOnce() -> u32,
        now: Moment,
    ) -> bool {
        let Some(lanes) = self.lanes.get() else { return false };
        let sum = lanes.at(lane);
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        sum.total.fetch_add(nanos, Ordering::Relaxed);
        if sum.count.fetch_add(1, Ordering::Relaxed) % PEAK_EVERY == 0 {
            sum.peak.fetch_max(in_flight(), Ordering::Relaxed);
        }
        self.is_full(lanes, now)
    }

    /// The window, if it is full, and the beginning of the next. One thread at a time.
    pub(super) fn take(&self, now: Moment) -> Option<Window> {
        let lanes = self.lanes.get().filter(|lanes| self.is_full(lanes, now))?;
        self.ends.store((now + WINDOW).as_nanos(), Ordering::Relaxed);
        let (mut total, mut count, mut peak) = (0_u64, 0_u64, 0);
        for sum in lanes.iter() {
            count += u64::from(sum.count.swap(0, Ordering::Relaxed));
            total = total.saturating_add(sum.total.swap(0, Ordering::Relaxed));
            peak = peak.max(sum.peak.swap(0, Ordering::Relaxed));
        }
        Some(Window { mean: Duration::from_nanos(total / count.max(1)), peak })
    }

    fn is_full(&self, lanes: &Lanes<Sum>, now: Moment) -> bool {
        // The other lanes are looked into only when it is time.
        now.as_nanos() >= self.ends.load(Ordering::Relaxed)
            && lanes.iter().map(|sum| sum.count.load(Ordering::Relaxed)).sum::<u32>() >= FEWEST
    }
}
