//! The state shared by the request path, the admin listener and the background work.

use std::sync::{Arc, Once};

use arc_swap::ArcSwap;

use super::descriptors::Descriptors;
use super::desk::Desk;
use super::facets;
use super::lifecycle::Lifecycle;
use super::listening::Listening;
use super::notify::Notify;
use super::snapshot::Snapshot;
use super::sockets::Sockets;
use crate::condition::Spell;
use crate::config;
use crate::idempotency::Keys;
use crate::observe::access_log::AccessLog;
use crate::observe::logs::Logs;
use crate::observe::metrics::{Metrics, RouteMetrics};
use crate::observe::otlp::Exporting;
use crate::proxy::request::via::Via;
use crate::record::{Mode, Recorder, Stats};

/// The shared state; one per process.
pub struct Shared {
    /// The configuration in force. A request loads it once and keeps that generation.
    pub snapshot: ArcSwap<Snapshot>,
    /// Whether the process is ready or draining; counts requests in flight.
    pub lifecycle: Arc<Lifecycle>,
    /// Outlive every snapshot, so that counters never fall.
    pub metrics: Arc<Metrics>,
    /// Counts file descriptors, and sets how many connections there may be.
    pub descriptors: Descriptors,
    /// `None` if no store is configured.
    pub recorder: Option<Recorder>,
    /// The idempotency keys of requests; in the same store as the record.
    pub keys: Option<Keys>,
    /// Sends spans and metrics; the generations say where.
    pub exporting: Exporting,
    /// A line for each request that it keeps.
    pub access_log: AccessLog,
    /// The process's own log; `None` where another logs, as in tests.
    pub logs: Option<Logs>,
    /// The service manager; told nothing unless it asked, nor in tests.
    pub manager: Notify,
    /// Metrics of requests that matched no route.
    pub unrouted: RouteMetrics,
    /// What operators have ordered of endpoints and splits.
    pub orders: Desk,
    /// Done once it has been logged that a proxy seems to be there that is not trusted.
    pub untrusted_proxy: Once,
    /// Clients flood their connections with control frames of HTTP/2.
    pub control_floods: Spell,
    /// The name of this process among proxies.
    pub via: Via,
    /// What clients connect to.
    pub sockets: Sockets,
    /// Tells the acceptors of other listeners.
    pub listening: Listening,
}

impl Shared {
    /// Starting: not ready until [`Lifecycle::set_ready`].
    pub fn new(
        snapshot: Snapshot,
        metrics: Arc<Metrics>,
        descriptors: Descriptors,
        recorder: Option<Recorder>,
        keys: Option<Keys>,
        access_log: AccessLog,
    ) -> Self {
        Shared {
            unrouted: unrouted(&metrics, &snapshot.config.metrics),
            snapshot: ArcSwap::from_pointee(snapshot),
            lifecycle: Arc::new(Lifecycle::default()),
            metrics,
            descriptors,
            recorder,
            keys,
            exporting: Exporting::default(),
            access_log,
            logs: None,
            manager: Notify::default(),
            orders: Desk::default(),
            untrusted_proxy: Once::new(),
            control_floods: Spell::default(),
            via: Via::default(),
            sockets: Sockets::default(),
            listening: Listening::default(),
        }
    }

    /// The metrics of requests that match no route, as `config` has them counted.
    pub(super) fn unrouted(&self, config: &config::metrics::Metrics) -> RouteMetrics {
        unrouted(&self.metrics, config)
    }

    /// Prepares what requests of this generation will need first.
    pub fn expect(&self, snapshot: &Snapshot) {
        let durable = snapshot.routes.iter().any(|route| route.record.mode == Mode::Durable);
        if let Some(recorder) = self.recorder.as_ref().filter(|_| durable) {
            recorder.expect_durable();
        }
    }

    /// Counts of the record's rows so far, by what became of them.
    pub fn record_stats(&self) -> Stats {
        self.recorder.as_ref().map(Recorder::stats).unwrap_or_default()
    }
}

fn unrouted(metrics: &Metrics, config: &config::metrics::Metrics) -> RouteMetrics {
    // Cannot collide with a route: route names have no parentheses.
    metrics.route(&"(none)".into(), facets::unrouted(config))
}
