//! No interleaving lets a circuit admit more probes than it may, keep a place for ever, or lose
//! the failure it had to open for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use portcullis_loom::concurrently;
use portcullis_loom::policy::breaker::{Breaker, Permit, State, Verdict};
use portcullis_loom::time::Moment;

const NOW: Moment = Moment::ZERO;
const OPEN_FOR: Duration = Duration::from_secs(5);

fn breaker(mode: &str) -> Arc<Breaker> {
    let yaml = format!("{{{mode}, open_for: 5s}}");
    Arc::new(Breaker::new(serde_yaml::from_str(&yaml).expect("valid"), NOW))
}

/// One whose next call is a probe, and the moment for it.
fn half_open(places: u32) -> (Arc<Breaker>, Moment) {
    let breaker = breaker(&format!("consecutive: {{failures: 1}}, half_open_calls: {places}"));
    breaker.acquire(NOW).expect("closed").record(Verdict::Failure, NOW);
    (breaker, NOW + OPEN_FOR)
}

fn in_flight(breaker: &Breaker, now: Moment) -> u32 {
    match breaker.state(now) {
        State::HalfOpen { in_flight, .. } => in_flight,
        other => panic!("{other:?}"),
    }
}

/// What two threads do that ask at once for so many places: how many probes there were.
fn probes(places: u32, end: fn(Permit, Moment)) -> (Arc<Breaker>, Moment, usize) {
    let (breaker, now) = half_open(places);
    // Of `std`: no part of the model.
    let (out, admitted) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicUsize::new(0)));
    concurrently((0..2).map(|_| {
        let breaker = Arc::clone(&breaker);
        let (out, admitted) = (Arc::clone(&out), Arc::clone(&admitted));
        move || {
            let Ok(permit) = breaker.acquire(now) else { return };
            assert!(permit.is_probe());
            assert!(out.fetch_add(1, Ordering::Relaxed) < places, "one probe too many");
            admitted.fetch_add(1, Ordering::Relaxed);
            loom::thread::yield_now();
            out.fetch_sub(1, Ordering::Relaxed);
            end(permit, now);
        }
    }));
    let admitted = admitted.load(Ordering::Relaxed);
    (breaker, now, admitted)
}

/// Every schedule with up to three switches in mid-step.
fn bounded(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn a_probe_that_is_dropped_gives_its_place_back() {
    bounded(|| {
        let (breaker, now, admitted) = probes(1, |permit, _| drop(permit));
        assert!(admitted >= 1);
        assert_eq!(in_flight(&breaker, now), 0);
        let _again = breaker.acquire(now).expect("the place is free");
        assert!(breaker.acquire(now).is_err());
    });
}

#[test]
fn two_probes_that_succeed_close_the_circuit_in_either_order() {
    bounded(|| {
        let (breaker, now, admitted) =
            probes(2, |permit, now| permit.record(Verdict::Success, now));
        assert_eq!(admitted, 2);
        assert_eq!(breaker.state(now), State::Closed { failures: 0 });
        assert_eq!(breaker.transitions().closed, 1);
    });
}

#[test]
fn probes_that_fail_open_the_circuit_once() {
    bounded(|| {
        let (breaker, now, _) = probes(2, |permit, now| permit.record(Verdict::Failure, now));
        assert_eq!(breaker.state(now), State::Open { remaining: OPEN_FOR });
        assert_eq!(breaker.transitions().opened, 2, "for the first failure, and for a probe's");
    });
}

#[test]
fn a_run_of_failures_trips_reported_by_any_thread() {
    loom::model(|| {
        let breaker = breaker("consecutive: {failures: 2}");
        concurrently((0..2).map(|_| {
            let breaker = Arc::clone(&breaker);
            let permit = breaker.acquire(NOW).expect("closed");
            move || permit.record(Verdict::Failure, NOW)
        }));
        assert_eq!(breaker.state(NOW), State::Open { remaining: OPEN_FOR });
        assert!(breaker.acquire(NOW).is_err());
    });
}

#[test]
fn a_call_that_is_admitted_as_the_circuit_opens_changes_nothing_later() {
    loom::model(|| {
        let breaker = breaker("consecutive: {failures: 1}");
        let failing = breaker.acquire(NOW).expect("closed");
        let trip = loom::thread::spawn(move || failing.record(Verdict::Failure, NOW));
        // Before the trip or not at all.
        let late = breaker.acquire(NOW).ok();
        trip.join().expect("no panic");
        assert_eq!(breaker.state(NOW), State::Open { remaining: OPEN_FOR });
        assert!(breaker.acquire(NOW).is_err());
        let now = NOW + OPEN_FOR;
        let _probe = breaker.acquire(now).expect("a probe");
        // It is of an older generation: it neither closes the circuit nor frees the probe's place.
        if let Some(late) = late {
            late.record(Verdict::Success, now);
        }
        assert_eq!(in_flight(&breaker, now), 1);
    });
}

#[test]
fn a_success_that_saw_no_failure_does_not_outlive_the_run() {
    loom::model(|| {
        let breaker = breaker("consecutive: {failures: 2}");
        let [one, other] = [0, 1].map(|_| breaker.acquire(NOW).expect("closed"));
        let failing = loom::thread::spawn(move || one.record(Verdict::Failure, NOW));
        other.record(Verdict::Success, NOW);
        failing.join().expect("no panic");
        // The success came before the failure, or after it and ended the run.
        let State::Closed { failures } = breaker.state(NOW) else { panic!("opened by one") };
        breaker.acquire(NOW).expect("closed").record(Verdict::Failure, NOW);
        assert_eq!(failures == 1, matches!(breaker.state(NOW), State::Open { .. }));
    });
}

#[test]
fn a_window_loses_no_call_and_trips_with_the_one_that_reaches_the_rate() {
    for extent in ["calls: 2", "time: 10s"] {
        let mode = format!("window: {{{extent}, minimum_calls: 2, failure_rate: 100%}}");
        loom::model(move || {
            let breaker = breaker(&mode);
            concurrently((0..2).map(|_| {
                let permit = breaker.acquire(NOW).expect("closed");
                move || permit.record(Verdict::Failure, NOW)
            }));
            assert_eq!(breaker.state(NOW), State::Open { remaining: OPEN_FOR });
            assert_eq!(breaker.transitions().opened, 1);
        });
    }
}

#[test]
fn a_window_sees_no_rate_that_was_never_there() {
    for extent in ["calls: 4", "time: 10s"] {
        let mode = format!("window: {{{extent}, minimum_calls: 1, failure_rate: 75%}}");
        loom::model(move || {
            let breaker = breaker(&mode);
            let permits: Vec<_> = (0..3).map(|_| breaker.acquire(NOW).expect("closed")).collect();
            let mut permits = permits.into_iter();
            // One success, then at most two failures in three: 67 %.
            permits.next().expect("three").record(Verdict::Success, NOW);
            concurrently(permits.map(|permit| move || permit.record(Verdict::Failure, NOW)));
            assert_eq!(breaker.state(NOW), State::Closed { failures: 0 });
        });
    }
}

#[test]
fn a_success_that_makes_the_minimum_trips_for_a_failure_in_another_lane() {
    loom::model(|| {
        let breaker = breaker("window: {time: 10s, minimum_calls: 2, failure_rate: 50%}");
        concurrently([Verdict::Success, Verdict::Failure].map(|verdict| {
            let permit = breaker.acquire(NOW).expect("closed");
            move || permit.record(verdict, NOW)
        }));
        assert_eq!(breaker.state(NOW), State::Open { remaining: OPEN_FOR });
        assert_eq!(breaker.transitions().opened, 1);
    });
}

#[test]
fn a_success_among_successes_hides_no_failure() {
    bounded(|| {
        let breaker = breaker("window: {calls: 2, failure_rate: 100%}");
        let record = |verdict| breaker.acquire(NOW).expect("closed").record(verdict, NOW);
        (0..2).for_each(|_| record(Verdict::Success));
        let permit = breaker.acquire(NOW).expect("closed");
        let failing = loom::thread::spawn(move || permit.record(Verdict::Failure, NOW));
        record(Verdict::Success);
        failing.join().expect("no panic");
        // The failure is the latest of the window, or the one before a success.
        (0..2).for_each(|_| {
            if let Ok(permit) = breaker.acquire(NOW) {
                permit.record(Verdict::Failure, NOW);
            }
        });
        assert_eq!(breaker.state(NOW), State::Open { remaining: OPEN_FOR });
    });
}

#[test]
fn a_second_that_begins_for_two_threads_at_once_is_turned_to_once() {
    bounded(|| {
        let breaker = breaker("window: {time: 2s, minimum_calls: 3, failure_rate: 100%}");
        let later = NOW + Duration::from_secs(2);
        // Too old then; both threads find it so.
        breaker.acquire(NOW).expect("closed").record(Verdict::Failure, NOW);
        concurrently((0..2).map(|_| {
            let permit = breaker.acquire(later).expect("closed");
            move || permit.record(Verdict::Failure, later)
        }));
        assert_eq!(breaker.state(later), State::Closed { failures: 0 });
        breaker.acquire(later).expect("closed").record(Verdict::Failure, later);
        assert!(matches!(breaker.state(later), State::Open { .. }), "two and one are three");
    });
}
