//! What an operator has ordered of an endpoint. It belongs to the endpoint, and so survives whatever the
//! endpoint survives: changes of the members, and reloads.
//!
//! At most two orders are in force at a time: one that takes the endpoint out, and one about its weight.
//! A new one takes the place of the one before. What follows from them is up to
//! [`super::Upstream::order`].

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::policy::terms::Terms;
use crate::time::Moment;

/// The largest weight, as the configuration has it.
pub const MAX_WEIGHT: u32 = 1000;

/// What is wanted of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It finishes what it has and gets nothing new, not even if no other is left.
    Drain,
    /// It gets nothing while another one is available, as if its attempts had failed; but no attempt
    /// probes it.
    Eject,
    /// Its weight is this one, whatever the configuration or its source says. From 1 to 1000.
    Weight(u32),
}

/// An order in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub wanted: Wanted,
    /// On what terms.
    pub terms: Terms,
}

/// Those that are in force of one endpoint.
#[derive(Debug, Default)]
pub struct Orders {
    /// That of the order about it; 0 without one. Apart from the list, so that a set can be made
    /// while the list is changed.
    weight: AtomicU32,
    in_force: Mutex<Vec<Order>>,
}

impl Wanted {
    /// The word for it in paths, metrics and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Wanted::Drain => "drain",
            Wanted::Eject => "eject",
            Wanted::Weight(_) => "weight",
        }
    }

    /// Whether one of them takes the other's place.
    const fn excludes(self, other: Wanted) -> bool {
        self.is_weight() == other.is_weight()
    }

    /// Whether it is about the weight, and leaves the endpoint where it is.
    pub const fn is_weight(self) -> bool {
        match self {
            Wanted::Weight(_) => true,
            Wanted::Drain | Wanted::Eject => false,
        }
    }
}

/// `drain`, or `weight 5`.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            Wanted::Weight(weight) => write!(f, " {weight}"),
            Wanted::Drain | Wanted::Eject => Ok(()),
        }
    }
}

impl Orders {
    /// The weight that is ordered, if one is.
    pub fn weight(&self) -> Option<u32> {
        // Relaxed: the set is what requests see, and a lock orders its changes.
        Some(self.weight.load(Ordering::Relaxed)).filter(|weight| *weight > 0)
    }

    /// All of them.
    pub fn in_force(&self) -> Vec<Order> {
        self.lock().clone()
    }

    /// Whether there is an order for this.
    pub(super) fn has(&self, wanted: Wanted) -> bool {
        self.lock().iter().any(|order| order.wanted == wanted)
    }

    /// Puts an order in force.
    pub(super) fn put(&self, order: Order) {
        let mut orders = self.lock();
        orders.retain(|other| !other.wanted.excludes(order.wanted));
        orders.push(order);
        self.note(&orders);
    }

    /// Ends those that `ends` is true of, and returns them.
    pub(super) fn end(&self, ends: impl Fn(&Order) -> bool) -> Vec<Order> {
        let mut orders = self.lock();
        let (ended, left) = std::mem::take(&mut *orders).into_iter().partition(ends);
        *orders = left;
        self.note(&orders);
        ended
    }

    /// When the next one ends by itself.
    pub(super) fn next_end(&self) -> Option<Moment> {
        self.lock().iter().filter_map(|order| order.terms.until).min()
    }

    fn note(&self, orders: &[Order]) {
        let weight = orders.iter().find_map(|order| match order.wanted {
            Wanted::Weight(weight) => Some(weight),
            Wanted::Drain | Wanted::Eject => None,
        });
        self.weight.store(weight.unwrap_or(0), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Order>> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn order(wanted: Wanted, seconds: Option<u64>) -> Order {
        let until = seconds.map(|seconds| Moment::ZERO + Duration::from_secs(seconds));
        let terms = Terms { since: Moment::ZERO, until, author: None, reason: None };
        Order { wanted, terms }
    }

    fn wanted(orders: &[Order]) -> Vec<Wanted> {
        orders.iter().map(|order| order.wanted).collect()
    }

    #[test]
    fn an_order_takes_the_place_of_one_of_its_kind_only() {
        let orders = Orders::default();
        orders.put(order(Wanted::Drain, None));
        orders.put(order(Wanted::Weight(3), None));
        orders.put(order(Wanted::Eject, None));
        orders.put(order(Wanted::Weight(7), None));
        assert_eq!(wanted(&orders.in_force()), [Wanted::Eject, Wanted::Weight(7)]);
        assert_eq!(orders.weight(), Some(7));
    }

    #[test]
    fn what_is_over_ends_and_the_rest_stays() {
        let orders = Orders::default();
        orders.put(order(Wanted::Drain, Some(20)));
        orders.put(order(Wanted::Weight(3), Some(10)));
        assert_eq!(orders.next_end(), Some(Moment::ZERO + Duration::from_secs(10)));
        let now = Moment::ZERO + Duration::from_secs(15);
        let ended = orders.end(|order| order.terms.are_over(now));
        assert_eq!(wanted(&ended), [Wanted::Weight(3)]);
        assert_eq!((orders.weight(), orders.has(Wanted::Drain)), (None, true));
    }
}
