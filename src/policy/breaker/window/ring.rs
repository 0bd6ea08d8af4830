//! The results of the last N calls in a ring, and the sum of its contents, so that a rate is known
//! without walking the ring.

use crossbeam_utils::CachePadded;

use super::{Call, Count, Judgement, Place, Rule};
use crate::policy::sync::{AtomicI64, AtomicU8, AtomicUsize, Ordering};

#[derive(Debug)]
pub(super) struct Ring {
    results: Box<[AtomicU8]>,
    /// Written by calls, and on a cache line of its own.
    sum: CachePadded<Sum>,
}

/// Signed, because one thread may remove a call before another has finished adding it.
#[derive(Debug, Default)]
struct Sum {
    turn: AtomicUsize,
    /// At most the number of places, once the ring is full.
    calls: AtomicI64,
    failed: AtomicI64,
    slow: AtomicI64,
    /// Calls that failed or were slow. Incremented before such a call enters the ring and
    /// decremented after it has left: at 0 there is none in the ring.
    bad: AtomicI64,
}

impl Ring {
    pub(super) fn new(calls: u32) -> Self {
        let results = (0..calls).map(|_| AtomicU8::new(EMPTY)).collect();
        Ring { results, sum: CachePadded::default() }
    }

    /// Records a call. Returns what the rates are with it, and its turn.
    pub(super) fn record(&self, call: Call, rule: Rule) -> (Option<Judgement>, Place) {
        if !call.is_bad() && self.is_all_good() {
            // A success replaces a success: the ring does not change. It is never taken back.
            return (Some(Judgement::Below), Place(0));
        }
        let sum = &*self.sum;
        shift(&sum.bad, call.is_bad().into());
        // Relaxed: any order of places will do.
        let turn = sum.turn.fetch_add(1, Ordering::Relaxed);
        let place = turn % self.results.len();
        // AcqRel: a thread that sees the sum without this call sees the ring without it.
        let before = decode(self.results[place].swap(encode(call), Ordering::AcqRel));
        sum.replace(before, call);
        (rule.judge(sum.read()), Place(turn as u64))
    }

    /// Takes a bad call out of the ring, unless another has its place by now. The place stays empty
    /// until its next turn, so that the window holds a call less until then.
    pub(super) fn retract(&self, call: Call, Place(turn): Place) {
        let sum = &*self.sum;
        let turns_since = sum.turn.load(Ordering::Relaxed).wrapping_sub(turn as usize);
        if turns_since > self.results.len() {
            return;
        }
        let place = &self.results[turn as usize % self.results.len()];
        // AcqRel, as in `record`. If the place was taken a moment ago by a call that is as bad, then
        // that one is taken out: the counts are the same.
        let (mine, empty) = (encode(call), EMPTY);
        if place.compare_exchange(mine, empty, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            shift(&sum.failed, -i64::from(call.failed));
            shift(&sum.slow, -i64::from(call.slow));
            sum.calls.fetch_sub(1, Ordering::Release);
            shift(&sum.bad, -i64::from(call.is_bad()));
        }
    }

    fn is_all_good(&self) -> bool {
        // Acquire: see `bad`. A call that is not seen here counts as later.
        self.sum.bad.load(Ordering::Acquire) == 0
            && self.sum.calls.load(Ordering::Acquire) == self.results.len() as i64
    }
}

// The number of calls is written before, and read after, the counts of bad ones (Release, Acquire).
// So a reading never has a failure without its call, and no rate is overestimated.
impl Sum {
    fn replace(&self, before: Option<Call>, call: Call) {
        if before.is_none() {
            self.calls.fetch_add(1, Ordering::Release);
        }
        let before = before.unwrap_or_default();
        shift(&self.failed, i64::from(call.failed) - i64::from(before.failed));
        shift(&self.slow, i64::from(call.slow) - i64::from(before.slow));
        shift(&self.bad, -i64::from(before.is_bad()));
    }

    fn read(&self) -> Count {
        let failed = self.failed.load(Ordering::Acquire);
        let slow = self.slow.load(Ordering::Acquire);
        Count { calls: self.calls.load(Ordering::Acquire), failed, slow }
    }
}

fn shift(counter: &AtomicI64, by: i64) {
    // Most calls are neither failed nor slow, and write nothing.
    if by != 0 {
        counter.fetch_add(by, Ordering::Release);
    }
}

const EMPTY: u8 = 0;
const CALL: u8 = 1;
const FAILED: u8 = 1 << 1;
const SLOW: u8 = 1 << 2;

fn encode(call: Call) -> u8 {
    CALL | if call.failed { FAILED } else { 0 } | if call.slow { SLOW } else { 0 }
}

fn decode(result: u8) -> Option<Call> {
    (result != EMPTY).then_some(Call { failed: result & FAILED != 0, slow: result & SLOW != 0 })
}
