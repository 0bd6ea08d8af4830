//! One attempt's time, one request's time: held to 100 ms however the upstream stalls.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::{
    Answer, Blackhole, Call, Ending, Gateway, Plan, Store, Upstream, assert_about, at_once,
    eventually, timed,
};

const HALF: Duration = Duration::from_millis(500);
const DRIP: Duration = Duration::from_millis(100);

#[test]
fn an_attempt_that_hangs_is_504_in_time() {
    let upstream = Upstream::always(Answer::hang());
    let gateway = Gateway::route(&upstream, "timeout: {attempt: 500ms}");
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!((response.status, response.code().as_str()), (504, "attempt_timeout"));
    assert_about(took, HALF);
    upstream.wait_cancelled(1);
}

#[test]
fn a_request_that_hangs_is_504_in_time() {
    let upstream = Upstream::always(Answer::hang());
    let gateway = Gateway::route(&upstream, "timeout: {request: 500ms}");
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!((response.status, response.code().as_str()), (504, "deadline_exceeded"));
    assert_about(took, HALF);
    upstream.wait_cancelled(1);
}

#[test]
fn a_head_that_drips_does_not_stretch_the_attempt() {
    let upstream = Upstream::always(Answer::drip_head(DRIP));
    let gateway = Gateway::route(&upstream, "timeout: {attempt: 500ms}");
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!(response.status, 504);
    assert_about(took, HALF);
    upstream.wait_cancelled(1);
}

#[test]
fn a_head_that_drips_does_not_stretch_the_request() {
    let upstream = Upstream::always(Answer::drip_head(DRIP));
    let gateway = Gateway::route(&upstream, "timeout: {request: 500ms}");
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!(response.status, 504);
    assert_about(took, HALF);
    upstream.wait_cancelled(1);
}

#[test]
fn a_body_that_drips_is_cut_at_the_deadline_and_never_passed_off_as_whole() {
    for limit in ["{request: 500ms}", "{attempt: 500ms}"] {
        let upstream = Upstream::always(Answer::drip_body(DRIP));
        let gateway = Gateway::route(&upstream, &format!("timeout: {limit}"));
        let (response, took) = timed(|| gateway.get("/"));
        assert_eq!((response.status, response.ending), (200, Ending::Truncated), "{limit}");
        assert!((2..=7).contains(&response.body_length), "{} bytes", response.body_length);
        assert_about(took, HALF);
        upstream.wait_cancelled(1);
    }
}

#[test]
fn retries_and_their_delays_are_within_the_request_s_time() {
    let upstream = Upstream::always(Answer::hang());
    let policies = "timeout: {attempt: 200ms, request: 500ms}\nretry: {max_retries: 9, on: [timeout], backoff: {base: 1ms, max: 1ms}}";
    let gateway = Gateway::route(&upstream, policies);
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!(response.status, 504);
    assert_about(took, HALF);
    assert_eq!(upstream.count(), 3);
}

#[test]
fn every_attempt_gets_its_own_time() {
    let slow = || Answer::ok().after(Duration::from_millis(200));
    let upstream = Upstream::script([Answer::hang(), slow()]);
    let policies = "timeout: {attempt: 300ms}\nretry: {max_retries: 1, on: [timeout], backoff: {base: 1ms, max: 1ms}}";
    assert_eq!(Gateway::route(&upstream, policies).get("/").status, 200);
    assert_eq!(upstream.count(), 2);
}

#[test]
fn an_upstream_that_swallows_connections_is_504_after_the_connect_timeout() {
    let hole = Blackhole::start();
    let plan = Plan::route("timeout: {connect: 300ms}").env("UPSTREAM", &hole.url());
    let gateway = plan.start();
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!(response.status, 504);
    assert_about(took, Duration::from_millis(300));
}

#[test]
fn the_deadline_holds_while_connecting_too() {
    let hole = Blackhole::start();
    let plan = Plan::route("timeout: {connect: 30s, request: 500ms}").env("UPSTREAM", &hole.url());
    let gateway = plan.start();
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!(response.status, 504);
    assert_about(took, HALF);
}

#[test]
fn an_upstream_that_falls_silent_in_its_answer_is_cut_off() {
    let upstream = Upstream::always(Answer::hold_body());
    let gateway = Gateway::route(&upstream, "timeout: {idle: 300ms}");
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!((response.status, response.ending), (200, Ending::Truncated));
    assert_about(took, Duration::from_millis(300));
}

#[test]
fn a_slow_answer_that_keeps_coming_is_not_idle() {
    let answer = Answer::drip_body(DRIP).body("0123456789");
    let upstream = Upstream::always(answer);
    let gateway = Gateway::route(&upstream, "timeout: {idle: 400ms}");
    let response = gateway.get("/");
    assert_eq!((response.text().as_str(), response.ending), ("0123456789", Ending::Complete));
}

#[test]
fn a_client_that_stalls_its_body_is_408_and_no_fault_of_the_upstream() {
    let upstream = Upstream::start();
    let policies = "timeout: {idle: 300ms}\ncircuit_breaker: {consecutive: {failures: 1}}";
    let gateway = Gateway::route(&upstream, policies);
    let mut client = gateway.connect();
    let head = Call::new("POST /").header("Content-Length", "10").bytes();
    let (response, took) = timed(|| {
        client.send([&head[..], b"abc"].concat());
        client.receive()
    });
    assert_eq!((response.status, response.code().as_str()), (408, "request_timeout"));
    assert_about(took, Duration::from_millis(300));
    assert!(client.is_closed());
    assert_eq!(gateway.get("/").status, 200, "the circuit is closed");
    assert!(!upstream.requests()[0].complete);
}

#[test]
fn a_deadline_that_passes_while_the_client_uploads_is_no_fault_of_the_upstream() {
    let upstream = Upstream::start();
    let policies = "timeout: {request: 400ms}\ncircuit_breaker: {consecutive: {failures: 1}}";
    let gateway = Gateway::route(&upstream, policies);
    let mut client = gateway.connect();
    let head = Call::new("POST /").header("Content-Length", "10").bytes();
    client.send([&head[..], b"abc"].concat());
    let response = client.receive();
    assert!(matches!(response.status, 408 | 504), "{}", response.status);
    assert_eq!(gateway.get("/").status, 200, "the circuit is closed");
}

#[test]
fn a_timeout_of_one_request_is_none_of_the_next_on_its_connection() {
    let upstream = Upstream::script([Answer::ok(), Answer::ok().after(Duration::from_millis(300))]);
    let gateway = Gateway::route(&upstream, "timeout: {request: 500ms}");
    let mut client = gateway.connect();
    assert_eq!(client.call(&"GET /".into()).status, 200);
    crate::support::pass(Duration::from_millis(300));
    assert_eq!(client.call(&"GET /".into()).status, 200);
}

#[test]
fn without_limits_a_slow_answer_is_waited_for() {
    let upstream = Upstream::script([Answer::ok().after(Duration::from_millis(800))]);
    let gateway = Gateway::route(&upstream, "timeout: {request: 0}");
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn an_upload_to_an_upstream_that_does_not_read_ends_at_the_deadline() {
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = deaf.local_addr().expect("an address");
    let gateway = Plan::new(&format!(
        "upstreams: {{u: {{endpoints: ['http://{address}']}}}}\n\
         routes: {{r: {{upstream: u, max_body: 0, bulkhead: {{max_in_flight: 1}}, timeout: {{request: 500ms}}, record: {{mode: async}}}}}}\n"
    ))
    .section(&Store::Sqlite.section())
    .start();
    let mut client = gateway.connect();
    client.send(Call::new("POST /").header("Content-Length", "268435456").bytes());
    let ((), took) = timed(|| {
        let chunk = vec![0; 1 << 20];
        // Until the gateway gives up; the kernel takes some of it before that.
        while client.try_send(&chunk).is_ok() {}
    });
    assert!(took < Duration::from_secs(3), "{took:?}");
    eventually("the slot is free again", || {
        let taken = gateway.metric("portcullis_bulkhead_in_flight", &[("route", "r")]);
        (taken == 0.0).then_some(())
    });
    // Nothing else tells of it: its future is dropped.
    let row = &Store::Sqlite.wait_for_rows(&gateway, 1)[0];
    assert_eq!((row.text("cause"), row.number("status")), (Some("overdue"), 0), "{row:#?}");
    assert!(row.number("bytes_in") > 0 && !row.is_true("success"), "{row:#?}");
    gateway.expect_metric("portcullis_requests_cut_total", &[], 1.0);
    let failed = [("class", "5xx"), ("route", "r")];
    gateway.expect_metric("portcullis_requests_total", &failed, 1.0);
}

#[test]
fn a_response_that_does_not_begin_in_time_is_504_and_another_attempt_has_its_own_time() {
    let upstream = Upstream::always(Answer::hang());
    let policies =
        "timeout: {first_byte: 300ms}\nretry: {max_retries: 1, on: [timeout], backoff: {base: 0}}";
    let gateway = Gateway::route(&upstream, policies);
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!((response.status, response.code().as_str()), (504, "attempt_timeout"));
    assert_about(took, Duration::from_millis(600));
    assert_eq!(upstream.wait_cancelled(2).len(), 2);
}

#[test]
fn by_default_a_response_has_15_seconds_to_begin() {
    let upstream = Upstream::always(Answer::hang());
    let gateway = Gateway::route(&upstream, "");
    // Longer than the tests' own client waits.
    let mut client = std::net::TcpStream::connect(gateway.address).expect("a connection");
    client.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
    let mut response = String::new();
    let (read, took) = timed(|| client.read_to_string(&mut response));
    assert!(read.is_ok() && response.starts_with("HTTP/1.1 504"), "{response}");
    assert!(response.contains("attempt_timeout"), "{response}");
    assert_about(took, Duration::from_secs(15));
}

#[test]
fn a_response_that_has_begun_in_time_may_take_longer() {
    let answer = Answer::drip_body(DRIP).body("0123456789");
    let upstream = Upstream::always(answer);
    let gateway = Gateway::route(&upstream, "timeout: {first_byte: 300ms}");
    let (response, took) = timed(|| gateway.get("/"));
    assert_eq!((response.text().as_str(), response.ending), ("0123456789", Ending::Complete));
    assert!(took > Duration::from_millis(600), "{took:?}");
}

#[test]
fn the_wait_for_a_response_begins_when_the_request_is_complete() {
    at_once([(Answer::ok(), 200), (Answer::hang(), 504)], |(answer, status)| {
        let upstream = Upstream::always(answer);
        let gateway = Gateway::route(&upstream, "timeout: {first_byte: 400ms}");
        let mut client = gateway.connect();
        client.send(Call::new("POST /").header("Content-Length", "6").bytes());
        for chunk in ["ab", "cd", "ef"] {
            crate::support::pass(Duration::from_millis(300));
            client.send(chunk);
        }
        let (response, took) = timed(|| client.receive());
        assert_eq!(response.status, status);
        if status == 504 {
            assert_about(took, Duration::from_millis(400));
        }
    });
}
