//! The endpoints of an upstream, on `/status`.

use serde::Serialize;

use super::orders::OrderStatus;
use super::{as_gauge, orders};
use crate::observe::metrics::StateMetrics;
use crate::time::Moment;
use crate::upstream::config::Use;
use crate::upstream::ejection::{Reason, Shown};
use crate::upstream::health::{Failure, Report, Verdict};
use crate::upstream::{Absence, Member, Upstream};

/// One endpoint.
#[derive(Serialize)]
pub struct EndpointStatus {
    address: String,
    /// In force.
    weight: u32,
    /// That of the configuration or its source, where an order has set another.
    #[serde(skip_serializing_if = "Option::is_none")]
    configured_weight: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    backup: bool,
    attempts: u64,
    in_flight: u32,
    /// The average; absent before the first response.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    /// `available`, `ejected` or `probing`; `unhealthy` or `drained`, whatever its attempts say.
    state: &'static str,
    /// Those of operators that are in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    orders: Vec<OrderStatus>,
    /// Of the latest ejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    ejection: Option<EjectionStatus>,
    /// The share of failures among the latest results, from 0 to 1.
    failing: f32,
    /// Absent without health checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<HealthStatus>,
}

/// What its health checks have found.
#[derive(Serialize)]
struct HealthStatus {
    /// `unknown` before the first pass, `healthy` or `unhealthy`.
    state: &'static str,
    for_seconds: f64,
    checks: u64,
    /// `passed`, or why the last check failed; absent before the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seconds_ago: Option<f64>,
}

#[derive(Serialize)]
struct EjectionStatus {
    reason: &'static str,
    /// What it counted: failures in a row, or failures and attempts in the window.
    failures: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u64>,
    seconds_ago: f64,
    /// Until the next probe; absent if the endpoint is not ejected, or being probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_in_seconds: Option<f64>,
    /// Since the endpoint was found; a probe that failed counts as well.
    times: u64,
}

/// What the source knows that endpoints are discovered from.
#[derive(Serialize)]
pub(super) struct SourceStatus {
    source: String,
    /// How many endpoints it named last.
    endpoints: usize,
    /// Since it named them; absent before.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed_seconds_ago: Option<f64>,
    /// How long it has not answered, or has named no endpoints, and why; absent while it names some.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_for_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn source(upstream: &Upstream, now: Moment) -> Option<SourceStatus> {
    let report = upstream.source()?;
    let ago = |since: Moment| now.since(since).as_secs_f64();
    Some(SourceStatus {
        source: report.source,
        endpoints: report.endpoints,
        confirmed_seconds_ago: report.confirmed.map(ago),
        failing_for_seconds: report.failing_since.map(ago),
        error: report.error.map(|error| error.to_string()),
    })
}

/// All endpoints of an upstream.
pub fn of(upstream: &Upstream, now: Moment) -> Vec<EndpointStatus> {
    of_those(upstream, now, |_| true)
}

/// Those at this address.
pub fn at(upstream: &Upstream, address: &str, now: Moment) -> Vec<EndpointStatus> {
    of_those(upstream, now, |member| *member.endpoint.label == *address)
}

fn of_those(
    upstream: &Upstream,
    now: Moment,
    shown: impl Fn(&Member) -> bool,
) -> Vec<EndpointStatus> {
    let is_checked = upstream.config().health.is_some();
    let set = upstream.set();
    let members = set.members().iter().filter(|member| shown(member));
    members.map(|member| status(member, is_checked, now)).collect()
}

/// Copies the state of the endpoints into the metrics.
pub(super) fn publish(state: &StateMetrics, name: &str, upstream: &Upstream) {
    let set = upstream.set();
    let members = set.members();
    state.endpoints.with_label_values(&[name]).set(as_gauge(members.len() as u64));
    state.ejected.with_label_values(&[name]).set(as_gauge(set.counts.ejected as u64));
    for (reason, ejections) in upstream.news().ejections() {
        state.ejections.with_label_values(&[reason, name]).inc_by(ejections);
    }
    state.all_used.with_label_values(&[name]).set((set.usage == Use::All).into());
    if upstream.config().health.is_some() {
        let is_healthy = |member: &&Member| member.endpoint.health.verdict() == Verdict::Healthy;
        let healthy = members.iter().filter(is_healthy).count() as u64;
        state.healthy_endpoints.with_label_values(&[name]).set(as_gauge(healthy));
    }
}

fn status(member: &Member, is_checked: bool, now: Moment) -> EndpointStatus {
    let Member { endpoint, weight, backup } = member;
    let in_force = member.weight_in_force();
    let shown = endpoint.ejection.shown();
    EndpointStatus {
        address: endpoint.label.to_string(),
        weight: in_force,
        configured_weight: (in_force != *weight).then_some(*weight),
        backup: *backup,
        attempts: endpoint.attempts(),
        in_flight: endpoint.in_flight(),
        latency_ms: endpoint.load.latency(now).map(|latency| latency.as_secs_f64() * 1000.0),
        failing: endpoint.load.failing(now),
        state: match endpoint.standing {
            ref standing if standing.is_drained() => "drained",
            ref standing if standing.has(Absence::Unhealthy) => "unhealthy",
            ref standing if standing.has(Absence::EjectedByOrder) => "ejected",
            _ => shown.state,
        },
        orders: orders::of_endpoint(endpoint, now),
        ejection: shown.last.map(|(reason, since)| ejection(&shown, reason, since, now)),
        health: is_checked.then(|| health(&endpoint.health.report(), now)),
    }
}

fn health(report: &Report, now: Moment) -> HealthStatus {
    let words = |result: &Result<(), Failure>| match result {
        Ok(()) => "passed".to_owned(),
        Err(failure) => failure.words.to_string(),
    };
    HealthStatus {
        state: report.verdict.as_str(),
        for_seconds: now.since(report.since).as_secs_f64(),
        checks: report.checks,
        last: report.last.as_ref().map(|(result, _)| words(result)),
        last_seconds_ago: report.last.as_ref().map(|(_, at)| now.since(*at).as_secs_f64()),
    }
}

fn ejection(shown: &Shown, reason: Reason, since: Moment, now: Moment) -> EjectionStatus {
    let (failures, attempts) = match reason {
        Reason::Consecutive { failures } => (failures.into(), None),
        Reason::Share { ended, failed } => (failed, Some(ended)),
    };
    EjectionStatus {
        reason: reason.as_str(),
        failures,
        attempts,
        seconds_ago: now.since(since).as_secs_f64(),
        probe_in_seconds: shown.until.map(|until| until.since(now).as_secs_f64()),
        times: shown.times,
    }
}
