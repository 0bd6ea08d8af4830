//! The calls of the last N seconds. Those of the current second are counted lane by lane; the first
//! thread in the next second moves them into one bucket, under a lock.
//!
//! Within a second no call leaves the window, so one more success can only lower the rates. Once
//! the rates have been found below their limits, with enough calls, successes need not check them
//! again until the next second. Failures and slow calls always do.

use crossbeam_utils::CachePadded;

use super::{Call, Count, Judgement, Place, Rule};
use crate::policy::lanes::Lanes;
use crate::policy::sync::{AtomicI64, AtomicU64, Mutex, MutexGuard, Ordering, PoisonError, fence};
use crate::time::Moment;

#[derive(Debug)]
pub(super) struct Seconds {
    /// The current second.
    newest: AtomicU64,
    /// The last second in which there were enough calls with rates below the limits, or [`NEVER`].
    judged: AtomicU64,
    /// Failures and slow calls in the window. Incremented before the call itself is counted.
    bad: CachePadded<AtomicI64>,
    /// The calls of the current second, as `encode` packs them.
    lanes: Lanes<AtomicU64>,
    /// Locked once a second, and to judge; for a few instructions.
    past: CachePadded<Mutex<Past>>,
}

/// The counts of earlier seconds.
#[derive(Debug)]
struct Past {
    /// Bucket `s % N` holds second `s`.
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

    /// Records a call. Returns what the rates are, if the call can have raised them above their
    /// limits, and its second.
    pub(super) fn record(&self, call: Call, rule: Rule, now: Moment) -> (Option<Judgement>, Place) {
        let second = now.as_nanos() / NANOS_PER_SECOND;
        // Acquire pairs with the Release in `turn_to`. An older clock reading counts as the newest
        // one. If another thread begins the next second meanwhile, this call counts there.
        let begins = second > self.newest.load(Ordering::Acquire);
        if begins {
            self.turn_to(second);
        }
        if call.is_bad() {
            self.bad.fetch_add(call.faults(), Ordering::Relaxed);
        }
        // Release: a thread that sees this call sees all earlier ones.
        let before = self.lanes.mine().fetch_add(encode(call), Ordering::Release);
        if decode(before).calls >= FULL {
            self.put_away(&mut self.past());
        }
        let is_judged = begins || call.is_bad() || self.is_in_doubt();
        let judgement = if is_judged { self.judge(rule) } else { None };
        (judgement, Place(self.newest.load(Ordering::Relaxed)))
    }

    /// Takes a bad call back that was counted in this second, if the second is in the window. If
    /// another second began while it was counted, the call may be in the one before. Then it is
    /// missing for a second longer.
    pub(super) fn retract(&self, call: Call, Place(second): Place) {
        let mut past = self.past();
        // Relaxed: only changed under the lock.
        if self.newest.load(Ordering::Relaxed).saturating_sub(second) >= past.buckets.len() as u64 {
            return;
        }
        let (failed, slow) = (i64::from(call.failed), i64::from(call.slow));
        past.put(second, Count::default() - Count { calls: 1, failed, slow });
        self.bad.fetch_sub(call.faults(), Ordering::Relaxed);
        // With fewer calls, the share of slow ones may be higher than it was.
        self.judged.store(NEVER, Ordering::Relaxed);
    }

    /// Whether this success can be the call that makes a rate reach its limit.
    fn is_in_doubt(&self) -> bool {
        if self.judged.load(Ordering::Relaxed) == self.newest.load(Ordering::Relaxed) {
            return false;
        }
        // There may have been too few calls so far. Either this thread sees another thread's
        // failure, or that thread, which has a fence between counting and judging too, sees this
        // thread's success.
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

    /// The calls of the current second. To be called under the lock.
    fn under_way(&self) -> Count {
        // Acquire: the second round sees everything that preceded a failure seen in any lane. So
        // the number of calls is at least that of the moment between the rounds.
        let read = || self.lanes.iter().map(|lane| decode(lane.load(Ordering::Acquire)));
        let bad = read().fold(Count::default(), |sum, lane| sum + lane);
        Count { calls: read().map(|lane| lane.calls).sum(), ..bad }
    }

    /// Starts `second`, unless another thread has done so.
    fn turn_to(&self, second: u64) {
        let mut past = self.past();
        // Relaxed: only changed under the lock.
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

    /// Moves the counts of the lanes into the bucket of the current second.
    fn put_away(&self, past: &mut Past) {
        let newest = self.newest.load(Ordering::Relaxed);
        for lane in self.lanes.iter() {
            past.put(newest, decode(lane.swap(0, Ordering::AcqRel)));
        }
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        // A panic cannot leave anything half-done under this lock.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    fn put(&mut self, second: u64, count: Count) {
        self.sum = self.sum + count;
        let bucket = self.bucket(second);
        *bucket = *bucket + count;
    }

    /// Empties the bucket for a second that begins, and returns what it held.
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

/// The number of calls in one lane and second at which they are moved to the bucket. The smallest
/// part of the word has 20 bits, so none overflows before that.
const FULL: i64 = 1 << 19;
const FAILED_FROM: u32 = 24;
const SLOW_FROM: u32 = 44;

/// A call as one word, so that its counts are always read together.
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
