//! Bulkhead: how many requests may be in flight at once.
//!
//! A request that finds no free slot is refused at once, so that a slow upstream takes a bounded
//! share of the gateway; or it [waits](Bulkhead::wait), where a queue is configured. The caller holds
//! the slot until the last byte of the response has left. The number of slots is fixed, or follows
//! latency. One [caller](Bulkhead::share) may be bound to a part of them.

mod codel;
mod config;
mod gradient;
mod line;
mod queue;
mod rehearsal;
mod samples;
mod shadow;
mod share;
mod slots;
#[cfg(test)]
mod tests;

use std::hash::RandomState;
use std::task::Waker;

pub use config::{Adaptive, Config, Limit, PerConsumer, Queue, Status};
use gradient::Gradient;
use line::Line;
pub use queue::{InVain, Ticket};
pub use rehearsal::Rehearsal;
use samples::Samples;
use shadow::Shadow;
pub use shadow::{Late, Over, Vain};
use share::Shares;
pub use share::{CallerFull, Share};
use slots::Slots;

use super::dry_run::Enforce;
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
    /// The requests that wait. A plain lock, held for a few instructions: by requests that find no
    /// free slot, and by those that give one back meanwhile.
    line: Mutex<Line<Waker>>,
    /// The same of requests that only would wait, where the bulkhead is a dry run with a queue. A plain
    /// lock, too, which each of them takes twice.
    shadow: Mutex<Shadow>,
    /// What callers hold. A plain lock, held for a look into a table: twice by each request of a route with
    /// `per_consumer`.
    shares: Mutex<Shares>,
    /// Keyed at random, so that a client cannot choose names that collide.
    hasher: RandomState,
}

impl Bulkhead {
    /// All slots are free; an adaptive limit starts at `initial`.
    pub fn new(config: &Config) -> Self {
        let bulkhead = Bulkhead(Shared::new(State {
            slots: Slots::default(),
            samples: Samples::default(),
            gradient: Mutex::new(None),
            line: Mutex::new(Line::default()),
            shadow: Mutex::new(Shadow::default()),
            shares: Mutex::new(Shares::default()),
            hasher: RandomState::new(),
        }));
        // No request waits yet.
        bulkhead.reconfigure(config, Moment::ZERO);
        bulkhead
    }

    /// Takes a slot, if one is free and no request waits for it.
    ///
    /// # Errors
    /// [`Full`] if `capacity` slots are taken, or more after it shrank; or if requests wait.
    pub fn acquire(&self, now: Moment) -> Result<Slot, Full> {
        let lane = lane();
        if !self.0.slots.take(lane) {
            return Err(Full);
        }
        Ok(Slot { bulkhead: self.0.hold_in(lane), at: now })
    }

    /// Slots taken now, or that would be in a dry run with a queue. May exceed the capacity for a while
    /// after that shrank.
    pub fn in_flight(&self) -> u32 {
        self.0.slots.taken() + self.0.shadow().held()
    }

    /// Slots in all, as of now.
    pub fn capacity(&self) -> u32 {
        self.0.slots.capacity()
    }

    /// Changes the limit. Requests in flight are not cut off: a lower limit takes effect as they
    /// end. Requests that wait get the slots of a higher one. An adaptive limit continues from the
    /// current number of slots.
    pub fn reconfigure(&self, config: &Config, now: Moment) {
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
        self.0.shares().set_terms(config.per_consumer.clone());
        self.0.line().set_terms(config.queue.clone());
        match (config.enforce, &config.queue) {
            (Enforce::No, Some(queue)) => self.0.shadow().set_terms(Some(queue.clone())),
            // Its requests end without a slot.
            (Enforce::Yes, _) | (Enforce::No, None) => self.0.shadow().clear(),
        }
        if self.0.slots.resize(slots) {
            self.0.serve(lane(), now);
        }
    }
}

impl State {
    /// Records how long a request has held its slot. `besides`: slots held only in the simulation.
    fn measure(&self, lane: usize, acquired: Moment, besides: u32, now: Moment) {
        if !self.samples.are_wanted() {
            return;
        }
        let in_flight = || self.slots.taken() + besides;
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
            // The slot that was measured is about to come back: then those that wait are served.
            self.slots.resize(gradient.slots());
        }
    }

    /// A slot that is free since `now` goes to a request that waits, if there is one.
    fn give_back(&self, lane: usize, now: Moment) {
        if self.slots.give_back(lane) {
            self.serve(lane, now);
        }
    }
}

/// A slot in the bulkhead, given back when dropped.
#[must_use = "a slot that is dropped at once limits nothing"]
#[derive(Debug)]
pub struct Slot {
    bulkhead: Hold<State>,
    /// When it was taken; when it was given back, if that was said.
    at: Moment,
}

impl Slot {
    /// Gives the slot back once the request has been served, so that an adaptive limit learns how
    /// long that took. A slot that is only dropped is not measured: use that for requests whose
    /// time says nothing about the upstream.
    pub fn release(mut self, now: Moment) {
        self.bulkhead.measure(self.bulkhead.lane(), self.at, 0, now);
        self.at = now;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.bulkhead.give_back(self.bulkhead.lane(), self.at);
    }
}

/// Every slot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("every slot of the bulkhead is taken")]
pub struct Full;
