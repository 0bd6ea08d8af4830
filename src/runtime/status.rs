//! What the gateway reports about itself: alive, ready, healthy, and the state of every route.
//!
//! Served by the admin listener, and by routes that ask for it with `serve`.

mod bulkheads;
pub mod circuits;
pub mod endpoints;
mod health;
mod keys;
pub mod orders;
pub mod splits;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http::HeaderValue;
use prometheus::proto::MetricFamily;
use serde::Serialize;

use super::shared::Shared;
use super::snapshot::{Route, Snapshot, Target};
use crate::config::route::Serve;
use crate::idempotency;
use crate::observe::access_log::Lines;
use crate::observe::metrics::{StateMetrics, render};
use crate::policy::breaker::{Breaker, State};
use crate::time::{Clock, Moment};

/// A small, complete response.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `None` if there is no body.
    pub content_type: Option<HeaderValue>,
    /// Complete; its length is the response's.
    pub body: Bytes,
}

impl Answer {
    pub(super) fn json(status: u16, body: &impl Serialize) -> Self {
        Answer {
            status,
            content_type: Some(HeaderValue::from_static("application/json")),
            // Plain data always serializes.
            body: serde_json::to_vec(body).unwrap_or_default().into(),
        }
    }
}

/// The response of a route that serves `what`.
pub async fn answer(shared: &Arc<Shared>, what: Serve) -> Answer {
    match what {
        Serve::Live => health::live(),
        Serve::Ready => health::ready(shared),
        Serve::Health => health::health(shared, None).await,
        Serve::HealthDetails => health::health(shared, Some(circuits::all(shared))).await,
        Serve::Status => apart(shared, |shared| Answer::json(200, &status(shared))).await,
    }
}

/// All metrics, in the text format of Prometheus.
pub async fn metrics(shared: &Arc<Shared>) -> Answer {
    apart(shared, |shared| Answer {
        status: 200,
        content_type: Some(HeaderValue::from_static("text/plain; version=0.0.4")),
        body: render(&gather(shared)).into(),
    })
    .await
}

/// Runs on another thread, because writing ten thousand routes takes long and the caller's thread
/// has other requests to serve.
async fn apart(shared: &Arc<Shared>, write: fn(&Shared) -> Answer) -> Answer {
    let shared = shared.clone();
    let task = tokio::task::spawn_blocking(move || write(&shared));
    // The panic has been logged already.
    task.await.unwrap_or(Answer { status: 500, content_type: None, body: Bytes::new() })
}

#[derive(Serialize)]
struct Status {
    version: &'static str,
    /// Its number, as the process itself sees it.
    process: u32,
    generation: u64,
    uptime_seconds: f64,
    ready: bool,
    requests_in_flight: usize,
    routes: BTreeMap<String, RouteStatus>,
    upstreams: BTreeMap<String, UpstreamStatus>,
    retry_budgets: BTreeMap<String, BudgetStatus>,
    /// Of operators, about endpoints and splits.
    orders: Vec<orders::Listed>,
    auth: BTreeMap<String, keys::AuthorityStatus>,
    record: RecordStatus,
}

#[derive(Serialize)]
struct RouteStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    split: Vec<splits::ShareStatus>,
    /// The upstreams that a path may name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    among: Vec<String>,
    /// The route's own breaker, or its upstream's if the route has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    circuit: Option<CircuitStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bulkhead: Option<bulkheads::BulkheadStatus>,
    requests: u64,
    errors: u64,
    average_latency_ms: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_enforced: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct CircuitStatus {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_probe_in_ms: Option<u128>,
    /// Of a half-open circuit: probes that have started and not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    probes_in_flight: Option<u32>,
    opened: u64,
    /// Only of a circuit that refuses nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    enforced: Option<bool>,
    /// What an operator has ordered of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<orders::OrderStatus>,
}

#[derive(Serialize)]
struct UpstreamStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    circuit: Option<CircuitStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discovery: Option<endpoints::SourceStatus>,
    endpoints: Vec<endpoints::EndpointStatus>,
}

#[derive(Serialize)]
struct BudgetStatus {
    tokens: f64,
    withdrawn: u64,
    refused: u64,
}

#[derive(Serialize)]
struct RecordStatus {
    written: u64,
    committed: u64,
    dropped: u64,
    dead: u64,
    queued: u64,
    journaled: u64,
}

fn status(shared: &Shared) -> Status {
    let snapshot = shared.snapshot.load();
    let now = Clock::now();
    let stats = shared.record_stats();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        process: std::process::id(),
        generation: snapshot.generation,
        uptime_seconds: shared.lifecycle.uptime().as_secs_f64(),
        ready: shared.lifecycle.is_ready(),
        requests_in_flight: shared.lifecycle.in_flight(),
        routes: snapshot.routes.iter().map(|r| (r.name.to_string(), route(r, now))).collect(),
        upstreams: upstreams(&snapshot, now),
        retry_budgets: budgets(&snapshot, now),
        orders: orders::all(&snapshot, now),
        auth: keys::of(&snapshot, now),
        record: RecordStatus {
            written: stats.written,
            committed: stats.committed,
            dropped: stats.dropped,
            dead: stats.dead,
            queued: stats.queue_depth,
            journaled: stats.journal_depth,
        },
    }
}

fn route(route: &Route, now: Moment) -> RouteStatus {
    let breaker = route.policies.route_breaker.as_ref();
    let breaker = breaker.or(route.policies.upstream_breaker.as_ref());
    RouteStatus {
        upstream: match &route.target {
            Target::Upstream(target) => Some(target.upstream.name.to_string()),
            Target::Fork(_) | Target::Serve(_) => None,
        },
        split: splits::of(route),
        among: route.named().map(|named| named.config().among.clone()).unwrap_or_default(),
        circuit: breaker.map(|breaker| circuit(breaker, now)),
        bulkhead: bulkheads::of(route),
        requests: route.metrics.requests(),
        errors: route.metrics.errors(),
        average_latency_ms: route.metrics.mean_duration().as_secs_f64() * 1000.0,
        not_enforced: route.config.not_enforced(),
    }
}

pub(super) fn circuit(breaker: &Breaker, now: Moment) -> CircuitStatus {
    let state = breaker.state(now);
    let (next_probe_in_ms, probes_in_flight) = match state {
        State::Open { remaining } => (Some(remaining.as_millis()), None),
        State::HalfOpen { in_flight, .. } => (None, Some(in_flight)),
        State::Closed { .. } | State::ForcedOpen | State::ForcedClosed => (None, None),
    };
    CircuitStatus {
        state: state.as_str(),
        next_probe_in_ms,
        probes_in_flight,
        opened: breaker.transitions().opened,
        enforced: breaker.enforce().is_dry().then_some(false),
        order: orders::of_circuit(breaker, now),
    }
}

fn upstreams(snapshot: &Snapshot, now: Moment) -> BTreeMap<String, UpstreamStatus> {
    let of = |target: &super::snapshot::UpstreamTarget| UpstreamStatus {
        circuit: target.upstream.breaker().map(|breaker| circuit(breaker, now)),
        discovery: endpoints::source(&target.upstream, now),
        endpoints: endpoints::of(&target.upstream, now),
    };
    snapshot.upstreams.iter().map(|(name, target)| (name.clone(), of(target))).collect()
}

fn budgets(snapshot: &Snapshot, now: Moment) -> BTreeMap<String, BudgetStatus> {
    let of = |budget: &crate::policy::retry::budget::Budget| BudgetStatus {
        tokens: budget.tokens(now),
        withdrawn: budget.withdrawn(),
        refused: budget.refused(),
    };
    snapshot.budgets.iter().map(|(name, budget)| (name.clone(), of(budget))).collect()
}

/// Copies the state of the policies and the recorder into the metrics, and gathers them all.
pub fn gather(shared: &Shared) -> Vec<MetricFamily> {
    let snapshot = shared.snapshot.load();
    let metrics = &shared.metrics;
    metrics.config.generation.set(as_gauge(snapshot.generation));
    metrics.in_flight.set(as_gauge(shared.lifecycle.in_flight() as u64));
    // Held until everything is gathered, so that two scrapes do not mix.
    let state = metrics.state.lock().unwrap_or_else(PoisonError::into_inner);
    state.reset();
    publish(&state, shared, &snapshot, Clock::now());
    metrics.gather()
}

fn publish(state: &StateMetrics, shared: &Shared, snapshot: &Snapshot, now: Moment) {
    for route in &snapshot.routes {
        if let Some(breaker) = &route.policies.route_breaker {
            publish_circuit(state, ["route", &route.name], breaker, now);
        }
        bulkheads::publish(state, route, now);
        splits::publish(state, route);
        orders::publish_route(state, route);
        for (limiter, name) in route.policies.rate_limits.iter().zip(route.limit_fields.names()) {
            let label = [&*route.name, name];
            state.rate_limit_refused.with_label_values(&label).inc_by(limiter.refused());
            state.rate_limit_evictions.with_label_values(&label).inc_by(limiter.evictions());
        }
    }
    for (name, target) in &snapshot.upstreams {
        if let Some(breaker) = target.upstream.breaker() {
            publish_circuit(state, ["upstream", name], breaker, now);
        }
        endpoints::publish(state, name, &target.upstream);
        orders::publish_upstream(state, name, &target.upstream);
        let lookups = target.upstream.lookups();
        state.failed_lookups.with_label_values(&[name]).inc_by(lookups.failed());
        let unresolved = as_gauge(lookups.unresolved_for(now).as_secs());
        state.unresolved_seconds.with_label_values(&[name]).set(unresolved);
    }
    for (name, budget) in &snapshot.budgets {
        if budget.is_per_consumer() {
            let callers = as_gauge(budget.callers() as u64);
            state.budget_consumers.with_label_values(&[name]).set(callers);
        }
        state.budget_tokens.with_label_values(&[name]).set(budget.tokens(now));
        state.budget_withdrawn.with_label_values(&[name]).inc_by(budget.withdrawn());
        state.budget_refused.with_label_values(&[name]).inc_by(budget.refused());
    }
    for (name, store) in &snapshot.limit_stores {
        state.rate_limit_store_up.with_label_values(&[name]).set(store.is_up().into());
    }
    shared.metrics.record.publish(&shared.record_stats());
    let Lines { written, dropped, left_out } = shared.access_log.lines();
    for (result, lines) in [("written", written), ("dropped", dropped), ("left_out", left_out)] {
        state.access_log_lines.with_label_values(&[result]).inc_by(lines);
    }
    if let Some(keys) = &shared.keys {
        publish_idempotency(state, &keys.stats());
    }
    keys::publish(state, snapshot);
    for (listener, handshakes) in snapshot.tls.load().iter() {
        for (file, ends) in &handshakes.not_after {
            state.certificate_not_after.with_label_values(&[listener.as_str(), file]).set(*ends);
        }
    }
}

fn publish_circuit(state: &StateMetrics, labels: [&str; 2], breaker: &Breaker, now: Moment) {
    let value = match breaker.state(now) {
        State::Closed { .. } => 0,
        State::HalfOpen { .. } => 1,
        State::Open { .. } => 2,
        State::ForcedOpen => 3,
        State::ForcedClosed => 4,
    };
    state.circuit_state.with_label_values(&labels).set(value);
    state.circuit_opened.with_label_values(&labels).inc_by(breaker.transitions().opened);
}

fn publish_idempotency(state: &StateMetrics, stats: &idempotency::Stats) {
    for (result, requests) in [
        ("leased", stats.leased),
        ("kept", stats.kept),
        ("released", stats.released),
        ("undecided", stats.undecided),
        ("lost", stats.lost),
        ("replayed", stats.replayed),
        ("refused", stats.refused),
        ("unavailable", stats.unavailable),
    ] {
        state.idempotency_keys.with_label_values(&[result]).inc_by(requests);
    }
}

fn as_gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
