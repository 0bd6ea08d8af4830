//! The token bucket compared with Spring Cloud Gateway's Redis script: equal in whole seconds, and
//! without its bugs, each of which is named.

use super::*;

/// The script's results, and what it keeps in Redis between calls.
struct Script {
    rate: u64,
    burst: u64,
    /// Tokens, when they were counted, and when Redis forgets both. In seconds.
    kept: Option<(u64, u64, u64)>,
}

impl Script {
    fn new(rate: u32, burst: u32) -> Self {
        Script { rate: rate.into(), burst: burst.into(), kept: None }
    }

    fn admits(&mut self, now: Moment) -> bool {
        // Redis' `TIME`, without its second part.
        let now = now.as_nanos() / 1_000_000_000;
        let life = 2 * self.burst / self.rate;
        let kept = self.kept.filter(|(_, _, until)| now < *until);
        let (tokens, at) = kept.map_or((self.burst, 0), |(tokens, at, _)| (tokens, at));
        let filled = self.burst.min(tokens + now.saturating_sub(at) * self.rate);
        let admitted = filled >= 1;
        if life > 0 {
            self.kept = Some((filled - u64::from(admitted), now, now + life));
        }
        admitted
    }
}

/// How many of the requests at each moment, in milliseconds, the script and the bucket admit.
fn admitted(rate: u32, burst: u32, arrivals: &[(u64, usize)]) -> (Vec<usize>, Vec<usize>) {
    let (mut script, bucket) = (Script::new(rate, burst), bucket(rate, burst));
    let at = |millis| Moment::ZERO + Duration::from_millis(millis);
    arrivals
        .iter()
        .map(|&(millis, requests)| {
            let script = (0..requests).filter(|_| script.admits(at(millis))).count();
            let ours = (0..requests).filter(|_| bucket.check(&acme(), at(millis)).admitted).count();
            (script, ours)
        })
        .unzip()
}

#[test]
fn in_whole_seconds_both_admit_the_same() {
    for (rate, burst, arrivals, expected) in [
        // A burst, then the steady rate.
        (10, 20, [(0, 50), (1000, 50), (2000, 50), (3000, 5)], [20, 10, 10, 5]),
        // Unused tokens are kept, up to the burst.
        (10, 20, [(0, 20), (1000, 0), (2000, 0), (9000, 50)], [20, 0, 0, 20]),
        (1, 1, [(0, 3), (1000, 3), (2000, 3), (5000, 3)], [1, 1, 1, 1]),
        (1, 5, [(0, 4), (1000, 4), (2000, 4), (3000, 4)], [4, 2, 1, 1]),
        // A bucket smaller than one second's tokens.
        (10, 5, [(0, 9), (1000, 9), (2000, 9), (3000, 9)], [5, 5, 5, 5]),
    ] {
        let (script, ours) = admitted(rate, burst, &arrivals);
        assert_eq!((&script[..], &ours[..]), (&expected[..], &expected[..]), "{rate}, {burst}");
    }
}

#[test]
fn bug_between_two_seconds_the_script_lets_two_bursts_through() {
    let arrivals = [(950, 20), (1000, 20), (1950, 20)];
    assert_eq!(admitted(10, 10, &arrivals), (vec![10, 10, 0], vec![10, 0, 10]));
}

#[test]
fn bug_within_a_second_the_script_gives_no_token_back() {
    let arrivals = [(0, 20), (500, 20), (999, 20)];
    assert_eq!(admitted(10, 10, &arrivals), (vec![10, 0, 0], vec![10, 5, 4]));
}

#[test]
fn bug_a_burst_of_less_than_half_a_second_never_limits() {
    assert_eq!(admitted(10, 4, &[(0, 50), (1, 50)]), (vec![50, 50], vec![4, 0]));
}

#[test]
fn bug_a_clock_that_steps_back_and_forth_fills_the_bucket() {
    let arrivals = [(100_000, 9), (99_000, 9), (100_000, 9)];
    assert_eq!(admitted(2, 4, &arrivals), (vec![4, 0, 2], vec![4, 0, 0]));
}

proptest! {
    #[test]
    fn in_whole_seconds_every_history_is_the_same(
        // Rates whose tokens take a whole number of nanoseconds.
        rate in prop::sample::select(vec![1_u32, 2, 4, 5, 8, 10, 20, 25, 50, 100]),
        more in 0..100_u32,
        arrivals in prop::collection::vec((0..4_u64, 0..40_usize), 1..60),
    ) {
        // Not less than half the rate: that triggers one of the bugs.
        let burst = rate.div_ceil(2) + more;
        let mut now = 0;
        let arrivals: Vec<_> = arrivals
            .into_iter()
            .map(|(pause, requests)| {
                now += pause * 1000;
                (now, requests)
            })
            .collect();
        let (script, ours) = admitted(rate, burst, &arrivals);
        prop_assert_eq!(script, ours);
    }
}
