//! The requests that wait for a slot, and whose turn it is. A machine without threads: it is told
//! the time and that a slot is free, and leaves it to its caller to wake those that it names.

use std::collections::BTreeMap;

use super::Full;
use super::codel::Codel;
use super::config::Queue;
use crate::time::Moment;

/// A queue of requests, each with a `W` that wakes it.
#[derive(Debug)]
pub(super) struct Line<W> {
    /// `None`: nothing may wait. Those that wait already stay.
    terms: Option<Queue>,
    /// By their number, and so in the order of arrival.
    waiting: BTreeMap<u64, Waiting<W>>,
    /// What was decided about a request that has not heard of it yet.
    decided: BTreeMap<u64, Verdict>,
    arrivals: u64,
    codel: Codel,
    /// The latest time that the queue was told: a slot that is only dropped tells none.
    latest: Moment,
}

#[derive(Debug)]
struct Waiting<W> {
    since: Moment,
    /// When waiting is over, whatever the queue does.
    until: Moment,
    /// `None` until the request has asked for the first time.
    wake: Option<W>,
}

/// What becomes of a request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has a slot since then.
    Admitted(Moment),
    /// It has waited longest while the queue stood.
    GivenUp,
    /// Its time was over when it was its turn.
    Expired,
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Line {
            terms: None,
            waiting: BTreeMap::new(),
            decided: BTreeMap::new(),
            arrivals: 0,
            codel: Codel::default(),
            latest: Moment::ZERO,
        }
    }
}

impl<W> Line<W> {
    pub(super) fn set_terms(&mut self, terms: Option<Queue>) {
        self.terms = terms;
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a request that may wait until `deadline`. Returns its number, and until when it waits.
    /// In a full queue that stands, it takes the place of the request that has waited longest.
    ///
    /// # Errors
    /// The queue is full, or there is none.
    pub(super) fn enter(
        &mut self,
        deadline: Option<Moment>,
        now: Moment,
        wakes: &mut Vec<W>,
    ) -> Result<(u64, Moment), Full> {
        let terms = self.terms.as_ref().ok_or(Full)?;
        let max = usize::try_from(terms.max.get()).unwrap_or(usize::MAX);
        let until = now + *terms.max_wait;
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        if self.waiting.len() >= max {
            if !self.codel.stands() {
                return Err(Full);
            }
            self.give_up_oldest(wakes);
        }
        self.latest = self.latest.max(now);
        self.arrivals += 1;
        self.waiting.insert(self.arrivals, Waiting { since: now, until, wake: None });
        Ok((self.arrivals, until))
    }

    /// A slot is free, known at `now`: the request whose turn it is gets it. Returns whether there
    /// was one.
    pub(super) fn turn(&mut self, now: Moment, wakes: &mut Vec<W>) -> bool {
        self.latest = self.latest.max(now);
        let now = self.latest;
        self.judge(now, wakes);
        loop {
            let next = if self.codel.stands() {
                self.waiting.pop_last()
            } else {
                self.waiting.pop_first()
            };
            let Some((number, waiting)) = next else {
                self.codel.drained();
                return false;
            };
            let expired = waiting.until <= now;
            let verdict = if expired { Verdict::Expired } else { Verdict::Admitted(now) };
            self.decide(number, verdict, waiting.wake, wakes);
            if !expired {
                self.note_empty();
                return true;
            }
        }
    }

    /// What was decided about request `number`. Until that is known, `wake` will wake it.
    pub(super) fn hear(&mut self, number: u64, wake: W) -> Option<Verdict> {
        match self.waiting.get_mut(&number) {
            Some(waiting) => {
                waiting.wake = Some(wake);
                None
            }
            None => self.decided.remove(&number),
        }
    }

    /// Request `number` does not wait any more. Returns what was decided about it, if it had not
    /// heard of that.
    pub(super) fn leave(&mut self, number: u64) -> Option<Verdict> {
        if self.waiting.remove(&number).is_some() {
            self.note_empty();
            return None;
        }
        self.decided.remove(&number)
    }

    /// Of a single request there is nothing to give up: it gets the slot.
    fn judge(&mut self, now: Moment, wakes: &mut Vec<W>) {
        let Some(terms) = &self.terms else { return };
        let oldest = self.waiting.first_key_value();
        let Some((_, oldest)) = oldest.filter(|_| self.waiting.len() > 1) else {
            return self.codel.drained();
        };
        if self.codel.judge(now.since(oldest.since), terms, now) {
            self.give_up_oldest(wakes);
        }
    }

    /// What comes after an empty queue is another queue.
    fn note_empty(&mut self) {
        if self.waiting.is_empty() {
            self.codel.drained();
        }
    }

    fn give_up_oldest(&mut self, wakes: &mut Vec<W>) {
        if let Some((number, oldest)) = self.waiting.pop_first() {
            self.decide(number, Verdict::GivenUp, oldest.wake, wakes);
        }
    }

    fn decide(&mut self, number: u64, verdict: Verdict, wake: Option<W>, wakes: &mut Vec<W>) {
        self.decided.insert(number, verdict);
        wakes.extend(wake);
    }
}

#[cfg(test)]
mod tests;
