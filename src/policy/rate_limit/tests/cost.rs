//! What a request costs, and what it gives back.

use super::*;

fn each(limiter: &Limiter, now: Moment) -> (usize, Verdict) {
    let admitted = (0..100).filter(|_| limiter.check(&acme(), now).admitted).count();
    (admitted, limiter.peek(&acme(), now))
}

fn minute(requests: u32) -> [Algorithm; 3] {
    let per = Timespan::from_secs(60);
    [
        Algorithm::FixedWindow(FixedWindow { requests, per }),
        Algorithm::SlidingWindow(SlidingWindow { requests, per }),
        Algorithm::TokenBucket(TokenBucket { rate: requests, per, burst: requests }),
    ]
}

#[test]
fn a_request_takes_what_it_costs() {
    for algorithm in minute(100) {
        for (cost, requests) in [(1, 100), (7, 14), (50, 2), (51, 1), (100, 1)] {
            let limiter = costing(cost, algorithm.clone(), 10);
            let (admitted, then) = each(&limiter, at(0));
            assert_eq!((admitted, then.limit, then.remaining), (requests, requests as u32, 0));
        }
    }
}

#[test]
fn clients_are_told_requests_not_units() {
    for algorithm in minute(10) {
        let limiter = costing(3, algorithm, 10);
        let told = [(); 3].map(|()| limiter.check(&acme(), at(0)));
        assert_eq!(
            told.map(|verdict| (verdict.limit, verdict.remaining)),
            [(3, 2), (3, 1), (3, 0)]
        );
    }
}

#[test]
fn a_request_that_is_given_back_was_never_made() {
    for algorithm in minute(4) {
        let limiter = costing(2, algorithm, 10);
        limiter.check(&acme(), at(0));
        for _ in 0..10 {
            assert!(limiter.check(&acme(), at(1)).admitted);
            limiter.refund(&acme(), at(1));
        }
        assert_eq!((0..5).filter(|_| limiter.check(&acme(), at(1)).admitted).count(), 1);
    }
}

#[test]
fn a_full_limit_gets_no_fuller() {
    for algorithm in minute(3) {
        let limiter = of(algorithm, 10);
        limiter.check(&acme(), at(0));
        (0..10).for_each(|_| limiter.refund(&acme(), at(0)));
        limiter.refund(&consumer("stranger"), at(0));
        assert_eq!(each(&limiter, at(0)).0, 3);
    }
}

#[test]
fn what_was_counted_in_one_window_is_not_given_back_in_another() {
    let [fixed, sliding, _] = minute(3);
    let limiter = of(fixed, 10);
    limiter.check(&acme(), at(0));
    (0..3).for_each(|_| _ = limiter.check(&acme(), at(60)));
    limiter.refund(&acme(), at(0));
    assert!(!limiter.check(&acme(), at(60)).admitted);

    let limiter = of(sliding, 10);
    limiter.check(&acme(), at(0));
    (0..3).for_each(|_| _ = limiter.check(&acme(), at(150)));
    limiter.refund(&acme(), at(0));
    assert!(!limiter.check(&acme(), at(150)).admitted);
}

#[test]
fn a_sliding_window_gives_back_where_it_counted() {
    let [_, sliding, _] = minute(10);
    let limiter = of(sliding, 10);
    (0..8).for_each(|_| _ = limiter.check(&acme(), at(0)));
    // At 90 s those eight have half their weight; once given back they have none.
    (0..8).for_each(|_| limiter.refund(&acme(), at(0)));
    assert_eq!(each(&limiter, at(90)).0, 10);
}

proptest! {
    /// Compares with a limiter that never sees the requests that are given back.
    #[test]
    fn what_is_given_back_at_once_leaves_no_trace(
        (algorithm, cost) in limits(),
        calls in prop::collection::vec((0..50_000_000_u64, any::<bool>()), 1..200),
    ) {
        let limiter = costing(cost, algorithm.clone(), 1000);
        let model = costing(cost, algorithm, 1000);
        let mut now = Moment::ZERO;
        for (pause, kept) in calls {
            now = now + Duration::from_nanos(pause);
            let verdict = limiter.check(&acme(), now);
            if kept {
                prop_assert_eq!(verdict, model.check(&acme(), now));
            } else if verdict.admitted {
                prop_assert_eq!(verdict, model.peek(&acme(), now));
                limiter.refund(&acme(), now);
            }
        }
    }
}

#[test]
fn a_request_that_was_overtaken_gets_back_what_it_took() {
    // Eight threads race for one request: the losers must not be charged in the other limits.
    let limits =
        [limiter(1000, Timespan::from_secs(60), 10), limiter(1, Timespan::from_secs(60), 10)];
    let limits = limits.map(Arc::new);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..500).for_each(|_| _ = check_all(&limits, &acme(), at(0))));
        }
    });
    assert_eq!(limits[0].peek(&acme(), at(0)).remaining, 998);
}
