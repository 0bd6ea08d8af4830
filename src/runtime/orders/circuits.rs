//! Orders about circuits.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Said, by, keys, settle};
use crate::policy::breaker::Breaker;
use crate::policy::breaker::orders::{Forced, Order as Ordered};
use crate::runtime::desk::Key;
use crate::runtime::shared::Shared;
use crate::runtime::snapshot::Snapshot;
use crate::runtime::status::circuits::{self, Order, Scope};
use crate::runtime::status::{Answer, orders};
use crate::time::{Clock, Moment};

/// Carries out an order. Responds 200 with the circuit's new state, or 404 if there is no such circuit.
pub fn circuit(shared: &Shared, scope: Scope, name: &str, order: Order, said: &Said) -> Answer {
    let mut told = shared.orders.lock();
    let (snapshot, now) = (shared.snapshot.load(), Clock::now());
    let Some(breaker) = circuits::find(&snapshot, scope, name) else {
        let detail = format!("no {} with a circuit_breaker has this name", scope.as_str());
        return circuits::no_circuit(&detail);
    };
    settle(&mut told, &snapshot, now);
    let terms = said.terms(now);
    let force = |wanted| {
        breaker.order(Ordered { wanted, terms: terms.clone() });
        format!(", {terms}")
    };
    let on_terms = match order {
        Order::Open => force(Forced::Open),
        Order::Close => force(Forced::Closed),
        Order::Reset => {
            breaker.reset(now);
            by(said)
        }
    };
    // Safe to write as it is: it was found in the configuration, and the terms are printable.
    let (scope, state) = (scope.as_str(), breaker.state(now).as_str());
    log::warn!("the circuit of {scope} {name} is {state} by order of an operator{on_terms}");
    *told = keys(orders::all(&snapshot, now));
    shared.orders.changed.notify_one();
    circuits::answer(&breaker, now)
}

/// Ends the orders whose time is over. Returns when the next one ends.
pub(super) fn end(told: &mut BTreeSet<Key>, snapshot: &Snapshot, now: Moment) -> Option<Moment> {
    let mut next = None;
    for (scope, name, breaker) in all(snapshot) {
        if let Some(Ordered { wanted, .. }) = breaker.end_order(now) {
            let (scope, kind) = (scope.as_str(), orders::kind_of_circuit(wanted));
            log::info!(
                "the circuit of {scope} {name} is no longer ordered; its time is over: it is closed, and \
                 decides by itself"
            );
            told.remove(&(scope, name.to_owned(), None, kind));
        }
        next = next.into_iter().chain(breaker.order_ends()).min();
    }
    next
}

/// Every circuit, with its scope and name.
fn all(snapshot: &Snapshot) -> impl Iterator<Item = (Scope, &str, &Arc<Breaker>)> {
    let routes = snapshot.routes.iter().filter_map(|route| {
        Some((Scope::Route, &*route.name, route.policies.route_breaker.as_ref()?))
    });
    let upstreams = snapshot.upstreams.iter().filter_map(|(name, target)| {
        Some((Scope::Upstream, name.as_str(), target.upstream.breaker()?))
    });
    routes.chain(upstreams)
}
