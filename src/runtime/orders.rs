//! What operators order of endpoints, splits and circuits: carried out, told, and ended when its time is
//! over.
//!
//! What is ordered is kept with the endpoint, the split and the circuit, and so survives what they survive: a
//! reload, but no restart. The [`desk`](super::desk) remembers only which orders have been told of, so that
//! the end of one whose endpoint is gone is told, too.

mod circuits;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub use circuits::circuit;
use serde_json::json;

use super::desk::Key;
use super::shared::Shared;
use super::snapshot::{Route, Snapshot};
use super::status::circuits::Scope;
use super::status::orders::Listed;
use super::status::{Answer, endpoints, orders, splits};
use crate::policy::split;
use crate::policy::split::Split;
use crate::policy::split::config::MAX_WEIGHT;
use crate::policy::terms::Terms;
use crate::time::{Clock, Moment};
use crate::upstream::Upstream;
use crate::upstream::ordering::{Ended, Refused};
use crate::upstream::orders::{Order, Wanted};

/// How often it is looked whether endpoints with orders are still there.
const LOOK: Duration = Duration::from_secs(1);
/// The most addresses that a refusal names if the order was for an unknown one.
const FEW: usize = 10;

/// What is ordered of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// An order that lasts.
    Put(Wanted),
    /// It is used again: ends what takes it out, be it an order or an ejection.
    Readmit,
    /// All orders about it are withdrawn.
    Restore,
}

/// What is said with an order. Printable, and short.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// How long it lasts; `None`: until it is withdrawn.
    pub time: Option<Duration>,
    /// Who gives it.
    pub author: Option<Arc<str>>,
    /// Why.
    pub reason: Option<Arc<str>>,
}

/// Why an order is not carried out.
#[derive(Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub detail: String,
}

impl Said {
    fn terms(&self, now: Moment) -> Terms {
        let until = self.time.map(|time| now + time);
        Terms { since: now, until, author: self.author.clone(), reason: self.reason.clone() }
    }
}

/// Carries out an order about the endpoints of `upstream` at `address`. Responds with their new state.
///
/// # Errors
/// Why it is not carried out.
pub fn endpoint(
    shared: &Shared,
    name: &str,
    address: &str,
    command: Command,
    said: &Said,
) -> Result<Answer, Refusal> {
    let mut told = shared.orders.lock();
    let snapshot = shared.snapshot.load();
    let Some(target) = snapshot.upstreams.get(name) else {
        let detail = "no upstream has this name".to_owned();
        return Err(Refusal { status: 404, code: "unknown_upstream", detail });
    };
    let (upstream, now) = (&target.upstream, Clock::now());
    settle(&mut told, &snapshot, now);
    let terms = said.terms(now);
    let done = match command {
        Command::Put(wanted) => {
            let order = Order { wanted, terms: terms.clone() };
            upstream.order(address, &order, now).map(|()| format!("{wanted} {terms}"))
        }
        Command::Readmit => {
            upstream.readmit(address, now).map(|ended| withdrawn("readmit", &ended, said))
        }
        Command::Restore => {
            upstream.restore(address, now).map(|ended| withdrawn("restore", &ended, said))
        }
    };
    let done = done.map_err(|refused| in_words(refused, upstream))?;
    // Safe to write as they are: both were found among what is configured.
    log::warn!("upstreams.{name}: {address}: ordered: {done}");
    *told = keys(orders::all(&snapshot, now));
    shared.orders.changed.notify_one();
    let endpoints = endpoints::at(upstream, address, now);
    Ok(Answer::json(200, &json!({"upstream": name, "endpoints": endpoints})))
}

/// Orders the weights of a route's upstreams; those it does not name have the configured ones. Responds
/// with the new state.
///
/// # Errors
/// Why it is not carried out.
pub fn split(
    shared: &Shared,
    name: &str,
    weights: &[(String, u32)],
    said: &Said,
) -> Result<Answer, Refusal> {
    of_split(shared, name, |split, now| {
        let terms = said.terms(now);
        let order = split.order(weights, terms.clone());
        order.map_err(|refused| split_in_words(refused, split))?;
        let weights = weights.iter().map(|(name, weight)| format!("{name} {weight}"));
        Ok(format!("{} {terms}", weights.collect::<Vec<_>>().join(", ")))
    })
}

/// Puts back the configured weights of a route's upstreams. Responds with the new state.
///
/// # Errors
/// Why it is not carried out.
pub fn restore_split(shared: &Shared, name: &str, said: &Said) -> Result<Answer, Refusal> {
    of_split(shared, name, |split, _| {
        let what = if split.withdraw().is_some() { "weights as configured" } else { "nothing new" };
        Ok(format!("restore{}: {what}", by(said)))
    })
}

fn of_split(
    shared: &Shared,
    name: &str,
    order: impl FnOnce(&Split, Moment) -> Result<String, Refusal>,
) -> Result<Answer, Refusal> {
    let mut told = shared.orders.lock();
    let (snapshot, now) = (shared.snapshot.load(), Clock::now());
    let refused = |code, detail: &str| Refusal { status: 404, code, detail: detail.to_owned() };
    let route = snapshot.route(name);
    let route = route.ok_or_else(|| refused("unknown_route", "no route has this name"))?;
    let split = splits::split(route);
    let split = split.ok_or_else(|| refused("no_split", "nothing is drawn among its upstreams"))?;
    settle(&mut told, &snapshot, now);
    let done = order(split, now)?;
    log::warn!("routes.{name}: split ordered: {done}");
    *told = keys(orders::all(&snapshot, now));
    shared.orders.changed.notify_one();
    let (split, order) = (splits::of(route), orders::of_split(route, now));
    Ok(Answer::json(200, &json!({"route": name, "split": split, "order": order})))
}

/// Every order in force.
pub fn list(shared: &Shared) -> Answer {
    Answer::json(200, &orders::all(&shared.snapshot.load(), Clock::now()))
}

fn keys(listed: Vec<Listed>) -> BTreeSet<Key> {
    let key = |one: Listed| (one.scope, one.name, one.endpoint, one.order.kind);
    listed.into_iter().map(key).collect()
}

/// Ends the orders whose time is over, and tells of those that have ended with their endpoint. Costs
/// nothing while there are none. Never returns.
pub(super) async fn keep(shared: Arc<Shared>) {
    loop {
        let next = look(&shared);
        match next {
            None => shared.orders.changed.notified().await,
            Some(wait) => {
                tokio::select! {
                    () = shared.orders.changed.notified() => {}
                    () = tokio::time::sleep(wait.min(LOOK)) => {}
                }
            }
        }
    }
}

/// Returns the time until it is to be done again; `None` while there are no orders.
fn look(shared: &Shared) -> Option<Duration> {
    let mut told = shared.orders.lock();
    if told.is_empty() {
        return None;
    }
    let (snapshot, now) = (shared.snapshot.load(), Clock::now());
    let next = settle(&mut told, &snapshot, now);
    (!told.is_empty()).then(|| next.map_or(LOOK, |next| next.since(now)))
}

/// Ends the orders whose time is over, and tells of all that have ended by themselves. Before another order
/// is carried out, too: it may take the place of one whose end has not been told. Returns when the next one
/// ends.
fn settle(told: &mut BTreeSet<Key>, snapshot: &Snapshot, now: Moment) -> Option<Moment> {
    let mut next = circuits::end(told, snapshot, now);
    for (name, target) in &snapshot.upstreams {
        let (ended, end) = target.upstream.end_orders(now);
        next = next.into_iter().chain(end).min();
        for Ended { endpoint, orders } in ended {
            for order in orders {
                let wanted = order.wanted;
                log::info!(
                    "upstreams.{name}: {endpoint}: no longer ordered: {wanted}; its time is over"
                );
                let kind = wanted.as_str();
                told.remove(&(
                    Scope::Upstream.as_str(),
                    name.clone(),
                    Some(endpoint.to_string()),
                    kind,
                ));
            }
        }
    }
    for route in &snapshot.routes {
        let Some(split) = splits::split(route) else { continue };
        next = next.into_iter().chain(end_of_split(route, split, told, now)).min();
    }
    *told = tell_of_gone(told, keys(orders::all(snapshot, now)));
    next
}

fn end_of_split(
    route: &Route,
    split: &Split,
    told: &mut BTreeSet<Key>,
    now: Moment,
) -> Option<Moment> {
    if split.end_order(now).is_some() {
        let name = &route.name;
        log::info!("routes.{name}: split no longer ordered; its time is over");
        told.remove(&(Scope::Route.as_str(), name.to_string(), None, orders::SPLIT));
    }
    split.order_ends()
}

/// Logs what was in force and is not any more without having ended; what another endpoint has inherited is
/// in force, and told of by then. Returns what is in force.
fn tell_of_gone(told: &BTreeSet<Key>, in_force: BTreeSet<Key>) -> BTreeSet<Key> {
    let gone = told.difference(&in_force);
    for (scope, name, endpoint, kind) in gone.filter(|gone| !is_handed_on(gone, told, &in_force)) {
        match endpoint {
            Some(endpoint) => log::info!(
                "{scope}s.{name}: {endpoint}: no longer ordered: {kind}; the endpoint is gone"
            ),
            None if *kind == orders::SPLIT => {
                log::info!("{scope}s.{name}: split no longer ordered; its upstreams are gone");
            }
            None => log::info!(
                "the circuit of {scope} {name} is no longer ordered; a reload has put another in its place"
            ),
        }
    }
    in_force
}

/// Whether the order goes on at an endpoint that has an address in common with the one that is gone, as those
/// of a pair have.
fn is_handed_on(gone: &Key, told: &BTreeSet<Key>, in_force: &BTreeSet<Key>) -> bool {
    let (scope, name, Some(before), kind) = gone else { return false };
    let shares = |after: &str| after.split(',').any(|one| before.split(',').any(|it| it == one));
    let mut new = in_force.difference(told);
    new.any(|(of, at, after, what)| {
        (of, at, what) == (scope, name, kind) && after.as_deref().is_some_and(shares)
    })
}

fn withdrawn(command: &str, ended: &[Order], said: &Said) -> String {
    let what = match ended {
        [] => "no order was in force".to_owned(),
        ended => {
            let wanted: Vec<_> = ended.iter().map(|order| order.wanted.to_string()).collect();
            format!("withdrawn: {}", wanted.join(", "))
        }
    };
    format!("{command}{}; {what}", by(said))
}

fn by(said: &Said) -> String {
    let author = said.author.iter().map(|author| format!(", by {author}"));
    author.chain(said.reason.iter().map(|reason| format!(" ({reason})"))).collect()
}

fn in_words(refused: Refused, upstream: &Upstream) -> Refusal {
    match refused {
        Refused::UnknownAddress => {
            let set = upstream.set();
            let known = set.members().iter().map(|member| &*member.endpoint.label);
            let known: Vec<_> = known.take(FEW).collect();
            let more = set.members().len().saturating_sub(FEW);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let detail = match &known[..] {
                [] => "the upstream has no endpoints at the moment".to_owned(),
                known => {
                    format!("no endpoint has this address; there are {}{more}", known.join(", "))
                }
            };
            Refusal { status: 404, code: "unknown_endpoint", detail }
        }
        Refused::LastOne => Refusal {
            status: 409,
            code: "last_endpoint",
            detail: "no other endpoint is available: the last one is not ejected; to stop all requests, \
                     drain it"
                .to_owned(),
        },
    }
}

fn split_in_words(refused: split::orders::Refused, split: &Split) -> Refusal {
    use split::orders::Refused;

    let names = || split.standings().map(|s| s.name.to_string()).collect::<Vec<_>>().join(", ");
    let detail = match refused {
        Refused::Empty => format!("name upstreams with their weights; there are {}", names()),
        Refused::Unknown(_) => format!("the route has these upstreams: {}", names()),
        Refused::Twice(name) => format!("`{name}` is named twice"),
        Refused::TooMuch(name) => format!("the weight of `{name}` is more than {MAX_WEIGHT}"),
        Refused::NothingLeft => "the weight must be above 0 for at least one upstream".to_owned(),
    };
    Refusal { status: 400, code: "invalid_order", detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(orders: &[(&str, &'static str)]) -> BTreeSet<Key> {
        let key =
            |(at, kind): &(&str, _)| ("upstream", "u".to_owned(), Some((*at).to_owned()), *kind);
        orders.iter().map(key).collect()
    }

    #[test]
    fn an_order_that_goes_on_at_an_address_of_a_pair_has_not_ended() {
        let pair = "[::5]:1,127.0.0.5:1";
        for (before, after, is_handed_on) in [
            ((pair, "drain"), ("127.0.0.5:1", "drain"), true),
            (("[::5]:1", "drain"), (pair, "drain"), true),
            ((pair, "drain"), ("[::5]:1,127.0.0.7:1", "drain"), true),
            ((pair, "drain"), ("127.0.0.5:1", "weight"), false),
            ((pair, "drain"), ("127.0.0.5:11", "drain"), false),
            ((pair, "drain"), ("127.0.0.6:1", "drain"), false),
        ] {
            let (told, in_force) = (all(&[before]), all(&[after]));
            let gone = told.first().expect("one");
            assert_eq!(super::is_handed_on(gone, &told, &in_force), is_handed_on, "{after:?}");
        }
        // What was in force there before has not taken its place.
        let told = all(&[(pair, "drain"), ("127.0.0.5:1", "drain")]);
        let gone = all(&[(pair, "drain")]);
        let in_force = all(&[("127.0.0.5:1", "drain")]);
        assert!(!is_handed_on(gone.first().expect("one"), &told, &in_force));
    }
}
