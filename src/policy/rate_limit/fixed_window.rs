//! The fixed window: so many requests from the first one until the window ends.
//!
//! A key's window is one word: its end in milliseconds and the requests admitted in it. An end is
//! rounded up, so a window may last 1 ms longer than written, never less.

use std::time::Duration;

use super::Verdict;
use super::config::FixedWindow;
use super::table::Step;
use crate::time::Moment;

/// Low bits hold the count (up to 1,000,000); 43 more the end, which lasts 278 years. The table
/// keeps the topmost bit for itself.
const COUNT_BITS: u32 = 20;
const END_BITS: u32 = 43;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const END_MASK: u64 = (1 << END_BITS) - 1;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// Counts one request, if the window has room for it.
pub(super) fn step(limit: &FixedWindow, state: u64, now: Moment) -> Step<Verdict> {
    let (end, count) = unpack(state);
    if now >= end {
        let end_millis = (now + *limit.per).as_nanos().div_ceil(NANOS_PER_MILLI) & END_MASK;
        let next = end_millis << COUNT_BITS | 1;
        return Step { next: Some(next), answer: verdict(limit, true, 1, unpack(next).0, now) };
    }
    if count >= limit.requests {
        return Step { next: None, answer: verdict(limit, false, count, end, now) };
    }
    // The count is the low end of the word and below the limit, so it cannot carry.
    Step { next: Some(state + 1), answer: verdict(limit, true, count + 1, end, now) }
}

/// How much would be lost with this state: nothing once its window is over, else the more the
/// more requests it has counted.
pub(super) fn worth(state: u64, now: Moment) -> u64 {
    let (end, count) = unpack(state);
    if now >= end { 0 } else { u64::from(count) << END_BITS | state >> COUNT_BITS }
}

fn unpack(state: u64) -> (Moment, u32) {
    let end = Moment::from_nanos((state >> COUNT_BITS).saturating_mul(NANOS_PER_MILLI));
    (end, (state & COUNT_MASK) as u32)
}

fn verdict(limit: &FixedWindow, admitted: bool, count: u32, end: Moment, now: Moment) -> Verdict {
    let reset_after = end.since(now);
    Verdict {
        admitted,
        limit: limit.requests,
        remaining: limit.requests.saturating_sub(count),
        reset_after,
        retry_after: if admitted { Duration::ZERO } else { reset_after },
    }
}
