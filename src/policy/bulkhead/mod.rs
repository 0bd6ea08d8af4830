//! Bulkhead: how many requests may be in flight at once.
//!
//! Try-acquire, no queue: a request that finds no slot is refused at once, so that a slow
//! upstream holds a bounded share of the gateway. The slot is the caller's to hold until the
//! last byte of the answer has left. How many slots there are is fixed, or follows latency.

mod config;
mod gradient;
mod samples;
mod slots;
#[cfg(test)]
mod tests;

pub use config::{Adaptive, Config, Limit, Status};
use gradient::Gradient;
use samples::Samples;
use slots::Slots;

use super::lanes::{Hold, Shared};
use super::sync::{Mutex, PoisonError, TryLockError, lane};
use crate::time::Moment;

/// Counts the requests in flight. A reload with another limit [changes](Bulkhead::reconfigure)
/// it, so that requests in flight stay counted.
#[derive(Debug)]
pub struct Bulkhead(Shared<State>);

#[derive(Debug)]
struct State {
    slots: Slots,
    /// The latencies of this window; untouched while the limit is fixed.
    samples: Samples,
    /// With an adaptive limit. A plain lock, held for a few instructions: once a window by
    /// whoever finds it free, and by a reload.
    gradient: Mutex<Option<Gradient>>,
}

impl Bulkhead {
    pub fn new(config: &Config) -> Self {
        let bulkhead = Bulkhead(Shared::new(State {
            slots: Slots::default(),
            samples: Samples::default(),
            gradient: Mutex::new(None),
        }));
        bulkhead.reconfigure(config);
        bulkhead
    }

    /// Takes a slot, if one is free.
    ///
    /// # Errors
    /// [`Full`] when `capacity` slots, or after it shrank more, are taken.
    pub fn acquire(&self, now: Moment) -> Result<Slot, Full> {
        let lane = lane();
        if !self.0.slots.take(lane) {
            return Err(Full);
        }
        Ok(Slot { bulkhead: self.0.hold_in(lane), acquired: now })
    }

    /// Slots taken now. May exceed the capacity for a while after it shrank.
    pub fn in_flight(&self) -> u32 {
        self.0.slots.taken()
    }

    /// Slots in all, as of now.
    pub fn capacity(&self) -> u32 {
        self.0.slots.capacity()
    }

    /// Changes the limit. Nobody in flight is cut off: fewer slots take effect as requests end.
    /// An adaptive limit goes on from the slots there are.
    pub fn reconfigure(&self, config: &Config) {
        // A panic cannot leave the limit half-changed in a way that matters more than going on.
        let mut gradient = self.0.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = match &config.limit {
            Limit::Fixed(slots) => {
                *gradient = None;
                slots.get()
            }
            Limit::Adaptive(wanted) => {
                if gradient.as_ref().is_none_or(|running| running.config() != wanted) {
                    let fresh = self.capacity() == 0;
                    let slots = if fresh { wanted.initial.get() } else { self.capacity() };
                    *gradient = Some(Gradient::new(wanted, slots));
                }
                gradient.as_ref().map_or(0, Gradient::slots)
            }
        };
        self.0.samples.set_wanted(gradient.is_some());
        self.0.slots.resize(slots);
    }
}

impl State {
    /// Takes in how long a request held its slot, which it still does.
    fn measure(&self, lane: usize, acquired: Moment, now: Moment) {
        if !self.samples.are_wanted() {
            return;
        }
        let in_flight = || self.slots.taken();
        let window_is_full = self.samples.add(lane, now.since(acquired), in_flight, now);
        if !window_is_full {
            return;
        }
        // Whoever comes while another thread does this need not wait for it.
        let mut gradient = match self.gradient.try_lock() {
            Ok(gradient) => gradient,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if let (Some(gradient), Some(window)) = (gradient.as_mut(), self.samples.take(now)) {
            gradient.update(window.mean, window.peak);
            self.slots.resize(gradient.slots());
        }
    }
}

/// A place in the bulkhead, given back when dropped.
#[must_use = "a slot that is dropped at once limits nothing"]
#[derive(Debug)]
pub struct Slot {
    bulkhead: Hold<State>,
    acquired: Moment,
}

impl Slot {
    /// Gives the slot back when the request has been served: an adaptive limit learns how long
    /// that took. From a slot that is only dropped it learns nothing; that is for requests whose
    /// time does not speak for the upstream.
    pub fn release(self, now: Moment) {
        self.bulkhead.measure(self.bulkhead.lane(), self.acquired, now);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.bulkhead.slots.give_back(self.bulkhead.lane());
    }
}

/// Every slot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("every slot of the bulkhead is taken")]
pub struct Full;
