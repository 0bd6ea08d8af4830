//! Circuits by name, and what an operator may order of them; `runtime::orders` carries it out.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::policy::breaker::Breaker;
use crate::runtime::shared::Shared;
use crate::runtime::snapshot::Snapshot;
use crate::runtime::status::{Answer, CircuitStatus, circuit};
use crate::time::{Clock, Moment};

/// Whether the circuit is a route's or an upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// An entry of `routes`.
    Route,
    /// An entry of `upstreams`.
    Upstream,
}

/// What the operator wants of the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Every call is refused, while the order lasts.
    Open,
    /// Every call is let through, whatever its outcome, while the order lasts.
    Close,
    /// The circuit decides again, starting closed and with nothing counted.
    Reset,
}

/// The circuit's state, after an order.
pub(in crate::runtime) fn answer(breaker: &Breaker, now: Moment) -> Answer {
    Answer::json(200, &circuit(breaker, now))
}

/// Every circuit, by scope and name.
#[derive(serde::Serialize)]
pub(super) struct All {
    routes: BTreeMap<String, CircuitStatus>,
    upstreams: BTreeMap<String, CircuitStatus>,
}

/// The current state of the circuits.
pub(super) fn all(shared: &Shared) -> All {
    let snapshot = shared.snapshot.load();
    let now = Clock::now();
    let routes = snapshot.routes.iter();
    let routes =
        routes.filter_map(|r| Some((r.name.to_string(), r.policies.route_breaker.as_ref()?)));
    let upstreams = snapshot.upstreams.iter();
    let upstreams = upstreams.filter_map(|(name, u)| Some((name.clone(), u.upstream.breaker()?)));
    All {
        routes: routes.map(|(name, breaker)| (name, circuit(breaker, now))).collect(),
        upstreams: upstreams.map(|(name, breaker)| (name, circuit(breaker, now))).collect(),
    }
}

/// A 404 response, with the reason.
pub fn no_circuit(error: &str) -> Answer {
    Answer::json(404, &serde_json::json!({ "error": error }))
}

pub(in crate::runtime) fn find(
    snapshot: &Snapshot,
    scope: Scope,
    name: &str,
) -> Option<Arc<Breaker>> {
    match scope {
        Scope::Route => snapshot.route(name)?.policies.route_breaker.clone(),
        Scope::Upstream => snapshot.upstreams.get(name)?.upstream.breaker().cloned(),
    }
}

impl Scope {
    /// The scope's name in the configuration, paths and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Route => "route",
            Scope::Upstream => "upstream",
        }
    }
}
