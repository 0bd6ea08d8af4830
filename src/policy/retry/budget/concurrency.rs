//! Retries as a share of the active requests, after Envoy's `retry_budget`.
//!
//! Unlike in Envoy, a request that waits to be retried counts as active as well as a retry.
//!
//! Requests are counted lane by lane, on entry and on exit. A retry sums these up: first all
//! entries, then all exits, so that the difference is at most the number active at the moment in
//! between; and again, if more requests entered meanwhile. A retry is granted if there was room for
//! it at such a moment.

use crossbeam_utils::CachePadded;

use super::config::{Concurrency, millionths};
use crate::policy::lanes::Lanes;
use crate::policy::sync::{AtomicU64, Ordering};

#[derive(Debug)]
pub(super) struct Active {
    requests: Lanes<Requests>,
    /// Retries under way in the lower half, retries ever begun in the upper one. So the word is the
    /// same only if nothing has changed.
    retries: CachePadded<AtomicU64>,
    /// How much of a retry an active request is worth, in millionths.
    share: u64,
    min: u64,
}

/// Numbers of requests since the start.
#[derive(Debug, Default)]
struct Requests {
    entered: AtomicU64,
    left: AtomicU64,
}

const BEGUN: u64 = 1 << 32;
/// The most times that requests are counted again because others entered meanwhile.
const ROUNDS: u32 = 8;
const MILLION: u64 = 1_000_000;

impl Active {
    pub(super) fn new(config: &Concurrency) -> Self {
        Active {
            requests: Lanes::default(),
            retries: CachePadded::default(),
            share: millionths(config.share),
            min: config.min.into(),
        }
    }

    pub(super) fn enter(&self) {
        // Relaxed: a request that is not seen yet counts as not active yet.
        self.requests.mine().entered.fetch_add(1, Ordering::Relaxed);
    }

    /// A request ends; `retrying` says whether its last attempt was a retry.
    pub(super) fn leave(&self, retrying: bool) {
        // Release: a thread that sees this exit still sees its retry, if it reads that next.
        self.requests.mine().left.fetch_add(1, Ordering::Release);
        if retrying {
            self.end_retry();
        }
    }

    /// Turns an active request into a retry, if one more is allowed.
    pub(super) fn begin_retry(&self) -> bool {
        // Acquire, before requests are counted: as long as the word is unchanged, this many retries
        // are under way, also at the moment of the count.
        let grant = |word: u64| {
            (retries(word) < self.limit(self.active())).then(|| word.wrapping_add(BEGUN + 1))
        };
        self.retries.fetch_update(Ordering::AcqRel, Ordering::Acquire, grant).is_ok()
    }

    /// A retry has ended.
    pub(super) fn end_retry(&self) {
        // Release: a thread that begins a retry in its place also sees its request's exit, if there
        // was one.
        self.retries.fetch_sub(1, Ordering::Release);
    }

    /// Retries that could begin now.
    pub(super) fn tokens(&self) -> f64 {
        let retries = retries(self.retries.load(Ordering::Acquire));
        self.limit(self.active()).saturating_sub(retries) as f64
    }

    /// Requests that were active at some moment during this call. Never too many, and too few only
    /// if requests keep entering meanwhile.
    fn active(&self) -> u64 {
        let requests = self.requests.iter();
        // Acquire: if an exit is seen, the next read also sees the matching entry.
        let count_entered =
            || requests.clone().map(|lane| lane.entered.load(Ordering::Acquire)).sum::<u64>();
        let (mut entered, mut active) = (count_entered(), 0);
        for _ in 0..ROUNDS {
            let left: u64 = requests.clone().map(|lane| lane.left.load(Ordering::Acquire)).sum();
            active = active.max(entered.saturating_sub(left));
            let before = std::mem::replace(&mut entered, count_entered());
            if entered == before {
                break;
            }
        }
        active
    }

    fn limit(&self, requests: u64) -> u64 {
        (requests * self.share / MILLION).max(self.min)
    }
}

fn retries(word: u64) -> u64 {
    word % BEGUN
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};
    use std::thread;

    use proptest::prelude::*;

    use super::super::{Bound, Budget, Stake};
    use super::*;
    use crate::time::Moment;
    use crate::units::Percent;

    const NOW: Moment = Moment::ZERO;

    fn budget(percent: u8, min: u32) -> Arc<Budget> {
        let config = Concurrency { share: Percent::new(percent), min };
        Arc::new(Budget::new(Bound::Concurrency(config).into(), NOW))
    }

    fn retrying(stakes: &mut [Stake]) -> usize {
        stakes.iter_mut().map(|stake| usize::from(stake.withdraw(NOW))).sum()
    }

    #[test]
    fn retries_are_a_share_of_the_active_requests() {
        let budget = budget(20, 3);
        let mut stakes: Vec<_> = (0..100).map(|_| budget.enter(NOW)).collect();
        assert_eq!(budget.tokens(NOW), 20.0);
        assert_eq!(retrying(&mut stakes), 20);
        assert_eq!(budget.tokens(NOW), 0.0);
    }

    #[test]
    fn a_few_retries_are_granted_however_few_requests_there_are() {
        let budget = budget(20, 3);
        let mut stakes: Vec<_> = (0..10).map(|_| budget.enter(NOW)).collect();
        assert_eq!(retrying(&mut stakes), 3);
    }

    #[test]
    fn a_second_retry_takes_the_place_of_the_first() {
        let budget = budget(0, 1);
        let mut stake = budget.enter(NOW);
        assert!((0..10).all(|_| stake.withdraw(NOW)));
    }

    #[test]
    fn a_request_that_ends_frees_its_retry() {
        let budget = budget(0, 1);
        let mut first = budget.enter(NOW);
        let mut second = budget.enter(NOW);
        assert!(first.withdraw(NOW) && !second.withdraw(NOW));
        drop(first);
        assert!(second.withdraw(NOW));
    }

    #[test]
    fn no_request_is_left_over_when_all_have_ended() {
        let budget = budget(100, 0);
        let mut stakes: Vec<_> = (0..10).map(|_| budget.enter(NOW)).collect();
        retrying(&mut stakes[..5]);
        drop(stakes);
        assert_eq!(budget.tokens(NOW), 0.0);
        assert_eq!(retrying(&mut [budget.enter(NOW)]), 1);
    }

    #[test]
    fn sixteen_threads_never_have_more_retries_than_their_share() {
        // 16 requests each, all active at once: 256, of which 51 may retry.
        let budget = budget(20, 3);
        let (entered, retried) = (Barrier::new(16), Barrier::new(16));
        let granted: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        let mut stakes: Vec<_> = (0..16).map(|_| budget.enter(NOW)).collect();
                        entered.wait();
                        let granted = retrying(&mut stakes);
                        retried.wait();
                        granted
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(granted, 51);
        assert_eq!(budget.tokens(NOW), 3.0);
    }

    proptest! {
        #[test]
        fn retries_never_outnumber_what_the_requests_allow(
            percent in 0..=100_u8, min in 0..5_u32,
            steps in prop::collection::vec((0..3_u8, 0..20_usize), 1..300),
        ) {
            let budget = budget(percent, min);
            let mut active: Vec<(Stake, bool)> = vec![];
            for (step, nth) in steps {
                let count = active.len();
                match step {
                    0 => active.push((budget.enter(NOW), false)),
                    1 if count > 0 => drop(active.swap_remove(nth % count)),
                    _ if count > 0 => {
                        let nth = nth % count;
                        active[nth].1 = false;
                        let retries = active.iter().filter(|(_, retrying)| *retrying).count();
                        let limit = (count * usize::from(percent) / 100).max(min as usize);
                        let granted = active[nth].0.withdraw(NOW);
                        prop_assert_eq!(granted, retries < limit);
                        active[nth].1 = granted;
                    }
                    _ => {}
                }
            }
        }
    }
}
