//! The gateway's metrics.
//!
//! Names and labels are defined here and nowhere else. Labels come from the configuration, never
//! from a request. The request path counts in place ([`RouteMetrics`], [`UpstreamMetrics`]), in
//! counters that a route's or upstream's first request creates. Series that are zero are shown before
//! their first event ([`words`]). State that lives elsewhere
//! (breakers, bulkheads, budgets, queues) is copied into gauges for each scrape or export.

mod durations;
mod family;
mod live;
pub mod otlp;
mod process;
mod reasons;
mod record;
mod register;
mod route;
mod shown;
mod state;
mod statuses;
mod store;
mod upstream;
pub mod words;

use std::sync::{Arc, Mutex};

pub use family::Family;
use live::Live;
pub use process::ConfigMetrics;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder};
use record::RecordMetrics;
use register::{counter, counters, gauge, register};
pub use route::{Finished, RouteMetrics};
pub use state::StateMetrics;
pub use store::StoreMetrics;
pub use upstream::UpstreamMetrics;
use words::Facets;

/// All metrics; one per process, shared.
pub struct Metrics {
    registry: Registry,
    routes: Live<route::Counts>,
    upstreams: Live<upstream::Counts>,
    limit_stores: store::Stores,
    /// Requests in flight.
    pub in_flight: IntGauge,
    /// Open client connections.
    pub connections: IntGauge,
    /// Limit on the client connections of all listeners together.
    pub connections_max: IntGauge,
    /// Client connections closed on arrival, by why there was no place for them.
    pub connections_refused: IntCounterVec,
    /// Client connections that a dry run would have closed on arrival.
    pub connections_would_refuse: IntCounter,
    /// Requests dropped with their connection at their deadline, because an upload waited for an
    /// upstream that did not read.
    pub requests_cut: IntCounter,
    /// Rows written, dropped and waiting.
    pub record: RecordMetrics,
    /// Client connections closed because they did not begin with the PROXY header that they must
    /// have, by what was wrong.
    pub proxy_headers_refused: IntCounterVec,
    /// Successful handshakes, by version (`1.2`, `1.3`) and kind (`full`, `resumed`).
    pub tls_handshakes: IntCounterVec,
    /// Client connections closed because the handshake failed or took too long, by listener and reason.
    pub tls_failed: IntCounterVec,
    /// Client connections that wait until another handshake may be under way.
    pub tls_waiting: IntGauge,
    /// Changes of the files of certificates, keys and authorities that were seen without a reload, by
    /// result: `ok`, `failed`.
    pub tls_rotations: IntCounterVec,
    /// Listeners and upstreams whose files have changed and cannot be used.
    pub tls_files_refused: IntGauge,
    /// Requests that clients sent only in part, and connections that broke HTTP/2, by cause.
    pub no_requests: IntCounterVec,
    /// State copied on demand. Locked, so that two scrapes do not mix.
    pub state: Mutex<StateMetrics>,
    /// Spans by result: `exported`, `failed`, `dropped`.
    pub trace_spans: IntCounterVec,
    /// Exports of metrics by result: `exported`, `failed`.
    pub metric_exports: IntCounterVec,
    /// The configuration in force, and reloads.
    pub config: ConfigMetrics,
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// A name that is invalid or registered twice, which is a mistake in this module.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        #[cfg(target_os = "linux")]
        r.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        process::build_info(r)?;
        let metrics = Metrics {
            routes: register(r, Live::new()?)?,
            upstreams: register(r, Live::new()?)?,
            limit_stores: store::Stores::new(r)?,
            in_flight: gauge(r, "requests_in_flight", "Requests being answered")?,
            connections: gauge(r, "connections", "Open client connections")?,
            connections_max: gauge(r, "connections_max", "Client connections there is room for")?,
            connections_refused: counters(
                r,
                "connections_refused_total",
                "Client connections closed on arrival, by the bound that was reached",
                &["reason"],
            )?,
            connections_would_refuse: counter(
                r,
                "connections_would_refuse_total",
                "Client connections that `networks` of a listener would have closed, were it enforced",
            )?,
            requests_cut: counter(
                r,
                "requests_cut_total",
                "Requests dropped with their connection at their deadline",
            )?,
            record: RecordMetrics::new(r)?,
            proxy_headers_refused: counters(
                r,
                "proxy_headers_refused_total",
                "Client connections closed for want of a valid PROXY header",
                &["reason"],
            )?,
            tls_handshakes: counters(
                r,
                "tls_handshakes_total",
                "Client connections that have agreed on TLS",
                &["version", "kind"],
            )?,
            no_requests: counters(
                r,
                "incomplete_requests_total",
                "Requests that clients sent only in part, and connections that broke HTTP/2, by cause",
                &["cause"],
            )?,
            tls_failed: counters(
                r,
                "tls_handshakes_failed_total",
                "Client connections without an agreement on TLS",
                &["listener", "reason"],
            )?,
            tls_waiting: gauge(
                r,
                "tls_handshakes_waiting",
                "Client connections that wait for their turn to agree on TLS",
            )?,
            tls_rotations: counters(
                r,
                "tls_rotations_total",
                "Changed files of certificates, keys and authorities, by what became of them",
                &["result"],
            )?,
            tls_files_refused: gauge(
                r,
                "tls_files_refused",
                "Listeners and upstreams whose files have changed and cannot be used",
            )?,
            state: Mutex::new(StateMetrics::new(r)?),
            trace_spans: counters(
                r,
                "trace_spans_total",
                "Spans by what became of them",
                &["result"],
            )?,
            metric_exports: counters(
                r,
                "metric_exports_total",
                "Exports of metrics to a collector",
                &["result"],
            )?,
            config: ConfigMetrics::new(r)?,
            registry,
        };
        metrics.begin();
        Ok(metrics)
    }

    /// Makes the series of the process that its first events will find, so that they rise from zero.
    fn begin(&self) {
        let results = |vec: &IntCounterVec, results: &[&str]| {
            results.iter().for_each(|result| drop(vec.with_label_values(&[result])));
        };
        results(
            &self.connections_refused,
            &["listener", "server", "descriptors", "address", "network"],
        );
        results(
            &self.proxy_headers_refused,
            &["absent", "malformed", "unsupported", "too_long", "late", "cut_off"],
        );
        results(&self.trace_spans, &["exported", "failed", "dropped"]);
        results(&self.metric_exports, &["exported", "failed"]);
        results(&self.tls_rotations, &["ok", "failed"]);
        for version in ["1.2", "1.3"] {
            for kind in ["full", "resumed"] {
                self.tls_handshakes.with_label_values(&[version, kind]);
            }
        }
    }

    /// Makes the series of the handshakes that can fail at `listener`, so that they rise from zero.
    pub fn begin_tls<const N: usize>(&self, listener: &str, reasons: [&str; N]) {
        for reason in reasons {
            self.tls_failed.with_label_values(&[listener, reason]);
        }
    }

    /// The metrics of the route with this name; they continue those of a previous route with the
    /// name. What it does says which of them are shown as zero.
    pub fn route(&self, name: &Arc<str>, facets: Facets) -> RouteMetrics {
        RouteMetrics(self.routes.of(name, facets))
    }

    /// The metrics of the upstream with this name; they continue those of a previous one with the
    /// name.
    pub fn upstream(&self, name: &Arc<str>) -> UpstreamMetrics {
        UpstreamMetrics(self.upstreams.of(name, Facets::default()))
    }

    /// The metrics of an entry of `rate_limit_stores`.
    pub fn limit_store(&self, name: &str) -> StoreMetrics {
        self.limit_stores.of(name)
    }

    /// All metrics as they are now.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

/// `families` in the text format of Prometheus.
pub fn render(families: &[MetricFamily]) -> Vec<u8> {
    let mut text = Vec::with_capacity(16 * 1024);
    if let Err(error) = TextEncoder::new().encode(families, &mut text) {
        log::error!("metrics cannot be rendered: {error}");
    }
    text
}
