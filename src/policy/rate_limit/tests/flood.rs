//! Whatever keys are sprayed on a table that is too small for them, no key gets more than its
//! limit.

use super::*;

/// Which key makes a request, after how long.
fn calls() -> impl Strategy<Value = Vec<(u8, u64)>> {
    // One set of seven slots, and more keys than that.
    prop::collection::vec((0..12_u8, prop_oneof![0..20_u64, 0..700_u64]), 1..600)
}

fn who(n: u8) -> String {
    n.to_string()
}

proptest! {
    /// For windows on a grid, and for buckets, which fill by the clock: a table of seven slots
    /// admits only what one without bounds would admit.
    #[test]
    fn nothing_is_admitted_that_an_unbounded_table_would_refuse(
        bucket in any::<bool>(), requests in 1..6_u32, cost in 1..3_u32, calls in calls(),
    ) {
        let (requests, per) = (requests.max(cost), Timespan::from_millis(1000));
        let algorithm = if bucket {
            Algorithm::TokenBucket(TokenBucket { rate: requests, per, burst: requests })
        } else {
            Algorithm::SlidingWindow(SlidingWindow { requests, per })
        };
        let (small, unbounded) = (costing(cost, algorithm.clone(), 1), costing(cost, algorithm, 1000));
        let mut now = Moment::ZERO;
        for (n, pause) in calls {
            now = now + Duration::from_millis(pause);
            let name = who(n);
            if small.check(&consumer(&name), now).admitted {
                prop_assert!(unbounded.check(&consumer(&name), now).admitted, "{} at {:?}", n, now);
            }
        }
    }

    /// A key's own window is never shorter than configured and never refilled: during any `k`
    /// windows, at most `k + 1` windows' requests are admitted.
    #[test]
    fn windows_are_neither_cut_short_nor_refilled(
        requests in 1..6_u32, calls in calls(),
    ) {
        let limiter = limiter(requests, Timespan::from_millis(1000), 1);
        let mut admitted: HashMap<u8, Vec<u64>> = HashMap::new();
        let mut now = 0;
        for (n, pause) in calls {
            now += pause;
            let moment = Moment::ZERO + Duration::from_millis(now);
            if limiter.check(&consumer(&who(n)), moment).admitted {
                admitted.entry(n).or_default().push(now);
            }
        }
        for (n, times) in admitted {
            for (first, start) in times.iter().enumerate() {
                for k in 1..=5_usize {
                    let end = start + 1000 * k as u64;
                    let count = times[first..].iter().take_while(|time| **time < end).count();
                    prop_assert!(count <= (k + 1) * requests as usize, "{} of {} from {}", count, n, start);
                }
            }
        }
    }
}

/// An attacker gets its own key evicted by a spray of other keys after each request.
#[test]
fn who_has_itself_evicted_does_not_come_back_afresh() {
    let per = Timespan::from_secs(60);
    for algorithm in [
        Algorithm::FixedWindow(FixedWindow { requests: 3, per }),
        Algorithm::SlidingWindow(SlidingWindow { requests: 3, per }),
        Algorithm::TokenBucket(TokenBucket { rate: 3, per, burst: 3 }),
    ] {
        let limiter = of(algorithm, 50);
        let mut admitted = 0;
        for round in 0..50_u32 {
            admitted += usize::from(limiter.check(&acme(), at(61)).admitted);
            for spray in 0..500 {
                // Up to their limit, so that a key below its own has less to lose.
                let name = format!("{round}-{spray}");
                (0..4).for_each(|_| _ = limiter.check(&consumer(&name), at(61)));
            }
        }
        assert!(limiter.evictions() > 0);
        assert!(admitted <= 3, "{admitted}");
    }
}

/// A spray so slow that evicted windows are always about to end: a key cannot take over the rest of
/// another key's window and so shorten its own.
#[test]
fn a_window_is_not_cut_short_by_taking_over_another_s() {
    for sprayed_per_second in 1..=10 {
        for requests in [2, 3, 5] {
            let limiter = limiter(requests, Timespan::from_secs(20), 1);
            let mut admitted = 0;
            for second in 0..600_u64 {
                for spray in 0..sprayed_per_second {
                    limiter.check(&consumer(&format!("{second}-{spray}")), at(second));
                }
                admitted += (0..5).filter(|_| limiter.check(&acme(), at(second)).admitted).count();
            }
            let most = (600 / 20 + 1) * requests as usize;
            assert!(admitted <= most, "{admitted} of {most}, {sprayed_per_second} a second");
        }
    }
}

/// The flood costs one window; after that it is forgotten.
#[test]
fn after_a_flood_everybody_has_their_limit_again() {
    let per = Timespan::from_secs(1);
    for algorithm in [
        Algorithm::FixedWindow(FixedWindow { requests: 3, per }),
        Algorithm::SlidingWindow(SlidingWindow { requests: 3, per }),
        Algorithm::TokenBucket(TokenBucket { rate: 3, per, burst: 3 }),
    ] {
        let limiter = of(algorithm, 50);
        for i in 0..100_000 {
            limiter.check(&consumer(&format!("spray-{i}")), at(10));
        }
        let fresh =
            (0..20_u8).filter(|n| limiter.check(&consumer(&who(*n)), at(13)).remaining == 2);
        assert_eq!(fresh.count(), 20);
    }
}
