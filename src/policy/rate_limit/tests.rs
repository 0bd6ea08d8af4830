//! Limits by example, compared with naive models, and under a flood of keys.

mod cost;
mod flood;
mod spring;
mod told;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use http::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::policy::dry_run::Enforce;
use crate::units::{Timespan, retry_after_seconds};

/// As the request path checks limits that are counted here.
fn check_all(
    limiters: &[Arc<Limiter>],
    requester: &Requester<'_>,
    now: Moment,
) -> Option<Standing> {
    check_shared(limiters, requester, &Heard::Nothing, Part::All, now).expect("no store is asked")
}

fn limiter(requests: u32, per: Timespan, max_keys: u32) -> Limiter {
    of(Algorithm::FixedWindow(FixedWindow { requests, per }), max_keys)
}

fn of(algorithm: Algorithm, max_keys: u32) -> Limiter {
    costing(1, algorithm, max_keys)
}

fn costing(cost: u32, algorithm: Algorithm, max_keys: u32) -> Limiter {
    Limiter::new(Config {
        algorithm,
        key: Key::default(),
        cost,
        replays: Replays::Counted,
        max_keys,
        shared: None,
        enforce: Enforce::Yes,
    })
}

/// 3 requests in 60 s.
fn three_a_minute() -> Limiter {
    limiter(3, Timespan::from_secs(60), 1000)
}

static NO_HEADERS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn consumer(name: &str) -> Requester<'_> {
    let consumer = Some(Named { authority: None, name });
    Requester { consumer, claims: None, address: ADDRESS, headers: &NO_HEADERS }
}

fn acme() -> Requester<'static> {
    consumer("acme")
}

fn at(seconds: u64) -> Moment {
    Moment::ZERO + Duration::from_secs(seconds)
}

#[test]
fn a_window_admits_exactly_its_requests() {
    let limiter = three_a_minute();
    let verdicts: Vec<_> = (0..5).map(|_| limiter.check(&acme(), at(0))).collect();
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
    assert_eq!(limiter.check(&acme(), at(50)).reset_after, Duration::from_secs(60));
    assert_eq!(limiter.check(&acme(), at(100)).reset_after, Duration::from_secs(10));
}

#[test]
fn a_client_that_waits_what_it_was_told_is_admitted() {
    let limiter = three_a_minute();
    (0..3).for_each(|_| _ = limiter.check(&acme(), at(10)));
    let refused = limiter.check(&acme(), at(25));
    assert_eq!(refused.retry_after, Duration::from_secs(45));
    assert!(!limiter.check(&acme(), at(69)).admitted);
    let waited = 25 + retry_after_seconds(refused.retry_after);
    assert!(limiter.check(&acme(), at(waited)).admitted);
}

#[test]
fn clients_that_keep_asking_are_not_kept_out_for_it() {
    let limiter = three_a_minute();
    (0..60).for_each(|second| _ = limiter.check(&acme(), at(second)));
    assert!(limiter.check(&acme(), at(60)).admitted);
}

#[test]
fn each_subject_has_its_own_count() {
    let limiter = three_a_minute();
    (0..3).for_each(|_| _ = limiter.check(&consumer("192.0.2.1"), at(0)));
    assert!(!limiter.check(&consumer("192.0.2.1"), at(0)).admitted);
    let anonymous = Requester { consumer: None, ..acme() };
    assert!(limiter.check(&anonymous, at(0)).admitted);
}

#[test]
fn a_flood_of_keys_does_not_free_one_that_is_at_its_limit() {
    let limiter = limiter(3, Timespan::from_secs(60), 50);
    (0..3).for_each(|_| _ = limiter.check(&acme(), at(0)));
    for i in 0..10_000 {
        limiter.check(&consumer(&i.to_string()), at(1));
        assert!(!limiter.check(&acme(), at(1)).admitted, "after {i} others");
    }
}

#[test]
fn no_number_of_keys_gets_more_than_the_table_can_count() {
    let limiter = limiter(3, Timespan::from_secs(60), 50);
    let admitted =
        (0..100_000).filter(|i| limiter.check(&consumer(&i.to_string()), at(1)).admitted).count();
    // 16 sets of 7, 3 requests each.
    assert!(admitted <= 112 * 3, "{admitted}");
    assert!(limiter.evictions() > 0);
}

#[test]
fn keys_whose_window_is_over_make_room_for_others() {
    let limiter = limiter(3, Timespan::from_secs(1), 50);
    for second in 0..1000 {
        let name = second.to_string();
        assert_eq!(limiter.check(&consumer(&name), at(2 * second)).remaining, 2);
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
                let mine = (0..1000).filter(|_| limiter.check(&acme(), at(0)).admitted).count();
                admitted.fetch_add(u32::try_from(mine).expect("few"), Ordering::Relaxed);
            });
        }
    });
    assert_eq!(admitted.into_inner(), 1000);
}

#[test]
fn a_look_counts_nothing() {
    let limiter = three_a_minute();
    assert!((0..10).all(|_| limiter.peek(&acme(), at(0)).admitted));
    assert_eq!(limiter.check(&acme(), at(0)).remaining, 2);
}

#[test]
fn a_request_one_limit_refuses_counts_in_none() {
    let limits = [limiter(5, Timespan::from_secs(60), 10), limiter(2, Timespan::from_secs(1), 10)];
    let limits = limits.map(Arc::new);
    let check = |seconds| check_all(&limits, &acme(), at(seconds)).expect("two limits").verdict;
    let verdicts: Vec<_> = (0..9).map(|_| check(0)).collect();
    assert_eq!(verdicts.iter().filter(|verdict| verdict.admitted).count(), 2);
    assert_eq!(verdicts[8].retry_after, Duration::from_secs(1));
    assert_eq!(limits[0].peek(&acme(), at(0)).remaining, 2);
}

#[test]
fn of_several_limits_the_strictest_speaks() {
    let limits = [limiter(5, Timespan::from_secs(60), 10), limiter(2, Timespan::from_secs(1), 10)];
    let limits = limits.map(Arc::new);
    let check = |seconds| check_all(&limits, &acme(), at(seconds)).expect("two limits").verdict;
    assert_eq!((check(0).limit, check(1).limit, check(2).limit, check(3).limit), (2, 2, 2, 5));
    check(3);
    assert_eq!(check(3).retry_after, Duration::from_secs(57));
    assert_eq!(check_all(&[], &acme(), at(0)), None);
}

fn sliding(requests: u32, per: Timespan) -> Limiter {
    of(Algorithm::SlidingWindow(SlidingWindow { requests, per }), 1000)
}

#[test]
fn a_sliding_window_does_not_let_two_windows_be_spent_at_their_seam() {
    let limiter = sliding(10, Timespan::from_secs(60));
    let admitted =
        |seconds| (0..20).filter(|_| limiter.check(&acme(), at(seconds)).admitted).count();
    assert_eq!([59, 60, 66, 90, 120, 240].map(admitted), [10, 0, 1, 4, 5, 10]);
}

#[test]
fn the_last_window_weighs_less_the_more_of_this_one_has_passed() {
    let limiter = sliding(100, Timespan::from_secs(60));
    (0..40).for_each(|_| _ = limiter.check(&acme(), at(30)));
    let remaining = |seconds| limiter.peek(&acme(), at(seconds)).remaining;
    // One less, because the request that asks counts too.
    assert_eq!([59, 60, 75, 90, 119, 120].map(remaining), [59, 59, 69, 79, 99, 99]);
}

fn bucket(rate: u32, burst: u32) -> Limiter {
    of(Algorithm::TokenBucket(TokenBucket { rate, per: Timespan::from_secs(1), burst }), 1000)
}

#[test]
fn a_bucket_admits_a_burst_and_then_its_rate() {
    let limiter = bucket(10, 20);
    let admitted = |millis: u64| {
        let now = Moment::ZERO + Duration::from_millis(millis);
        (0..50).filter(|_| limiter.check(&acme(), now).admitted).count()
    };
    assert_eq!([0, 99, 100, 1000, 60_000].map(admitted), [20, 0, 1, 9, 20]);
}

#[test]
fn a_bucket_smaller_than_half_its_rate_limits_too() {
    // Spring's script forgets such a bucket between any two requests.
    let limiter = bucket(10, 4);
    assert_eq!((0..50).filter(|_| limiter.check(&acme(), at(0)).admitted).count(), 4);
}

fn algorithms() -> impl Strategy<Value = Algorithm> {
    (0..3_u8, 1..200_u32, 1..1000_u64, 1..50_u32).prop_map(|(kind, requests, millis, burst)| {
        let per = Timespan::from_millis(millis);
        match kind {
            0 => Algorithm::FixedWindow(FixedWindow { requests, per }),
            1 => Algorithm::SlidingWindow(SlidingWindow { requests, per }),
            _bucket => Algorithm::TokenBucket(TokenBucket { rate: requests, per, burst }),
        }
    })
}

/// Limits, each with the cost of a request.
fn limits() -> impl Strategy<Value = (Algorithm, u32)> {
    algorithms().prop_flat_map(|algorithm| {
        let most = algorithm.most();
        (Just(algorithm), prop_oneof![Just(1), 1..=most])
    })
}

proptest! {
    #[test]
    fn a_client_that_waits_as_told_is_admitted_and_not_before(
        (algorithm, cost) in limits(),
        pauses in prop::collection::vec(prop_oneof![0..1000_u64, 0..50_000_000_u64], 1..500),
    ) {
        let limiter = costing(cost, algorithm, 1000);
        let mut now = Moment::ZERO;
        for pause in pauses {
            now = now + Duration::from_nanos(pause);
            let verdict = limiter.check(&acme(), now);
            if verdict.admitted {
                prop_assert_eq!(verdict.retry_after, Duration::ZERO);
                continue;
            }
            let told = now + verdict.retry_after;
            prop_assert!(limiter.peek(&acme(), told).admitted);
            let early = Moment::from_nanos(told.as_nanos() - 1);
            prop_assert!(!limiter.peek(&acme(), early).admitted);
        }
    }

    #[test]
    fn all_of_a_limit_is_back_when_it_says_so(
        (algorithm, cost) in limits(),
        pauses in prop::collection::vec(0..50_000_000_u64, 1..100),
    ) {
        let limiter = costing(cost, algorithm, 1000);
        let mut now = Moment::ZERO;
        for pause in pauses {
            now = now + Duration::from_nanos(pause);
            let verdict = limiter.check(&acme(), now);
            let back = limiter.peek(&acme(), now + verdict.reset_after);
            prop_assert_eq!(back.remaining, back.limit - 1);
        }
    }

    #[test]
    fn a_sliding_window_admits_what_its_formula_says(
        requests in 1..20_u32, millis in 1..50_u64,
        pauses in prop::collection::vec(0..20_000_000_u64, 1..300),
    ) {
        let limiter = sliding(requests, Timespan::from_millis(millis));
        let window = u128::from(millis) * 1_000_000;
        let (mut now, mut admitted) = (0, vec![]);
        for pause in pauses {
            now += u128::from(pause);
            let in_window = |number: u128| {
                admitted.iter().filter(|at| **at / window == number).count() as u128
            };
            let number = now / window;
            let before = number.checked_sub(1).map_or(0, in_window);
            let used = in_window(number) + before * (window - now % window) / window;
            let expected = used < u128::from(requests);
            let verdict = limiter.check(&acme(), Moment::from_nanos(now as u64));
            prop_assert_eq!(verdict.admitted, expected, "at {}", now);
            if expected { admitted.push(now) }
        }
    }

    #[test]
    fn a_bucket_admits_what_a_naive_bucket_admits(
        rate in 1..200_u32, burst in 1..30_u32,
        pauses in prop::collection::vec(0..300_000_000_u64, 1..200),
    ) {
        let limiter = bucket(rate, burst);
        // The model counts in units of `1 / per_token` of a token, so it is exact.
        let per_token = 1_000_000_000_u64.div_ceil(rate.into());
        let full = per_token * u64::from(burst);
        let (mut now, mut level) = (0, full);
        for pause in pauses {
            now += pause;
            level = full.min(level + pause);
            let expected = level >= per_token;
            level -= if expected { per_token } else { 0 };
            let verdict = limiter.check(&acme(), Moment::from_nanos(now));
            prop_assert_eq!(verdict.admitted, expected, "at {}", now);
            prop_assert_eq!(u64::from(verdict.remaining), level / per_token);
        }
    }

    #[test]
    fn it_admits_exactly_what_the_model_admits(
        requests in 1..6_u32, millis in 1..50_u64,
        calls in prop::collection::vec((0..20_u8, 0..5_000_000_u64), 1..400),
    ) {
        let limiter = limiter(requests, Timespan::from_millis(millis), 100_000);
        // For each key, the end of its window in whole milliseconds, and what was admitted in it.
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
            let verdict = limiter.check(&consumer(&who.to_string()), Moment::from_nanos(now));
            prop_assert_eq!(verdict.admitted, expected, "{} at {}", who, now);
            prop_assert_eq!(verdict.remaining, requests - *used);
            prop_assert_eq!(verdict.reset_after, Duration::from_nanos(*end * 1_000_000 - now));
        }
    }
}
