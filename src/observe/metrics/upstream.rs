//! What can be graphed of upstreams.

use std::sync::Arc;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, Registry};

use super::register::{counters, histograms};

/// Those of all upstreams.
pub(super) struct Upstreams {
    attempts: IntCounterVec,
    connects: IntCounterVec,
    duration: HistogramVec,
}

/// One upstream's, resolved when the configuration was compiled.
#[derive(Clone)]
pub struct UpstreamMetrics {
    attempts: IntCounterVec,
    succeeded: IntCounter,
    /// Connections begun, whether or not they came about. Every other attempt used one again.
    pub connects: IntCounter,
    pub duration: Histogram,
    upstream: Arc<str>,
}

impl Upstreams {
    pub(super) fn new(r: &Registry) -> prometheus::Result<Self> {
        Ok(Upstreams {
            attempts: counters(
                r,
                "upstream_attempts_total",
                "Attempts by what became of them",
                &["upstream", "outcome"],
            )?,
            connects: counters(
                r,
                "upstream_connects_total",
                "Connections begun; further attempts used one again",
                &["upstream"],
            )?,
            duration: histograms(
                r,
                "upstream_duration_seconds",
                "From an attempt's start to the head of its answer",
                "upstream",
            )?,
        })
    }

    pub(super) fn of(&self, name: &str) -> UpstreamMetrics {
        UpstreamMetrics {
            attempts: self.attempts.clone(),
            succeeded: self.attempts.with_label_values(&[name, "2xx"]),
            connects: self.connects.with_label_values(&[name]),
            duration: self.duration.with_label_values(&[name]),
            upstream: name.into(),
        }
    }
}

impl UpstreamMetrics {
    pub fn attempted(&self, outcome: &str) {
        // The usual outcome has its counter at hand; the others may be looked up.
        if outcome == "2xx" {
            self.succeeded.inc();
        } else {
            self.attempts.with_label_values(&[&*self.upstream, outcome]).inc();
        }
    }
}
