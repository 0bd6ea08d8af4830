//! Weights that an operator orders, in place of those that are configured.
//!
//! One order is in force at a time, for some of the upstreams or for all. It belongs to the upstreams
//! whose weights it sets: one that a reload takes from the list ends its part.

use std::sync::Arc;

use super::config::MAX_WEIGHT;
use super::{NO_ORDER, Share, Split};
use crate::policy::sync::{MutexGuard, Ordering, PoisonError};
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
        let mut ordered = self.terms();
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
        self.set(wanted);
        *ordered = Some(terms);
        Ok(())
    }

    /// The order that is in force.
    pub fn ordered(&self) -> Option<Order> {
        self.with(self.terms().clone())
    }

    fn with(&self, terms: Option<Terms>) -> Option<Order> {
        let weight = |share: &Share| Some((share.name.clone(), share.ordered()?));
        let weights: Vec<_> = self.shares.iter().filter_map(weight).collect();
        terms.filter(|_| !weights.is_empty()).map(|terms| Order { weights, terms })
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
        self.terms().as_ref()?.until
    }

    fn end_if(&self, ends: impl Fn(&Terms) -> bool) -> Option<Order> {
        let mut ordered = self.terms();
        let order = self.with(ordered.take_if(|terms| ends(terms)))?;
        self.set(|_| None);
        Some(order)
    }

    /// Sets the weight of each upstream; `None` is the configured one. Weights that rise are set first,
    /// so that there is one above zero at any moment.
    fn set(&self, wanted: impl Fn(&Share) -> Option<u32>) {
        let change = |share: &'_ Share| {
            let before = i64::from(share.ordered().unwrap_or(share.configured));
            i64::from(wanted(share).unwrap_or(share.configured)) - before
        };
        let mut shares: Vec<_> = self.shares.iter().map(|share| (share, change(share))).collect();
        shares.sort_by_key(|(_, rise)| std::cmp::Reverse(*rise));
        for (share, _) in shares {
            // Relaxed: each weight stands for itself.
            let ordered = wanted(share).map_or(NO_ORDER, u64::from);
            share.state.ordered.store(ordered, Ordering::Relaxed);
        }
    }

    /// Held while weights are set, so that two orders do not mix.
    fn terms(&self) -> MutexGuard<'_, Option<Terms>> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
