//! The endpoints of an upstream, on `/status`.

use serde::Serialize;

use crate::time::Moment;
use crate::upstream::{Member, Upstream};

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
    /// The share of failures among the latest results, from 0 to 1.
    failing: f32,
}

pub(super) fn of(upstream: &Upstream, now: Moment) -> Vec<EndpointStatus> {
    upstream.set().members().iter().map(|member| status(member, now)).collect()
}

fn status(member: &Member, now: Moment) -> EndpointStatus {
    let Member { endpoint, weight, backup } = member;
    EndpointStatus {
        address: endpoint.label.to_string(),
        weight: *weight,
        backup: *backup,
        attempts: endpoint.attempts(),
        in_flight: endpoint.in_flight(),
        latency_ms: endpoint.load.latency(now).map(|latency| latency.as_secs_f64() * 1000.0),
        failing: endpoint.load.failing(now),
    }
}
