//! When a circuit opens, what it lets through then, and how it heals: with exact counts of
//! what the upstream saw.

use std::time::Duration;

use crate::support::{
    Answer, Call, Gateway, Plan, Response, Upstream, assert_within, eventually, pass, timed,
};

/// A circuit of the upstream, and two routes to it.
fn shared(upstream: &Upstream, breaker: &str, policies: &str) -> Gateway {
    let yaml = format!(
        "
upstreams: {{service: {{endpoints: ['${{UPSTREAM}}'], circuit_breaker: {breaker}}}}}
routes:
  a: {{match: {{path: /a}}, upstream: service{policies}}}
  b: {{match: {{path: /b}}, upstream: service{policies}}}
"
    );
    Plan::new(&yaml).upstream(upstream).start()
}

fn statuses(gateway: &Gateway, path: &str, count: usize) -> Vec<u16> {
    (0..count).map(|_| gateway.get(path).status).collect()
}

#[track_caller]
fn assert_open(response: &Response) {
    assert_eq!((response.status, response.code().as_str()), (503, "circuit_open"));
}

fn state(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_circuit_state", &[("name", "service")])
}

#[track_caller]
fn wait_until_half_open(gateway: &Gateway) {
    eventually("a half-open circuit", || (state(gateway) == 1.0).then_some(()));
}

#[test]
fn a_circuit_opens_at_exactly_its_number_of_failures() {
    let upstream = Upstream::always(500);
    let gateway = shared(&upstream, "{consecutive: {failures: 3}, open_for: 30s}", "");
    assert_eq!(statuses(&gateway, "/a", 3), [500, 500, 500], "the upstream's own answers");
    let refused = gateway.get("/a");
    assert_open(&refused);
    assert!((29..=30).contains(&refused.retry_after()), "{}", refused.retry_after());
    assert_eq!(upstream.count(), 3);
    assert_eq!(state(&gateway), 2.0);
}

#[test]
fn an_open_circuit_answers_at_once_and_does_not_call() {
    let upstream = Upstream::script([Answer::from(503)]);
    let gateway = shared(&upstream, "{consecutive: {failures: 1}}", "");
    gateway.get("/a");
    let mut client = gateway.connect();
    let (_, took) = timed(|| {
        for _ in 0..10 {
            assert_open(&client.call(&"GET /a".into()));
        }
    });
    assert_within(took, Duration::from_millis(200));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_success_begins_the_count_again() {
    let upstream = Upstream::script([500, 500, 200, 500, 500, 200]);
    let gateway = shared(&upstream, "{consecutive: {failures: 3}}", "");
    assert_eq!(statuses(&gateway, "/a", 6), [500, 500, 200, 500, 500, 200]);
    assert_eq!(state(&gateway), 0.0);
}

#[test]
fn failures_of_long_ago_are_forgotten() {
    let upstream = Upstream::script([500, 500]);
    let gateway = shared(&upstream, "{consecutive: {failures: 2, reset_every: 200ms}}", "");
    assert_eq!(gateway.get("/a").status, 500);
    // When failures are forgotten shows nowhere.
    pass(Duration::from_millis(250));
    assert_eq!(statuses(&gateway, "/a", 2), [500, 200]);
}

#[test]
fn answers_that_are_the_callers_fault_open_nothing() {
    let upstream = Upstream::always(400);
    let gateway = shared(&upstream, "{consecutive: {failures: 2}}", "");
    assert_eq!(statuses(&gateway, "/a", 5), [400; 5]);
    assert_eq!(upstream.count(), 5);
}

#[test]
fn every_kind_of_failure_counts() {
    let answers = [Answer::reset(), Answer::hang(), Answer::from(502)];
    let upstream = Upstream::script(answers);
    let breaker = "{consecutive: {failures: 3}}";
    let gateway = shared(&upstream, breaker, ", timeout: {attempt: 300ms}");
    assert_eq!(statuses(&gateway, "/a", 3), [502, 504, 502]);
    assert_open(&gateway.get("/a"));
}

#[test]
fn a_circuit_is_shared_by_all_routes_to_its_upstream() {
    let upstream = Upstream::always(500);
    let gateway = shared(&upstream, "{consecutive: {failures: 2}}", "");
    gateway.get("/a");
    gateway.get("/b");
    assert_open(&gateway.get("/a"));
    assert_open(&gateway.get("/b"));
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_circuit_of_a_route_is_its_own() {
    let upstream = Upstream::script([500]);
    let breaker = "circuit_breaker: {consecutive: {failures: 1}}";
    let yaml = format!(
        "
routes:
  a: {{match: {{path: /a}}, upstream: service, {breaker}}}
  b: {{match: {{path: /b}}, upstream: service, {breaker}}}
"
    );
    let gateway = Plan::new(&yaml).upstream(&upstream).start();
    assert_eq!(gateway.get("/a").status, 500);
    assert_open(&gateway.get("/a"));
    assert_eq!(gateway.get("/b").status, 200);
}

#[test]
fn a_half_open_circuit_lets_through_as_many_as_it_may_and_heals() {
    let held = || Answer::ok().held();
    let upstream = Upstream::script([Answer::from(500), held(), held()]);
    let breaker = "{consecutive: {failures: 1}, open_for: 1s, half_open_calls: 2}";
    let gateway = shared(&upstream, breaker, "");
    gateway.get("/a");
    assert_open(&gateway.get("/a"));
    wait_until_half_open(&gateway);
    let mut probes = [gateway.connect(), gateway.connect()];
    for probe in &mut probes {
        probe.send(Call::new("GET /a").bytes());
    }
    upstream.wait_for(3);
    assert_open(&gateway.get("/a"));
    assert_eq!(upstream.count(), 3, "no third probe");
    upstream.release();
    for probe in &mut probes {
        assert_eq!(probe.receive().status, 200);
    }
    eventually("a closed circuit", || (state(&gateway) == 0.0).then_some(()));
    assert_eq!(statuses(&gateway, "/b", 3), [200; 3]);
}

#[test]
fn a_probe_that_fails_opens_the_circuit_again() {
    let upstream = Upstream::script([500, 500]);
    let breaker = "{consecutive: {failures: 1}, open_for: 1s, half_open_calls: 2}";
    let gateway = shared(&upstream, breaker, "");
    gateway.get("/a");
    eventually("a probe", || (gateway.get("/a").status == 500).then_some(()));
    assert_open(&gateway.get("/a"));
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_probe_whose_client_leaves_frees_its_place() {
    let upstream = Upstream::script([Answer::from(500), Answer::hang()]);
    let breaker = "{consecutive: {failures: 1}, open_for: 1s, half_open_calls: 1}";
    let gateway = shared(&upstream, breaker, "");
    gateway.get("/a");
    wait_until_half_open(&gateway);
    let mut probe = gateway.connect();
    probe.send(Call::new("GET /a").bytes());
    upstream.wait_for(2);
    assert_open(&gateway.get("/a"));
    probe.vanish();
    upstream.wait_cancelled(1);
    eventually("another probe that heals", || (gateway.get("/a").status == 200).then_some(()));
}

#[test]
fn a_client_that_leaves_is_no_failure() {
    let upstream = Upstream::script([Answer::hang()]);
    let gateway = shared(&upstream, "{consecutive: {failures: 1}}", "");
    let mut client = gateway.connect();
    client.send(Call::new("GET /a").bytes());
    upstream.wait_for(1);
    client.vanish();
    upstream.wait_cancelled(1);
    assert_eq!(statuses(&gateway, "/a", 2), [200, 200]);
    assert_eq!(state(&gateway), 0.0);
}

#[test]
fn our_own_refusals_are_no_failures() {
    let upstream = Upstream::start();
    let policies = ", rate_limit: {fixed_window: {requests: 1, per: 1m}}, bulkhead: {max_in_flight: 1, status: 503}";
    let gateway = shared(&upstream, "{consecutive: {failures: 1}}", policies);
    assert_eq!(statuses(&gateway, "/a", 3), [200, 429, 429]);
    assert_eq!(gateway.get("/b").status, 200);
    assert_eq!(state(&gateway), 0.0);
}

#[test]
fn attempts_are_counted_one_by_one() {
    let upstream = Upstream::always(503);
    let retry = ", retry: {max_retries: 2, on: [503], backoff: {base: 1ms}}";
    let gateway = shared(&upstream, "{consecutive: {failures: 4}, count: attempts}", retry);
    assert_eq!(gateway.get("/a").status, 503);
    assert_eq!(upstream.count(), 3);
    let last = gateway.get("/a");
    assert_eq!((last.status, last.text().as_str()), (503, "upstream 503"), "as it came");
    assert_eq!(upstream.count(), 4, "the fourth opened the circuit, which stopped its retries");
    assert_open(&gateway.get("/a"));
}

#[test]
fn a_request_counts_once_with_all_its_retries_where_requests_are_counted() {
    let upstream = Upstream::always(503);
    let retry = ", retry: {max_retries: 2, on: [503], backoff: {base: 1ms}}";
    let gateway = shared(&upstream, "{consecutive: {failures: 2}, count: requests}", retry);
    assert_eq!(statuses(&gateway, "/a", 2), [503, 503]);
    assert_eq!(upstream.count(), 6);
    assert_open(&gateway.get("/a"));
    assert_eq!(upstream.count(), 6);
}

#[test]
fn a_request_that_a_retry_saved_is_a_success_where_requests_are_counted() {
    let upstream = Upstream::script([503, 200, 503, 200]);
    let retry = ", retry: {max_retries: 1, on: [503], backoff: {base: 1ms}}";
    let gateway = shared(&upstream, "{consecutive: {failures: 1}, count: requests}", retry);
    assert_eq!(statuses(&gateway, "/a", 2), [200, 200]);
    assert_eq!(upstream.count(), 4);
}

#[test]
fn what_counts_as_a_failure_is_configurable() {
    let upstream = Upstream::always(418);
    let gateway = shared(&upstream, "{consecutive: {failures: 1}, failure_on: [418]}", "");
    assert_eq!(gateway.get("/a").status, 418);
    assert_open(&gateway.get("/a"));
}
