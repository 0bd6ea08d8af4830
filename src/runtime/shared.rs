//! What the request path, the admin listener and the background work all hold.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::descriptors::Descriptors;
use super::lifecycle::Lifecycle;
use super::snapshot::Snapshot;
use crate::idempotency::Keys;
use crate::observe::metrics::{Metrics, RouteMetrics};
use crate::observe::trace::Tracer;
use crate::record::{Mode, Recorder, Stats};

/// One per process.
pub struct Shared {
    /// The configuration in force. A request takes it once and keeps it.
    pub snapshot: ArcSwap<Snapshot>,
    pub lifecycle: Arc<Lifecycle>,
    pub metrics: Arc<Metrics>,
    pub descriptors: Descriptors,
    /// Absent where no store is configured.
    pub recorder: Option<Recorder>,
    /// Of requests; in the same store.
    pub keys: Option<Keys>,
    pub tracer: Tracer,
    /// Requests that reached no route.
    pub unrouted: RouteMetrics,
}

impl Shared {
    pub fn new(
        snapshot: Snapshot,
        metrics: Arc<Metrics>,
        descriptors: Descriptors,
        recorder: Option<Recorder>,
        keys: Option<Keys>,
        tracer: Tracer,
    ) -> Self {
        Shared {
            // A route cannot be named like this: names in YAML paths have no parentheses here.
            unrouted: metrics.route(&"(none)".into()),
            snapshot: ArcSwap::from_pointee(snapshot),
            lifecycle: Arc::new(Lifecycle::default()),
            metrics,
            descriptors,
            recorder,
            keys,
            tracer,
        }
    }

    /// Make ready what requests of this generation will need first.
    pub fn expect(&self, snapshot: &Snapshot) {
        let durable = snapshot.routes.iter().any(|route| route.record.mode == Mode::Durable);
        if let Some(recorder) = self.recorder.as_ref().filter(|_| durable) {
            recorder.expect_durable();
        }
    }

    /// What became of the rows of the record so far.
    pub fn record_stats(&self) -> Stats {
        self.recorder.as_ref().map(Recorder::stats).unwrap_or_default()
    }
}
