//! Retries as a share of the requests that are active, after Envoy's `retry_budget`.
//!
//! Unlike Envoy's, a request that waits to be retried is an active request as well as a retry.

use super::{Concurrency, millionths};
use crate::policy::sync::{AtomicU64, Ordering};

#[derive(Debug)]
pub(super) struct Active {
    /// Requests in the upper half, retries among them in the lower one: one word, so that a retry
    /// is weighed against the requests of the same instant.
    word: AtomicU64,
    /// Millionths of a retry that an active request is worth.
    share: u64,
    min: u64,
}

const REQUEST: u64 = 1 << 32;
const MILLION: u64 = 1_000_000;

impl Active {
    pub(super) fn new(config: &Concurrency) -> Self {
        Active { word: AtomicU64::new(0), share: millionths(config.share), min: config.min.into() }
    }

    // Relaxed throughout: the word is the whole state, and its changes are totally ordered.

    pub(super) fn enter(&self) {
        self.word.fetch_add(REQUEST, Ordering::Relaxed);
    }

    /// A request ends; `retrying` if its last attempt was a retry.
    pub(super) fn leave(&self, retrying: bool) {
        self.word.fetch_sub(REQUEST + u64::from(retrying), Ordering::Relaxed);
    }

    /// Makes an active request a retry, if there may be one more.
    pub(super) fn begin_retry(&self) -> bool {
        self.word
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let (requests, retries) = halves(word);
                (retries < self.limit(requests)).then(|| word + 1)
            })
            .is_ok()
    }

    /// A retry has failed.
    pub(super) fn end_retry(&self) {
        self.word.fetch_sub(1, Ordering::Relaxed);
    }

    /// Retries that could begin now.
    pub(super) fn tokens(&self) -> f64 {
        let (requests, retries) = halves(self.word.load(Ordering::Relaxed));
        self.limit(requests).saturating_sub(retries) as f64
    }

    fn limit(&self, requests: u64) -> u64 {
        (requests * self.share / MILLION).max(self.min)
    }
}

fn halves(word: u64) -> (u64, u64) {
    (word / REQUEST, word % REQUEST)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};
    use std::thread;

    use proptest::prelude::*;

    use super::super::{Budget, Config, Stake};
    use super::*;
    use crate::time::Moment;
    use crate::units::Percent;

    const NOW: Moment = Moment::ZERO;

    fn budget(percent: u8, min: u32) -> Arc<Budget> {
        let config = Concurrency { share: Percent::new(percent), min };
        Arc::new(Budget::new(Config::Concurrency(config), NOW))
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
