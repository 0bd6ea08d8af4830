//! Endpoints whose attempts fail are taken out of use, and come back.

use std::time::{Duration, Instant};

use crate::support::{
    Answer, Call, Gateway, Load, Plan, Upstream, assert_within_since, eventually, quantile,
    refused_address, watched,
};

/// Three endpoints in turn, with short times.
fn three(ends: [&Upstream; 3], upstream: &str, route: &str) -> Gateway {
    plan(ends.map(Upstream::url), upstream, route).start()
}

fn plan(urls: [String; 3], upstream: &str, route: &str) -> Plan {
    let yaml = format!(
        "
upstreams: {{service: {{endpoints: ['${{A}}', '${{B}}', '${{C}}'], {upstream}}}}}
routes: {{all: {{match: {{path: /*}}, upstream: service, {route}}}}}
"
    );
    let [a, b, c] = urls;
    Plan::new(&yaml).env("A", &a).env("B", &b).env("C", &c)
}

const QUICK: &str = "balance: round_robin, ejection: {eject_for: 200ms, max_eject_for: 400ms}";
const LONG: &str = "balance: round_robin, ejection: {eject_for: 1h, max_eject_for: 1h}";

fn endpoint(gateway: &Gateway, upstream: &Upstream) -> serde_json::Value {
    let all = gateway.status()["upstreams"]["service"]["endpoints"].clone();
    let address = upstream.address().to_string();
    let found =
        all.as_array().into_iter().flatten().find(|endpoint| endpoint["address"] == *address);
    found.cloned().unwrap_or_else(|| panic!("{address} in {all}"))
}

fn is_available(gateway: &Gateway, upstream: &Upstream) -> bool {
    endpoint(gateway, upstream)["state"] == "available"
}

#[test]
fn an_endpoint_that_fails_gets_nothing_until_it_works_and_each_edge_is_told() {
    let [a, b, c] = [Upstream::always(503), Upstream::start(), Upstream::start()];
    let gateway = three([&a, &b, &c], LONG, "");
    let failed = (0..60).filter(|_| gateway.get("/").status == 503).count();
    assert_eq!((failed, a.count(), b.count() + c.count()), (5, 5, 55));
    let shown = endpoint(&gateway, &a);
    assert_eq!(shown["state"], "ejected", "{shown}");
    let ejection = &shown["ejection"];
    assert_eq!(
        (&ejection["reason"], &ejection["failures"]),
        (&"consecutive_failures".into(), &5.into())
    );
    assert_eq!(ejection["times"], 1);
    assert!(ejection["probe_in_seconds"].as_f64().is_some_and(|left| left > 3000.0), "{ejection}");
    assert!(is_available(&gateway, &b));
    let reason = [("upstream", "service"), ("reason", "consecutive_failures")];
    gateway.expect_metric("portcullis_upstream_ejections_total", &reason, 1.0);
    gateway.expect_metric("portcullis_upstream_ejected", &[("upstream", "service")], 1.0);
    gateway.expect_metric("portcullis_upstream_all_used", &[("upstream", "service")], 0.0);
    gateway.wait_for_log(&format!("upstreams.service: {} is ejected for ", a.address()));
    gateway.wait_for_log("s: 5 failures in a row");
}

#[test]
fn an_endpoint_that_recovers_is_used_again_after_one_probe() {
    let [a, b, c] = [Upstream::always(503), Upstream::start(), Upstream::start()];
    let gateway = three([&a, &b, &c], QUICK, "");
    eventually("an ejection", || {
        gateway.get("/");
        (!is_available(&gateway, &a)).then_some(())
    });
    // A probe that fails, at least, and is no request more than one each time.
    let before = a.count();
    eventually("a failed probe", || {
        gateway.get("/");
        (a.count() > before).then_some(())
    });
    a.answer_always(200);
    eventually("the recovery", || {
        gateway.get("/");
        is_available(&gateway, &a).then_some(())
    });
    let before = a.count();
    assert!((0..30).all(|_| gateway.get("/").status == 200));
    assert_eq!(a.count() - before, 10, "its share");
    gateway.wait_for_log(&format!("upstreams.service: {} is used again after ", a.address()));
    gateway.wait_for_log("probes that failed meanwhile: ");
    gateway.expect_metric("portcullis_upstream_ejected", &[("upstream", "service")], 0.0);
    let log = gateway.log();
    let ejected = log.matches("is ejected for").count();
    assert_eq!(ejected, 1, "a probe that fails is no edge: {log}");
}

#[test]
fn an_endpoint_that_is_killed_and_restarted_costs_no_request_with_a_retry() {
    // At a port that no other test takes meanwhile.
    let a = Upstream::listen(refused_address());
    let [b, c] = [Upstream::start(), Upstream::start()];
    let address = a.address();
    let gateway = three([&a, &b, &c], QUICK, "retry: {max_retries: 1, budget: unlimited}");
    let load = Load::paced(gateway.address, 4, "killed", Duration::from_millis(5));
    eventually("traffic", || (a.count() > 10).then_some(()));
    drop(a);
    gateway.wait_for_log(&format!("{address} is ejected for "));
    let again = Upstream::listen(address);
    eventually("its share again", || (again.count() > 20).then_some(()));
    let answered = load.finish();
    let failed: Vec<_> = answered.iter().filter(|answer| answer.status != 200).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(answered.len() > 100, "{}", answered.len());
}

/// One of three hangs: after it is ejected, which takes less than two sweeps of 10 s, the 99th percentile of
/// the route is at most 1.3 times what it was. Slow enough that this is more than the noise of a machine.
#[test]
fn an_endpoint_that_hangs_does_not_slow_the_route_down() {
    let slow = || Upstream::always(Answer::ok().after(Duration::from_millis(100)));
    let [a, b, c] = [slow(), slow(), slow()];
    let pace = Duration::from_millis(160);
    let route =
        "timeout: {attempt: 500ms}, retry: {max_retries: 1, on: [timeout], budget: unlimited}";
    let gateway = three([&a, &b, &c], LONG, route);
    let measure = |name: &str| {
        let load = Load::paced(gateway.address, 12, name, pace);
        eventually("answers", || (load.answers() > 200).then_some(()));
        load.finish()
    };
    let timeouts = || {
        let labels = [("upstream", "service"), ("outcome", "timeout")];
        gateway.metric("portcullis_upstream_attempts_total", &labels)
    };
    let started = watched();
    let before = quantile(&measure("before"), 0.99);
    a.answer_always(Answer::hang());
    let (hung, load) = (Instant::now(), Load::paced(gateway.address, 12, "sweep", pace));
    gateway.wait_for_log(&format!("{} is ejected for ", a.address()));
    assert!(hung.elapsed() < 2 * Duration::from_secs(10), "{:?}", hung.elapsed());
    load.finish();
    let (seen, timed_out) = (a.count(), timeouts());
    let answered = measure("after");
    assert!(answered.iter().all(|answer| answer.status == 200));
    assert_eq!((a.count(), timeouts()), (seen, timed_out), "it gets nothing more");
    // Two endpoints do what three did.
    let after = quantile(&answered, 0.99);
    println!("p99 before {before:?}, after {after:?}");
    assert_within_since(started, after, before.mul_f64(1.3));
}

#[test]
fn a_reload_keeps_ejections_and_off_ends_them() {
    let [a, b, c] = [Upstream::always(503), Upstream::start(), Upstream::start()];
    let gateway = three([&a, &b, &c], LONG, "");
    (0..30).for_each(|_| drop(gateway.get("/")));
    assert_eq!(a.count(), 5);
    let written = |upstream: &str| plan([&a, &b, &c].map(Upstream::url), upstream, "");
    assert!(gateway.reload_plan(&written(&format!("{LONG}, slow_start: 1s"))));
    (0..30).for_each(|_| drop(gateway.get("/")));
    assert_eq!((a.count(), is_available(&gateway, &a)), (5, false));
    assert!(gateway.reload_plan(&written("balance: round_robin, ejection: off")));
    (0..30).for_each(|_| drop(gateway.get("/")));
    assert_eq!((a.count(), is_available(&gateway, &a)), (15, true));
}

fn open(gateway: &Gateway) -> bool {
    gateway.status()["upstreams"]["service"]["circuit"]["state"] == "open"
}

/// The table of docs/concepts/balancing.md, over the wire.
#[test]
fn failures_that_led_to_an_ejection_do_not_count_for_the_circuit() {
    let breaker = "circuit_breaker: {consecutive: {failures: 6}, open_for: 1h}";
    // Only A fails, and gets each third request: five of its failures eject it.
    let [a, b, c] = [Upstream::always(503), Upstream::start(), Upstream::start()];
    let gateway = three([&a, &b, &c], &format!("{LONG}, {breaker}"), "");
    (0..60).for_each(|_| drop(gateway.get("/")));
    assert_eq!((a.count(), open(&gateway)), (5, false));
    // Now the others fail as well: six in a row open the circuit, no other endpoint may be ejected.
    b.answer_always(503);
    c.answer_always(503);
    let before = b.count() + c.count();
    let statuses: Vec<_> = (0..8).map(|_| gateway.get("/").status).collect();
    assert_eq!(b.count() + c.count() - before, 6, "{statuses:?}");
    assert!(open(&gateway));
}

/// A rate that the failures of one endpoint would reach, if they were not taken back.
#[test]
fn a_window_of_the_circuit_forgets_what_led_to_an_ejection() {
    for window in ["calls: 100", "time: 60s"] {
        let rate = "minimum_calls: 20, failure_rate: 30%";
        let breaker = format!("circuit_breaker: {{window: {{{window}, {rate}}}, open_for: 1h}}");
        let [a, b, c] = [Upstream::always(503), Upstream::start(), Upstream::start()];
        let gateway = three([&a, &b, &c], &format!("{LONG}, {breaker}"), "");
        // 5 of A and 10 of the others; only the latter count.
        (0..15).for_each(|_| drop(gateway.get("/")));
        b.answer_always(503);
        c.answer_always(503);
        // The tenth failure makes it 20 calls; with those of A, the sixth would have.
        let begun = b.count() + c.count();
        eventually("an open circuit", || {
            gateway.get("/");
            open(&gateway).then_some(())
        });
        assert_eq!(b.count() + c.count() - begun, 10, "{window}");
    }
}

/// As before there were ejections.
#[test]
fn the_only_endpoint_is_never_ejected() {
    let upstream = Upstream::always(503);
    let yaml = "
upstreams: {service: {endpoints: ['${UPSTREAM}'], circuit_breaker: {consecutive: {failures: 20}, open_for: 1h}}}
routes: {all: {match: {path: /*}, upstream: service}}
";
    let gateway = Plan::new(yaml).upstream(&upstream).start();
    let statuses: Vec<_> = (0..22).map(|_| gateway.get("/").status).collect();
    assert_eq!(upstream.count(), 20, "{statuses:?}");
    assert!(is_available(&gateway, &upstream) && open(&gateway));
    assert!(!gateway.log().contains("ejected"));
}

#[test]
fn if_all_fail_most_are_used_and_all_recover() {
    let all = [503, 503, 503].map(Upstream::always);
    let [a, b, c] = &all;
    let gateway = three([a, b, c], QUICK, "");
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(500) {
        assert_eq!(gateway.get("/").status, 503);
    }
    let out = all.iter().filter(|upstream| !is_available(&gateway, upstream)).count();
    assert!(out <= 1, "{out} are out");
    all.iter().for_each(|upstream| upstream.answer_always(200));
    eventually("the recovery", || {
        gateway.get("/");
        all.iter().all(|upstream| is_available(&gateway, upstream)).then_some(())
    });
    assert!((0..30).all(|_| gateway.get("/").status == 200));
}

#[test]
fn a_caller_in_a_hurry_ejects_nothing_but_one_that_was_left_hanging_does() {
    let slow = || Upstream::always(Answer::ok().after(Duration::from_millis(300)));
    let [a, b, c] = [slow(), slow(), slow()];
    let gateway = three([&a, &b, &c], LONG, "errors: connect");
    let call = |milliseconds: &str| {
        let call = Call::new("POST /").header("Connect-Timeout-Ms", milliseconds).json("{}");
        gateway.call(call.header("Connect-Protocol-Version", "1")).status
    };
    // Their average latency is known.
    for _ in 0..3 {
        assert_eq!(call("5000"), 200);
    }
    for _ in 0..30 {
        assert_eq!(call("20"), 504);
    }
    assert!([&a, &b, &c].iter().all(|upstream| is_available(&gateway, upstream)));
    let status = gateway.status();
    let endpoints = status["upstreams"]["service"]["endpoints"].as_array().expect("a list");
    assert!(endpoints.iter().all(|one| one["failing"] == 0.0), "{endpoints:?}");
    a.answer_always(Answer::hang());
    for _ in 0..15 {
        call("900");
    }
    assert!(!is_available(&gateway, &a), "{}", endpoint(&gateway, &a));
    assert!(is_available(&gateway, &b) && is_available(&gateway, &c));
}

#[test]
fn an_endpoint_that_fails_more_often_than_the_others_is_ejected_by_its_share() {
    let [a, b, c] = [Upstream::start(), Upstream::start(), Upstream::start()];
    let window = "ejection: {consecutive_failures: 0, eject_for: 1h, max_eject_for: 1h, \
                  window: {time: 1s, failure_rate: 40%, minimum_calls: 20}}";
    let gateway = three([&a, &b, &c], &format!("balance: round_robin, {window}"), "");
    // Every second one fails, so that there are never two in a row.
    let begun = a.count();
    eventually("the ejection", || {
        for _ in 0..6 {
            a.answer_always(if (a.count() - begun).is_multiple_of(2) { 503 } else { 200 });
            (0..3).for_each(|_| drop(gateway.get("/")));
        }
        (!is_available(&gateway, &a)).then_some(())
    });
    let ejection = endpoint(&gateway, &a)["ejection"].clone();
    assert_eq!(ejection["reason"], "failure_rate", "{ejection}");
    let (failed, all) = (ejection["failures"].as_u64(), ejection["attempts"].as_u64());
    let (failed, all) = (failed.expect("a count"), all.expect("a count"));
    assert!(all >= 20 && failed * 100 >= all * 40, "{ejection}");
    assert!(is_available(&gateway, &b) && is_available(&gateway, &c));
    // All three may fail: what they have in common is no fault of one of them.
    b.answer_always(503);
    c.answer_always(503);
    let started = Instant::now();
    // A window and a half, so that it holds nothing else.
    while started.elapsed() < Duration::from_millis(1500) {
        gateway.get("/");
    }
    assert!(is_available(&gateway, &b) && is_available(&gateway, &c));
}
