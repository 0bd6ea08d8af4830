//! A request's part in the queue of a bulkhead that is not enforced: see `super::shadow`.

use super::shadow::{Around, Late, Over, Shadow, Vain};
use super::{Bulkhead, Full, State};
use crate::policy::lanes::Hold;
use crate::policy::sync::{MutexGuard, PoisonError, lane};
use crate::time::Moment;

impl Bulkhead {
    /// What [`Bulkhead::acquire`] and [`Bulkhead::wait`] are to an enforced bulkhead with a queue: the
    /// request goes on, and is told at its end what would have become of it.
    ///
    /// # Errors
    /// [`Full`] if it would be refused at once.
    pub fn rehearse(&self, deadline: Option<Moment>, now: Moment) -> Result<Rehearsal, Full> {
        let lane = lane();
        let id = self.0.shadow().arrive(deadline, &View(&self.0, lane), now)?;
        Ok(Rehearsal { bulkhead: self.0.hold_in(lane), id: Some(id) })
    }

    /// Refusals up to `now` that no request has heard of, because it had ended before; each is told once.
    pub fn late_refusals(&self, now: Moment) -> Late {
        self.0.shadow().take_late(&View(&self.0, lane()), now)
    }
}

impl State {
    pub(super) fn shadow(&self) -> MutexGuard<'_, Shadow> {
        // A panic may leave a request in it that is gone: then its numbers are too high by one.
        self.shadow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bulkhead as the simulated queue sees it. Requests admitted before the bulkhead became a dry
/// run still hold slots.
struct View<'a>(&'a State, usize);

impl Around for View<'_> {
    fn slots(&self) -> u32 {
        self.0.slots.capacity().saturating_sub(self.0.slots.taken())
    }

    fn measure(&self, acquired: Moment, held: u32, now: Moment) {
        self.0.measure(self.1, acquired, held, now);
    }
}

/// A request on its way, whose twin may be waiting.
#[must_use = "dropped at once, the request takes no part"]
#[derive(Debug)]
pub struct Rehearsal {
    bulkhead: Hold<State>,
    /// `None` once it is over.
    id: Option<u64>,
}

impl Rehearsal {
    /// The request is over. Returns why its twin was refused, if that is known by now.
    pub fn end(mut self, over: Over, now: Moment) -> Option<Vain> {
        let id = self.id.take()?;
        let view = View(&self.bulkhead, self.bulkhead.lane());
        self.bulkhead.shadow().end(id, over, &view, now)
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.bulkhead.shadow().forget(id, &View(&self.bulkhead, self.bulkhead.lane()));
        }
    }
}
