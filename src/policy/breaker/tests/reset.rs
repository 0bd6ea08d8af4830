//! How failures grow old: each on its own, or all at once at the end of fixed intervals.

use super::*;

#[test]
fn rolling_reset_finds_a_run_across_any_boundary() {
    let mut bench = Bench::rolling();
    bench.pass(Duration::from_secs(8));
    for _ in 0..5 {
        bench.fail(1);
        bench.pass(Duration::from_secs(1));
    }
    assert!(bench.refusal().is_some());
}

#[test]
fn rolling_reset_forgets_each_failure_at_its_own_age() {
    let mut bench = Bench::rolling();
    bench.fail(1);
    bench.pass(Duration::from_secs(4));
    bench.fail(3);
    bench.pass(Duration::from_secs(6));
    bench.fail(1);
    assert_eq!(bench.state(), State::Closed { failures: 4 });
}

#[test]
fn rolling_reset_counts_calls_slower_than_the_interval() {
    let mut bench = Bench::rolling();
    let slow: Vec<_> = (0..5).map(|_| bench.permit()).collect();
    bench.pass(RESET * 3);
    slow.into_iter().for_each(|permit| permit.record(Verdict::Failure, bench.now));
    assert!(bench.refusal().is_some());
}

#[test]
fn fixed_reset_clears_the_run_at_the_end_of_its_window() {
    let mut bench = Bench::fixed();
    bench.fail(4);
    bench.pass(RESET - Duration::from_nanos(1));
    assert_eq!(bench.state(), State::Closed { failures: 4 });
    bench.pass(Duration::from_nanos(1));
    bench.fail(4);
    assert_eq!(bench.state(), State::Closed { failures: 4 });
}

#[test]
fn fixed_reset_drops_the_results_of_an_older_window() {
    let mut bench = Bench::fixed();
    let slow = bench.permit();
    bench.fail(4);
    bench.pass(RESET);
    slow.record(Verdict::Failure, bench.now);
    assert_eq!(bench.state(), State::Closed { failures: 0 });
}

#[test]
fn fixed_reset_begins_a_window_with_the_first_call_after_the_last_one() {
    let mut bench = Bench::fixed();
    let slow = bench.permit();
    bench.pass(RESET + RESET / 2);
    slow.record(Verdict::Failure, bench.now);
    bench.pass(RESET / 4);
    bench.fail(4);
    bench.pass(RESET - Duration::from_nanos(1));
    assert_eq!(bench.state(), State::Closed { failures: 4 });
}

#[test]
fn without_a_reset_a_failure_is_never_too_old() {
    let mut bench = Bench::new("{consecutive: {failures: 5}}");
    for _ in 0..5 {
        bench.fail(1);
        bench.pass(Duration::from_secs(86_400));
    }
    assert_eq!(bench.breaker.transitions().opened, 1);
}
