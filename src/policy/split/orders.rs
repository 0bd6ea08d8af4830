//! Weights that an operator orders, in place of those that are configured.
//!
//! One order is in force at a time, for some of the upstreams or for all. It belongs to the upstreams
//! whose weights it sets: one that a reload takes from the list ends its part.

use std::sync::Arc;

use super::config::MAX_WEIGHT;
use super::{Share, Split, State};
use crate::policy::sync::{MutexGuard, PoisonError};
use crate::policy::terms::Terms;
use crate::time::Moment;

/// An order in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The upstreams whose weights it sets, and these.
    pub weights: Vec<(Arc<str>, u32)>,
    /// On what terms.
    pub terms: Terms,
}

/// An order as requests read it, put in place as a whole.
#[derive(Debug)]
pub(super) struct Ordered {
    weights: Vec<(Arc<State>, u32)>,
    terms: Terms,
}

impl Ordered {
    /// The weight that it sets, if it concerns this upstream. There are few of them.
    pub(super) fn weight(&self, share: &Share) -> Option<u32> {
        let mut weights = self.weights.iter();
        weights.find(|(state, _)| Arc::ptr_eq(state, &share.state)).map(|(_, weight)| *weight)
    }
}

/// Why an order is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It names no upstream.
    Empty,
    /// The route has no such upstream.
    Unknown(String),
    /// It names one twice.
    Twice(String),
    /// The weight is more than a configuration may have.
    TooMuch(String),
    /// No upstream would have a weight above zero.
    NothingLeft,
}

impl Split {
    /// Sets the weights of these upstreams; the others have those that are configured. Takes the place
    /// of the order before.
    ///
    /// # Errors
    /// Why it does not.
    pub fn order(&self, weights: &[(String, u32)], terms: Terms) -> Result<(), Refused> {
        let _ordering = self.ordering();
        for (place, (name, weight)) in weights.iter().enumerate() {
            if !self.shares.iter().any(|share| *share.name == **name) {
                return Err(Refused::Unknown(name.clone()));
            }
            if weights[..place].iter().any(|(other, _)| other == name) {
                return Err(Refused::Twice(name.clone()));
            }
            if *weight > MAX_WEIGHT {
                return Err(Refused::TooMuch(name.clone()));
            }
        }
        let wanted = |share: &Share| {
            weights.iter().find(|(name, _)| **name == *share.name).map(|(_, weight)| *weight)
        };
        if weights.is_empty() {
            return Err(Refused::Empty);
        }
        if self.shares.iter().all(|share| wanted(share).unwrap_or(share.configured) == 0) {
            return Err(Refused::NothingLeft);
        }
        let of = |share: &Share| Some((share.state.clone(), wanted(share)?));
        let weights = self.shares.iter().filter_map(of).collect();
        self.ordered.store(Some(Arc::new(Ordered { weights, terms })));
        Ok(())
    }

    /// The order that is in force.
    pub fn ordered(&self) -> Option<Order> {
        let ordered = self.ordered.load();
        let ordered = ordered.as_ref()?;
        let weight = |share: &Share| Some((share.name.clone(), ordered.weight(share)?));
        let weights: Vec<_> = self.shares.iter().filter_map(weight).collect();
        (!weights.is_empty()).then(|| Order { weights, terms: ordered.terms.clone() })
    }

    /// Puts the configured weights back. Returns the order that was in force.
    pub fn withdraw(&self) -> Option<Order> {
        self.end_if(|_| true)
    }

    /// The same, if the time of the order is over.
    pub fn end_order(&self, now: Moment) -> Option<Order> {
        self.end_if(|terms| terms.are_over(now))
    }

    /// When the order ends by itself.
    pub fn order_ends(&self) -> Option<Moment> {
        self.ordered.load().as_ref()?.terms.until
    }

    fn end_if(&self, ends: impl Fn(&Terms) -> bool) -> Option<Order> {
        let _ordering = self.ordering();
        if !self.ordered.load().as_ref().is_some_and(|ordered| ends(&ordered.terms)) {
            return None;
        }
        let order = self.ordered();
        self.ordered.store(None);
        order
    }

    /// Held while an order takes the place of another, so that each ends once.
    fn ordering(&self) -> MutexGuard<'_, ()> {
        self.ordering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
