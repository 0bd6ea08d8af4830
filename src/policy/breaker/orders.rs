//! What an operator orders of a circuit. The order belongs to the circuit: it survives a reload that does
//! not change the circuit's configuration, and ends with its time, with the next order, or with a reset.

use super::{Breaker, Machine};
use crate::policy::sync::{Mutex, MutexGuard, PoisonError};
use crate::policy::terms::Terms;
use crate::time::Moment;

/// What is wanted of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forced {
    /// Every call is refused.
    Open,
    /// Every call is admitted, and none counted.
    Closed,
}

/// An order in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub wanted: Forced,
    /// On what terms.
    pub terms: Terms,
}

/// That of one circuit. Requests do not look at it: the circuit is in a forced state.
#[derive(Debug, Default)]
pub(super) struct Orders(Mutex<Option<Order>>);

impl Orders {
    fn lock(&self) -> MutexGuard<'_, Option<Order>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Breaker {
    /// Forces the circuit, in place of the order before.
    pub fn order(&self, order: Order) {
        let mut ordered = self.circuit.orders.lock();
        self.circuit.consult(match order.wanted {
            Forced::Open => Machine::force_open,
            Forced::Closed => Machine::force_closed,
        });
        *ordered = Some(order);
    }

    /// Closes the circuit, forgets all results, and ends the order. Returns it.
    pub fn reset(&self, now: Moment) -> Option<Order> {
        let mut ordered = self.circuit.orders.lock();
        self.circuit.consult(|machine| machine.reset(&self.circuit.config, now));
        ordered.take()
    }

    /// If the time of the order is over: the circuit decides again, as after a reset. Returns the order.
    pub fn end_order(&self, now: Moment) -> Option<Order> {
        let mut ordered = self.circuit.orders.lock();
        let over = ordered.take_if(|order| order.terms.are_over(now))?;
        self.circuit.consult(|machine| machine.reset(&self.circuit.config, now));
        Some(over)
    }

    /// The order in force.
    pub fn ordered(&self) -> Option<Order> {
        self.circuit.orders.lock().clone()
    }

    /// When it ends by itself.
    pub fn order_ends(&self) -> Option<Moment> {
        self.circuit.orders.lock().as_ref()?.terms.until
    }
}

/// An order without an end.
#[cfg(test)]
pub(super) fn forced(wanted: Forced) -> Order {
    let terms = Terms { since: Moment::ZERO, until: None, author: None, reason: None };
    Order { wanted, terms }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Breaker, State};
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    fn order(wanted: Forced, seconds: Option<u64>) -> Order {
        let terms = Terms { since: at(0), until: seconds.map(at), author: None, reason: None };
        Order { wanted, terms }
    }

    fn breaker() -> Breaker {
        let config = serde_yaml::from_str("{consecutive: {failures: 2}}").expect("valid");
        Breaker::new(config, at(0))
    }

    #[test]
    fn an_order_ends_with_its_time_and_the_circuit_decides_again() {
        let breaker = breaker();
        breaker.order(order(Forced::Open, Some(10)));
        assert_eq!((breaker.end_order(at(9)), breaker.order_ends()), (None, Some(at(10))));
        assert!(breaker.acquire(at(9)).is_err());
        assert_eq!(breaker.end_order(at(10)), Some(order(Forced::Open, Some(10))));
        assert_eq!(breaker.state(at(10)), State::Closed { failures: 0 });
        assert!(breaker.acquire(at(10)).is_ok());
        assert_eq!((breaker.ordered(), breaker.end_order(at(11))), (None, None));
    }

    #[test]
    fn the_next_order_and_a_reset_take_the_place_of_the_one_before() {
        let breaker = breaker();
        breaker.order(order(Forced::Open, Some(10)));
        breaker.order(order(Forced::Closed, None));
        assert_eq!((breaker.end_order(at(10)), breaker.order_ends()), (None, None));
        assert_eq!(breaker.state(at(10)), State::ForcedClosed);
        assert_eq!(breaker.reset(at(11)), Some(order(Forced::Closed, None)));
        assert_eq!((breaker.reset(at(12)), breaker.ordered()), (None, None));
        assert_eq!(breaker.state(at(12)), State::Closed { failures: 0 });
    }
}
