//! Fixed windows: by example, against a naive model, and under a flood of keys.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::units::{Timespan, retry_after_seconds};

fn limiter(requests: u32, per: Timespan, max_keys: u32) -> Limiter {
    let algorithm = Algorithm::FixedWindow(FixedWindow { requests, per });
    Limiter::new(Config { algorithm, key: KeySource::Consumer, max_keys })
}

/// 3 requests in 60 s.
fn three_a_minute() -> Limiter {
    limiter(3, Timespan::from_secs(60), 1000)
}

const ACME: Subject<'static> = Subject::Consumer("acme");

fn at(seconds: u64) -> Moment {
    Moment::ZERO + Duration::from_secs(seconds)
}

#[test]
fn a_window_admits_exactly_its_requests() {
    let limiter = three_a_minute();
    let verdicts: Vec<_> = (0..5).map(|_| limiter.check(&ACME, at(0))).collect();
    assert_eq!(
        verdicts.iter().map(|v| v.admitted).collect::<Vec<_>>(),
        [true, true, true, false, false]
    );
    assert_eq!(verdicts.iter().map(|v| v.remaining).collect::<Vec<_>>(), [2, 1, 0, 0, 0]);
    assert!(verdicts.iter().all(|v| v.limit == 3));
}

#[test]
fn a_window_begins_with_the_first_request() {
    let limiter = three_a_minute();
    assert_eq!(limiter.check(&ACME, at(50)).reset_after, Duration::from_secs(60));
    assert_eq!(limiter.check(&ACME, at(100)).reset_after, Duration::from_secs(10));
}

#[test]
fn a_client_that_waits_what_it_was_told_is_admitted() {
    let limiter = three_a_minute();
    (0..3).for_each(|_| _ = limiter.check(&ACME, at(10)));
    let refused = limiter.check(&ACME, at(25));
    assert_eq!(refused.retry_after, Duration::from_secs(45));
    assert!(!limiter.check(&ACME, at(69)).admitted);
    let waited = 25 + retry_after_seconds(refused.retry_after);
    assert!(limiter.check(&ACME, at(waited)).admitted);
}

#[test]
fn clients_that_keep_asking_are_not_kept_out_for_it() {
    let limiter = three_a_minute();
    (0..60).for_each(|second| _ = limiter.check(&ACME, at(second)));
    assert!(limiter.check(&ACME, at(60)).admitted);
}

#[test]
fn each_subject_has_its_own_count() {
    let limiter = three_a_minute();
    (0..3).for_each(|_| _ = limiter.check(&Subject::Consumer("192.0.2.1"), at(0)));
    assert!(!limiter.check(&Subject::Consumer("192.0.2.1"), at(0)).admitted);
    assert!(limiter.check(&Subject::address([192, 0, 2, 1].into()), at(0)).admitted);
    assert!(limiter.check(&Subject::Everyone, at(0)).admitted);
}

#[test]
fn a_flood_of_keys_does_not_free_one_that_is_at_its_limit() {
    let limiter = limiter(3, Timespan::from_secs(60), 50);
    (0..3).for_each(|_| _ = limiter.check(&ACME, at(0)));
    for i in 0..10_000 {
        limiter.check(&Subject::Consumer(&i.to_string()), at(1));
        assert!(!limiter.check(&ACME, at(1)).admitted, "after {i} others");
    }
}

#[test]
fn no_number_of_keys_gets_more_than_the_table_can_count() {
    let limiter = limiter(3, Timespan::from_secs(60), 50);
    let admitted = (0..100_000)
        .filter(|i| limiter.check(&Subject::Consumer(&i.to_string()), at(1)).admitted)
        .count();
    // 16 sets of 8, 3 requests each.
    assert!(admitted <= 128 * 3, "{admitted}");
    assert!(limiter.evictions() > 0);
}

#[test]
fn keys_whose_window_is_over_make_room_for_others() {
    let limiter = limiter(3, Timespan::from_secs(1), 50);
    for second in 0..1000 {
        let name = second.to_string();
        assert_eq!(limiter.check(&Subject::Consumer(&name), at(2 * second)).remaining, 2);
    }
    assert_eq!(limiter.evictions(), 0);
}

#[test]
fn eight_threads_are_admitted_exactly_as_often_as_one() {
    let limiter = limiter(1000, Timespan::from_secs(60), 1000);
    let admitted = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mine = (0..1000).filter(|_| limiter.check(&ACME, at(0)).admitted).count();
                admitted.fetch_add(u32::try_from(mine).expect("few"), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(admitted.into_inner(), 1000);
}

proptest! {
    #[test]
    fn it_admits_exactly_what_the_model_admits(
        requests in 1..6_u32, millis in 1..50_u64,
        calls in prop::collection::vec((0..20_u8, 0..5_000_000_u64), 1..400),
    ) {
        let limiter = limiter(requests, Timespan::from_millis(millis), 100_000);
        // Per key: the end of its window in whole milliseconds, and what it was admitted.
        let mut windows: HashMap<u8, (u64, u32)> = HashMap::new();
        let mut now = 0;
        for (who, pause) in calls {
            now += pause;
            let (end, used) = windows.entry(who).or_insert((0, 0));
            if now >= *end * 1_000_000 {
                (*end, *used) = ((now + millis * 1_000_000).div_ceil(1_000_000), 0);
            }
            let expected = *used < requests;
            *used += u32::from(expected);
            let verdict = limiter.check(&Subject::Consumer(&who.to_string()), Moment::from_nanos(now));
            prop_assert_eq!(verdict.admitted, expected, "{} at {}", who, now);
            prop_assert_eq!(verdict.remaining, requests - *used);
            prop_assert_eq!(verdict.reset_after, Duration::from_nanos(*end * 1_000_000 - now));
        }
    }
}
