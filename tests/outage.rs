//! Whole outages, from healthy to healed, with exact counts of what the upstream saw at each
//! stage; and waits that a seed makes repeat.

use std::time::Duration;

use crate::support::{
    Answer, Gateway, Plan, Upstream, assert_about, assert_within, eventually, timed,
};

/// One route with all that acts in an outage.
const ENGINE: &str = "
circuit_breaker: {consecutive: {failures: 3}, open_for: 2s, half_open_calls: 2, count: requests}
retry: {max_retries: 1, on: [503], budget: shared, backoff: {base: 1ms}}
timeout: {attempt: 1s}
";

fn engine(upstream: &Upstream) -> Gateway {
    let budget = "retry_budgets: {shared: {token_bucket: {capacity: 2, refill_per_second: 0.001}}}";
    Plan::route(ENGINE).section(budget).upstream(upstream).start()
}

fn circuit(gateway: &Gateway) -> serde_json::Value {
    gateway.status()["routes"]["all"]["circuit"].clone()
}

fn wait_until(gateway: &Gateway, state: &str) {
    eventually(&format!("a circuit that is {state}"), || {
        (circuit(gateway)["state"] == state).then_some(())
    });
}

fn statuses(gateway: &Gateway, count: usize) -> Vec<u16> {
    (0..count).map(|_| gateway.get("/").status).collect()
}

#[test]
fn an_outage_costs_its_failures_its_budget_and_its_probes_and_no_more() {
    let upstream = Upstream::start();
    let gateway = engine(&upstream);
    assert_eq!(statuses(&gateway, 5), [200; 5]);
    assert_eq!(upstream.count(), 5, "healthy: as many calls as requests");

    upstream.answer_always(503);
    assert_eq!(statuses(&gateway, 3), [503; 3]);
    assert_eq!(upstream.count(), 5 + 3 + 2, "failing: two retries, then the budget is empty");

    for _ in 0..20 {
        assert_eq!(gateway.get("/").code(), "circuit_open");
    }
    assert_eq!(upstream.count(), 10, "open: none");

    wait_until(&gateway, "half_open");
    assert_eq!(statuses(&gateway, 1), [503]);
    assert_eq!(gateway.get("/").code(), "circuit_open");
    assert_eq!(upstream.count(), 11, "half-open: one probe, which failed");

    upstream.answer_always(200);
    wait_until(&gateway, "half_open");
    assert_eq!(statuses(&gateway, 2), [200; 2]);
    assert_eq!(circuit(&gateway)["state"], "closed", "two probes were enough");
    assert_eq!(statuses(&gateway, 5), [200; 5]);
    assert_eq!(upstream.count(), 18, "healed: as many calls as requests");
    assert_eq!(circuit(&gateway)["opened"], 2);
    assert_eq!(gateway.status()["retry_budgets"]["shared"]["withdrawn"], 2);
}

#[test]
fn an_upstream_that_fails_every_other_time_costs_no_run_of_failures() {
    let answers = [200, 500].into_iter().cycle().take(20);
    let upstream = Upstream::script(answers);
    let gateway = engine(&upstream);
    let expected: Vec<u16> = [200, 500].into_iter().cycle().take(20).collect();
    assert_eq!(statuses(&gateway, 20), expected);
    assert_eq!((circuit(&gateway)["state"].clone(), upstream.count()), ("closed".into(), 20));
}

#[test]
fn an_upstream_that_fails_every_other_time_reaches_its_rate() {
    let upstream = Upstream::script([200, 500].into_iter().cycle().take(20));
    let gateway = Gateway::route(
        &upstream,
        "circuit_breaker: {window: {calls: 10, minimum_calls: 10, failure_rate: 50%}}",
    );
    let answered = statuses(&gateway, 15);
    assert_eq!(answered.iter().filter(|status| **status == 503).count(), 5, "{answered:?}");
    assert_eq!(upstream.count(), 10);
}

#[test]
fn each_relapse_costs_as_much_as_the_first() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(
        &upstream,
        "circuit_breaker: {consecutive: {failures: 3}, open_for: 1s, half_open_calls: 2}",
    );
    for relapse in 1..=4 {
        upstream.answer_always(500);
        assert_eq!(statuses(&gateway, 5), [500, 500, 500, 503, 503]);
        upstream.answer_always(200);
        wait_until(&gateway, "half_open");
        assert_eq!(statuses(&gateway, 2), [200, 200]);
        assert_eq!(circuit(&gateway)["opened"], relapse);
        assert_eq!(upstream.count(), relapse * 5);
    }
}

#[test]
fn an_upstream_that_is_too_slow_is_left_alone_and_taken_back() {
    let upstream = Upstream::always(Answer::hang());
    let gateway = engine(&upstream);
    assert_eq!(statuses(&gateway, 3), [504; 3]);
    let (refused, took) = timed(|| statuses(&gateway, 10));
    assert_eq!(refused, [503; 10]);
    // All of them together, sooner than a single attempt would end.
    assert_within(took, Duration::from_secs(1));
    assert_eq!(upstream.count(), 3, "a timeout is not retried here");
    upstream.answer_always(200);
    wait_until(&gateway, "half_open");
    assert_eq!(statuses(&gateway, 3), [200; 3]);
    assert_eq!(upstream.count(), 6);
}

#[test]
fn an_upstream_that_answers_but_slowly_opens_its_circuit() {
    let upstream = Upstream::always(Answer::ok().after(Duration::from_millis(600)));
    let window = "{calls: 4, slow_calls: {longer_than: 500ms, rate: 100%}}";
    let gateway = Gateway::route(
        &upstream,
        &format!("circuit_breaker: {{window: {window}, open_for: 2s, half_open_calls: 1}}"),
    );
    assert_eq!(statuses(&gateway, 6), [200, 200, 200, 200, 503, 503]);
    assert_eq!(upstream.count(), 4);
    upstream.answer_always(200);
    wait_until(&gateway, "half_open");
    assert_eq!(statuses(&gateway, 5), [200; 5]);
}

const BASE: Duration = Duration::from_millis(400);

/// Between two tries of each request the base, and as much again as chance has it.
fn seeded(upstream: &Upstream, seed: u64) -> Gateway {
    Plan::route("retry: {max_retries: 1, on: [503], backoff: {base: 400ms, jitter: 100%}}")
        .section(&format!("server: {{threads: 2, retry_jitter_seed: {seed}}}"))
        .upstream(upstream)
        .start()
}

#[test]
fn with_a_seed_the_waits_before_retries_are_known_beforehand() {
    const SEED: u64 = 42;
    let mut chance = fastrand::Rng::with_seed(SEED);
    let waits = [(); 2].map(|()| BASE.mul_f64(1.0 + chance.f64()));
    assert!(waits[0].abs_diff(waits[1]) > BASE / 5, "{waits:?} can be told from each other");
    for _run in 0..2 {
        let upstream = Upstream::script([503, 200, 503, 200]);
        let gateway = seeded(&upstream, SEED);
        for wait in waits {
            let (status, took) = timed(|| gateway.get("/").status);
            assert_eq!(status, 200);
            assert_about(took, wait);
        }
        assert_eq!(upstream.count(), 4);
    }
}

#[test]
fn a_reload_takes_another_seed() {
    const SEED: u64 = 42;
    let waits = |seed| BASE.mul_f64(1.0 + fastrand::Rng::with_seed(seed).f64());
    let wait = waits(SEED);
    let first = (0..SEED).find(|seed| wait.abs_diff(waits(*seed)) > BASE / 3);
    let upstream = Upstream::script([503, 200]);
    let gateway = seeded(&upstream, first.expect("one whose wait can be told from the other's"));
    let plan =
        Plan::route("retry: {max_retries: 1, on: [503], backoff: {base: 400ms, jitter: 100%}}")
            .section(&format!("server: {{threads: 2, retry_jitter_seed: {SEED}}}"));
    assert!(gateway.reload_plan(&plan));
    let (status, took) = timed(|| gateway.get("/").status);
    assert_eq!(status, 200);
    assert_about(took, wait);
}
