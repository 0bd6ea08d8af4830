//! Bulkhead: how many requests may be in flight at once.
//!
//! No queue: a request that finds no free slot is refused at once, so that a slow upstream takes a
//! bounded share of the gateway. The caller holds the slot until the last byte of the response has
//! left. The number of slots is fixed, or follows latency.

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
    /// The latencies of the current window; unused while the limit is fixed.
    samples: Samples,
    /// Present with an adaptive limit. A plain lock, held for a few instructions: once per window
    /// by a thread that finds it free, and by a reload.
    gradient: Mutex<Option<Gradient>>,
}

impl Bulkhead {
    /// All slots are free; an adaptive limit starts at `initial`.
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
    /// [`Full`] if `capacity` slots are taken, or more after it shrank.
    pub fn acquire(&self, now: Moment) -> Result<Slot, Full> {
        let lane = lane();
        if !self.0.slots.take(lane) {
            return Err(Full);
        }
        Ok(Slot { bulkhead: self.0.hold_in(lane), acquired: now })
    }

    /// Slots taken now. May exceed the capacity for a while after that shrank.
    pub fn in_flight(&self) -> u32 {
        self.0.slots.taken()
    }

    /// Slots in all, as of now.
    pub fn capacity(&self) -> u32 {
        self.0.slots.capacity()
    }

    /// Changes the limit. Requests in flight are not cut off: a lower limit takes effect as they
    /// end. An adaptive limit continues from the current number of slots.
    pub fn reconfigure(&self, config: &Config) {
        // A panic may leave the limit half-changed, but going on does less harm than failing.
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
    /// Records how long a request has held its slot.
    fn measure(&self, lane: usize, acquired: Moment, now: Moment) {
        if !self.samples.are_wanted() {
            return;
        }
        let in_flight = || self.slots.taken();
        let window_is_full = self.samples.add(lane, now.since(acquired), in_flight, now);
        if !window_is_full {
            return;
        }
        // A thread that finds the lock taken need not wait: another is doing this already.
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

/// A slot in the bulkhead, given back when dropped.
#[must_use = "a slot that is dropped at once limits nothing"]
#[derive(Debug)]
pub struct Slot {
    bulkhead: Hold<State>,
    acquired: Moment,
}

impl Slot {
    /// Gives the slot back once the request has been served, so that an adaptive limit learns how
    /// long that took. A slot that is only dropped is not measured: use that for requests whose
    /// time says nothing about the upstream.
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
