//! The queue of a bulkhead with `enforce: false`: what would become of each request if it were enforced.
//!
//! No request waits. But its twin would: for a slot, and then for as long as the request itself took. So
//! requests pass through a simulated queue, with times of their own: one that takes 10 ms, and would
//! have waited for 5, holds its slot until 15 ms after it came. How long it takes is known once it has
//! ended, and its twin ends no sooner; so whatever happens up to now is known by now.
//!
//! It has no thread: it is moved on when a request comes or ends, and when its figures are read.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::Full;
use super::config::Queue;
use super::line::{Line, Verdict};
use crate::time::Moment;

/// Why the twin would have refused a request that it has let wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vain {
    /// It had waited for too long, or longest while the queue stood.
    Wait,
    /// Its own time was over.
    Deadline,
}

impl Vain {
    /// The code of the refusal.
    pub const fn code(self) -> &'static str {
        match self {
            Vain::Wait => "bulkhead_wait_exceeded",
            Vain::Deadline => "deadline_exceeded",
        }
    }
}

/// How a request has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// It was served: an adaptive limit learns from it.
    Served,
    /// Its time says nothing about the upstream.
    Unmeasured,
    /// Its client has left.
    Left,
}

/// Requests that were refused by a twin only after they had ended themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Late {
    /// See [`Vain::Wait`].
    pub wait: u64,
    /// See [`Vain::Deadline`].
    pub deadline: u64,
}

/// What the machine needs of the bulkhead: how many slots there are, and whom to tell how long one was held.
pub(super) trait Around {
    /// Slots that are there for requests of the machine.
    fn slots(&self) -> u32;
    /// A slot was held from `acquired` to `now`, when so many were.
    fn measure(&self, acquired: Moment, held: u32, now: Moment);
}

#[derive(Debug, Default)]
pub(super) struct Shadow {
    line: Line<u64>,
    held: u32,
    arrivals: u64,
    requests: BTreeMap<u64, Request>,
    /// What is certain to happen, the earliest first.
    due: BinaryHeap<Reverse<(Moment, Event)>>,
    late: Late,
    latest: Moment,
}

#[derive(Debug)]
struct Request {
    /// When it came.
    since: Moment,
    /// Whether its own time ends its wait.
    is_own: bool,
    stands: Stands,
    /// How long it took, and whether that is measured; `None` while it is under way.
    took: Option<(Duration, bool)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// With this number in the line.
    Waits(u64),
    Admitted(Moment),
    Refused(Vain),
}

/// Of a request, by its number. Slots come back before waits end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    GivesBack(u64),
    Expires(u64),
}

impl Shadow {
    pub(super) fn set_terms(&mut self, terms: Option<Queue>) {
        self.line.set_terms(terms);
    }

    /// Lets go of all requests: what they end as is not asked any more. Numbers are not given twice.
    pub(super) fn clear(&mut self) {
        *self = Shadow { arrivals: self.arrivals, late: self.late, ..Shadow::default() };
    }

    /// Slots that are held.
    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// Refusals since the last call of this that no request has heard of.
    pub(super) fn take_late(&mut self, around: &impl Around, now: Moment) -> Late {
        self.advance(around, now);
        std::mem::take(&mut self.late)
    }

    /// A request comes. Returns its number.
    ///
    /// # Errors
    /// Its twin is refused at once.
    pub(super) fn arrive(
        &mut self,
        deadline: Option<Moment>,
        around: &impl Around,
        now: Moment,
    ) -> Result<u64, Full> {
        self.advance(around, now);
        let mut stands = Stands::Admitted(now);
        let mut decided = Vec::new();
        let mut is_own = false;
        let id = self.arrivals + 1;
        if self.line.is_empty() && self.held < around.slots() {
            self.held += 1;
        } else {
            let (number, until) = self.line.enter(deadline, now, &mut decided)?;
            self.line.hear(number, id);
            stands = Stands::Waits(number);
            is_own = deadline.is_some_and(|deadline| deadline <= until);
            self.due.push(Reverse((until, Event::Expires(id))));
        }
        self.arrivals = id;
        self.requests.insert(id, Request { since: now, is_own, stands, took: None });
        self.hear(decided);
        // The limit may have risen.
        self.serve(around, now);
        Ok(id)
    }

    /// Request `id` has ended. Returns why its twin was refused, if that is known by now.
    pub(super) fn end(
        &mut self,
        id: u64,
        over: Over,
        around: &impl Around,
        now: Moment,
    ) -> Option<Vain> {
        // A slot that comes back now does so before waits that end now.
        let has_slot = over != Over::Left && self.settle(id, over, now);
        self.advance(around, now);
        if has_slot {
            return None;
        }
        let request = self.requests.get_mut(&id)?;
        let took = now.since(request.since);
        match (request.stands, over) {
            (Stands::Refused(vain), _) => {
                self.requests.remove(&id);
                return Some(vain);
            }
            (Stands::Waits(number), Over::Left) => {
                self.requests.remove(&id);
                self.line.leave(number);
            }
            (Stands::Admitted(_), Over::Left) => {
                request.took = Some((took, false));
                self.due.push(Reverse((now, Event::GivesBack(id))));
                self.advance(around, now);
            }
            (Stands::Waits(_), Over::Served | Over::Unmeasured) => {
                request.took = Some((took, over == Over::Served));
            }
            (Stands::Admitted(_), Over::Served | Over::Unmeasured) => {
                self.settle(id, over, now);
                self.advance(around, now);
            }
        }
        None
    }

    /// If request `id`, which has ended, has a slot by now, it is known when that comes back. Returns
    /// whether it has one.
    fn settle(&mut self, id: u64, over: Over, now: Moment) -> bool {
        let Some(request) = self.requests.get_mut(&id) else { return false };
        let Stands::Admitted(at) = request.stands else { return false };
        let took = now.since(request.since);
        request.took = Some((took, over == Over::Served));
        self.due.push(Reverse((at + took, Event::GivesBack(id))));
        true
    }

    /// Request `id` takes no more part, as of the latest time that is known.
    pub(super) fn forget(&mut self, id: u64, around: &impl Around) {
        let now = self.latest;
        self.end(id, Over::Left, around, now);
    }

    /// Lets happen what is due.
    fn advance(&mut self, around: &impl Around, now: Moment) {
        self.latest = self.latest.max(now);
        while let Some(Reverse((at, event))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            match event {
                Event::GivesBack(id) => self.give_back(id, around, at),
                Event::Expires(id) => {
                    if let Some(Request { stands: Stands::Waits(number), .. }) =
                        self.requests.get(&id)
                    {
                        self.line.leave(*number);
                        self.refuse(id, Verdict::Expired);
                    }
                }
            }
        }
    }

    fn give_back(&mut self, id: u64, around: &impl Around, at: Moment) {
        let Some(request) = self.requests.remove(&id) else { return };
        if let (Stands::Admitted(acquired), Some((_, true))) = (request.stands, request.took) {
            around.measure(acquired, self.held, at);
        }
        self.held = self.held.saturating_sub(1);
        self.serve(around, at);
    }

    /// As the queue itself hands over slots.
    fn serve(&mut self, around: &impl Around, now: Moment) {
        while !self.line.is_empty() && self.held < around.slots() {
            let mut decided = Vec::new();
            if self.line.turn(now, &mut decided) {
                self.held += 1;
            }
            self.hear(decided);
        }
    }

    /// Of these requests something was decided.
    fn hear(&mut self, decided: Vec<u64>) {
        for id in decided {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            let Stands::Waits(number) = request.stands else { continue };
            match self.line.leave(number) {
                Some(Verdict::Admitted(at)) => {
                    request.stands = Stands::Admitted(at);
                    if let Some((took, _)) = request.took {
                        self.due.push(Reverse((at + took, Event::GivesBack(id))));
                    }
                }
                Some(verdict @ (Verdict::GivenUp | Verdict::Expired)) => self.refuse(id, verdict),
                None => {}
            }
        }
    }

    fn refuse(&mut self, id: u64, verdict: Verdict) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let vain = match verdict {
            Verdict::Expired if request.is_own => Vain::Deadline,
            Verdict::Expired | Verdict::GivenUp | Verdict::Admitted(_) => Vain::Wait,
        };
        if request.took.is_none() {
            request.stands = Stands::Refused(vain);
            return;
        }
        self.requests.remove(&id);
        match vain {
            Vain::Wait => self.late.wait += 1,
            Vain::Deadline => self.late.deadline += 1,
        }
    }
}

#[cfg(test)]
mod tests;
