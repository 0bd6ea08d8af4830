//! When waiting does not help any more: CoDel, "controlled delay", of K. Nichols and V. Jacobson
//! (RFC 8289).
//!
//! A good queue absorbs a burst and drains. A bad one stands: whatever arrives waits for what
//! arrived before, and nothing is gained by it. CoDel tells them apart by how long the wait has not
//! been below a `target`: once for a whole `interval`, the queue stands. Then it drops from the
//! queue's head, again and again at shrinking intervals (section 5.5), until the wait is below
//! the target or the queue is empty.
//!
//! RFC 8289 is about packets, whose senders slow down when some are lost. For requests to a server,
//! which must also be answered in time, two things differ:
//!
//! - While a queue stands, the newest request goes first. It is the most likely to be answered in
//!   time, while those that have waited long may have been given up by their clients. This is the
//!   "adaptive LIFO" that B. Maurer describes together with CoDel in *Fail at Scale* (ACM Queue
//!   13/8, 2015). The wait is therefore that of the oldest request, not that of the next.
//! - At most one request is given up with each that gets a slot. Clients that return at once would
//!   otherwise be refused at a rate that only grows, and the gateway would do little else.

use std::time::Duration;

use super::config::Queue;
use crate::time::Moment;

/// Judges a queue each time one of its requests gets a slot.
#[derive(Debug, Default)]
pub(super) struct Codel {
    /// When the queue will have stood for an interval; `None` while the wait is below the target.
    stands_from: Option<Moment>,
    /// The queue stands.
    dropping: bool,
    /// When the next request is given up, while the queue stands.
    next: Moment,
    /// Requests given up since the queue has stood; it says how soon the next one is.
    count: u32,
    /// `count` as it began.
    begun_with: u32,
}

/// If the queue stands again within this many intervals, requests are given up as fast as before.
const RECENT: u32 = 16;

impl Codel {
    /// Whether the queue stands: new requests go first.
    pub(super) fn stands(&self) -> bool {
        self.dropping
    }

    /// Judges a queue of which a request is about to get a slot, by the longest wait in it. Returns
    /// whether the request that has waited longest is given up.
    pub(super) fn judge(&mut self, longest: Duration, terms: &Queue, now: Moment) -> bool {
        if longest < *terms.target {
            self.drained();
            return false;
        }
        match self.stands_from {
            None => {
                self.stands_from = Some(now + *terms.interval);
                return false;
            }
            Some(from) if now < from => return false,
            Some(_) => {}
        }
        if !self.dropping {
            self.begin(terms, now);
            return true;
        }
        if now < self.next {
            return false;
        }
        self.count = self.count.saturating_add(1);
        self.next = self.next + self.pause(terms);
        true
    }

    /// The queue is empty, or as good as empty.
    pub(super) fn drained(&mut self) {
        self.stands_from = None;
        self.dropping = false;
    }

    fn begin(&mut self, terms: &Queue, now: Moment) {
        let more = self.count - self.begun_with;
        let recent = now.since(self.next) < terms.interval.saturating_mul(RECENT);
        self.count = if more > 1 && recent { more } else { 1 };
        self.begun_with = self.count;
        self.dropping = true;
        self.next = now + self.pause(terms);
    }

    /// Until the next request is given up: `interval / √count`.
    fn pause(&self, terms: &Queue) -> Duration {
        terms.interval.div_f64(f64::from(self.count.max(1)).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(5);

    fn terms() -> Queue {
        serde_yaml::from_str("{max: 100}").expect("valid")
    }

    fn at(millis: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(millis)
    }

    /// The milliseconds of `span` at which a request is given up, with a turn in each of them and
    /// always the same wait.
    fn given_up(codel: &mut Codel, wait: Duration, span: std::ops::Range<u64>) -> Vec<u64> {
        span.filter(|&millis| codel.judge(wait, &terms(), at(millis))).collect()
    }

    #[test]
    fn a_wait_below_the_target_is_never_cause_to_give_up() {
        let mut codel = Codel::default();
        assert_eq!(given_up(&mut codel, TARGET - Duration::from_nanos(1), 0..10_000), [0; 0]);
        assert!(!codel.stands());
    }

    #[test]
    fn a_burst_that_drains_within_the_interval_loses_no_request() {
        let mut codel = Codel::default();
        assert_eq!(given_up(&mut codel, TARGET * 10, 0..100), [0; 0]);
        assert_eq!(given_up(&mut codel, Duration::ZERO, 100..101), [0; 0]);
        assert_eq!(given_up(&mut codel, TARGET * 10, 101..201), [0; 0]);
        assert!(!codel.stands());
    }

    #[test]
    fn a_queue_that_stands_is_given_up_by_the_inverse_square_root() {
        let mut codel = Codel::default();
        // 100 ms apart at first, then 100 / √2 = 70.7 ms, then 100 / √3 = 57.7 ms, …
        assert_eq!(given_up(&mut codel, TARGET, 0..500), [100, 200, 271, 329, 379, 424, 464]);
        assert!(codel.stands());
    }

    #[test]
    fn one_short_wait_ends_it() {
        let mut codel = Codel::default();
        given_up(&mut codel, TARGET, 0..150);
        assert!(codel.stands());
        assert_eq!(given_up(&mut codel, Duration::ZERO, 150..151), [0; 0]);
        assert!(!codel.stands());
        assert_eq!(given_up(&mut codel, TARGET, 151..251), [0; 0]);
    }

    #[test]
    fn a_queue_that_soon_stands_again_is_given_up_as_fast_as_before() {
        let mut codel = Codel::default();
        // Seven are given up.
        given_up(&mut codel, TARGET, 0..500);
        codel.drained();
        // 100 / √6 = 41 ms, then 100 / √7 = 38 ms.
        assert_eq!(given_up(&mut codel, TARGET, 500..700), [600, 641, 679]);
        codel.drained();
        // More than sixteen intervals later it begins anew.
        assert_eq!(given_up(&mut codel, TARGET, 2500..2750), [2600, 2700]);
    }
}
