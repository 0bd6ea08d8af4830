//! A token bucket in one atomic, by the generic cell rate algorithm (ITU-T I.371).
//!
//! Instead of the tokens and the time they were counted, it keeps one moment: when the bucket will
//! be full again. Each token taken moves that moment by `per_token`; a token is refused if that
//! would move it further ahead than an empty bucket takes to fill. Nothing is rounded in the
//! caller's favour.

use crossbeam_utils::CachePadded;

use super::TokenBucket;
use crate::policy::sync::{AtomicU64, Ordering};
use crate::time::Moment;

#[derive(Debug)]
pub(super) struct Bucket {
    /// The moment, in nanoseconds, at which all tokens are back. On a cache line away from what
    /// requests without retries read.
    full_at: CachePadded<AtomicU64>,
    /// Nanoseconds until a token is back, rounded up.
    per_token: u64,
    /// Nanoseconds until an empty bucket is full.
    depth: u64,
}

impl Bucket {
    pub(super) fn new(config: &TokenBucket) -> Self {
        // At most 10^12, the rate being at least 0.001; so `depth` is at most 10^18.
        let per_token = (1e9 / config.refill_per_second).ceil() as u64;
        Bucket {
            full_at: CachePadded::default(),
            per_token,
            depth: per_token.saturating_mul(u64::from(config.capacity)),
        }
    }

    /// Takes a token, if there is one. An old clock reading does not get a caller more.
    pub(super) fn withdraw(&self, now: Moment) -> bool {
        let now = now.as_nanos();
        // Relaxed: the moment is the whole state, and its changes are totally ordered.
        self.full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let next = full_at.max(now).saturating_add(self.per_token);
                (next <= now.saturating_add(self.depth)).then_some(next)
            })
            .is_ok()
    }

    /// Tokens at `now`, a fraction of the next one included.
    pub(super) fn tokens(&self, now: Moment) -> f64 {
        // Relaxed: see `withdraw`.
        let missing = self.full_at.load(Ordering::Relaxed).saturating_sub(now.as_nanos());
        self.depth.saturating_sub(missing) as f64 / self.per_token as f64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn bucket(capacity: u32, refill_per_second: f64) -> Bucket {
        Bucket::new(&TokenBucket { capacity, refill_per_second })
    }

    #[test]
    fn it_starts_full_and_empties() {
        let bucket = bucket(20, 10.0);
        assert_eq!(bucket.tokens(Moment::ZERO), 20.0);
        assert_eq!((0..100).filter(|_| bucket.withdraw(Moment::ZERO)).count(), 20);
        assert_eq!(bucket.tokens(Moment::ZERO), 0.0);
    }

    #[test]
    fn a_token_is_back_exactly_when_it_is_due() {
        let bucket = bucket(1, 10.0);
        assert!(bucket.withdraw(Moment::ZERO));
        assert!(!bucket.withdraw(Moment::from_nanos(SECOND / 10 - 1)));
        assert!(bucket.withdraw(Moment::from_nanos(SECOND / 10)));
    }

    #[test]
    fn it_never_holds_more_than_its_capacity() {
        let bucket = bucket(3, 1000.0);
        let later = Moment::ZERO + Duration::from_secs(3600);
        assert_eq!(bucket.tokens(later), 3.0);
        assert_eq!((0..10).filter(|_| bucket.withdraw(later)).count(), 3);
    }

    #[test]
    fn sixteen_threads_get_no_more_than_one_would() {
        let bucket = bucket(50, 1000.0);
        // Time advances with every reading, but readings reach the bucket in any order.
        let ticks = AtomicU64::new(0);
        let grants = Mutex::new(vec![]);
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mine: Vec<_> = (0..10_000)
                        .map(|_| ticks.fetch_add(1000, Ordering::Relaxed))
                        .filter(|now| bucket.withdraw(Moment::from_nanos(*now)))
                        .collect();
                    grants.lock().expect("not poisoned").extend(mine);
                });
            }
        });
        let grants = grants.into_inner().expect("not poisoned");
        assert!(grants.len() > 100, "{}", grants.len());
        assert!(within_bound(grants, 50, SECOND / 1000));
    }

    /// Whether every interval `[a, b]` holds at most `capacity + (b - a) / per_token` grants. The
    /// tightest intervals run from one grant to another; with `debt(i) = i x per_token - at(i)`,
    /// comparing with the least debt so far bounds all of them.
    fn within_bound(mut grants: Vec<u64>, capacity: u32, per_token: u64) -> bool {
        grants.sort_unstable();
        let mut least = i128::MAX;
        grants.into_iter().zip(0..).all(|(at, i): (u64, i128)| {
            let debt = i * i128::from(per_token) - i128::from(at);
            least = least.min(debt);
            debt - least <= i128::from(capacity - 1) * i128::from(per_token)
        })
    }

    proptest! {
        #[test]
        fn it_grants_what_a_naive_bucket_grants(
            capacity in 1..30_u32, refill in 1..100_u32,
            pauses in prop::collection::vec(0..300_000_000_u64, 1..200),
        ) {
            let bucket = bucket(capacity, f64::from(refill));
            // The model counts in units of `1 / per_token` of a token, so it is exact.
            let per_token = SECOND.div_ceil(u64::from(refill));
            let full = per_token * u64::from(capacity);
            let (mut now, mut level) = (0, full);
            for pause in pauses {
                now += pause;
                level = full.min(level + pause);
                let granted = level >= per_token;
                level -= if granted { per_token } else { 0 };
                prop_assert_eq!(bucket.withdraw(Moment::from_nanos(now)), granted, "at {}", now);
                let tokens = bucket.tokens(Moment::from_nanos(now));
                prop_assert!((tokens - level as f64 / per_token as f64).abs() < 1e-6);
            }
        }

        #[test]
        fn no_interval_holds_more_than_capacity_and_refill(
            capacity in 1..20_u32, refill in 1..1000_u32,
            moments in prop::collection::vec(0..2 * SECOND, 0..300),
        ) {
            // Unordered on purpose: threads read their clocks before they get here.
            let bucket = bucket(capacity, f64::from(refill));
            let grants: Vec<_> = moments
                .into_iter()
                .filter(|at| bucket.withdraw(Moment::from_nanos(*at)))
                .collect();
            let per_token = SECOND.div_ceil(u64::from(refill));
            prop_assert!(within_bound(grants, capacity, per_token));
        }
    }
}
