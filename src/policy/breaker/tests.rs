//! Failures in a row, as gobreaker counts them, and the additions to that.

mod oracles;
mod reset;
mod retract;
mod window;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::orders::{Forced, forced};
use super::*;
use crate::policy::outcome::Outcome;

const OPEN_FOR: Duration = Duration::from_secs(30);
const RESET: Duration = Duration::from_secs(10);

/// The breaker of a history, and its virtual clock.
struct Bench {
    breaker: Arc<Breaker>,
    now: Moment,
}

impl Bench {
    fn new(config: &str) -> Self {
        let config = serde_yaml::from_str(config).expect("a valid configuration");
        Bench { breaker: Arc::new(Breaker::new(config, Moment::ZERO)), now: Moment::ZERO }
    }

    /// Trips at 5 in 10 s, opens for 30 s, closes after 3.
    fn rolling() -> Self {
        Bench::new("{consecutive: {failures: 5, reset_every: 10s}, half_open_calls: 3}")
    }

    fn fixed() -> Self {
        Bench::new("{consecutive: {failures: 5, reset_every: 10s, reset: fixed}}")
    }

    fn half_open() -> Self {
        let mut bench = Bench::rolling();
        bench.fail(5);
        bench.pass(OPEN_FOR);
        bench
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn permit(&self) -> Permit {
        self.breaker.acquire(self.now).expect("the circuit admits")
    }

    fn fail(&self, times: u32) {
        (0..times).for_each(|_| self.permit().record(Verdict::Failure, self.now));
    }

    fn succeed(&self, times: u32) {
        (0..times).for_each(|_| self.permit().record(Verdict::Success, self.now));
    }

    fn refusal(&self) -> Option<Open> {
        self.breaker.acquire(self.now).err()
    }

    fn state(&self) -> State {
        self.breaker.state(self.now)
    }
}

#[test]
fn it_trips_at_exactly_the_configured_run_of_failures() {
    let bench = Bench::rolling();
    bench.fail(4);
    assert_eq!(bench.state(), State::Closed { failures: 4 });
    bench.fail(1);
    assert_eq!(bench.state(), State::Open { remaining: OPEN_FOR });
}

#[test]
fn a_success_ends_the_run() {
    let bench = Bench::rolling();
    for _ in 0..3 {
        bench.fail(4);
        bench.succeed(1);
    }
    assert_eq!(bench.state(), State::Closed { failures: 0 });
}

#[test]
fn a_neutral_result_neither_adds_to_the_run_nor_ends_it() {
    let bench = Bench::rolling();
    bench.fail(4);
    bench.permit().record(Verdict::Neutral, bench.now);
    assert_eq!(bench.state(), State::Closed { failures: 4 });
    bench.fail(1);
    assert!(bench.refusal().is_some());
}

#[test]
fn a_dropped_permit_counts_for_nothing() {
    let bench = Bench::rolling();
    bench.fail(4);
    drop(bench.permit());
    assert_eq!(bench.state(), State::Closed { failures: 4 });
}

#[test]
fn an_open_circuit_says_how_long_it_stays_open() {
    let mut bench = Bench::rolling();
    bench.fail(5);
    bench.pass(Duration::from_millis(29_500));
    let retry_after = Duration::from_millis(500);
    assert_eq!(bench.refusal(), Some(Open { retry_after }));
}

#[test]
fn a_client_that_waits_what_it_was_told_is_admitted() {
    let mut bench = Bench::rolling();
    bench.fail(5);
    bench.pass(Duration::from_secs(3));
    let refusal = bench.refusal().expect("open");
    bench.pass(refusal.retry_after);
    assert!(bench.permit().is_probe());
}

#[test]
fn only_the_configured_number_of_probes_is_out_at_once() {
    let bench = Bench::half_open();
    let probes: Vec<_> = (0..3).map(|_| bench.permit()).collect();
    assert_eq!(bench.refusal(), Some(Open { retry_after: Duration::ZERO }));
    assert_eq!(bench.state(), State::HalfOpen { in_flight: 3, successes: 0 });
    drop(probes);
}

#[test]
fn a_success_keeps_its_place_until_the_trial_is_over() {
    let bench = Bench::half_open();
    bench.succeed(1);
    let _probes = [bench.permit(), bench.permit()];
    assert!(bench.refusal().is_some());
}

#[test]
fn it_closes_after_exactly_the_configured_successes() {
    let bench = Bench::half_open();
    bench.succeed(2);
    assert_eq!(bench.state(), State::HalfOpen { in_flight: 0, successes: 2 });
    bench.succeed(1);
    assert_eq!(bench.state(), State::Closed { failures: 0 });
}

#[test]
fn any_failed_probe_reopens_for_the_full_time() {
    let bench = Bench::half_open();
    bench.succeed(2);
    bench.fail(1);
    assert_eq!(bench.state(), State::Open { remaining: OPEN_FOR });
}

#[test]
fn a_dropped_probe_frees_the_half_open_slot() {
    let bench = Bench::half_open();
    let _probes = [bench.permit(), bench.permit()];
    drop(bench.permit());
    assert!(bench.refusal().is_none());
}

#[test]
fn a_neutral_probe_frees_the_half_open_slot() {
    let bench = Bench::half_open();
    let _probes = [bench.permit(), bench.permit()];
    bench.permit().record(Verdict::Neutral, bench.now);
    assert!(bench.refusal().is_none());
}

#[test]
fn a_probe_that_panics_frees_the_half_open_slot() {
    let bench = Bench::half_open();
    let _probes = [bench.permit(), bench.permit()];
    let probe = bench.permit();
    let end = thread::spawn(move || {
        let _probe = probe;
        std::panic::resume_unwind(Box::new(()));
    })
    .join();
    assert!(end.is_err());
    assert!(bench.refusal().is_none());
}

#[test]
fn a_result_from_before_the_trip_is_dropped() {
    let mut bench = Bench::rolling();
    let late = [bench.permit(), bench.permit()];
    bench.fail(5);
    bench.pass(OPEN_FOR);
    bench.succeed(1);
    for (permit, verdict) in late.into_iter().zip([Verdict::Failure, Verdict::Success]) {
        permit.record(verdict, bench.now);
    }
    assert_eq!(bench.state(), State::HalfOpen { in_flight: 0, successes: 1 });
}

#[test]
fn a_late_probe_does_not_reopen_a_circuit_that_has_closed() {
    let mut bench = Bench::half_open();
    let stuck = bench.permit();
    bench.succeed(2);
    bench.pass(OPEN_FOR);
    bench.succeed(1);
    stuck.record(Verdict::Failure, bench.now);
    assert_eq!(bench.state(), State::Closed { failures: 0 });
}

#[test]
fn probes_that_never_return_do_not_keep_the_circuit_half_open() {
    let mut bench = Bench::half_open();
    let _stuck = [bench.permit(), bench.permit(), bench.permit()];
    bench.pass(OPEN_FOR - Duration::from_nanos(1));
    assert!(bench.refusal().is_some());
    bench.pass(Duration::from_nanos(1));
    bench.succeed(3);
    assert_eq!(bench.state(), State::Closed { failures: 0 });
}

#[test]
fn a_probe_that_lost_its_place_frees_no_second_one() {
    let mut bench = Bench::half_open();
    let stuck = [bench.permit(), bench.permit(), bench.permit()];
    bench.pass(OPEN_FOR);
    let _others = [bench.permit(), bench.permit(), bench.permit()];
    drop(stuck);
    assert!(bench.refusal().is_some());
}

#[test]
fn probes_slower_than_the_watchdog_still_close_the_circuit() {
    let mut bench = Bench::half_open();
    for _ in 0..3 {
        let slow = bench.permit();
        bench.pass(OPEN_FOR * 2);
        slow.record(Verdict::Success, bench.now);
    }
    assert_eq!(bench.state(), State::Closed { failures: 0 });
}

#[test]
fn one_probe_is_the_default() {
    let mut bench = Bench::fixed();
    bench.fail(5);
    bench.pass(OPEN_FOR);
    let probe = bench.permit();
    assert!(bench.refusal().is_some());
    probe.record(Verdict::Success, bench.now);
    assert_eq!(bench.state(), State::Closed { failures: 0 });
}

#[test]
fn every_transition_is_counted() {
    let mut bench = Bench::half_open();
    bench.fail(1);
    bench.pass(OPEN_FOR);
    bench.succeed(3);
    let expected = Transitions { opened: 2, half_opened: 2, closed: 1 };
    assert_eq!(bench.breaker.transitions(), expected);
}

#[test]
fn an_outcome_is_judged_by_the_configuration() {
    let bench = Bench::new("{consecutive: {failures: 1}, failure_on: [503]}");
    let conclude = |outcome| {
        bench.permit().record(bench.breaker.config().judge(outcome), bench.now);
        bench.refusal()
    };
    assert!(conclude(Outcome::Response(500)).is_none());
    assert!(conclude(Outcome::Response(503)).is_some());
}

#[test]
fn while_nothing_fails_no_call_waits_for_the_lock() {
    for config in ["{consecutive: {failures: 5, reset_every: 10s}}", "{window: {calls: 100}}"] {
        let bench = Bench::new(config);
        let _held = bench.breaker.circuit.machine.lock();
        bench.succeed(200);
        drop(bench.permit());
    }
}

#[test]
fn a_refusal_of_an_open_circuit_does_not_wait_for_the_lock() {
    let bench = Bench::rolling();
    bench.fail(5);
    let _held = bench.breaker.circuit.machine.lock();
    assert!(bench.refusal().is_some());
}

#[test]
fn eight_threads_lose_no_probe_and_no_place() {
    let config = "{consecutive: {failures: 2}, open_for: 1us, half_open_calls: 3}";
    let bench = Bench::new(config);
    thread::scope(|scope| {
        for seed in 0..8 {
            let breaker = &bench.breaker;
            scope.spawn(move || hammer(breaker, seed));
        }
    });
    let quiet = Moment::from_nanos(1_000_000_000);
    if let State::HalfOpen { in_flight, .. } = bench.breaker.state(quiet) {
        assert_eq!(in_flight, 0);
    }
}

fn hammer(breaker: &Arc<Breaker>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for nanos in 0..50_000 {
        let now = Moment::from_nanos(nanos);
        let Ok(permit) = breaker.acquire(now) else { continue };
        match random.u8(0..4) {
            0 => permit.record(Verdict::Failure, now),
            1 => permit.record(Verdict::Neutral, now),
            2 => drop(permit),
            _ => permit.record(Verdict::Success, now),
        }
    }
}

#[test]
fn a_circuit_tells_once_why_it_opened_and_once_that_it_closed() {
    let mut bench = Bench::rolling();
    bench.fail(4);
    assert_eq!(bench.breaker.changes(), []);
    bench.fail(1);
    let opened = Change::Opened { why: Why::InARow(5), for_now: OPEN_FOR };
    assert_eq!(bench.breaker.changes(), [opened]);
    assert_eq!(bench.breaker.changes(), [], "told already");

    bench.pass(OPEN_FOR);
    bench.fail(1);
    assert_eq!(bench.breaker.changes(), [], "it has been open all the time");
    bench.pass(OPEN_FOR);
    bench.succeed(3);
    let closed = Change::Closed { after: OPEN_FOR * 2, failed_trials: 1 };
    assert_eq!(bench.breaker.changes(), [closed]);
}

#[test]
fn a_circuit_that_opens_for_a_rate_tells_its_counts() {
    let bench = Bench::new("{window: {calls: 10, minimum_calls: 4, failure_rate: 50%}}");
    bench.succeed(2);
    bench.fail(2);
    let changes = bench.breaker.changes();
    let why = Why::Rate { calls: 4, failed: 2, slow: 0 };
    assert!(
        matches!(changes[..], [Change::Opened { why: told, .. }] if told == why),
        "{changes:?}"
    );
}

#[test]
fn an_operators_order_is_no_change_of_the_circuits_own() {
    let mut bench = Bench::rolling();
    bench.fail(5);
    drop(bench.breaker.changes());
    bench.breaker.order(forced(Forced::Open));
    bench.breaker.reset(bench.now);
    bench.pass(OPEN_FOR);
    assert_eq!(bench.breaker.changes(), []);
}
