//! Circuits that open on a rate, alone and beside a run of failures, with exact counts of what
//! the upstream saw.

use std::time::Duration;

use crate::support::{Answer, Gateway, Upstream, eventually, pass};

fn guarded(upstream: &Upstream, breaker: &str) -> Gateway {
    Gateway::route(upstream, &format!("circuit_breaker: {{{breaker}}}"))
}

fn statuses(gateway: &Gateway, count: usize) -> Vec<u16> {
    (0..count).map(|_| gateway.get("/").status).collect()
}

/// A success is taken in once its last byte has left, which its client may see before.
#[track_caller]
fn wait_until(gateway: &Gateway, state: &str) {
    eventually(&format!("a circuit that is {state}"), || {
        (gateway.status()["routes"]["all"]["circuit"]["state"] == state).then_some(())
    });
}

#[track_caller]
fn assert_open(gateway: &Gateway) {
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "circuit_open"));
}

#[test]
fn a_rate_opens_the_circuit_once_there_are_enough_calls() {
    let upstream = Upstream::script([500, 200, 200, 500]);
    let gateway = guarded(&upstream, "window: {calls: 10, minimum_calls: 4, failure_rate: 50%}");
    assert_eq!(statuses(&gateway, 4), [500, 200, 200, 500], "one of one was not enough");
    wait_until(&gateway, "open");
    assert_open(&gateway);
    assert_eq!(upstream.count(), 4);
}

#[test]
fn a_rate_that_is_not_reached_opens_nothing() {
    let upstream = Upstream::script([500, 200, 200, 500, 200, 200]);
    let gateway = guarded(&upstream, "window: {calls: 3, failure_rate: 50%}");
    assert_eq!(statuses(&gateway, 7), [500, 200, 200, 500, 200, 200, 200]);
    wait_until(&gateway, "closed");
}

#[test]
fn slow_answers_open_the_circuit_however_good_they_are() {
    let slow = || Answer::ok().after(Duration::from_millis(120));
    let upstream = Upstream::script([slow(), slow()]);
    let window = "window: {calls: 2, slow_calls: {longer_than: 60ms, rate: 100%}}";
    let gateway = guarded(&upstream, window);
    assert_eq!(statuses(&gateway, 2), [200, 200]);
    wait_until(&gateway, "open");
    assert_open(&gateway);
    assert_eq!(upstream.count(), 2);
}

const TRIAL: &str =
    "window: {calls: 3, failure_rate: 50%}, open_for: 200ms, half_open_calls: 3, max_half_open: 1m";

/// Three failures, and three probes that end like this.
fn tried(probes: [u16; 3]) -> (Upstream, Gateway) {
    let upstream = Upstream::script([500; 3].into_iter().chain(probes));
    let gateway = guarded(&upstream, TRIAL);
    assert_eq!(statuses(&gateway, 3), [500; 3]);
    assert_open(&gateway);
    wait_until(&gateway, "half_open");
    assert_eq!(statuses(&gateway, 3), probes);
    (upstream, gateway)
}

#[test]
fn one_failed_probe_of_three_closes_a_circuit_of_half() {
    let (upstream, gateway) = tried([500, 200, 200]);
    wait_until(&gateway, "closed");
    assert_eq!(statuses(&gateway, 2), [200, 200]);
    assert_eq!(upstream.count(), 8);
}

#[test]
fn two_failed_probes_of_three_open_it_again() {
    let (upstream, gateway) = tried([200, 500, 500]);
    eventually("the circuit to be opened twice", || {
        let opened = gateway.metric("portcullis_circuit_opened_total", &[("name", "all")]);
        (opened == 2.0).then_some(())
    });
    assert_eq!(upstream.count(), 6);
}

#[test]
fn a_lazy_circuit_is_shown_as_open_until_it_is_called() {
    let upstream = Upstream::script([500]);
    let breaker = "consecutive: {failures: 1}, open_for: 50ms, transition: lazy";
    let gateway = guarded(&upstream, breaker);
    assert_eq!(gateway.get("/").status, 500);
    // What must not show: that its time is over.
    pass(Duration::from_millis(100));
    assert_eq!(gateway.status()["routes"]["all"]["circuit"]["state"], "open");
    assert_eq!(gateway.get("/").status, 200);
    wait_until(&gateway, "closed");
}

const BOTH: &str =
    "consecutive: {failures: 3}, window: {calls: 10, minimum_calls: 4, failure_rate: 50%}";

#[test]
fn of_both_modes_a_run_trips_before_there_are_enough_calls_for_a_rate() {
    let upstream = Upstream::always(500);
    let gateway = guarded(&upstream, BOTH);
    assert_eq!(statuses(&gateway, 3), [500; 3]);
    assert_open(&gateway);
    assert_eq!(upstream.count(), 3);
}

#[test]
fn of_both_modes_a_rate_trips_where_no_run_does() {
    let upstream = Upstream::script([500, 200, 200, 500]);
    let gateway = guarded(&upstream, BOTH);
    assert_eq!(statuses(&gateway, 4), [500, 200, 200, 500]);
    wait_until(&gateway, "open");
    assert_open(&gateway);
    assert_eq!(upstream.count(), 4);
}
