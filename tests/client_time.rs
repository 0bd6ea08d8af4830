//! The time that a client costs its own request is told apart from what its upstream takes.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Answer, Call, Gateway, H2Client, Plan, Upstream, at_once, pass, request};

const ALL: &str = "access_log: {keep: {success: 100%}}";
/// What a client takes its time for.
const PAUSE: Duration = Duration::from_millis(600);
/// The least of it that is noticed: the rest passes on the way.
const NOTICED: u64 = 500_000;

fn logging(upstream: &Upstream, route: &str) -> Gateway {
    Plan::route(route).section(ALL).upstream(upstream).start()
}

fn micros(line: &Value, name: &str) -> u64 {
    line[format!("portcullis.{name}_us")].as_u64().unwrap_or(0)
}

/// The client cost its pause, and no other part contains it.
#[track_caller]
fn assert_split(line: &Value) {
    assert!(micros(line, "client") >= NOTICED, "{line:#}");
    let parts = ["queue", "connect", "first_byte", "body", "backoff", "client"];
    let sum: u64 = parts.iter().map(|part| micros(line, part)).sum();
    assert!(sum <= micros(line, "duration"), "parts overlap: {line:#}");
}

#[test]
fn a_request_that_arrives_whole_and_whose_response_is_taken_costs_no_client_time() {
    let upstream = Upstream::start();
    let gateway = logging(&upstream, "");
    let mut client = gateway.connect();
    for call in [Call::new("GET /"), Call::new("POST /").json("{}"), Call::new("HEAD /")] {
        assert_eq!(client.call(&call).status, 200);
    }
    for line in gateway.wait_for_access_lines(3) {
        assert!(line["portcullis.client_us"].is_null(), "{line:#}");
    }
}

#[test]
fn a_slow_upload_is_the_clients_time_and_not_the_upstreams() {
    at_once(["", "json: {defaults: {name: World}}"], |route| {
        let upstream = Upstream::start();
        let gateway = logging(&upstream, route);
        let mut client = gateway.connect();
        let head = Call::new("POST /").header("Content-Type", "application/json");
        client.send(head.header("Content-Length", "11").bytes());
        pass(PAUSE / 2);
        client.send("{\"name\":");
        pass(PAUSE / 2);
        client.send("\"\"}");
        assert_eq!(client.receive().status, 200);
        assert_split(&gateway.wait_for_access_lines(1)[0]);
    });
}

#[test]
fn a_slow_upload_over_http2_is_the_clients_time_too() {
    let upstream = Upstream::start();
    let gateway = logging(&upstream, "");
    let client = H2Client::connect(gateway.address);
    let mut exchange = client.open(request("POST", "/").body(()).unwrap(), false);
    exchange.send(b"slow ", false);
    pass(PAUSE);
    exchange.send(b"body", true);
    assert_eq!(exchange.finish().status, 200);
    assert_split(&gateway.wait_for_access_lines(1)[0]);
}

#[test]
fn a_client_that_reads_slowly_costs_its_own_time() {
    let upstream = Upstream::always(Answer::stream(64 << 20));
    let gateway = logging(&upstream, "");
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    let head = client.receive_head();
    // More than the sockets' buffers hold is under way by now.
    pass(PAUSE);
    assert_eq!(client.receive_rest(head).body_length, 64 << 20);
    assert_split(&gateway.wait_for_access_lines(1)[0]);
}

#[test]
fn an_upstream_that_takes_its_time_costs_its_client_none() {
    let upstream = Upstream::always(Answer::ok().after(PAUSE));
    let gateway = logging(&upstream, "");
    assert_eq!(gateway.post("/", "{}").status, 200);
    let line = &gateway.wait_for_access_lines(1)[0];
    assert!(micros(line, "first_byte") >= NOTICED, "{line:#}");
    assert_eq!(micros(line, "client"), 0, "{line:#}");
}

#[test]
fn a_client_that_stalls_is_told_what_it_cost() {
    let upstream = Upstream::start();
    let gateway = logging(&upstream, "timeout: {idle: 600ms}");
    let mut client = gateway.connect();
    let head = Call::new("POST /").header("Content-Length", "10").bytes();
    client.send([&head[..], b"half "].concat());
    assert_eq!(client.receive().status, 408);
    let line = &gateway.wait_for_access_lines(1)[0];
    assert_split(line);
    assert!(micros(line, "first_byte") < NOTICED, "{line:#}");
}
