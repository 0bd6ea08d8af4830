//! Rates in a window, as resilience4j counts them, and the operator's orders.

use super::super::orders::{Forced, forced};
use super::*;

/// The settings of a common resilience4j service: 10 calls, at least 5, half of them failed; open
/// for 5 s, judged after 3.
const SERVICE: &str = "{window: {calls: 10, minimum_calls: 5}, open_for: 5s, half_open_calls: 3}";
const OPEN_FOR: Duration = Duration::from_secs(5);

impl Bench {
    /// One call per letter: `s`uccess, `f`ailure, `t`hrottled, `n`eutral, `d`ropped. An upper-case
    /// letter takes 2 s, others no time. A refused call is not made.
    fn play(&mut self, history: &str) -> State {
        for letter in history.chars() {
            let Ok(permit) = self.breaker.acquire(self.now) else { continue };
            if letter.is_ascii_uppercase() {
                self.pass(Duration::from_secs(2));
            }
            match letter.to_ascii_lowercase() {
                's' => permit.record(Verdict::Success, self.now),
                'f' => permit.record(Verdict::Failure, self.now),
                't' => permit.record(Verdict::Throttled, self.now),
                'n' => permit.record(Verdict::Neutral, self.now),
                _dropped => drop(permit),
            }
        }
        self.state()
    }

    fn half_open_service() -> Self {
        let mut bench = Bench::new(SERVICE);
        bench.play("fffff");
        bench.pass(OPEN_FOR);
        bench
    }
}

#[test]
fn a_count_window_opens_and_stays_closed_as_resilience4j_does() {
    for (history, opens) in [
        // Not before the minimum, whatever the rate.
        ("ffff", false),
        ("fffff", true),
        // A success that reaches the minimum causes earlier failures to be judged.
        ("fffss", true),
        ("ffsss", false),
        // Reaching the rate trips; it need not be exceeded.
        ("fsfsfs", true),
        ("ssssssfff", false),
        ("sssssfffff", true),
        // Only the latest ten count; the oldest drops out as the eleventh arrives.
        ("ssssssssssffff", false),
        ("ssssssssssfffff", true),
        ("fffsssssssss", true),
        ("ffsssssssssfff", false),
        // A neutral result does not count as a call, and a refusal for load is a failure.
        ("ffffnnnnnn", false),
        ("ffffdddddd", false),
        ("ttttt", true),
    ] {
        let opened = matches!(Bench::new(SERVICE).play(history), State::Open { .. });
        assert_eq!(opened, opens, "{history}");
    }
}

#[test]
fn slow_calls_trip_at_their_own_rate_whether_they_fail_or_not() {
    let config = "{window: {calls: 4, failure_rate: 100%, \
                   slow_calls: {longer_than: 1s, rate: 75%}}}";
    for (history, opens) in [
        ("SSSs", true),
        ("SSss", false),
        ("FFSs", true),
        // Slow successes are not failures: the two rates do not add up.
        ("ffSS", false),
        ("ssssSSS", true),
        ("SSsssss", false),
    ] {
        let opened = matches!(Bench::new(config).play(history), State::Open { .. });
        assert_eq!(opened, opens, "{history}");
    }
}

#[test]
fn a_call_that_takes_exactly_the_time_is_not_slow() {
    let config = "{window: {calls: 1, slow_calls: {longer_than: 2s}}}";
    assert_eq!(Bench::new(config).play("S"), State::Closed { failures: 0 });
}

#[test]
fn a_wait_after_the_permit_does_not_make_a_call_slow() {
    let mut bench = Bench::new("{window: {calls: 1, slow_calls: {longer_than: 1s}}}");
    let permit = bench.permit();
    bench.pass(Duration::from_secs(10));
    permit.begun(bench.now).record(Verdict::Success, bench.now);
    assert_eq!(bench.state(), State::Closed { failures: 0 });
}

#[test]
fn half_open_is_judged_by_rate_once_the_trial_is_complete() {
    for (history, expected) in [
        ("ff", State::HalfOpen { in_flight: 0, successes: 0 }),
        // One failure in three is below one half. gobreaker would open.
        ("fss", State::Closed { failures: 0 }),
        ("sfs", State::Closed { failures: 0 }),
        ("ffs", State::Open { remaining: OPEN_FOR }),
        ("stt", State::Open { remaining: OPEN_FOR }),
        ("nnndddsss", State::Closed { failures: 0 }),
    ] {
        assert_eq!(Bench::half_open_service().play(history), expected, "{history}");
    }
}

#[test]
fn a_trial_needs_no_more_results_than_the_minimum() {
    let config = "{window: {calls: 10, minimum_calls: 2}, open_for: 5s, half_open_calls: 5}";
    let mut bench = Bench::new(config);
    bench.play("ff");
    bench.pass(OPEN_FOR);
    assert_eq!(bench.play("ss"), State::Closed { failures: 0 });
}

#[test]
fn slow_probes_open_a_circuit_that_is_judged_by_rate() {
    let config = "{window: {calls: 2, slow_calls: {longer_than: 1s}}, half_open_calls: 2}";
    let mut bench = Bench::new(config);
    bench.play("SS");
    bench.pass(super::OPEN_FOR);
    assert!(matches!(bench.play("SS"), State::Open { .. }));
}

#[test]
fn a_circuit_that_closed_again_begins_with_an_empty_window() {
    let mut bench = Bench::half_open_service();
    bench.play("sss");
    assert_eq!(bench.play("ffff"), State::Closed { failures: 0 });
    assert!(matches!(bench.play("f"), State::Open { .. }));
}

#[test]
fn a_result_from_before_the_trip_is_not_in_the_next_window() {
    let mut bench = Bench::new(SERVICE);
    let late: Vec<_> = (0..5).map(|_| bench.permit()).collect();
    bench.play("fffff");
    bench.pass(OPEN_FOR);
    bench.play("sss");
    late.into_iter().for_each(|permit| permit.record(Verdict::Failure, bench.now));
    assert_eq!(bench.state(), State::Closed { failures: 0 });
}

#[test]
fn a_time_window_forgets_second_by_second() {
    let mut bench = Bench::new("{window: {time: 3s, minimum_calls: 4}, open_for: 5s}");
    bench.play("ff");
    bench.pass(Duration::from_secs(2));
    bench.play("s");
    bench.pass(Duration::from_millis(999));
    // Still the third second: two of four.
    assert!(matches!(bench.play("s"), State::Open { .. }));

    let mut bench = Bench::new("{window: {time: 3s, minimum_calls: 4}, open_for: 5s}");
    bench.play("ff");
    bench.pass(Duration::from_secs(2));
    bench.play("s");
    bench.pass(Duration::from_secs(1));
    // The fourth: the failures are gone.
    assert_eq!(bench.play("sss"), State::Closed { failures: 0 });
}

#[test]
fn a_time_window_is_empty_after_a_long_silence() {
    let mut bench = Bench::new("{window: {time: 3s, minimum_calls: 4}}");
    bench.play("fff");
    bench.pass(Duration::from_secs(3600));
    assert_eq!(bench.play("fff"), State::Closed { failures: 0 });
    assert!(matches!(bench.play("f"), State::Open { .. }));
}

#[test]
fn with_both_modes_the_first_to_trip_opens() {
    let config = "{consecutive: {failures: 3}, window: {calls: 10, minimum_calls: 6}}";
    for (history, opens) in
        [("fff", true), ("ffsff", false), ("ffsffs", true), ("fsffsf", true), ("fttf", false)]
    {
        let opened = matches!(Bench::new(config).play(history), State::Open { .. });
        assert_eq!(opened, opens, "{history}");
    }
}

#[test]
fn a_fixed_interval_ends_the_run_and_not_the_window() {
    let config = "{consecutive: {failures: 3, reset_every: 10s, reset: fixed}, window: {calls: 4}}";
    let mut bench = Bench::new(config);
    bench.play("ff");
    bench.pass(RESET);
    assert_eq!(bench.play("s"), State::Closed { failures: 0 });
    assert!(matches!(bench.play("s"), State::Open { .. }));
}

#[test]
fn an_undecided_trial_ends_open_when_its_time_is_over() {
    let config =
        "{consecutive: {failures: 1}, open_for: 5s, half_open_calls: 2, max_half_open: 7s}";
    let mut bench = Bench::new(config);
    bench.fail(1);
    bench.pass(OPEN_FOR);
    bench.succeed(1);
    bench.pass(Duration::from_secs(9));
    // Open since 2 s ago, whether or not a call has observed it.
    assert_eq!(bench.state(), State::Open { remaining: Duration::from_secs(3) });
    assert!(bench.refusal().is_some());
    bench.pass(Duration::from_secs(3));
    bench.succeed(2);
    assert_eq!(bench.state(), State::Closed { failures: 0 });
    let expected = Transitions { opened: 2, half_opened: 2, closed: 1 };
    assert_eq!(bench.breaker.transitions(), expected);
}

#[test]
fn a_probe_that_outlives_the_trial_decides_nothing() {
    let config = "{consecutive: {failures: 1}, open_for: 5s, max_half_open: 7s}";
    let mut bench = Bench::new(config);
    bench.fail(1);
    bench.pass(OPEN_FOR);
    let late = bench.permit();
    bench.pass(Duration::from_secs(7));
    late.record(Verdict::Success, bench.now);
    assert_eq!(bench.state(), State::Open { remaining: OPEN_FOR });
}

#[test]
fn half_open_shows_at_once_or_with_the_first_call() {
    for (transition, expected) in [
        ("automatic", State::HalfOpen { in_flight: 0, successes: 0 }),
        ("lazy", State::Open { remaining: Duration::ZERO }),
    ] {
        let mode = format!("{{consecutive: {{failures: 1}}, transition: {transition}}}");
        let mut bench = Bench::new(&mode);
        bench.fail(1);
        bench.pass(super::OPEN_FOR);
        assert_eq!(bench.state(), expected, "{transition}");
        assert!(bench.permit().is_probe());
    }
}

#[test]
fn a_circuit_forced_open_refuses_until_it_is_reset() {
    let mut bench = Bench::new(SERVICE);
    bench.breaker.order(forced(Forced::Open));
    bench.pass(Duration::from_secs(86_400));
    assert_eq!(bench.state(), State::ForcedOpen);
    assert_eq!(bench.refusal(), Some(Open { retry_after: OPEN_FOR }));
    bench.breaker.reset(bench.now);
    assert_eq!(bench.play("s"), State::Closed { failures: 0 });
}

#[test]
fn a_circuit_forced_closed_admits_whatever_happens() {
    let mut bench = Bench::new(SERVICE);
    bench.play("fffff");
    bench.breaker.order(forced(Forced::Closed));
    assert_eq!(bench.play("ffffffffff"), State::ForcedClosed);
    assert!(bench.refusal().is_none());
}

#[test]
fn results_of_a_forced_circuit_do_not_count_after_a_reset() {
    let bench = Bench::new("{consecutive: {failures: 1}, window: {calls: 1}}");
    bench.breaker.order(forced(Forced::Closed));
    let late = bench.permit();
    bench.breaker.reset(bench.now);
    late.record(Verdict::Failure, bench.now);
    assert_eq!(bench.state(), State::Closed { failures: 0 });
}

#[test]
fn eight_threads_fill_a_window_without_losing_a_call() {
    for config in [
        "{window: {time: 60s, minimum_calls: 320000, failure_rate: 0.25%}}",
        "{window: {calls: 8000, failure_rate: 0.25%}}",
    ] {
        let bench = Bench::new(config);
        thread::scope(|scope| {
            for _ in 0..8 {
                let bench = &bench;
                scope.spawn(move || {
                    let wait = |n: u64| Moment::from_nanos(n * 1_000_000);
                    for n in 0..39_999 {
                        let Ok(permit) = bench.breaker.acquire(wait(n)) else { return };
                        permit.record(Verdict::Success, wait(n));
                    }
                });
            }
        });
        assert_eq!(bench.state(), State::Closed { failures: 0 });
        let later = Moment::from_nanos(40_000_000_000);
        let mut failures = 0;
        while let Ok(permit) = bench.breaker.acquire(later) {
            permit.record(Verdict::Failure, later);
            failures += 1;
        }
        // 8 x 39,999 successes and this many failures reach 0.25 % with the 802nd; 20 of the latest
        // 8000 are 0.25 %.
        let expected = if config.contains("time") { 802 } else { 20 };
        assert_eq!(failures, expected, "{config}");
    }
}
