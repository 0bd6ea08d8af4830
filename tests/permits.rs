//! What a request holds it gives back, however it ends: its slot, its place in the budget, its
//! place as a probe. A panic cannot be had from outside; it is tested beside the context.

use std::time::Duration;

use crate::support::{
    Answer, Call, Client, Gateway, Plan, Upstream, at_once, eventually, pass, timed,
};

/// Everything that can be held, by attempts and waits that last. `/status` shows a probe's place
/// as taken until it is given back, however long ago it was taken.
const HOLDING: &str = "
bulkhead: {max_in_flight: 2}
circuit_breaker: {consecutive: {failures: 1}, open_for: 1s, half_open_calls: 1, count: requests}
retry: {max_retries: 1, methods: any, on: [503], budget: shared, backoff: {base: 30s, max: 30s}}
timeout: {attempt: 60s, request: 60s}
";
const BUDGET: &str = "retry_budgets: {shared: {concurrency: {share: 0%, min: 1}}}";

/// A gateway whose next request is the only probe.
fn probing(upstream: &Upstream, policies: &str, sections: &str) -> Gateway {
    let gateway =
        Plan::route(policies).section(BUDGET).section(sections).upstream(upstream).start();
    upstream.answer_always(500);
    assert_eq!(gateway.get("/").status, 500);
    wait_for_half_open(&gateway);
    gateway
}

fn wait_for_half_open(gateway: &Gateway) {
    eventually("a half-open circuit", || {
        (gateway.status()["routes"]["all"]["circuit"]["state"] == "half_open").then_some(())
    });
}

/// No request is in flight, and nothing is taken.
#[track_caller]
fn assert_whole(gateway: &Gateway) {
    eventually(&format!("everything to be free: {:#}", gateway.status()), || {
        let status = gateway.status();
        let route = &status["routes"]["all"];
        let free = route["bulkhead"]["free"] == route["bulkhead"]["slots"]
            && route["circuit"]["probes_in_flight"].as_u64().is_none_or(|probes| probes == 0)
            && status["retry_budgets"]["shared"]["tokens"] == 1.0
            && status["requests_in_flight"] == 0;
        free.then_some(())
    });
}

/// The next request is admitted as a probe, and heals the circuit.
#[track_caller]
fn assert_heals(gateway: &Gateway, upstream: &Upstream) {
    upstream.answer_always(200);
    wait_for_half_open(gateway);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(gateway.status()["routes"]["all"]["circuit"]["state"], "closed");
}

/// A probe, which `upstream` has answered so far as `answer` says.
fn probe(gateway: &Gateway, upstream: &Upstream, answer: Answer, call: &[u8]) -> Client {
    upstream.answer_always(answer);
    let seen = upstream.count();
    let mut client = gateway.connect();
    client.send(call);
    upstream.wait_for(seen + 1);
    let status = gateway.status();
    let route = &status["routes"]["all"];
    assert_eq!(route["circuit"]["probes_in_flight"], 1, "{status:#}");
    assert_eq!(route["bulkhead"]["free"], 1);
    client
}

fn get() -> Vec<u8> {
    Call::new("GET /").bytes()
}

#[test]
fn a_client_that_leaves_before_the_answer_keeps_nothing() {
    let upstream = Upstream::start();
    let gateway = probing(&upstream, HOLDING, "");
    probe(&gateway, &upstream, Answer::hang(), &get()).vanish();
    assert_whole(&gateway);
    assert_heals(&gateway, &upstream);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_upload_keeps_nothing() {
    let upstream = Upstream::start();
    let gateway = probing(&upstream, HOLDING, "");
    let call = Call::new("POST /").header("Content-Length", "1000").body("the beginning");
    probe(&gateway, &upstream, Answer::ok(), &call.bytes()).vanish();
    assert_whole(&gateway);
    assert_heals(&gateway, &upstream);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_answer_keeps_nothing() {
    let upstream = Upstream::start();
    let gateway = probing(&upstream, HOLDING, "");
    let mut client = probe(&gateway, &upstream, Answer::hold_body(), &get());
    assert_eq!(client.receive_head().status, 200);
    client.vanish();
    assert_whole(&gateway);
    assert_heals(&gateway, &upstream);
}

#[test]
fn a_client_that_leaves_during_the_wait_for_a_retry_keeps_nothing() {
    let upstream = Upstream::start();
    let gateway = probing(&upstream, HOLDING, "");
    let client = probe(&gateway, &upstream, 503.into(), &get());
    eventually("a retry to be granted", || {
        (gateway.status()["retry_budgets"]["shared"]["tokens"] == 0.0).then_some(())
    });
    client.vanish();
    assert_whole(&gateway);
    assert_heals(&gateway, &upstream);
}

#[test]
fn a_client_that_leaves_before_its_head_is_complete_takes_nothing() {
    let upstream = Upstream::start();
    let gateway = probing(&upstream, HOLDING, "");
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: gate");
    client.vanish();
    assert_whole(&gateway);
    assert_heals(&gateway, &upstream);
}

#[test]
fn an_attempt_or_a_request_that_takes_too_long_keeps_nothing() {
    at_once(["attempt: 300ms", "request: 300ms"], |limit| {
        let upstream = Upstream::start();
        let policies = HOLDING.replace("attempt: 60s, request: 60s", limit);
        let gateway = probing(&upstream, &policies, "");
        let mut client = probe(&gateway, &upstream, Answer::hang(), &get());
        assert_eq!(client.receive().status, 504, "{limit}");
        assert_whole(&gateway);
        assert_heals(&gateway, &upstream);
    });
}

#[test]
fn an_upstream_that_breaks_off_keeps_nothing() {
    at_once([Answer::reset(), Answer::close(), Answer::truncated("begun", 1000)], |answer| {
        let upstream = Upstream::start();
        let gateway = probing(&upstream, HOLDING, "");
        upstream.answer_always(answer);
        gateway.get("/");
        assert_whole(&gateway);
        assert_heals(&gateway, &upstream);
    });
}

#[test]
fn a_probe_that_another_policy_refuses_keeps_nothing() {
    // The circuit is the upstream's, so that `/other` can trip it; the bulkhead is the route's.
    let yaml = "
upstreams: {service: {endpoints: ['${UPSTREAM}'], circuit_breaker: {consecutive: {failures: 1}, open_for: 1s}}}
routes:
  all: {match: {path: /}, upstream: service, bulkhead: {max_in_flight: 1}}
  other: {match: {path: /other}, upstream: service}
";
    let upstream = Upstream::script([Answer::ok().held(), 500.into()]);
    let gateway = Plan::new(yaml).upstream(&upstream).start();
    let mut first = gateway.connect();
    first.send(get());
    upstream.wait_for(1);
    assert_eq!(gateway.get("/other").status, 500);
    wait_for_half_open(&gateway);
    assert_eq!(gateway.get("/").code(), "bulkhead_full");
    assert_eq!(gateway.status()["routes"]["all"]["circuit"]["probes_in_flight"], 0);
    assert_eq!(gateway.get("/other").status, 200, "the probe's place was free");
    upstream.release();
    assert_eq!(first.receive().status, 200);
}

#[test]
fn a_reload_keeps_what_is_held_and_what_is_given_back_afterwards() {
    let upstream = Upstream::start();
    let gateway = probing(&upstream, HOLDING, "");
    let client = probe(&gateway, &upstream, Answer::hang(), &get());
    let reloaded = |policies: &str| {
        let mut yaml = "routes:\n  all:\n    match: {path: /*}\n    upstream: service\n".to_owned();
        policies.trim().lines().for_each(|line| yaml += &format!("    {line}\n"));
        format!("{BUDGET}\n{yaml}")
    };
    assert!(gateway.reload(&reloaded(&format!("{HOLDING}max_body: 1MiB"))));
    let status = gateway.status();
    let route = &status["routes"]["all"];
    assert_eq!(route["circuit"]["probes_in_flight"], 1, "still out: {status:#}");
    assert_eq!(route["bulkhead"]["free"], 1);
    client.vanish();
    assert_whole(&gateway);
    assert_heals(&gateway, &upstream);
}

#[test]
fn what_a_reload_replaced_gives_nothing_back_to_what_took_its_place() {
    let upstream = Upstream::start();
    let gateway = probing(&upstream, HOLDING, "");
    let client = probe(&gateway, &upstream, Answer::hang(), &get());
    // Another circuit and another budget; the bulkhead counts on.
    let yaml = "
retry_budgets: {shared: {concurrency: {share: 1%, min: 1}}}
routes: {all: {match: {path: /*}, upstream: service, bulkhead: {max_in_flight: 2}, circuit_breaker: {consecutive: {failures: 9}}}}
";
    assert!(gateway.reload(yaml));
    let route = gateway.status()["routes"]["all"].clone();
    assert_eq!(
        (&route["circuit"]["state"], &route["bulkhead"]["free"]),
        (&"closed".into(), &1.into())
    );
    client.vanish();
    assert_whole(&gateway);
    upstream.answer_always(200);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_drain_ends_as_soon_as_nothing_is_held() {
    let upstream = Upstream::start();
    let mut gateway = probing(&upstream, HOLDING, "server: {threads: 2, drain_timeout: 9s}");
    let client = probe(&gateway, &upstream, Answer::hang(), &get());
    gateway.signal("TERM");
    eventually("not to be ready", || (gateway.admin("GET /readyz").status == 503).then_some(()));
    let (status, took) = timed(|| {
        client.vanish();
        gateway.exit()
    });
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}: something was held until the end");
}

#[test]
fn many_that_leave_at_any_point_keep_nothing() {
    let upstream = Upstream::start();
    let gateway = Plan::route(
        "bulkhead: {max_in_flight: 20}
         circuit_breaker: {consecutive: {failures: 1000}}
         retry: {max_retries: 2, on: [503], budget: shared, backoff: {base: 5ms}}",
    )
    .section(BUDGET)
    .upstream(&upstream)
    .start();
    let mut chance = fastrand::Rng::with_seed(1);
    for _ in 0..200 {
        let slow = Answer::from(if chance.bool() { 200 } else { 503 });
        upstream.answer_always(slow.after(Duration::from_millis(chance.u64(0..8))));
        let mut client = gateway.connect();
        let call = get();
        let part = chance.usize(1..=call.len());
        client.send(&call[..part]);
        pass(Duration::from_millis(chance.u64(0..12)));
        client.vanish();
    }
    assert_whole(&gateway);
    upstream.answer_always(200);
    assert_eq!(gateway.get("/").status, 200);
}
