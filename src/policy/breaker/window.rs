//! The latest calls of a closed circuit, counted without a lock.
//!
//! After resilience4j's sliding windows: a ring of the last N results, or N buckets of a second
//! each, and beside either the sum of what it holds, so that a rate costs no walk. A window lives
//! for one closed phase; a result that comes later than that lands in one nobody looks at.
//! Tripping, and what a result is, are left to others.
//!
//! Between two threads the sum may lag behind the ring for an instant, by the results that are
//! being put in: each rate is one of results that did happen.

use super::config::{self, Extent};
use crate::policy::sync::{
    AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Mutex, Ordering, PoisonError,
};
use crate::time::Moment;
use crate::units::Percent;

/// What a window knows of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) failed: bool,
    pub(super) slow: bool,
}

/// The calls of one closed phase.
#[derive(Debug)]
pub(super) struct Window {
    /// Tickets of earlier generations are not of this phase.
    pub(super) since: u64,
    rule: Rule,
    sum: Tally,
    calls: Calls,
}

#[derive(Debug)]
enum Calls {
    Ring { results: Box<[AtomicU8]>, turn: AtomicUsize },
    Seconds(Seconds),
}

/// Calls by the second. Bucket `s % N` is that of second `s`.
#[derive(Debug)]
struct Seconds {
    buckets: Box<[Tally]>,
    /// The second of the youngest bucket.
    newest: AtomicU64,
    /// Held once a second, by whoever is first in it.
    turning: Mutex<()>,
}

impl Window {
    pub(super) fn new(config: &config::Window, since: u64) -> Self {
        let calls = match config.extent {
            Extent::Calls(calls) => Calls::Ring {
                results: (0..calls).map(|_| AtomicU8::new(EMPTY)).collect(),
                turn: AtomicUsize::new(0),
            },
            Extent::Seconds(seconds) => Calls::Seconds(Seconds {
                buckets: (0..seconds).map(|_| Tally::default()).collect(),
                newest: AtomicU64::new(0),
                turning: Mutex::new(()),
            }),
        };
        Window { since, rule: Rule::new(config), sum: Tally::default(), calls }
    }

    /// Takes in a call; whether the circuit must open for it.
    pub(super) fn record(&self, call: Call, now: Moment) -> bool {
        match &self.calls {
            Calls::Ring { results, turn } => {
                // Relaxed: places in the ring are handed out in some order, and that is all.
                let place = turn.fetch_add(1, Ordering::Relaxed) % results.len();
                // Relaxed: a result is one byte; the sums bring their own order.
                let before = results[place].swap(encode(call), Ordering::Relaxed);
                self.sum.replace(decode(before), call);
            }
            Calls::Seconds(seconds) => {
                seconds.turn_to(now, &self.sum);
                seconds.youngest().add(call);
                self.sum.add(call);
            }
        }
        self.rule.judge(self.sum.read()) == Some(Judgement::Reached)
    }
}

impl Seconds {
    fn youngest(&self) -> &Tally {
        // Relaxed: a bucket that has just grown old holds this call as well as the next one; it
        // takes it out of the sum when its turn comes.
        self.bucket(self.newest.load(Ordering::Relaxed))
    }

    fn bucket(&self, second: u64) -> &Tally {
        &self.buckets[(second % self.buckets.len() as u64) as usize]
    }

    /// Empties the buckets of the seconds that have begun since the last call.
    fn turn_to(&self, now: Moment, sum: &Tally) {
        let second = now.as_nanos() / NANOS_PER_SECOND;
        // Acquire pairs with the Release below: who sees the second sees its bucket empty.
        if second <= self.newest.load(Ordering::Acquire) {
            return;
        }
        // Nothing under this lock can be left half-done by a panic.
        let _turn = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.newest.load(Ordering::Relaxed);
        let from = newest.max(second.saturating_sub(self.buckets.len() as u64)) + 1;
        for begun in from..=second {
            sum.subtract(self.bucket(begun).take());
        }
        if second > newest {
            self.newest.store(second, Ordering::Release);
        }
    }
}

/// Calls, and those among them that failed or were slow. Signed, because a call may be taken out
/// by one thread before another has finished putting it in.
#[derive(Debug, Default)]
struct Tally {
    calls: AtomicI64,
    failed: AtomicI64,
    slow: AtomicI64,
}

/// A reading of a [`Tally`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) calls: i64,
    pub(super) failed: i64,
    pub(super) slow: i64,
}

// Calls are written before and read after the parts of them (Release, Acquire), so that no reading
// has a failure without its call: no rate looks higher than it is.
impl Tally {
    fn add(&self, call: Call) {
        self.calls.fetch_add(1, Ordering::Release);
        shift(&self.failed, i64::from(call.failed));
        shift(&self.slow, i64::from(call.slow));
    }

    fn replace(&self, before: Option<Call>, call: Call) {
        let Some(before) = before else { return self.add(call) };
        shift(&self.failed, i64::from(call.failed) - i64::from(before.failed));
        shift(&self.slow, i64::from(call.slow) - i64::from(before.slow));
    }

    fn subtract(&self, count: Count) {
        shift(&self.failed, -count.failed);
        shift(&self.slow, -count.slow);
        shift(&self.calls, -count.calls);
    }

    fn take(&self) -> Count {
        Count {
            failed: self.failed.swap(0, Ordering::AcqRel),
            slow: self.slow.swap(0, Ordering::AcqRel),
            calls: self.calls.swap(0, Ordering::AcqRel),
        }
    }

    fn read(&self) -> Count {
        let failed = self.failed.load(Ordering::Acquire);
        let slow = self.slow.load(Ordering::Acquire);
        Count { calls: self.calls.load(Ordering::Acquire), failed, slow }
    }
}

fn shift(counter: &AtomicI64, by: i64) {
    // Most calls are neither failed nor slow: no write, and the line stays shared.
    if by != 0 {
        counter.fetch_add(by, Ordering::Release);
    }
}

/// The rates of a window, in millionths: exact for every percentage with up to four decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    minimum_calls: i64,
    failed: i64,
    slow: Option<i64>,
}

/// What the rates say about enough calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// One of the rates is reached.
    Reached,
    Below,
}

impl Rule {
    pub(super) fn new(config: &config::Window) -> Self {
        Rule {
            minimum_calls: config.minimum_calls.into(),
            failed: millionths(config.failure_rate),
            slow: config.slow_calls.map(|slow| millionths(slow.rate)),
        }
    }

    /// The same rates for a window of `calls`, which needs no more than those.
    pub(super) fn within(self, calls: u32) -> Self {
        Rule { minimum_calls: self.minimum_calls.min(calls.into()), ..self }
    }

    /// `None` while there are too few calls.
    pub(super) fn judge(self, count: Count) -> Option<Judgement> {
        if count.calls < self.minimum_calls {
            return None;
        }
        let reaches = |part: i64, rate: i64| part * MILLION >= rate * count.calls;
        let reached = reaches(count.failed, self.failed)
            || self.slow.is_some_and(|rate| reaches(count.slow, rate));
        Some(if reached { Judgement::Reached } else { Judgement::Below })
    }
}

const MILLION: i64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

fn millionths(rate: Percent) -> i64 {
    // At most a million: a share is at most 1. At least 1: a rate of 0 % is refused.
    ((rate.fraction() * MILLION as f64).round() as i64).max(1)
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
