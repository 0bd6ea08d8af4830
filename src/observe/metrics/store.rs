//! The metrics of the stores for shared limits.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, Registry};

use super::register::{counters, histograms_in};

/// In seconds: from a server close by to one that is given up.
const BUCKETS: [f64; 10] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0];

/// The metrics of all stores.
pub(super) struct Stores {
    decisions: IntCounterVec,
    duration: HistogramVec,
}

/// The metrics of one store.
#[derive(Clone)]
pub struct StoreMetrics {
    /// Requests that the store decided about.
    pub shared: IntCounter,
    /// Requests that the store could not be asked about.
    pub fallback: IntCounter,
    /// Seconds from the question to the answer.
    pub duration: Histogram,
}

impl Stores {
    pub(super) fn new(r: &Registry) -> prometheus::Result<Self> {
        Ok(Stores {
            decisions: counters(
                r,
                "rate_limit_store_decisions_total",
                "Requests with shared limits by who decided",
                &["store", "result"],
            )?,
            duration: histograms_in(
                r,
                "rate_limit_store_duration_seconds",
                "Time for which requests waited for the store",
                "store",
                &BUCKETS,
            )?,
        })
    }

    pub(super) fn of(&self, name: &str) -> StoreMetrics {
        StoreMetrics {
            shared: self.decisions.with_label_values(&[name, "shared"]),
            fallback: self.decisions.with_label_values(&[name, "fallback"]),
            duration: self.duration.with_label_values(&[name]),
        }
    }
}
