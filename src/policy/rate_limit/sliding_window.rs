//! The sliding window, estimated from two counts: requests admitted in the current window, and
//! those of the last one, weighted by the share of it that a window ending now would still cover.
//!
//! Windows lie on one grid for all keys. A key's state is one word: the number of a window and the
//! two counts. Each count gets as many bits as the limit needs, the number gets the rest.

use std::time::Duration;

use super::Verdict;
use super::config::SlidingWindow;
use super::table::{States, Step};
use crate::time::Moment;

/// A limit, compiled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Units per window.
    limit: u64,
    /// Units a request takes; at most `limit`.
    cost: u64,
    /// The length of a window in nanoseconds.
    window: u64,
    /// The size of a count in bits.
    bits: u32,
    /// The table uses the topmost bit itself. With the highest limit 23 bits are left: the number
    /// of a window of 1 s repeats after 97 days, and a key that was silent for exactly that long
    /// seems to have made its requests just now.
    number_mask: u64,
}

/// A key's counts at one moment.
#[derive(Clone, Copy, Debug)]
struct Counts {
    number: u64,
    /// Units taken in the window before.
    before: u64,
    /// Units taken in this window.
    count: u64,
    /// How much of this window has passed, in nanoseconds.
    elapsed: u64,
    /// How far the caller's clock reading is behind this window, in nanoseconds.
    behind: u64,
}

impl Rule {
    pub(super) fn new(config: &SlidingWindow, cost: u32) -> Self {
        let bits = u32::BITS - config.requests.leading_zeros();
        Rule {
            limit: config.requests.into(),
            cost: cost.into(),
            // At most 366 days.
            window: u64::try_from(config.per.as_nanos()).unwrap_or(u64::MAX),
            bits,
            number_mask: (1 << (63 - 2 * bits)) - 1,
        }
    }

    /// The state without the request that was counted in it at `counted`; `None` if that no longer
    /// weighs anything.
    pub(super) fn refund(&self, state: u64, counted: Moment) -> Option<u64> {
        let (number, before, count) = self.unpack(state);
        let passed = number.wrapping_sub(self.number(counted)) & self.number_mask;
        match passed {
            0 => Some(self.pack(number, before, count.checked_sub(self.cost)?)),
            1 => Some(self.pack(number, before.checked_sub(self.cost)?, count)),
            _ => None,
        }
    }

    fn number(&self, now: Moment) -> u64 {
        (now.as_nanos() / self.window) & self.number_mask
    }

    fn unpack(&self, state: u64) -> (u64, u64, u64) {
        let mask = (1 << self.bits) - 1;
        (state >> (2 * self.bits), state >> self.bits & mask, state & mask)
    }

    fn pack(&self, number: u64, before: u64, count: u64) -> u64 {
        (number << self.bits | before) << self.bits | count
    }

    fn counts(&self, state: u64, now: Moment) -> Counts {
        let (kept, before, count) = self.unpack(state);
        let number = self.number(now);
        let elapsed = now.as_nanos() % self.window;
        let passed = number.wrapping_sub(kept) & self.number_mask;
        if passed == 0 {
            return Counts { number, before, count, elapsed, behind: 0 };
        }
        if passed == self.number_mask {
            // Another thread with a newer clock reading has begun the next window.
            let behind = self.window - elapsed;
            return Counts { number: kept, before, count, elapsed: 0, behind };
        }
        let before = if passed == 1 { count } else { 0 };
        Counts { number, before, count: 0, elapsed, behind: 0 }
    }

    fn used(&self, counts: &Counts) -> u64 {
        counts.count + multiply_divide(counts.before, self.window - counts.elapsed, self.window)
    }

    fn verdict(&self, counts: &Counts, admitted: bool) -> Verdict {
        let room_for_one = self.limit - self.cost + 1;
        let retry_after = if admitted { 0 } else { self.time_until(counts, room_for_one) };
        Verdict {
            admitted,
            limit: (self.limit / self.cost) as u32,
            remaining: (self.limit.saturating_sub(self.used(counts)) / self.cost) as u32,
            reset_after: Duration::from_nanos(self.time_until(counts, 1)),
            retry_after: Duration::from_nanos(retry_after),
        }
    }

    /// Nanoseconds until fewer than `below` units weigh, if no more are taken.
    fn time_until(&self, counts: &Counts, below: u64) -> u64 {
        let in_window = if counts.count < below {
            self.fades_at(counts.before, below - counts.count).saturating_sub(counts.elapsed)
        } else {
            self.window - counts.elapsed + self.fades_at(counts.count, below)
        };
        counts.behind + in_window
    }

    /// The first nanosecond of a window at which `before` units of the last one weigh less than
    /// `below`, which is at least 1: the least `e` with `before x (window - e) < below x window`.
    fn fades_at(&self, before: u64, below: u64) -> u64 {
        if before < below {
            return 0;
        }
        let numerator = u128::from(below) * u128::from(self.window);
        // At most `window`, because `before` is at least `below`.
        let most = numerator.div_ceil(before.into()) as u64;
        self.window - most + 1
    }
}

impl States for Rule {
    type Answer = Verdict;

    fn step(&self, state: u64, now: Moment) -> Step<Verdict> {
        let mut counts = self.counts(state, now);
        let room = (self.limit + 1).saturating_sub(counts.count + self.cost);
        // `count + floor(before x left / window) + cost <= limit`, without the division.
        let left = u128::from(self.window - counts.elapsed);
        let admitted =
            u128::from(counts.before) * left < u128::from(room) * u128::from(self.window);
        if !admitted {
            return Step { next: None, answer: self.verdict(&counts, false) };
        }
        counts.count += self.cost;
        let next = self.pack(counts.number, counts.before, counts.count);
        Step { next: Some(next), answer: self.verdict(&counts, true) }
    }

    /// The units that still weigh.
    fn worth(&self, state: u64, now: Moment) -> u64 {
        self.used(&self.counts(state, now))
    }

    fn join(&self, one: u64, other: u64, now: Moment) -> u64 {
        let (a, b) = (self.counts(one, now), self.counts(other, now));
        // One of the two may already be in the next window.
        let number = if a.behind > 0 { a.number } else { b.number };
        let [a, b] = [a, b].map(|counts| match counts.number == number {
            true => (counts.before, counts.count),
            false => (counts.count, 0),
        });
        self.pack(number, a.0.max(b.0), a.1.max(b.1))
    }

    /// All keys share one grid of windows, so a newcomer takes the floor as it is.
    fn begin(&self, floor: u64, _: Moment) -> u64 {
        floor
    }
}

/// `a x b / c`, rounded down, for `b` up to `c`.
fn multiply_divide(a: u64, b: u64, c: u64) -> u64 {
    match a.checked_mul(b) {
        Some(product) => product / c,
        None => (u128::from(a) * u128::from(b) / u128::from(c)) as u64,
    }
}
