//! Puts other members in place. An endpoint that remains keeps its state; one that takes the place of
//! another inherits it.
//!
//! A name's addresses of two families are endpoints in pairs, and its next answer may have another
//! address for one of a pair, or none. What is at the address that stays is the same server: an order
//! about it, its ejection and its averages go on.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoint::{Address, Endpoint, Key};
use super::orders::{Order, Wanted};
use super::set::{Member, Set};
use super::{Absence, Upstream};
use crate::time::Moment;

impl Upstream {
    /// Puts a new set of members in place. Endpoints that remain keep their state.
    pub(super) fn replace(&self, found: Vec<Member>, now: Moment) {
        self.adopt(&self.set.load(), found, now);
    }

    /// The same, but earlier members in `stay` remain, unless one that is found takes their place.
    pub(super) fn replace_beside(&self, found: Vec<Member>, stay: Vec<Member>, now: Moment) {
        self.put_in_place(&self.set.load(), found, stay, now);
    }

    /// Puts a new set of members in place, with the state of endpoints in `known`.
    pub(super) fn adopt(&self, known: &Set, found: Vec<Member>, now: Moment) {
        self.put_in_place(known, found, Vec::new(), now);
    }

    fn put_in_place(&self, known: &Set, mut found: Vec<Member>, stay: Vec<Member>, now: Moment) {
        let _changing = self.changing();
        let is_first = known.is_empty();
        let known_keys = known.by_key();
        let left = left_of_pairs(known, &found);
        for member in &mut found {
            if let Some(same) = known_keys.get(&member.endpoint.key) {
                member.endpoint = Arc::clone(same);
                continue;
            }
            let endpoint = &member.endpoint;
            let before = left.get(&endpoint.key);
            if let Some(before) = before {
                endpoint.succeed(before);
                self.tell_of_inheritance(before, endpoint);
            }
            endpoint.standing.set(Absence::Unhealthy, self.keeps_from(endpoint));
            if before.is_none() && !is_first && !self.config.slow_start.is_zero() {
                endpoint.warm_up(now);
            }
        }
        let is_inherited =
            |one: &Member| left.values().any(|before| Arc::ptr_eq(before, &one.endpoint));
        found.extend(stay.into_iter().filter(|one| !is_inherited(one)));
        self.put(self.of(found), known.usage, true);
        // An ejected endpoint of another set may be among them.
        self.due.note(now);
        self.changes.notify_one();
    }

    fn tell_of_inheritance(&self, before: &Endpoint, after: &Endpoint) {
        for Order { wanted, .. } in after.orders.in_force() {
            let (name, before, after) = (&self.name, &before.label, &after.label);
            log::warn!("upstreams.{name}: {after}: ordered: {wanted}, as it was of {before}");
        }
    }
}

/// For each endpoint that is new in `found`, the one of `known` that it has an address in common with
/// and that has left, if it or that one is a pair. Empty, and quickly found to be, where there are no
/// pairs.
fn left_of_pairs(known: &Set, found: &[Member]) -> HashMap<Key, Arc<Endpoint>> {
    let is_pair = |member: &Member| matches!(member.endpoint.key.address, Address::Pair(_));
    if !known.members().iter().chain(found).any(is_pair) {
        return HashMap::new();
    }
    let stays: HashSet<&Key> = found.iter().map(|member| &member.endpoint.key).collect();
    let left = known.members().iter().map(|member| &member.endpoint);
    let left = left.filter(|endpoint| !stays.contains(&endpoint.key));
    let left: HashMap<Key, &Arc<Endpoint>> =
        left.flat_map(|left| alone(&left.key).map(move |key| (key, left))).collect();
    let known = known.by_key();
    let new =
        found.iter().map(|member| &member.endpoint.key).filter(|key| !known.contains_key(key));
    let heirs = new.filter_map(|key| {
        let mut before = alone(key).filter_map(|alone| left.get(&alone));
        let first = before.next()?;
        let other = before.find(|other| gravity(other) > gravity(first));
        Some((key.clone(), Arc::clone(other.unwrap_or(first))))
    });
    heirs.collect()
}

/// How much an operator wants of an endpoint. Of two that become one, what takes one of them out must
/// hold on: a weight that is lost costs less.
fn gravity(endpoint: &Endpoint) -> u8 {
    let of = |order: &Order| match order.wanted {
        Wanted::Drain => 3,
        Wanted::Eject => 2,
        Wanted::Weight(_) => 1,
    };
    endpoint.orders.in_force().iter().map(of).max().unwrap_or(0)
}

/// The key that each address of an endpoint would have alone.
fn alone(key: &Key) -> impl Iterator<Item = Key> {
    let addresses: [Option<SocketAddr>; 2] = match &key.address {
        Address::Tcp(address) => [Some(*address), None],
        Address::Pair(pair) => [Some(pair.v6.into()), Some(pair.v4.into())],
        Address::Unix(_) => [None, None],
    };
    let with = |address: SocketAddr| Key { address: address.into(), ..key.clone() };
    addresses.map(|address| address.map(with)).into_iter().flatten()
}
