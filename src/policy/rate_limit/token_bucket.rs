//! The token bucket, by the generic cell rate algorithm (ITU-T I.371), in nanoseconds.
//!
//! A key's state is the moment at which all its tokens are back. Nothing is rounded in the client's
//! favour, and even the smallest bucket limits.

use std::time::Duration;

use super::Verdict;
use super::config::TokenBucket;
use super::table::{States, Step};
use crate::time::Moment;

/// A limit, compiled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Requests in a full bucket.
    limit: u32,
    /// Nanoseconds until the tokens of a request are back.
    per_request: u64,
    /// Nanoseconds until an empty bucket is full; at most 366 days.
    depth: u64,
}

/// The table uses the topmost bit itself; the rest lasts 292 years.
const LAST: u64 = (1 << 63) - 1;

impl Rule {
    pub(super) fn new(config: &TokenBucket, cost: u32) -> Self {
        let per_token = config.per_token();
        Rule {
            limit: config.burst / cost,
            per_request: per_token.saturating_mul(cost.into()),
            depth: per_token.saturating_mul(config.burst.into()),
        }
    }

    /// The state without a request that was counted in it. Exact if given back at once; later, a
    /// bucket that would have been full meanwhile gains what came back since.
    pub(super) fn refund(&self, state: u64) -> u64 {
        state.saturating_sub(self.per_request)
    }

    fn verdict(&self, missing: u64, retry_after: u64, admitted: bool) -> Verdict {
        Verdict {
            admitted,
            limit: self.limit,
            // At most `limit`, so the cast is exact.
            remaining: (self.depth.saturating_sub(missing) / self.per_request) as u32,
            reset_after: Duration::from_nanos(missing),
            retry_after: Duration::from_nanos(retry_after),
        }
    }
}

impl States for Rule {
    type Answer = Verdict;

    fn step(&self, state: u64, now: Moment) -> Step<Verdict> {
        let now = now.as_nanos();
        let full_at = state.max(now);
        let next = full_at.saturating_add(self.per_request).min(LAST);
        let full_if_empty = now.saturating_add(self.depth);
        if next > full_if_empty {
            let answer = self.verdict(full_at - now, next - full_if_empty, false);
            return Step { next: None, answer };
        }
        Step { next: Some(next), answer: self.verdict(next - now, 0, true) }
    }

    /// The missing tokens, as time.
    fn worth(&self, state: u64, now: Moment) -> u64 {
        state.saturating_sub(now.as_nanos())
    }

    fn join(&self, one: u64, other: u64, _: Moment) -> u64 {
        one.max(other)
    }

    fn begin(&self, floor: u64, _: Moment) -> u64 {
        floor
    }
}
