//! The latest calls of a closed circuit, counted without a lock for calls that succeed.
//!
//! After resilience4j's sliding windows: the last N [calls](ring), or those of the last N
//! [seconds]. A window lives for one closed phase; later results go to a window that is no longer
//! read. Other modules classify results and trip the circuit.
//!
//! The cost while healthy: for a window of calls nothing once it is full, because one more success
//! among successes changes nothing; for a window of seconds one increment in the thread's own lane.
//! While a window of calls holds a failure or a slow call, its calls need a single order, so
//! threads write to the same cache lines.
//!
//! Counts may lag for an instant, by the results that other threads are adding. Failures are read
//! before the number of calls that includes them, so a rate is never overestimated.

mod ring;
mod seconds;

use std::ops::{Add, Sub};

use ring::Ring;
use seconds::Seconds;

use super::config::{self, Extent};
use crate::time::Moment;
use crate::units::Percent;

/// What a window records about a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) failed: bool,
    pub(super) slow: bool,
}

/// The calls of one closed phase.
#[derive(Debug)]
pub(super) struct Window {
    /// Tickets of earlier generations do not belong to this phase.
    pub(super) since: u64,
    rule: Rule,
    calls: Calls,
}

#[derive(Debug)]
enum Calls {
    Ring(Ring),
    Seconds(Seconds),
}

impl Window {
    pub(super) fn new(config: &config::Window, since: u64) -> Self {
        let calls = match config.extent {
            Extent::Calls(calls) => Calls::Ring(Ring::new(calls)),
            Extent::Seconds(seconds) => Calls::Seconds(Seconds::new(seconds)),
        };
        Window { since, rule: Rule::new(config), calls }
    }

    /// Records a call.
    pub(super) fn record(&self, call: Call, now: Moment) -> Recorded {
        let (judgement, place) = match &self.calls {
            Calls::Ring(ring) => ring.record(call, self.rule),
            Calls::Seconds(seconds) => seconds.record(call, self.rule, now),
        };
        let reached = match judgement {
            Some(Judgement::Reached(count)) => Some(count),
            Some(Judgement::Below) | None => None,
        };
        Recorded { reached, place }
    }

    /// Takes a bad call back that was recorded at `place`, if it is still in the window. Another
    /// thread that judges at this moment may see the call gone and its failure still there, and so
    /// a rate that is too high by this call.
    pub(super) fn retract(&self, call: Call, place: Place) {
        match &self.calls {
            Calls::Ring(ring) => ring.retract(call, place),
            Calls::Seconds(seconds) => seconds.retract(call, place),
        }
    }
}

/// What recording a call has led to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recorded {
    /// The counts, if the circuit must open because of them.
    pub(super) reached: Option<Count>,
    pub(super) place: Place,
}

/// Where a call is in the window: its turn in the ring, or its second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Call {
    fn is_bad(self) -> bool {
        self.failed || self.slow
    }

    fn faults(self) -> i64 {
        i64::from(self.failed) + i64::from(self.slow)
    }
}

/// A number of calls, and how many of them failed or were slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) calls: i64,
    pub(super) failed: i64,
    pub(super) slow: i64,
}

impl Add for Count {
    type Output = Count;

    fn add(self, other: Count) -> Count {
        Count {
            calls: self.calls + other.calls,
            failed: self.failed + other.failed,
            slow: self.slow + other.slow,
        }
    }
}

impl Sub for Count {
    type Output = Count;

    fn sub(self, other: Count) -> Count {
        Count {
            calls: self.calls - other.calls,
            failed: self.failed - other.failed,
            slow: self.slow - other.slow,
        }
    }
}

/// The rates of a window, in millionths: exact for every percentage with up to four decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    minimum_calls: i64,
    failed: i64,
    slow: Option<i64>,
}

/// What the rates say, once there are enough calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// One of the rates is reached, with these counts.
    Reached(Count),
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

    /// The same rates for a window of `calls`, which needs no more calls than that.
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
        Some(if reached { Judgement::Reached(count) } else { Judgement::Below })
    }
}

const MILLION: i64 = 1_000_000;

fn millionths(rate: Percent) -> i64 {
    // At most a million: a share is at most 1. At least 1: a rate of 0 % is refused.
    ((rate.fraction() * MILLION as f64).round() as i64).max(1)
}
