//! The calls of the last N seconds. Those of the second under way are counted lane by lane; with its
//! end they are put away in one bucket, under a lock, by whoever is first in the next.
//!
//! Within a second no call leaves the window, so one more success can only lower its rates. Once they
//! have been found below their limits, with calls enough, successes need not look at them again until
//! the next second; failures and slow calls always do.

use crossbeam_utils::CachePadded;

use super::{Call, Count, Judgement, Rule};
use crate::policy::lanes::Lanes;
use crate::policy::sync::{AtomicI64, AtomicU64, Mutex, MutexGuard, Ordering, PoisonError, fence};
use crate::time::Moment;

#[derive(Debug)]
pub(super) struct Seconds {
    /// The second under way.
    newest: AtomicU64,
    /// The last second in which enough calls were found to be below the rates, or [`NEVER`].
    judged: AtomicU64,
    /// Failures and slow calls in the window. Counted before they are.
    bad: CachePadded<AtomicI64>,
    /// The calls of the second under way, as `encode` puts them in.
    lanes: Lanes<AtomicU64>,
    /// Held once a second, and to judge; for a few instructions.
    past: CachePadded<Mutex<Past>>,
}

/// What has been put away.
#[derive(Debug)]
struct Past {
    /// Bucket `s % N` is that of second `s`.
    buckets: Box<[Count]>,
    sum: Count,
}

const NEVER: u64 = u64::MAX;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl Seconds {
    pub(super) fn new(seconds: u32) -> Self {
        let buckets = (0..seconds).map(|_| Count::default()).collect();
        Seconds {
            newest: AtomicU64::new(0),
            judged: AtomicU64::new(NEVER),
            bad: CachePadded::default(),
            lanes: Lanes::default(),
            past: CachePadded::new(Mutex::new(Past { buckets, sum: Count::default() })),
        }
    }

    /// Takes in a call; what the rates are then, if it can have raised them above their limits.
    pub(super) fn record(&self, call: Call, rule: Rule, now: Moment) -> Option<Judgement> {
        let second = now.as_nanos() / NANOS_PER_SECOND;
        // Acquire pairs with the Release in `turn_to`. A clock reading that is behind counts as the
        // newest one, and a call that another thread's turn overtakes as one of the next second.
        let begins = second > self.newest.load(Ordering::Acquire);
        if begins {
            self.turn_to(second);
        }
        if call.is_bad() {
            self.bad.fetch_add(call.faults(), Ordering::Relaxed);
        }
        // Release: whoever finds this call finds all that came before it.
        let before = self.lanes.mine().fetch_add(encode(call), Ordering::Release);
        if decode(before).calls >= FULL {
            self.put_away(&mut self.past());
        }
        if begins || call.is_bad() || self.is_in_doubt() { self.judge(rule) } else { None }
    }

    /// Whether a success can have been the call with which the rates are reached.
    fn is_in_doubt(&self) -> bool {
        if self.judged.load(Ordering::Relaxed) == self.newest.load(Ordering::Relaxed) {
            return false;
        }
        // There may be too few calls yet. Either this thread sees the failure of another, or that one,
        // between whose counting and judging is a fence as well, sees this thread's success.
        fence(Ordering::SeqCst);
        self.bad.load(Ordering::Relaxed) > 0
    }

    fn judge(&self, rule: Rule) -> Option<Judgement> {
        fence(Ordering::SeqCst);
        let past = self.past();
        let judgement = rule.judge(past.sum + self.under_way());
        if judgement == Some(Judgement::Below) {
            self.judged.store(self.newest.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        judgement
    }

    /// The calls of this second; under the lock.
    fn under_way(&self) -> Count {
        // Acquire: all that came before a failure which is found in any lane is found in the second
        // round. So the calls are at least those of the moment between the rounds.
        let read = || self.lanes.iter().map(|lane| decode(lane.load(Ordering::Acquire)));
        let bad = read().fold(Count::default(), |sum, lane| sum + lane);
        Count { calls: read().map(|lane| lane.calls).sum(), ..bad }
    }

    /// Begins `second`, unless another thread has.
    fn turn_to(&self, second: u64) {
        let mut past = self.past();
        // Relaxed: changes under the lock only.
        let newest = self.newest.load(Ordering::Relaxed);
        if second <= newest {
            return;
        }
        self.put_away(&mut past);
        let oldest = second.saturating_sub(past.buckets.len() as u64);
        for begun in newest.max(oldest) + 1..=second {
            let forgotten = past.forget(begun);
            self.bad.fetch_sub(forgotten.failed + forgotten.slow, Ordering::Relaxed);
        }
        self.newest.store(second, Ordering::Release);
    }

    /// Empties the lanes into the bucket of the second under way.
    fn put_away(&self, past: &mut Past) {
        let newest = self.newest.load(Ordering::Relaxed);
        for lane in self.lanes.iter() {
            past.put(newest, decode(lane.swap(0, Ordering::AcqRel)));
        }
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        // Nothing under this lock can be left half-done by a panic.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    fn put(&mut self, second: u64, count: Count) {
        self.sum = self.sum + count;
        let bucket = self.bucket(second);
        *bucket = *bucket + count;
    }

    /// Empties the bucket for a second that begins; what was in it.
    fn forget(&mut self, begun: u64) -> Count {
        let forgotten = std::mem::take(self.bucket(begun));
        self.sum = self.sum - forgotten;
        forgotten
    }

    fn bucket(&mut self, second: u64) -> &mut Count {
        let place = second % self.buckets.len() as u64;
        &mut self.buckets[place as usize]
    }
}

/// Calls of one lane and second after which they are put away: well before a part of the word, of
/// which the smallest has 20 bits, could run over.
const FULL: i64 = 1 << 19;
const FAILED_FROM: u32 = 24;
const SLOW_FROM: u32 = 44;

/// A call as one word, so that no reading has one part of it without the others.
fn encode(call: Call) -> u64 {
    1 | u64::from(call.failed) << FAILED_FROM | u64::from(call.slow) << SLOW_FROM
}

fn decode(word: u64) -> Count {
    let part = |from: u32, to: u32| (word >> from & ((1 << (to - from)) - 1)) as i64;
    Count {
        calls: part(0, FAILED_FROM),
        failed: part(FAILED_FROM, SLOW_FROM),
        slow: part(SLOW_FROM, u64::BITS),
    }
}
