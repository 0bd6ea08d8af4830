//! No interleaving makes a retry budget grant more than one thread would get, or lose anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis_loom::concurrently;
use portcullis_loom::policy::retry::budget::{Budget, Config, Stake};
use portcullis_loom::time::Moment;
use serde_yaml::with::singleton_map;

const NOW: Moment = Moment::ZERO;

fn budget(yaml: &str) -> Arc<Budget> {
    let config: Config =
        singleton_map::deserialize(serde_yaml::Deserializer::from_str(yaml)).expect("valid");
    Arc::new(Budget::new(config, NOW))
}

/// What `threads` do with a budget at once: how many retries they are granted.
fn granted<F>(threads: usize, work: F) -> usize
where
    F: Fn(usize) -> usize + Clone + 'static,
{
    // Of `std`: no part of the model.
    let sum = Arc::new(AtomicUsize::new(0));
    concurrently((0..threads).map(|thread| {
        let (sum, work) = (Arc::clone(&sum), work.clone());
        move || _ = sum.fetch_add(work(thread), Ordering::Relaxed)
    }));
    sum.load(Ordering::Relaxed)
}

fn withdrawals(stake: &mut Stake, times: usize, now: Moment) -> usize {
    (0..times).filter(|_| stake.withdraw(now)).count()
}

#[test]
fn a_bucket_grants_its_tokens_exactly() {
    loom::model(|| {
        let budget = budget("token_bucket: {capacity: 3, refill_per_second: 1}");
        let of = Arc::clone(&budget);
        assert_eq!(granted(2, move |_| withdrawals(&mut of.enter(NOW), 3, NOW)), 3);
        assert_eq!(budget.tokens(NOW), 0.0);
    });
}

#[test]
fn a_clock_reading_that_is_behind_gets_nothing_out_of_a_bucket() {
    loom::model(|| {
        let budget = budget("token_bucket: {capacity: 1, refill_per_second: 1}");
        let of = Arc::clone(&budget);
        let second = Duration::from_secs(1);
        // One token of the start, one of the second that has passed for one of the threads only.
        let granted = granted(2, move |thread| {
            let now = if thread == 0 { NOW } else { NOW + second };
            withdrawals(&mut of.enter(now), 2, now)
        });
        assert!((1..=2).contains(&granted), "{granted}");
        assert_eq!(budget.tokens(NOW + second), 0.0);
    });
}

#[test]
fn a_ratio_counts_every_request_and_grants_its_share_exactly() {
    loom::model(|| {
        let budget = budget("ratio: {share: 50%, min_per_second: 0, ttl: 1s}");
        let of = Arc::clone(&budget);
        let early = granted(2, move |_| withdrawals(&mut of.enter(NOW), 1, NOW));
        // A request that asked before the other had come in was refused; that retry is still there.
        let left = withdrawals(&mut budget.enter(NOW), 2, NOW);
        assert_eq!(early + left, 1, "three requests at 50 %");
    });
}

#[test]
fn a_ratio_forgets_a_slot_once_in_the_next_round_with_any_thread_first() {
    loom::model(|| {
        let budget = budget("ratio: {share: 100%, min_per_second: 0, ttl: 1s}");
        // Ten tenths later: the same place, and what is in it is too old.
        _ = budget.enter(NOW);
        let later = NOW + Duration::from_secs(1);
        let of = Arc::clone(&budget);
        _ = granted(2, move |_| {
            _ = of.enter(later);
            0
        });
        assert_eq!(budget.tokens(later), 2.0);
    });
}

#[test]
fn a_concurrency_budget_never_has_more_retries_than_its_limit() {
    loom::model(|| {
        let budget = budget("concurrency: {share: 0%, min: 1}");
        let retrying = Arc::new(AtomicUsize::new(0));
        let of = Arc::clone(&budget);
        _ = granted(2, move |_| {
            let mut stake = of.enter(NOW);
            if stake.withdraw(NOW) {
                assert_eq!(retrying.fetch_add(1, Ordering::Relaxed), 0);
                loom::thread::yield_now();
                retrying.fetch_sub(1, Ordering::Relaxed);
            }
            0
        });
        assert_eq!(budget.tokens(NOW), 1.0, "all have left");
    });
}

#[test]
fn a_concurrency_budget_weighs_retries_against_the_requests_of_one_instant() {
    loom::model(|| {
        let budget = budget("concurrency: {share: 50%, min: 0}");
        // Two that stay: one retry among them, with others that come and go.
        let mut first = budget.enter(NOW);
        let mut second = budget.enter(NOW);
        let passing = Arc::clone(&budget);
        let thread = loom::thread::spawn(move || drop(passing.enter(NOW)));
        assert!(first.withdraw(NOW));
        assert!(!second.withdraw(NOW));
        thread.join().expect("no panic");
        drop((first, second));
        assert_eq!(withdrawals(&mut budget.enter(NOW), 1, NOW), 0, "half of one is none");
    });
}

#[test]
fn each_caller_is_granted_its_own_exactly() {
    loom::model(|| {
        let budget = budget(
            "{token_bucket: {capacity: 2, refill_per_second: 1}, per: consumer, max_keys: 1}",
        );
        let of = Arc::clone(&budget);
        // One of them has a place, the other is of the rest.
        let granted = granted(2, move |thread| withdrawals(&mut of.enter_as(&thread, NOW), 3, NOW));
        assert_eq!((granted, budget.callers()), (4, 1));
    });
}
