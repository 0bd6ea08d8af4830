//! The orders of operators about endpoints, splits and circuits that are in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::splits;
use crate::observe::metrics::StateMetrics;
use crate::policy::breaker::Breaker;
use crate::policy::breaker::orders::Forced;
use crate::policy::split;
use crate::policy::terms::Terms;
use crate::runtime::snapshot::{Route, Snapshot};
use crate::runtime::status::circuits::Scope;
use crate::time::Moment;
use crate::upstream::orders::{Order, Wanted};
use crate::upstream::{Endpoint, Upstream};

/// The kind of an order about a split.
pub const SPLIT: &str = "split";
/// The kinds of orders about endpoints.
const KINDS: [&str; 3] =
    [Wanted::Drain.as_str(), Wanted::Eject.as_str(), Wanted::Weight(1).as_str()];
/// Those about circuits.
const OF_CIRCUITS: [Forced; 2] = [Forced::Open, Forced::Closed];

/// The kind of an order about a circuit.
pub const fn kind_of_circuit(wanted: Forced) -> &'static str {
    match wanted {
        Forced::Open => "circuit_open",
        Forced::Closed => "circuit_close",
    }
}

/// An order.
#[derive(Debug, Serialize)]
pub struct OrderStatus {
    /// `drain`, `eject`, `weight`, `split`, `circuit_open` or `circuit_close`.
    pub kind: &'static str,
    /// That of an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    /// Those of a split, by upstream.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    weights: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    seconds_ago: f64,
    /// Until it ends by itself; absent if it lasts until it is withdrawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<f64>,
}

/// An order, and what it is about.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// `upstream` or `route`.
    pub scope: &'static str,
    /// The upstream's or the route's name.
    pub name: String,
    /// The endpoint's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What is ordered.
    #[serde(flatten)]
    pub order: OrderStatus,
}

/// All of them, by upstream and route.
pub fn all(snapshot: &Snapshot, now: Moment) -> Vec<Listed> {
    let mut listed = Vec::new();
    for (name, target) in &snapshot.upstreams {
        let of_circuit = target.upstream.breaker().and_then(|breaker| of_circuit(breaker, now));
        listed.extend(of_circuit.map(|order| of_whole(Scope::Upstream, name, order)));
        for member in target.upstream.set().members() {
            let endpoint = &member.endpoint;
            listed.extend(of_endpoint(endpoint, now).into_iter().map(|order| Listed {
                scope: Scope::Upstream.as_str(),
                name: name.clone(),
                endpoint: Some(endpoint.label.to_string()),
                order,
            }));
        }
    }
    for route in &snapshot.routes {
        let breaker = route.policies.route_breaker.as_ref();
        let of_circuit = breaker.and_then(|breaker| of_circuit(breaker, now));
        let of_both = of_circuit.into_iter().chain(of_split(route, now));
        listed.extend(of_both.map(|order| of_whole(Scope::Route, &route.name, order)));
    }
    listed
}

fn of_whole(scope: Scope, name: &str, order: OrderStatus) -> Listed {
    Listed { scope: scope.as_str(), name: name.to_owned(), endpoint: None, order }
}

/// The order about a circuit.
pub(super) fn of_circuit(breaker: &Breaker, now: Moment) -> Option<OrderStatus> {
    let order = breaker.ordered()?;
    Some(of(kind_of_circuit(order.wanted), &order.terms, now))
}

pub(super) fn of_endpoint(endpoint: &Endpoint, now: Moment) -> Vec<OrderStatus> {
    let status = |Order { wanted, terms }: &Order| OrderStatus {
        weight: match wanted {
            Wanted::Weight(weight) => Some(*weight),
            Wanted::Drain | Wanted::Eject => None,
        },
        ..of(wanted.as_str(), terms, now)
    };
    endpoint.orders.in_force().iter().map(status).collect()
}

/// The order about a route's split.
pub fn of_split(route: &Route, now: Moment) -> Option<OrderStatus> {
    let split::orders::Order { weights, terms } = splits::split(route)?.ordered()?;
    let weights = weights.into_iter().map(|(name, weight)| (name.to_string(), weight)).collect();
    Some(OrderStatus { weights, ..of(SPLIT, &terms, now) })
}

fn of(kind: &'static str, terms: &Terms, now: Moment) -> OrderStatus {
    let text = |text: &Option<Arc<str>>| text.as_ref().map(ToString::to_string);
    OrderStatus {
        kind,
        weight: None,
        weights: BTreeMap::new(),
        author: text(&terms.author),
        reason: text(&terms.reason),
        seconds_ago: now.since(terms.since).as_secs_f64(),
        seconds_left: terms.until.map(|until| until.since(now).as_secs_f64()),
    }
}

pub(super) fn publish_upstream(state: &StateMetrics, name: &str, upstream: &Upstream) {
    let set = upstream.set();
    let mut counts = [0; KINDS.len()];
    for order in set.members().iter().flat_map(|member| member.endpoint.orders.in_force()) {
        let place = KINDS.iter().position(|kind| *kind == order.wanted.as_str());
        counts[place.unwrap_or_default()] += 1;
    }
    for (kind, count) in KINDS.into_iter().zip(counts) {
        let labels = [kind, Scope::Upstream.as_str(), name];
        state.orders_in_force.with_label_values(&labels).set(count);
    }
    publish_circuit(state, Scope::Upstream, name, upstream.breaker());
}

fn publish_circuit(state: &StateMetrics, scope: Scope, name: &str, breaker: Option<&Arc<Breaker>>) {
    let Some(breaker) = breaker else { return };
    let ordered = breaker.ordered().map(|order| order.wanted);
    for wanted in OF_CIRCUITS {
        let labels = [kind_of_circuit(wanted), scope.as_str(), name];
        let is_ordered = ordered == Some(wanted);
        state.orders_in_force.with_label_values(&labels).set(is_ordered.into());
    }
}

pub(super) fn publish_route(state: &StateMetrics, route: &Route) {
    publish_circuit(state, Scope::Route, &route.name, route.policies.route_breaker.as_ref());
    let Some(split) = splits::split(route) else { return };
    let labels = [SPLIT, Scope::Route.as_str(), &*route.name];
    let is_ordered = split.ordered().is_some();
    state.orders_in_force.with_label_values(&labels).set(is_ordered.into());
}
