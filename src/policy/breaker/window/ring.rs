//! The results of the last N calls, in a ring, and beside it the sum of what it holds, so that a rate
//! costs no walk.

use crossbeam_utils::CachePadded;

use super::{Call, Count, Judgement, Rule};
use crate::policy::sync::{AtomicI64, AtomicU8, AtomicUsize, Ordering};

#[derive(Debug)]
pub(super) struct Ring {
    results: Box<[AtomicU8]>,
    /// What calls write, on a line that nobody reads for anything else.
    sum: CachePadded<Sum>,
}

/// Signed, because a call may be taken out by one thread before another has finished putting it in.
#[derive(Debug, Default)]
struct Sum {
    turn: AtomicUsize,
    /// Never more than there are places: full.
    calls: AtomicI64,
    failed: AtomicI64,
    slow: AtomicI64,
    /// Calls that failed or were slow. Counted before one is put into the ring until after it has
    /// left: at 0 there is none in it.
    bad: AtomicI64,
}

impl Ring {
    pub(super) fn new(calls: u32) -> Self {
        let results = (0..calls).map(|_| AtomicU8::new(EMPTY)).collect();
        Ring { results, sum: CachePadded::default() }
    }

    /// Takes in a call; what the rates are then.
    pub(super) fn record(&self, call: Call, rule: Rule) -> Option<Judgement> {
        if !call.is_bad() && self.is_all_good() {
            // A success in place of a success: the ring stays what it is.
            return Some(Judgement::Below);
        }
        let sum = &*self.sum;
        shift(&sum.bad, call.is_bad().into());
        // Relaxed: places in the ring are handed out in some order, and that is all.
        let place = sum.turn.fetch_add(1, Ordering::Relaxed) % self.results.len();
        // AcqRel: whoever finds the sum without this call finds the ring without it.
        let before = decode(self.results[place].swap(encode(call), Ordering::AcqRel));
        sum.replace(before, call);
        rule.judge(sum.read())
    }

    fn is_all_good(&self) -> bool {
        // Acquire: see `bad`. A call that is not seen here comes after this one.
        self.sum.bad.load(Ordering::Acquire) == 0
            && self.sum.calls.load(Ordering::Acquire) == self.results.len() as i64
    }
}

// Calls are written before and read after the parts of them (Release, Acquire), so that no reading
// has a failure without its call: no rate looks higher than it is.
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
