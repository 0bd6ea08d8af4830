//! Carries out what an operator orders of endpoints, and ends it when its time is over.
//!
//! An order names an address, and concerns every endpoint of the upstream at this address: the same
//! server may be there by several URLs.

use std::sync::{Arc, MutexGuard};

use super::endpoint::Endpoint;
use super::orders::{Order, Wanted};
use super::set::Set;
use super::{Absence, Upstream};
use crate::time::Moment;

/// Why an order is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No endpoint has this address.
    UnknownAddress,
    /// No other endpoint is available: it would be used all the same, or every request refused.
    LastOne,
}

/// Orders of one endpoint that have ended.
#[derive(Debug)]
pub struct Ended {
    /// The endpoint's address.
    pub endpoint: Arc<str>,
    /// At least one.
    pub orders: Vec<Order>,
}

impl Upstream {
    /// Puts an order in force.
    ///
    /// # Errors
    /// Why it is not.
    pub fn order(&self, address: &str, order: &Order, now: Moment) -> Result<(), Refused> {
        self.consider(address, now, |endpoints, set| {
            if order.wanted == Wanted::Eject && !leaves_another(endpoints, set) {
                return Err(Refused::LastOne);
            }
            endpoints.iter().for_each(|endpoint| endpoint.orders.put(order.clone()));
            Ok(())
        })
    }

    /// Lets an endpoint be used again: ends what takes it out, whether that is an order or an
    /// ejection, and forgets its failures. Returns the orders.
    ///
    /// # Errors
    /// If no endpoint has this address.
    pub fn readmit(&self, address: &str, now: Moment) -> Result<Vec<Order>, Refused> {
        self.consider(address, now, |endpoints, _| {
            let end = |endpoint: &Arc<Endpoint>| {
                self.clear(endpoint, now);
                endpoint.orders.end(|order| !order.wanted.is_weight())
            };
            Ok(endpoints.iter().flat_map(end).collect())
        })
    }

    /// Ends all orders about an endpoint, and nothing else. Returns them.
    ///
    /// # Errors
    /// If no endpoint has this address.
    pub fn restore(&self, address: &str, now: Moment) -> Result<Vec<Order>, Refused> {
        self.consider(address, now, |endpoints, _| {
            Ok(endpoints.iter().flat_map(|endpoint| endpoint.orders.end(|_| true)).collect())
        })
    }

    /// Ends the orders whose time is over. Returns them, and when the next one ends.
    pub fn end_orders(&self, now: Moment) -> (Vec<Ended>, Option<Moment>) {
        let set = self.set();
        let ends = |endpoint: &Endpoint| endpoint.orders.next_end();
        let is_over = |endpoint: &Endpoint| ends(endpoint).is_some_and(|end| end <= now);
        let over = set.members().iter().filter(|member| is_over(&member.endpoint));
        let over: Vec<_> = over.map(|member| member.endpoint.clone()).collect();
        let mut ended = Vec::new();
        if !over.is_empty() {
            let changing = self.changing();
            let before = available(&over);
            for endpoint in &over {
                let orders = endpoint.orders.end(|order| order.terms.are_over(now));
                if !orders.is_empty() {
                    ended.push(Ended { endpoint: endpoint.label.clone(), orders });
                }
            }
            self.take_effect(&over, &before, changing, now);
        }
        let next = set.members().iter().filter_map(|member| ends(&member.endpoint)).min();
        (ended, next)
    }

    /// Changes orders of the endpoints at `address`, with no other change at the same time, and lets
    /// that take effect.
    fn consider<R>(
        &self,
        address: &str,
        now: Moment,
        change: impl FnOnce(&[Arc<Endpoint>], &Set) -> Result<R, Refused>,
    ) -> Result<R, Refused> {
        let changing = self.changing();
        let set = self.set();
        let endpoints = set.members().iter().map(|member| &member.endpoint);
        let endpoints = endpoints.filter(|endpoint| *endpoint.label == *address).cloned();
        let endpoints: Vec<_> = endpoints.collect();
        if endpoints.is_empty() {
            return Err(Refused::UnknownAddress);
        }
        let before = available(&endpoints);
        let changed = change(&endpoints, &set)?;
        self.take_effect(&endpoints, &before, changing, now);
        Ok(changed)
    }

    fn take_effect(
        &self,
        endpoints: &[Arc<Endpoint>],
        were_available: &[bool],
        changing: MutexGuard<'_, ()>,
        now: Moment,
    ) {
        for (endpoint, was_available) in endpoints.iter().zip(were_available) {
            let has = |wanted| endpoint.orders.has(wanted);
            endpoint.standing.set(Absence::DrainedByOrder, has(Wanted::Drain));
            endpoint.standing.set(Absence::EjectedByOrder, has(Wanted::Eject));
            self.warm_up_if_back(endpoint, *was_available, now);
        }
        self.rebuild(changing, now);
        self.tell();
    }
}

fn available(endpoints: &[Arc<Endpoint>]) -> Vec<bool> {
    endpoints.iter().map(|endpoint| endpoint.standing.is_available()).collect()
}

/// Whether an endpoint is available that is not among `endpoints`. Those that are ejected by order
/// already change nothing.
fn leaves_another(endpoints: &[Arc<Endpoint>], set: &Set) -> bool {
    let is_one = |other: &Arc<Endpoint>| endpoints.iter().any(|one| Arc::ptr_eq(one, other));
    let mut others = set.members().iter().filter(|member| !is_one(&member.endpoint));
    others.any(|member| member.endpoint.standing.is_available())
        || endpoints.iter().all(|endpoint| endpoint.orders.has(Wanted::Eject))
}
