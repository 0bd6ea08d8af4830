//! What clients are told, compared with what then happens to them.

use super::*;

fn algorithm() -> impl Strategy<Value = Algorithm> {
    (0..3, 1..6_u32, (1..5000_u64).prop_map(Timespan::from_millis), 1..6_u32).prop_map(
        |(kind, requests, per, burst)| match kind {
            0 => Algorithm::FixedWindow(FixedWindow { requests, per }),
            1 => Algorithm::SlidingWindow(SlidingWindow { requests, per }),
            _ => Algorithm::TokenBucket(TokenBucket { rate: requests, per, burst }),
        },
    )
}

proptest! {
    /// Under any limits, in any rhythm: requests reported as remaining are admitted at once, and a
    /// client that waits the seconds of `Retry-After`, or of `Reset` when none remain, is admitted.
    #[test]
    fn a_client_that_does_as_it_is_told_is_never_refused(
        algorithms in prop::collection::vec(algorithm(), 1..4),
        pauses in prop::collection::vec(0..3_000_000_000_u64, 1..100),
        obeys in prop::collection::vec(any::<bool>(), 100),
    ) {
        let limits: Vec<_> = algorithms.into_iter().map(|a| Arc::new(of(a, 100))).collect();
        let mut now = 0;
        for (pause, obeys) in pauses.into_iter().zip(obeys) {
            now += pause;
            let moment = Moment::from_nanos(now);
            let told = check_all(&limits, &acme(), moment).expect("a limit").verdict;
            if !obeys {
                continue;
            }
            let wait = match (told.admitted, told.remaining) {
                (true, 1..) => 0,
                (true, 0) => retry_after_seconds(told.reset_after),
                (false, _) => retry_after_seconds(told.retry_after),
            };
            now += wait * 1_000_000_000;
            let then = check_all(&limits, &acme(), Moment::from_nanos(now)).expect("a limit");
            prop_assert!(then.verdict.admitted, "{:?}, then {:?}", told, then);
        }
    }

    /// The quota in `RateLimit-Policy` is full again after `Reset`.
    #[test]
    fn the_quota_is_whole_when_it_was_said_to_be(algorithm in algorithm(), spent in 1..12_u32) {
        let limits = [Arc::new(of(algorithm, 100))];
        let check = |now| check_all(&limits, &acme(), now).expect("a limit").verdict;
        (1..spent).for_each(|_| _ = check(at(3)));
        let last = check(at(3));
        let whole = at(3) + last.reset_after;
        let again = (0..last.limit).filter(|_| check(whole).admitted).count();
        prop_assert_eq!(again, last.limit as usize);
    }
}

#[test]
fn only_the_limit_that_refuses_counts_the_refusal() {
    let limits = [limiter(5, Timespan::from_secs(60), 10), limiter(2, Timespan::from_secs(1), 10)];
    let limits = limits.map(Arc::new);
    (0..6).for_each(|_| _ = check_all(&limits, &acme(), at(0)));
    assert_eq!(limits.map(|limit| limit.refused()), [0, 4]);
}

#[test]
fn of_two_limits_used_up_the_longer_one_speaks() {
    let limits = [limiter(1, Timespan::from_secs(1), 10), limiter(1, Timespan::from_secs(60), 10)];
    let standing = check_all(&limits.map(Arc::new), &acme(), at(0)).expect("two limits");
    assert_eq!((standing.limit, standing.verdict.reset_after), (1, Duration::from_secs(60)));
}
