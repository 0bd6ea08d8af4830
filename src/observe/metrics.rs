//! The gateway's metrics.
//!
//! Names and labels are defined here and nowhere else. Labels come from the configuration, never
//! from a request. The request path counts in place ([`RouteMetrics`], [`UpstreamMetrics`]), in
//! counters that a route's or upstream's first request creates. State that lives elsewhere
//! (breakers, bulkheads, budgets, queues) is copied into gauges for each scrape or export.

mod durations;
mod family;
mod live;
pub mod otlp;
mod reasons;
mod record;
mod register;
mod route;
mod shown;
mod store;
mod upstream;

use std::sync::{Arc, Mutex};

pub use family::Family;
use live::Live;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};
use record::RecordMetrics;
use register::{counter, counters, gauge, gauges, opts, register};
pub use route::RouteMetrics;
pub use store::StoreMetrics;
pub use upstream::UpstreamMetrics;

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
    /// Client connections closed on arrival, by the limit that was reached.
    pub connections_refused: IntCounterVec,
    /// Requests dropped with their connection at their deadline, because an upload waited for an
    /// upstream that did not read.
    pub requests_cut: IntCounter,
    /// Rows written, dropped and waiting.
    pub record: RecordMetrics,
    /// Successful handshakes, by version (`1.2`, `1.3`) and kind (`full`, `resumed`).
    pub tls_handshakes: IntCounterVec,
    /// Client connections closed because the handshake failed or took too long.
    pub tls_failed: IntCounter,
    /// State copied on demand. Locked, so that two scrapes do not mix.
    pub state: Mutex<StateMetrics>,
    /// Spans by result: `exported`, `failed`, `dropped`.
    pub trace_spans: IntCounterVec,
    /// Exports of metrics by result: `exported`, `failed`.
    pub metric_exports: IntCounterVec,
    /// Reloads by result.
    pub reloads: IntCounterVec,
    /// The generation in force: 1 at start, one more with every reload.
    pub generation: IntGauge,
}

/// Gauges and counters whose values live in the policies and the recorder. They are reset, then
/// set, for each scrape or export.
pub struct StateMetrics {
    /// 0 closed, 1 half-open, 2 open, 3 forced open, 4 forced closed; by scope (`route`,
    /// `upstream`) and name, as the next one.
    pub circuit_state: IntGaugeVec,
    /// How often the circuit has opened.
    pub circuit_opened: IntCounterVec,
    /// Slots taken, by route.
    pub bulkhead_in_flight: IntGaugeVec,
    /// Slots in all, by route; it changes if the limit is adaptive.
    pub bulkhead_capacity: IntGaugeVec,
    /// Requests that wait for a slot, by route; only of routes with a queue.
    pub bulkhead_waiting: IntGaugeVec,
    /// Retries that would be granted at once, by budget.
    pub budget_tokens: GaugeVec,
    /// Retries granted, by budget.
    pub budget_withdrawn: IntCounterVec,
    /// Retries refused, by budget.
    pub budget_refused: IntCounterVec,
    /// Addresses known, by upstream.
    pub endpoints: IntGaugeVec,
    /// Look-ups of names that found no address, by upstream.
    pub failed_lookups: IntCounterVec,
    /// For how many seconds a name of the upstream has not been resolved; 0 while all are.
    pub unresolved_seconds: IntGaugeVec,
    /// Requests refused, by route and limit.
    pub rate_limit_refused: IntCounterVec,
    /// Keys forgotten before their time because of `max_keys`, by route and limit.
    pub rate_limit_evictions: IntCounterVec,
    /// 1 while the store is asked, 0 while it is away; by store.
    pub rate_limit_store_up: IntGaugeVec,
    /// Lines of the access log, by what became of them.
    pub access_log_lines: IntCounterVec,
    /// Requests with a key, by result.
    pub idempotency_keys: IntCounterVec,
    /// Keys that are not too old, by authority.
    pub jwks_keys: IntGaugeVec,
    /// Fetches by authority and result.
    pub jwks_fetches: IntCounterVec,
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
        Ok(Metrics {
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
            requests_cut: counter(
                r,
                "requests_cut_total",
                "Requests dropped with their connection at their deadline",
            )?,
            record: RecordMetrics::new(r)?,
            tls_handshakes: counters(
                r,
                "tls_handshakes_total",
                "Client connections that have agreed on TLS",
                &["version", "kind"],
            )?,
            tls_failed: counter(
                r,
                "tls_handshakes_failed_total",
                "Client connections without an agreement on TLS",
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
            reloads: counters(r, "reloads_total", "Reloads of the configuration", &["result"])?,
            generation: gauge(r, "config_generation", "The configuration in force")?,
            registry,
        })
    }

    /// The metrics of the route with this name; they continue those of a previous route with the
    /// name.
    pub fn route(&self, name: &Arc<str>) -> RouteMetrics {
        RouteMetrics(self.routes.of(name))
    }

    /// The metrics of the upstream with this name; they continue those of a previous one with the
    /// name.
    pub fn upstream(&self, name: &Arc<str>) -> UpstreamMetrics {
        UpstreamMetrics(self.upstreams.of(name))
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

impl StateMetrics {
    fn new(r: &Registry) -> prometheus::Result<Self> {
        Ok(StateMetrics {
            circuit_state: gauges(
                r,
                "circuit_state",
                "0 closed, 1 half-open, 2 open, 3 forced open, 4 forced closed",
                &["scope", "name"],
            )?,
            circuit_opened: counters(
                r,
                "circuit_opened_total",
                "How often the circuit has opened",
                &["scope", "name"],
            )?,
            bulkhead_in_flight: gauges(r, "bulkhead_in_flight", "Slots taken", &["route"])?,
            bulkhead_capacity: gauges(r, "bulkhead_capacity", "Slots in all", &["route"])?,
            bulkhead_waiting: gauges(
                r,
                "bulkhead_waiting",
                "Requests that wait for a slot",
                &["route"],
            )?,
            budget_tokens: register(
                r,
                GaugeVec::new(opts("retry_budget_tokens", "Retries granted at once"), &["budget"])?,
            )?,
            budget_withdrawn: counters(
                r,
                "retry_budget_withdrawn_total",
                "Retries the budget paid for",
                &["budget"],
            )?,
            budget_refused: counters(
                r,
                "retry_budget_refused_total",
                "Retries the budget refused",
                &["budget"],
            )?,
            endpoints: gauges(r, "upstream_endpoints", "Endpoints known", &["upstream"])?,
            failed_lookups: counters(
                r,
                "upstream_failed_lookups_total",
                "Look-ups of names that found no address",
                &["upstream"],
            )?,
            unresolved_seconds: gauges(
                r,
                "upstream_unresolved_seconds",
                "How long a name has not been resolved; 0 while all are",
                &["upstream"],
            )?,
            rate_limit_refused: counters(
                r,
                "rate_limit_refused_total",
                "Requests refused for this limit",
                &["route", "limit"],
            )?,
            rate_limit_evictions: counters(
                r,
                "rate_limit_evictions_total",
                "Keys forgotten before their time: max_keys is too small",
                &["route", "limit"],
            )?,
            rate_limit_store_up: gauges(
                r,
                "rate_limit_store_up",
                "1 while the store is asked, 0 while it is away",
                &["store"],
            )?,
            access_log_lines: counters(
                r,
                "access_log_lines_total",
                "Lines of the access log by what became of them",
                &["result"],
            )?,
            idempotency_keys: counters(
                r,
                "idempotency_keys_total",
                "Requests with an idempotency key by what became of them",
                &["result"],
            )?,
            jwks_keys: gauges(r, "jwks_keys", "Usable keys", &["auth"])?,
            jwks_fetches: counters(r, "jwks_fetches_total", "Fetches", &["auth", "result"])?,
        })
    }
}

impl StateMetrics {
    /// Removes all values, so that what a reload has removed is not shown any more.
    pub fn reset(&self) {
        for gauges in [
            &self.circuit_state,
            &self.bulkhead_in_flight,
            &self.bulkhead_capacity,
            &self.bulkhead_waiting,
            &self.endpoints,
            &self.unresolved_seconds,
            &self.rate_limit_store_up,
            &self.jwks_keys,
        ] {
            gauges.reset();
        }
        self.budget_tokens.reset();
        for counters in [
            &self.circuit_opened,
            &self.failed_lookups,
            &self.rate_limit_refused,
            &self.rate_limit_evictions,
            &self.budget_withdrawn,
            &self.budget_refused,
            &self.access_log_lines,
            &self.idempotency_keys,
            &self.jwks_fetches,
        ] {
            counters.reset();
        }
    }
}
