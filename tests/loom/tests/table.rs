//! No interleaving loses a count of the table that rate limits are kept in, nor admits one more
//! than the limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis_loom::concurrently;
use portcullis_loom::policy::rate_limit::Counts;

/// A look-up passes seven slots: more switches than these are out of reach.
fn bounded(switches: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.max_branches = 10_000;
    builder.check(model);
}

#[test]
fn a_limit_is_admitted_exactly_by_threads_that_ask_at_once() {
    bounded(3, || {
        let counts = Arc::new(Counts::new(8));
        counts.count(1);
        let admitted = Arc::new(AtomicUsize::new(0));
        concurrently((0..2).map(|_| {
            let (counts, admitted) = (Arc::clone(&counts), Arc::clone(&admitted));
            move || {
                let mine = (0..2).filter(|_| counts.admit(1, 3)).count();
                admitted.fetch_add(mine, Ordering::Relaxed);
            }
        }));
        assert_eq!(admitted.load(Ordering::Relaxed), 2, "one of three is gone already");
    });
}

#[test]
fn a_key_that_is_new_to_two_threads_is_added_once() {
    bounded(2, || {
        let counts = Arc::new(Counts::new(8));
        concurrently((0..2).map(|_| {
            let counts = Arc::clone(&counts);
            move || _ = counts.count(1)
        }));
        assert_eq!(counts.count(1), 3);
    });
}

#[test]
fn a_count_that_is_made_while_the_table_grows_is_not_lost() {
    bounded(2, || {
        let counts = Arc::new(Counts::new(16));
        // A second key in the only set: the table doubles.
        counts.count(1);
        let growing = Arc::clone(&counts);
        let growing = loom::thread::spawn(move || _ = growing.count(2));
        counts.count(1);
        growing.join().expect("no panic");
        assert_eq!(counts.count(1), 3);
        assert_eq!(counts.count(2), 2);
    });
}

#[test]
fn what_is_taken_back_while_the_table_grows_is_taken_back() {
    bounded(2, || {
        let counts = Arc::new(Counts::new(16));
        // A second key in the only set: the table doubles.
        counts.count(1);
        let growing = Arc::clone(&counts);
        let growing = loom::thread::spawn(move || _ = growing.count(2));
        counts.refund(1);
        growing.join().expect("no panic");
        assert_eq!(counts.count(1), 1);
    });
}

#[test]
fn a_key_that_is_evicted_while_it_is_counted_comes_back_with_all_it_had() {
    bounded(2, || {
        // Seven places, of which the first has the least to lose.
        let counts = Arc::new(Counts::new(1));
        counts.count(1);
        (2..=7).for_each(|key| (0..9).for_each(|_| _ = counts.count(key)));
        let evicting = Arc::clone(&counts);
        let evicting = loom::thread::spawn(move || _ = evicting.count(8));
        let second = counts.count(1);
        evicting.join().expect("no panic");
        assert!(second >= 2, "{second}");
        let third = counts.count(1);
        assert!(third >= 3, "{third}");
    });
}
