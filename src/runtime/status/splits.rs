//! What is reported about routes with several upstreams.

use serde::Serialize;

use crate::observe::metrics::StateMetrics;
use crate::runtime::snapshot::{Fork, Route, Target};

/// One upstream of a route with several.
#[derive(Serialize)]
pub(super) struct ShareStatus {
    upstream: String,
    /// In force.
    weight: u32,
    /// The weight in the configuration, where an order has set another.
    #[serde(skip_serializing_if = "Option::is_none")]
    configured: Option<u32>,
    /// Drawn so far.
    requests: u64,
}

fn fork(route: &Route) -> Option<&Fork> {
    match &route.target {
        Target::Split(fork) => Some(fork),
        Target::Upstream(_) | Target::Serve(_) => None,
    }
}

/// The upstreams of a route; none if it has only one.
pub(super) fn of(route: &Route) -> Vec<ShareStatus> {
    let standings = fork(route).into_iter().flat_map(|fork| fork.split.standings());
    let status = standings.map(|standing| ShareStatus {
        upstream: standing.name.to_string(),
        weight: standing.weight,
        configured: (standing.weight != standing.configured).then_some(standing.configured),
        requests: standing.drawn,
    });
    status.collect()
}

/// Copies the counts of a route's upstreams into the metrics.
pub(super) fn publish(state: &StateMetrics, route: &Route) {
    let Some(fork) = fork(route) else { return };
    state.split_unkeyed.with_label_values(&[&*route.name]).inc_by(fork.split.unkeyed());
    for standing in fork.split.standings() {
        let labels = [&*route.name, &*standing.name];
        state.split_weight.with_label_values(&labels).set(standing.weight.into());
        state.split_requests.with_label_values(&labels).inc_by(standing.drawn);
    }
}
