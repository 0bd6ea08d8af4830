//! A histogram of durations.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::Metric;

use super::register::LATENCY_BUCKETS;
use super::shown;

const BUCKETS: usize = LATENCY_BUCKETS.len() + 1;

/// One histogram. A scrape may see a duration in its bucket before it is in the sum.
#[derive(Default)]
pub(super) struct Durations {
    /// The count of each bucket alone; the last has no upper bound.
    counts: [AtomicU64; BUCKETS],
    /// Nanoseconds would overflow: ten thousand long requests at a time add up to three years in
    /// three hours.
    microseconds: AtomicU64,
}

impl Durations {
    pub(super) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let fits = LATENCY_BUCKETS.iter().position(|bound| seconds <= *bound);
        // Relaxed, here and below: no other data depends on the counts.
        self.counts[fits.unwrap_or(LATENCY_BUCKETS.len())].fetch_add(1, Ordering::Relaxed);
        // Rounded to the nearest, so that the sum of many short durations stays accurate.
        let microseconds = took.as_nanos().saturating_add(500) / 1000;
        let microseconds = u64::try_from(microseconds).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts() == [0; BUCKETS]
    }

    pub(super) fn mean(&self) -> Duration {
        let count = self.counts().iter().sum::<u64>();
        Duration::from_micros(self.microseconds().checked_div(count).unwrap_or_default())
    }

    pub(super) fn show(&self, labels: &[(&str, &str)]) -> Metric {
        let seconds = self.microseconds() as f64 / 1e6;
        shown::histogram(labels, &LATENCY_BUCKETS, &self.counts(), seconds)
    }

    fn counts(&self) -> [u64; BUCKETS] {
        array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed))
    }

    fn microseconds(&self) -> u64 {
        self.microseconds.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_every_bucket_it_fits_into() {
        let durations = Durations::default();
        for took in [1_000_000, 1_000_001, 40_000_000_000] {
            durations.observe(Duration::from_nanos(took));
        }
        let metric = durations.show(&[("route", "a")]);
        let histogram = metric.get_histogram();
        let cumulative: Vec<u64> =
            histogram.get_bucket().iter().map(|bucket| bucket.cumulative_count()).collect();
        // A duration equal to a bound counts in that bucket.
        assert_eq!(cumulative[..3], [1, 2, 2]);
        assert_eq!((cumulative[13], histogram.get_sample_count()), (2, 3));
        assert_eq!(histogram.get_sample_sum(), 40.002);
        assert_eq!(durations.mean(), Duration::from_micros(13_334_000));
    }

    #[test]
    fn nothing_took_no_time() {
        assert_eq!(Durations::default().mean(), Duration::ZERO);
    }
}
