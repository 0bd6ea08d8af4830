//! What is tried again, how often, and what that may cost the upstream at most.

use std::time::{Duration, Instant};

use crate::support::{
    Answer, Call, Gateway, Plan, Upstream, assert_within, eventually, pass, refused_address, timed,
};

const QUICK: &str = "backoff: {base: 1ms, max: 1ms, jitter: 0%}";

fn retrying(upstream: &Upstream, retry: &str) -> Gateway {
    Gateway::route(upstream, &format!("retry: {{{retry}, {QUICK}}}"))
}

#[test]
fn a_failure_that_a_retry_mends_is_never_seen() {
    let upstream = Upstream::script([503]);
    let gateway = retrying(&upstream, "max_retries: 1, on: [503]");
    let response = gateway.get("/x?y=z");
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    let [first, second] = &upstream.requests()[..] else { panic!("two requests") };
    assert_eq!(first.target, second.target);
    assert_eq!(first.header("x-request-id"), second.header("x-request-id"));
}

#[test]
fn retries_end_at_their_number_and_the_last_answer_is_passed_on() {
    let last = Answer::from(503).header("X-Which", "third").body("the last word");
    let upstream = Upstream::script([503.into(), 503.into(), last]);
    let response = retrying(&upstream, "max_retries: 2, on: [503]").get("/");
    assert_eq!((response.status, response.text().as_str()), (503, "the last word"));
    assert_eq!(response.header("x-which"), Some("third"));
    assert_eq!(upstream.count(), 3);
}

#[test]
fn what_is_not_listed_is_not_tried_again() {
    for status in [400, 401, 403, 404, 409, 500, 501] {
        let upstream = Upstream::always(status);
        let gateway = retrying(&upstream, "max_retries: 3, on: [502, 503, 504]");
        assert_eq!(gateway.get("/").status, status);
        assert_eq!(upstream.count(), 1, "{status}");
    }
}

#[test]
fn a_class_of_statuses_may_be_listed() {
    let upstream = Upstream::script([500, 507]);
    let gateway = retrying(&upstream, "max_retries: 2, on: [5xx]");
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(upstream.count(), 3);
}

#[test]
fn only_safe_methods_are_tried_again_unless_told_otherwise() {
    for (method, tries) in [
        ("GET", 2),
        ("HEAD", 2),
        ("OPTIONS", 2),
        ("POST", 1),
        ("PATCH", 1),
        ("PUT", 1),
        ("DELETE", 1),
    ] {
        let upstream = Upstream::always(503);
        let gateway = retrying(&upstream, "max_retries: 1, on: [503]");
        assert_eq!(gateway.call(Call::new(&format!("{method} /"))).status, 503);
        assert_eq!(upstream.count(), tries, "{method}");
    }
}

#[test]
fn a_route_may_have_idempotent_or_all_methods_tried_again() {
    for (methods, method, tries) in [
        ("idempotent", "PUT", 2),
        ("idempotent", "DELETE", 2),
        ("idempotent", "POST", 1),
        ("any", "POST", 2),
        ("any", "PATCH", 2),
    ] {
        let upstream = Upstream::always(503);
        let gateway =
            retrying(&upstream, &format!("max_retries: 1, on: [503], methods: {methods}"));
        gateway.call(Call::new(&format!("{method} /")));
        assert_eq!(upstream.count(), tries, "{method} where {methods} are");
    }
}

#[test]
fn a_post_that_broke_off_is_not_sent_twice() {
    let upstream = Upstream::always(Answer::reset());
    let gateway = retrying(&upstream, "max_retries: 3, on: [reset, connect_failure, timeout]");
    assert_eq!(gateway.post("/", "{}").status, 502);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_post_on_a_connection_used_before_is_not_sent_twice() {
    let upstream = Upstream::script([Answer::ok(), Answer::reset()]);
    let gateway = retrying(&upstream, "max_retries: 3, on: [reset, connect_failure, timeout]");
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(gateway.post("/", "{}").status, 502);
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_post_that_was_provably_not_sent_is_tried_elsewhere() {
    let alive = Upstream::start();
    let yaml = "
upstreams: {service: {endpoints: ['${A}', '${B}']}}
routes: {all: {match: {path: /*}, upstream: service, retry: {max_retries: 1, on: [connect_failure]}}}
";
    let dead = format!("http://{}", refused_address());
    let gateway = Plan::new(yaml).env("A", &dead).env("B", &alive.url()).start();
    for _ in 0..4 {
        assert_eq!(gateway.post("/", "{\"a\":1}").status, 200);
    }
    let bodies: Vec<_> = alive.wait_complete(4).iter().map(|r| r.text()).collect();
    assert_eq!(bodies, ["{\"a\":1}"; 4]);
}

#[test]
fn resets_and_timeouts_are_tried_again_where_listed() {
    let upstream = Upstream::script([Answer::reset(), Answer::close(), Answer::hang()]);
    let retry = format!(
        "retry: {{max_retries: 3, on: [reset, timeout], {QUICK}}}\ntimeout: {{attempt: 1s}}"
    );
    assert_eq!(Gateway::route(&upstream, &retry).get("/").status, 200);
    assert_eq!(upstream.count(), 4);
}

#[test]
fn a_body_of_up_to_64_kibibytes_is_sent_again_byte_for_byte() {
    let upstream = Upstream::script([503]);
    let gateway = retrying(&upstream, "max_retries: 1, on: [503], methods: any");
    let body: String = (0..60_000).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    assert_eq!(gateway.post("/", &body).status, 200);
    let requests = upstream.wait_complete(2);
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|r| r.text() == body), "both attempts carry the same body");
}

#[test]
fn a_chunked_body_is_sent_again_too() {
    let upstream = Upstream::script([503]);
    let gateway = retrying(&upstream, "max_retries: 1, on: [503], methods: any");
    let call = Call::new("POST /")
        .header("Transfer-Encoding", "chunked")
        .body("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    assert_eq!(gateway.call(call).status, 200);
    let bodies: Vec<_> = upstream.wait_complete(2).iter().map(|r| r.text()).collect();
    assert_eq!(bodies, ["hello world"; 2]);
}

#[test]
fn a_larger_body_is_not_tried_again() {
    let upstream = Upstream::script([503]);
    let gateway = retrying(&upstream, "max_retries: 1, on: [503], methods: any");
    let response = gateway.post("/", &"x".repeat(300_000));
    assert_eq!((response.status, response.text().as_str()), (503, "upstream 503"));
    assert_eq!(upstream.only().body_length, 300_000);
}

#[test]
fn an_answer_that_has_begun_is_never_continued_by_another() {
    let upstream = Upstream::script([Answer::truncated("half", 100), Answer::ok().body("other")]);
    let gateway = retrying(&upstream, "max_retries: 2, on: [5xx, reset, timeout, connect_failure]");
    let response = gateway.get("/");
    assert_eq!(response.text(), "half");
    assert_eq!(response.ending, crate::support::Ending::Truncated);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn delays_grow_and_are_waited_for() {
    let upstream = Upstream::always(503);
    let retry = "retry: {max_retries: 3, on: [503], backoff: {base: 60ms, max: 120ms, jitter: 0%}}";
    let gateway = Gateway::route(&upstream, retry);
    let (_, took) = timed(|| gateway.get("/"));
    // 60 + 120 + 120.
    assert!(took >= Duration::from_millis(295), "took {took:?}");
    assert_within(took, Duration::from_millis(500));
}

#[test]
fn no_retry_is_begun_that_the_deadline_would_cut() {
    let upstream = Upstream::always(503);
    let policies = "retry: {max_retries: 3, on: [503], backoff: {base: 2s, max: 2s, jitter: 0%}}\ntimeout: {request: 1s}";
    let gateway = Gateway::route(&upstream, policies);
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!((response.status, response.text().as_str()), (503, "upstream 503"));
    assert_within(took, Duration::from_millis(500));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_client_that_leaves_during_a_delay_is_not_retried_for() {
    let upstream = Upstream::script([503]);
    let policies = "retry: {max_retries: 1, on: [503], backoff: {base: 300ms, max: 300ms, jitter: 0%}}\nbulkhead: {max_in_flight: 1}";
    let gateway = Gateway::route(&upstream, policies);
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    client.vanish();
    pass(Duration::from_millis(500));
    assert_eq!(upstream.count(), 1);
    assert_eq!(gateway.get("/").status, 200, "and its slot is free");
}

/// Budgets are shared by name over both routes.
const BUDGET: &str = "
retry_budgets: {shared: {token_bucket: {capacity: 5, refill_per_second: 2}}}
routes:
  a: {match: {path: /a}, upstream: service, retry: {max_retries: 3, on: [503], budget: shared, backoff: {base: 1ms, max: 1ms}}}
  b: {match: {path: /b}, upstream: service, retry: {max_retries: 3, on: [503], budget: shared, backoff: {base: 1ms, max: 1ms}}}
";

#[test]
fn upstream_calls_never_exceed_the_requests_and_what_the_budget_grants() {
    let upstream = Upstream::always(503);
    let gateway = Plan::new(BUDGET).upstream(&upstream).start();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut client = gateway.connect();
                let path = if n % 2 == 0 { "GET /a" } else { "GET /b" };
                for _ in 0..5 {
                    let response = client.call(&path.into());
                    assert_eq!(response.text(), "upstream 503", "the last answer, unchanged");
                }
            });
        }
    });
    let refilled = (started.elapsed().as_secs_f64() * 2.0).floor() as usize;
    let retries = upstream.count() - 40;
    assert!(retries >= 5, "the budget was there to be spent: {retries}");
    assert!(retries <= 5 + refilled, "{retries} retries, 5 + {refilled} granted");
}

#[test]
fn a_spent_budget_waits_for_nothing() {
    let upstream = Upstream::always(503);
    let gateway = Plan::new(BUDGET).upstream(&upstream).start();
    while gateway.metric("portcullis_retry_budget_refused_total", &[("budget", "shared")]) == 0.0 {
        gateway.get("/a");
    }
    let (response, took) = timed(|| gateway.get("/b"));
    assert_eq!(response.text(), "upstream 503");
    assert_within(took, Duration::from_millis(100));
}

#[test]
fn a_spent_budget_fills_again() {
    let upstream = Upstream::always(503);
    let gateway = Plan::new(BUDGET).upstream(&upstream).start();
    gateway.get("/a");
    gateway.get("/a");
    eventually("a retry's worth of budget", || {
        let tokens = gateway.status()["retry_budgets"]["shared"]["tokens"].as_f64();
        (tokens.expect("a number") >= 1.0).then_some(())
    });
    let before = upstream.count();
    gateway.get("/b");
    assert!(upstream.count() > before + 1, "a retry after half a second");
}
