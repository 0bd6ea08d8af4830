//! What a client is answered where the upstream's answer cannot be had.

use crate::support::{
    Answer, Call, Gateway, Plan, Response, Store, Upstream, eventually, refused_address,
};

const FALLBACK: &str = "fallback: {status: 503, json: {service: '{upstream}', status: fallback, message: 'try later', timestamp: '{timestamp}', why: ['{code}', '{route}', '{request_id}']}}";

fn start(upstream: &Upstream, policies: &str) -> Gateway {
    Gateway::route(upstream, &format!("{FALLBACK}\n{policies}"))
}

#[track_caller]
fn assert_fallback(response: &Response, code: &str) {
    assert_eq!(response.status, 503);
    assert_eq!(response.header("content-type"), Some("application/json"));
    let json = response.json();
    assert_eq!(json["service"], "service");
    assert_eq!(json["status"], "fallback");
    assert_eq!(json["message"], "try later");
    let timestamp = json["timestamp"].as_str().expect("a timestamp");
    assert!(timestamp.starts_with("20") && timestamp.ends_with('Z'), "{timestamp}");
    let id = response.header("x-request-id").expect("a request id");
    assert_eq!(json["why"], serde_json::json!([code, "all", id]));
}

fn counted(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("portcullis_fallbacks_total", &[("route", "all"), ("reason", reason)])
}

#[test]
fn an_open_circuit_is_answered_by_the_fallback() {
    let upstream = Upstream::always(500);
    let breaker = "circuit_breaker: {consecutive: {failures: 1}}\nrecord: {mode: async}";
    let gateway = start(&upstream, breaker);
    assert_eq!(gateway.get("/").text(), "upstream 500", "which no retry would have been for");
    let response = gateway.get("/");
    assert_fallback(&response, "circuit_open");
    assert!((1..=30).contains(&response.retry_after()));
    assert_eq!((upstream.count(), counted(&gateway, "circuit_open")), (1, 1.0));
    let rows = Store::Sqlite.wait_for_rows(&gateway, 2);
    assert!(rows.iter().any(|row| row.text("rejection") == Some("circuit_open")), "{rows:?}");
}

#[test]
fn a_full_bulkhead_is_answered_by_the_fallback() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let gateway = start(&upstream, "bulkhead: {max_in_flight: 1}");
    let mut first = gateway.connect();
    first.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    let mut second = gateway.connect();
    for _ in 0..2 {
        assert_fallback(&second.call(&"GET /".into()), "bulkhead_full");
    }
    assert_eq!((upstream.count(), counted(&gateway, "bulkhead_full")), (1, 2.0));
}

#[test]
fn spent_attempts_are_answered_by_the_fallback() {
    let upstream = Upstream::always(503);
    let retry = "retry: {max_retries: 2, on: [503], backoff: {base: 0}}\nrecord: {mode: sync}";
    let gateway = start(&upstream, retry);
    assert_fallback(&gateway.get("/"), "upstream_5xx");
    assert_eq!((upstream.count(), counted(&gateway, "attempts_spent")), (3, 1.0));
    let row = &Store::Sqlite.wait_for_rows(&gateway, 1)[0];
    assert_eq!(row.text("rejection"), Some("upstream_5xx"));
    assert_eq!((row.number("attempts"), row.number("upstream_status")), (3, 503));
    assert!(!row.is_true("success"));
}

#[test]
fn an_attempt_without_an_answer_is_answered_by_the_fallback() {
    for (answer, code) in [
        (Answer::reset(), "reset"),
        (Answer::hang(), "attempt_timeout"),
        (Answer::verbatim("nonsense\r\n\r\n"), "invalid_response"),
    ] {
        let upstream = Upstream::script([answer]);
        let gateway = start(&upstream, "timeout: {attempt: 300ms}");
        assert_fallback(&gateway.post("/", "{}"), code);
        assert_eq!(upstream.count(), 1, "{code}");
    }
    let upstream = format!("http://{}", refused_address());
    let gateway = Plan::route(FALLBACK).env("UPSTREAM", &upstream).start();
    assert_fallback(&gateway.get("/"), "connect_refused");
}

#[test]
fn an_upstream_without_an_endpoint_is_answered_by_the_fallback() {
    let gateway = Plan::route(FALLBACK).env("UPSTREAM", "http://nobody.invalid:1").start();
    assert_fallback(&gateway.get("/"), "dns");
}

#[test]
fn what_the_upstream_has_to_say_is_passed_on() {
    for status in [200, 404, 429, 500] {
        let upstream = Upstream::always(status);
        let gateway = start(&upstream, "");
        let response = gateway.get("/");
        assert_eq!(response.status, status);
        assert!(response.text().contains("upstream") || status == 200, "{}", response.text());
        gateway.expect_metric("portcullis_fallbacks_total", &[], 0.0);
    }
}

#[test]
fn a_failure_that_a_retry_mends_needs_no_fallback() {
    let upstream = Upstream::script([503]);
    let gateway = start(&upstream, "retry: {max_retries: 1, backoff: {base: 0}}");
    assert_eq!(gateway.get("/").text(), "ok");
}

#[test]
fn what_is_not_listed_is_refused_as_ever() {
    let upstream = Upstream::script([503]);
    let policies = "fallback: {on: [bulkhead_full], json: {}}\ncircuit_breaker: {consecutive: {failures: 1}}\nrate_limit: {fixed_window: {requests: 2, per: 1m}}";
    let gateway = Gateway::route(&upstream, policies);
    assert_eq!(gateway.get("/").text(), "upstream 503");
    assert_eq!(gateway.get("/").code(), "circuit_open");
    assert_eq!(gateway.get("/").code(), "rate_limited");
}

#[test]
fn a_fallback_may_be_a_good_answer() {
    let upstream = Upstream::always(503);
    let policies = "fallback: {status: 200, json: {items: [], stale: true}}\ncircuit_breaker: {consecutive: {failures: 1}}";
    let gateway = Gateway::route(&upstream, policies);
    for _ in 0..2 {
        let response = gateway.get("/");
        assert_eq!((response.status, response.header("retry-after")), (200, None));
        assert_eq!(response.text(), r#"{"items":[],"stale":true}"#);
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn failed_attempts_count_for_the_circuit_whatever_their_clients_were_answered() {
    let upstream = Upstream::always(503);
    for count in ["attempts", "requests"] {
        let breaker = format!("circuit_breaker: {{consecutive: {{failures: 2}}, count: {count}}}");
        let gateway = start(&upstream, &breaker);
        for code in ["upstream_5xx", "upstream_5xx"] {
            assert_fallback(&gateway.get("/"), code);
        }
        eventually("an open circuit", || {
            (gateway.status()["routes"]["all"]["circuit"]["state"] == "open").then_some(())
        });
        assert_fallback(&gateway.get("/"), "circuit_open");
    }
    assert_eq!(upstream.count(), 4);
}
