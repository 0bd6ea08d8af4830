//! Waiting for a slot: from the place in the queue to the slot, or to the end of patience.
//!
//! A slot that comes back while requests wait is handed to the one whose turn it is; none that
//! arrives can take it before. Each has a [`Ticket`], which it polls and which wakes it. What a
//! ticket was given and has not taken goes on to the next one when it is dropped: no slot is lost.

use std::task::{Poll, Waker};

use super::line::{Line, Verdict};
use super::{Bulkhead, Full, Slot, State};
use crate::policy::lanes::Hold;
use crate::policy::sync::{MutexGuard, PoisonError, lane};
use crate::time::Moment;

impl Bulkhead {
    /// Takes a place in the queue for a request that found no free slot. It waits at most as long as
    /// the queue allows, and not beyond its `deadline`.
    ///
    /// # Errors
    /// [`Full`] if the queue is full, or if there is none.
    pub fn wait(&self, deadline: Option<Moment>, now: Moment) -> Result<Ticket, Full> {
        let lane = lane();
        let mut wakes = Vec::new();
        let mut line = self.0.line();
        let was_empty = line.is_empty();
        let (number, until) = line.enter(deadline, now, &mut wakes)?;
        if was_empty {
            self.0.slots.set_waited_for(true);
        }
        // A slot may have come back before it was known that one is waited for.
        self.0.hand_over(&mut line, lane, now, &mut wakes);
        drop(line);
        wake(wakes);
        Ok(Ticket { bulkhead: Some(self.0.hold_in(lane)), number, until })
    }

    /// Requests that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.0.line().len()
    }
}

impl State {
    pub(super) fn line(&self) -> MutexGuard<'_, Line<Waker>> {
        // A panic may leave a request in the queue that is gone. Its time will be over.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the free slots to those that wait, as far as they go. `now` is when they became known
    /// to be free.
    pub(super) fn serve(&self, lane: usize, now: Moment) {
        let mut wakes = Vec::new();
        self.hand_over(&mut self.line(), lane, now, &mut wakes);
        wake(wakes);
    }

    fn hand_over(&self, line: &mut Line<Waker>, lane: usize, now: Moment, wakes: &mut Vec<Waker>) {
        while !line.is_empty() && self.slots.take_for_waiting(lane) {
            if !line.turn(now, wakes) {
                // All that waited have waited for too long. The next that arrives finds the slot.
                self.slots.give_back(lane);
            }
        }
        if line.is_empty() {
            self.slots.set_waited_for(false);
        }
    }
}

/// Without the lock: a waker may drop the last hold of a request, and so its ticket.
fn wake(wakes: Vec<Waker>) {
    wakes.into_iter().for_each(Waker::wake);
}

/// A place in the queue of a bulkhead, given up when dropped.
#[must_use = "a ticket that is dropped at once has not waited"]
#[derive(Debug)]
pub struct Ticket {
    /// `None` once the wait is over.
    bulkhead: Option<Hold<State>>,
    number: u64,
    until: Moment,
}

impl Ticket {
    /// When the request has waited long enough. To drop the ticket then is up to its holder; the
    /// queue itself only looks at it when it is the request's turn.
    pub fn until(&self) -> Moment {
        self.until
    }

    /// Whether the wait is over, with a slot or without one. If not, `waker` is woken once it is. Not
    /// to be called again after that.
    ///
    /// # Errors
    /// Why the request gets no slot.
    pub fn poll(&mut self, waker: &Waker) -> Poll<Result<Slot, InVain>> {
        let Some(bulkhead) = &self.bulkhead else { return Poll::Pending };
        let Some(verdict) = bulkhead.line().hear(self.number, waker.clone()) else {
            return Poll::Pending;
        };
        Poll::Ready(match (verdict, self.bulkhead.take()) {
            (Verdict::Admitted(at), Some(bulkhead)) => Ok(Slot { bulkhead, at }),
            (Verdict::GivenUp, _) => Err(InVain::Overload),
            (Verdict::Expired | Verdict::Admitted(_), _) => Err(InVain::Expired),
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(bulkhead) = &self.bulkhead else { return };
        let mut line = bulkhead.line();
        let verdict = line.leave(self.number);
        if line.is_empty() {
            bulkhead.slots.set_waited_for(false);
        }
        drop(line);
        match verdict {
            Some(Verdict::Admitted(at)) => bulkhead.give_back(bulkhead.lane(), at),
            Some(Verdict::GivenUp | Verdict::Expired) | None => {}
        }
    }
}

/// Why a request that waited got no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InVain {
    /// It had waited longest while the queue stood.
    Overload,
    /// Its time was over.
    Expired,
}

#[cfg(test)]
mod tests;
