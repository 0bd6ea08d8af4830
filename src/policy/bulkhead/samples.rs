//! Latencies of a short window, summed lane by lane without a lock.

use std::sync::OnceLock;
use std::time::Duration;

use crate::policy::lanes::Lanes;
use crate::policy::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::time::Moment;

/// The latencies of the current window. Between threads, parts of a latency may fall into the next
/// window; an average of many is not affected.
#[derive(Debug, Default)]
pub(super) struct Samples {
    wanted: AtomicBool,
    /// When the window ends, in nanoseconds. Written once per window.
    ends: AtomicU64,
    /// Created when samples are first needed.
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
    /// The most requests in flight when one ended, among those at whose end that was counted.
    pub(super) peak: u32,
}

const WINDOW: Duration = Duration::from_millis(100);
const FEWEST: u32 = 10;
/// One in this many requests that end in a lane counts those in flight, because that reads every
/// lane.
const PEAK_EVERY: u32 = 16;

// Relaxed throughout: these are numbers for an average, and no other memory depends on them.
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

    /// Records a latency. Returns whether the window is full.
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

    /// Takes the window, if it is full, and starts the next. To be called by one thread at a time.
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
        // The other lanes are read only once the time is over.
        now.as_nanos() >= self.ends.load(Ordering::Relaxed)
            && lanes.iter().map(|sum| sum.count.load(Ordering::Relaxed)).sum::<u32>() >= FEWEST
    }
}
