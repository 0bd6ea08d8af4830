//! What is reported about routes with several upstreams.

use serde::Serialize;

use crate::observe::metrics::StateMetrics;
use crate::policy::split::Split;
use crate::runtime::snapshot::{Route, Target};

/// One upstream of a route with several.
#[derive(Serialize)]
pub struct ShareStatus {
    upstream: String,
    /// In force.
    weight: u32,
    /// The weight in the configuration, where an order has set another.
    #[serde(skip_serializing_if = "Option::is_none")]
    configured: Option<u32>,
    /// Drawn so far.
    requests: u64,
}

/// What draws among the upstreams of a route; `None` if nothing is drawn.
pub fn split(route: &Route) -> Option<&Split> {
    match &route.target {
        Target::Fork(fork) => fork.split(),
        Target::Upstream(_) | Target::Serve(_) => None,
    }
}

/// The upstreams that a route draws among; none if it does not.
pub fn of(route: &Route) -> Vec<ShareStatus> {
    let standings = split(route).into_iter().flat_map(Split::standings);
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
    let Some(split) = split(route) else { return };
    state.split_unkeyed.with_label_values(&[&*route.name]).inc_by(split.unkeyed());
    for standing in split.standings() {
        let labels = [&*route.name, &*standing.name];
        state.split_weight.with_label_values(&labels).set(standing.weight.into());
        state.split_requests.with_label_values(&labels).inc_by(standing.drawn);
    }
}
