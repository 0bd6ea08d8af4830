//! The endpoints of an upstream, on `/status`.

use serde::Serialize;

use crate::time::Moment;
use crate::upstream::ejection::{Reason, Shown};
use crate::upstream::{Absence, Member, Upstream};

#[derive(Serialize)]
pub(super) struct EndpointStatus {
    address: String,
    weight: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    backup: bool,
    attempts: u64,
    in_flight: u32,
    /// The average; absent before the first response.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    /// `available`, `ejected` or `probing`; `unhealthy` or `drained`, whatever its attempts say.
    state: &'static str,
    /// Of the latest ejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    ejection: Option<EjectionStatus>,
    /// The share of failures among the latest results, from 0 to 1.
    failing: f32,
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

pub(super) fn of(upstream: &Upstream, now: Moment) -> Vec<EndpointStatus> {
    upstream.set().members().iter().map(|member| status(member, now)).collect()
}

fn status(member: &Member, now: Moment) -> EndpointStatus {
    let Member { endpoint, weight, backup } = member;
    let shown = endpoint.ejection.shown();
    EndpointStatus {
        address: endpoint.label.to_string(),
        weight: *weight,
        backup: *backup,
        attempts: endpoint.attempts(),
        in_flight: endpoint.in_flight(),
        latency_ms: endpoint.load.latency(now).map(|latency| latency.as_secs_f64() * 1000.0),
        failing: endpoint.load.failing(now),
        state: match endpoint.standing {
            ref standing if standing.has(Absence::Drained) => "drained",
            ref standing if standing.has(Absence::Unhealthy) => "unhealthy",
            _ => shown.state,
        },
        ejection: shown.last.map(|(reason, since)| ejection(&shown, reason, since, now)),
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
