//! The routes' bulkheads in `/status` and in the metrics.

use serde::Serialize;

use super::as_gauge;
use crate::observe::metrics::StateMetrics;
use crate::policy::bulkhead::{Late, Vain};
use crate::runtime::snapshot::Route;
use crate::time::Moment;

#[derive(Serialize)]
pub(super) struct BulkheadStatus {
    slots: u32,
    free: u32,
    /// Only where requests may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<usize>,
    /// Only where one caller may hold but a part.
    #[serde(skip_serializing_if = "Option::is_none")]
    consumers: Option<usize>,
}

/// `None` for a route without a bulkhead.
pub(super) fn of(route: &Route) -> Option<BulkheadStatus> {
    route.policies.bulkhead.as_ref().map(|bulkhead| BulkheadStatus {
        slots: bulkhead.capacity(),
        free: bulkhead.capacity().saturating_sub(bulkhead.in_flight()),
        waiting: route.has_queue().then(|| bulkhead.waiting()),
        consumers: is_shared(route).then(|| bulkhead.callers()),
    })
}

fn is_shared(route: &Route) -> bool {
    route.config.bulkhead.as_ref().is_some_and(|bulkhead| bulkhead.per_consumer.is_some())
}

pub(super) fn publish(state: &StateMetrics, route: &Route, now: Moment) {
    let Some(bulkhead) = &route.policies.bulkhead else { return };
    if route.rehearses_queue() {
        let Late { wait, deadline } = bulkhead.late_refusals(now);
        (0..wait).for_each(|_| route.metrics.would_refuse(Vain::Wait.code()));
        (0..deadline).for_each(|_| route.metrics.would_refuse(Vain::Deadline.code()));
    }
    let label = [&*route.name];
    state.bulkhead_in_flight.with_label_values(&label).set(bulkhead.in_flight().into());
    state.bulkhead_capacity.with_label_values(&label).set(bulkhead.capacity().into());
    if is_shared(route) {
        let callers = as_gauge(bulkhead.callers() as u64);
        state.bulkhead_consumers.with_label_values(&label).set(callers);
        state.bulkhead_consumer_full.with_label_values(&label).inc_by(bulkhead.refused_shares());
    }
    if route.has_queue() {
        let waiting = as_gauge(bulkhead.waiting() as u64);
        state.bulkhead_waiting.with_label_values(&label).set(waiting);
    }
}
