//! The token bucket, by the generic cell rate algorithm (ITU-T I.371), in nanoseconds.
//!
//! A key's state is the moment at which all its tokens are back. Nothing is rounded in the
//! client's favour, and there is no bucket so small that it never limits.

use std::time::Duration;

use super::Verdict;
use super::config::TokenBucket;
use super::table::Step;
use crate::time::Moment;

/// A limit, compiled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    burst: u32,
    /// Nanoseconds until a token is back.
    per_token: u64,
    /// Nanoseconds until an empty bucket is full; at most 366 days.
    depth: u64,
}

/// The table keeps the topmost bit for itself; the rest lasts 292 years.
const LAST: u64 = (1 << 63) - 1;

impl Rule {
    pub(super) fn new(config: &TokenBucket) -> Self {
        let per_token = config.per_token();
        let depth = per_token.saturating_mul(config.burst.into());
        Rule { burst: config.burst, per_token, depth }
    }

    /// Takes a token, if there is one.
    pub(super) fn step(&self, state: u64, now: Moment) -> Step<Verdict> {
        let now = now.as_nanos();
        let full_at = state.max(now);
        let next = full_at.saturating_add(self.per_token).min(LAST);
        let full_if_empty = now.saturating_add(self.depth);
        if next > full_if_empty {
            let answer = self.verdict(full_at - now, next - full_if_empty, false);
            return Step { next: None, answer };
        }
        Step { next: Some(next), answer: self.verdict(next - now, 0, true) }
    }

    /// How much would be lost with this state: the tokens that are missing, as time.
    pub(super) fn worth(state: u64, now: Moment) -> u64 {
        state.saturating_sub(now.as_nanos())
    }

    fn verdict(&self, missing: u64, retry_after: u64, admitted: bool) -> Verdict {
        Verdict {
            admitted,
            limit: self.burst,
            // At most `burst`.
            remaining: (self.depth.saturating_sub(missing) / self.per_token) as u32,
            reset_after: Duration::from_nanos(missing),
            retry_after: Duration::from_nanos(retry_after),
        }
    }
}
