//! What upstreams and callers say about retries, and what both are told.

use std::time::Duration;

use crate::support::{Answer, Call, Gateway, Plan, Upstream, assert_within, timed};

const ONE: &str = "retry: {max_retries: 1, methods: any, on: [503, grpc_unavailable], backoff: {base: 1ms, jitter: 0%}}";

fn busy(header: &str, value: &str) -> Upstream {
    Upstream::script([Answer::from(503).header(header, value)])
}

fn stopped(gateway: &Gateway, reason: &str) -> f64 {
    let labels = [("route", "all"), ("reason", reason)];
    gateway.metric("portcullis_retries_stopped_total", &labels)
}

#[test]
fn an_upstream_that_names_a_time_is_left_alone_until_then() {
    let upstream = busy("Retry-After", "1");
    let gateway = Gateway::route(&upstream, ONE);
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!((response.status, upstream.count()), (200, 2));
    assert!(took >= Duration::from_secs(1), "took {took:?}");
}

#[test]
fn a_time_that_has_passed_is_now() {
    let upstream = busy("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT");
    let (response, took) = timed(|| Gateway::route(&upstream, ONE).get("/"));
    assert_eq!((response.status, upstream.count()), (200, 2));
    assert_within(took, Duration::from_secs(5));
}

#[test]
fn an_upstream_that_asks_for_too_much_time_gets_no_retry() {
    let upstream = busy("Retry-After", "11");
    let gateway = Gateway::route(&upstream, ONE);
    let response = gateway.get("/");
    assert_eq!((response.status, response.retry_after()), (503, 11), "as it came");
    assert_eq!((upstream.count(), stopped(&gateway, "pushback")), (1, 1.0));
}

#[test]
fn a_time_beyond_the_deadline_is_not_waited_for() {
    let upstream = busy("Retry-After", "5");
    let gateway = Gateway::route(&upstream, &format!("{ONE}\ntimeout: {{request: 2s}}"));
    assert_eq!(gateway.get("/").status, 503);
    assert_eq!((upstream.count(), stopped(&gateway, "deadline")), (1, 1.0));
}

#[test]
fn a_pushback_of_grpc_is_waited_for_or_obeyed() {
    let upstream = busy("grpc-retry-pushback-ms", "200");
    let gateway = Gateway::route(&upstream, ONE);
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!((response.status, upstream.count()), (200, 2));
    assert!(took >= Duration::from_millis(200), "took {took:?}");

    let upstream = busy("grpc-retry-pushback-ms", "-1");
    assert_eq!(Gateway::route(&upstream, ONE).get("/").status, 503);
    assert_eq!(upstream.count(), 1);
}

/// An answer without a message, as gRPC has most of its failures.
fn trailers_only(content_type: &str, status: &str) -> Answer {
    let answer = Answer::ok().header("Content-Type", content_type).body("");
    answer.header("grpc-status", status)
}

#[test]
fn a_failure_of_grpc_is_tried_again_by_its_status() {
    for (content_type, status, tries) in [
        ("application/grpc", "14", 2),
        ("application/grpc+proto", "14", 2),
        ("application/grpc-web", "14", 2),
        ("application/grpc", "0", 1),
        ("application/grpc", "5", 1),
        ("application/grpc", "none", 1),
        ("application/json", "14", 1),
    ] {
        let upstream = Upstream::script([trailers_only(content_type, status)]);
        let gateway = Gateway::route(&upstream, ONE);
        let response = gateway.post("/Service/Method", "message");
        assert_eq!(response.status, 200);
        assert_eq!(upstream.count(), tries, "{content_type} {status}");
    }
}

#[test]
fn failures_of_grpc_open_a_circuit_and_answers_of_it_do_not() {
    for (status, outcome, then) in [("14", "grpc_unavailable", 503), ("5", "grpc_other", 200)] {
        let upstream = Upstream::script([trailers_only("application/grpc", status)]);
        let gateway = Gateway::route(&upstream, "circuit_breaker: {consecutive: {failures: 1}}");
        let first = gateway.get("/");
        assert_eq!((first.status, first.header("grpc-status")), (200, Some(status)));
        assert_eq!(gateway.get("/").status, then);
        let labels = [("upstream", "service"), ("outcome", outcome)];
        crate::support::eventually("a counted attempt", || {
            let counted = gateway.metric("portcullis_upstream_attempts_total", &labels);
            (counted == 1.0).then_some(())
        });
    }
}

#[test]
fn the_upstream_is_told_which_attempt_it_sees() {
    let upstream = Upstream::script([503, 503]);
    let gateway = Gateway::route(&upstream, &ONE.replace("max_retries: 1", "max_retries: 2"));
    let call = Call::new("GET /")
        .header("X-Envoy-Attempt-Count", "7")
        .header("X_Envoy_Attempt_Count", "7")
        .header("Connection", "X-Envoy-Attempt-Count");
    assert_eq!(gateway.call(call).status, 200);
    let requests = upstream.requests();
    let counts: Vec<_> = requests.iter().map(|r| r.header("x-envoy-attempt-count")).collect();
    assert_eq!(counts, [Some("1"), Some("2"), Some("3")]);
    assert_eq!(requests[0].header("x_envoy_attempt_count"), None);
}

#[test]
fn a_trusted_caller_that_retries_gets_no_retries_of_ours() {
    for (trusted, name, value, tries) in [
        (true, "X-Attempt", "2", 1),
        (true, "X-Attempt", "1", 2),
        (true, "grpc-previous-rpc-attempts", "1", 1),
        (false, "X-Attempt", "2", 2),
    ] {
        let upstream = Upstream::script([503]);
        let proxies = if trusted { "127.0.0.1" } else { "192.0.2.1" };
        let gateway = Plan::route(ONE)
            .section(&format!("client_address: {{trusted_proxies: [{proxies}]}}"))
            .section("identifiers: {attempt_count: X-Attempt}")
            .upstream(&upstream)
            .start();
        gateway.call(Call::new("GET /").header(name, value));
        assert_eq!(upstream.count(), tries, "{name}: {value} of a caller trusted: {trusted}");
        assert_eq!(upstream.requests()[0].header("x-attempt"), Some("1"), "never the caller's");
        assert_eq!(stopped(&gateway, "nested"), if tries == 1 { 1.0 } else { 0.0 });
    }
}

#[test]
fn the_client_is_told_of_retries_only_where_a_route_says_so() {
    let theirs = || Answer::from(503).header("X-Retry-Info", "theirs");
    for (answers, info) in [
        (vec![], "attempts=1"),
        (vec![theirs()], "attempts=2"),
        (vec![theirs(), theirs()], "attempts=2, stopped=exhausted"),
        (vec![theirs().header("Retry-After", "60")], "attempts=1, stopped=pushback"),
        (vec![Answer::reset()], "attempts=1, stopped=not_retryable"),
    ] {
        let upstream = Upstream::script(answers);
        let policies = format!("{ONE}\nretry_info_header: X-Retry-Info");
        let gateway = Gateway::route(&upstream, &policies);
        assert_eq!(gateway.get("/").header("x-retry-info"), Some(info));
    }
    let upstream = Upstream::start();
    assert_eq!(Gateway::route(&upstream, ONE).get("/").header("x-retry-info"), None);
}
