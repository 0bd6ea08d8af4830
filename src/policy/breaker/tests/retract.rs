//! Failures that are taken back.

use proptest::prelude::*;

use super::*;

impl Bench {
    fn fail_for_now(&self) -> Receipt {
        self.permit().settle(Verdict::Failure, self.now).expect("a failure of a closed circuit")
    }
}

#[test]
fn a_run_without_the_failures_taken_back_goes_on_with_the_others() {
    let mut bench = Bench::rolling();
    let mine: Vec<_> = (0..2)
        .map(|_| {
            bench.pass(Duration::from_millis(1));
            bench.fail_for_now()
        })
        .collect();
    bench.pass(Duration::from_millis(1));
    bench.fail(2);
    bench.breaker.retract(&mine);
    bench.breaker.retract(&mine);
    assert_eq!(bench.state(), State::Closed { failures: 2 });
    bench.fail(2);
    assert_eq!(bench.state(), State::Closed { failures: 4 });
    bench.fail(1);
    assert!(matches!(bench.state(), State::Open { .. }));
}

#[test]
fn what_opened_a_circuit_can_no_longer_be_taken_back() {
    let mut bench = Bench::rolling();
    let receipts: Vec<_> = (0..5).map(|_| bench.fail_for_now()).collect();
    bench.breaker.retract(&receipts);
    assert!(matches!(bench.state(), State::Open { .. }));
    bench.pass(OPEN_FOR);
    bench.succeed(3);
    bench.fail(3);
    // Nor does it touch the run of a later phase.
    bench.breaker.retract(&receipts);
    assert_eq!(bench.state(), State::Closed { failures: 3 });
}

#[test]
fn a_probe_and_a_success_have_nothing_to_take_back() {
    let bench = Bench::half_open();
    assert_eq!(bench.permit().settle(Verdict::Failure, bench.now), None);
    let bench = Bench::rolling();
    assert_eq!(bench.permit().settle(Verdict::Success, bench.now), None);
}

#[test]
fn both_kinds_of_windows_forget_the_calls_taken_back() {
    for extent in ["calls: 10", "time: 60s"] {
        let bench =
            Bench::new(&format!("{{window: {{{extent}, minimum_calls: 10, failure_rate: 50%}}}}"));
        let receipts: Vec<_> = (0..4).map(|_| bench.fail_for_now()).collect();
        bench.breaker.retract(&receipts);
        // Ten calls are left once these are in: four of them have failed.
        bench.succeed(6);
        bench.fail(4);
        assert!(matches!(bench.state(), State::Closed { .. }), "{extent}");
        bench.fail(if extent == "calls: 10" { 1 } else { 2 });
        assert!(matches!(bench.state(), State::Open { .. }), "{extent}");
    }
}

#[test]
fn calls_that_have_left_the_window_are_not_taken_back_again() {
    let bench = Bench::new("{window: {calls: 10, minimum_calls: 10, failure_rate: 50%}}");
    let receipts: Vec<_> = (0..4).map(|_| bench.fail_for_now()).collect();
    bench.succeed(10);
    bench.fail(4);
    bench.breaker.retract(&receipts);
    bench.fail(1);
    assert!(matches!(bench.state(), State::Open { .. }), "five of ten have failed");
    let mut bench = Bench::new("{window: {time: 10s, minimum_calls: 10, failure_rate: 50%}}");
    let receipts: Vec<_> = (0..4).map(|_| bench.fail_for_now()).collect();
    bench.pass(Duration::from_secs(10));
    bench.succeed(5);
    bench.fail(4);
    bench.breaker.retract(&receipts);
    assert!(matches!(bench.state(), State::Closed { .. }));
    bench.fail(1);
    assert!(matches!(bench.state(), State::Open { .. }), "five of ten have failed");
}

proptest! {
    /// A breaker that takes failures back decides afterwards as one that never heard of them, as
    /// long as they did not open it.
    #[test]
    fn a_breaker_decides_as_if_it_had_never_heard_of_what_it_takes_back(
        history in prop::collection::vec((0_u8..3, 0_u64..1500), 0..60),
        after in prop::collection::vec((0_u8..2, 0_u64..1500), 0..60),
        mode in prop::sample::select(vec![
            "consecutive: {failures: 20, reset_every: 10s}",
            "window: {time: 10s, minimum_calls: 20, failure_rate: 60%}",
        ]),
    ) {
        let (mut one, mut other) =
            (Bench::new(&format!("{{{mode}}}")), Bench::new(&format!("{{{mode}}}")));
        let mut receipts = Vec::new();
        for (step, later) in history {
            for bench in [&mut one, &mut other] {
                // Each at a time of its own.
                bench.pass(Duration::from_millis(later) + Duration::from_nanos(1));
            }
            if one.refusal().is_some() || other.refusal().is_some() {
                return Ok(());
            }
            match step {
                0 => [&one, &other].into_iter().for_each(|bench| bench.fail(1)),
                1 => {
                    // One that ends a run ends that of those taken back as well.
                    [&one, &other].into_iter().for_each(|bench| bench.succeed(1));
                }
                _ => receipts.push(one.fail_for_now()),
            }
        }
        if one.refusal().is_some() || other.refusal().is_some() {
            return Ok(());
        }
        one.breaker.retract(&receipts);
        prop_assert_eq!(one.state(), other.state());
        for (step, later) in after {
            for bench in [&mut one, &mut other] {
                bench.pass(Duration::from_millis(later));
                match (bench.refusal(), step) {
                    (Some(_), _) => {}
                    (None, 0) => bench.fail(1),
                    (None, _) => bench.succeed(1),
                }
            }
            let open = |bench: &Bench| matches!(bench.state(), State::Open { .. });
            prop_assert_eq!(open(&one), open(&other));
        }
    }
}
