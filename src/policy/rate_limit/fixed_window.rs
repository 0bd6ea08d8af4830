//! The fixed window: a number of requests from the first one until the window ends.
//!
//! A key's window is one word: its end in milliseconds, and the units taken in it. The end is
//! rounded up, so a window may last up to 1 ms longer than configured, never less.

use std::time::Duration;

use super::Verdict;
use super::config::FixedWindow;
use super::table::{States, Step};
use crate::time::Moment;

/// The low bits hold the count (up to 1,000,000), the next 43 the end, which lasts 278 years. The
/// table uses the topmost bit itself.
const COUNT_BITS: u32 = 20;
const END_BITS: u32 = 43;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const END_MASK: u64 = (1 << END_BITS) - 1;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// A limit, compiled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Units per window.
    limit: u32,
    /// Units a request takes; at most `limit`.
    cost: u32,
    per: Duration,
}

/// A key's window.
#[derive(Clone, Copy)]
struct Window {
    /// In milliseconds.
    end: u64,
    count: u32,
}

impl Rule {
    pub(super) fn new(config: &FixedWindow, cost: u32) -> Self {
        Rule { limit: config.requests, cost, per: *config.per }
    }

    /// The state without the request that was counted in it at `counted`; `None` if that window is
    /// over.
    pub(super) fn refund(&self, state: u64, counted: Moment) -> Option<u64> {
        let Window { end, count } = Window::unpack(state);
        // All requests of a window come no earlier than its first one.
        let is_of_it = self.end_from(counted) >= end;
        let left = count.checked_sub(self.cost).filter(|_| is_of_it)?;
        // Without its only request the window never began.
        Some(if left == 0 { 0 } else { Window { end, count: left }.pack() })
    }

    /// The end of a window that begins now.
    fn end_from(&self, now: Moment) -> u64 {
        (now + self.per).as_nanos().div_ceil(NANOS_PER_MILLI) & END_MASK
    }

    fn verdict(&self, window: Window, admitted: bool, now: Moment) -> Verdict {
        let reset_after = window.end().since(now);
        Verdict {
            admitted,
            limit: self.limit / self.cost,
            remaining: self.limit.saturating_sub(window.count) / self.cost,
            reset_after,
            retry_after: if admitted { Duration::ZERO } else { reset_after },
        }
    }
}

impl States for Rule {
    type Answer = Verdict;

    fn step(&self, state: u64, now: Moment) -> Step<Verdict> {
        let mut window = Window::unpack(state);
        if window.is_over(now) {
            window = Window { end: self.end_from(now), count: 0 };
        }
        if window.count.saturating_add(self.cost) > self.limit {
            return Step { next: None, answer: self.verdict(window, false, now) };
        }
        window.count += self.cost;
        Step { next: Some(window.pack()), answer: self.verdict(window, true, now) }
    }

    /// Zero once its window is over; else the larger the count, the more.
    fn worth(&self, state: u64, now: Moment) -> u64 {
        let window = Window::unpack(state);
        if window.is_over(now) { 0 } else { u64::from(window.count) << END_BITS | window.end }
    }

    fn join(&self, one: u64, other: u64, now: Moment) -> u64 {
        let (a, b) = (Window::unpack(one), Window::unpack(other));
        match (a.is_over(now), b.is_over(now)) {
            (true, true) => 0,
            (false, true) => one,
            (true, false) => other,
            (false, false) => Window { end: a.end.max(b.end), count: a.count.max(b.count) }.pack(),
        }
    }

    /// Begins a window of its own. A newcomer that took over the rest of another key's window could
    /// make its own windows short.
    fn begin(&self, floor: u64, now: Moment) -> u64 {
        let used = Window::unpack(floor);
        if used.is_over(now) {
            return 0;
        }
        Window { end: self.end_from(now), ..used }.pack()
    }
}

impl Window {
    fn unpack(state: u64) -> Self {
        Window { end: state >> COUNT_BITS, count: (state & COUNT_MASK) as u32 }
    }

    fn pack(self) -> u64 {
        self.end << COUNT_BITS | u64::from(self.count)
    }

    fn end(&self) -> Moment {
        Moment::from_nanos(self.end.saturating_mul(NANOS_PER_MILLI))
    }

    fn is_over(&self, now: Moment) -> bool {
        now >= self.end()
    }
}
