//! Upstreams that fail: no connection, no response, one that breaks off, one that says so itself.

use std::io::{Read, Write};
use std::time::Duration;

use h2::Reason;
use serde_json::Value;

use super::{Scenario, call, line};
use crate::failures::over_tls;
use crate::support::{
    Answer, Authority, Blackhole, Call, Gateway, H2Client, H2Upstream, Leaf, Plan, Reply, Upstream,
    eventually, frame, refused_address, request,
};
use crate::upstreams::answering_once;

pub const CONNECTIONS: &[Scenario] = &[
    ("connect_refused", refused),
    ("connect_timeout", full),
    ("connect_failed", no_link),
    ("unreachable", no_route),
    ("dns", nameless),
    ("tls_expired", expired),
    ("tls_not_yet_valid", early),
    ("tls_wrong_name", other_name),
    ("tls_unknown_authority", unknown_authority),
    ("tls_unpinned", unpinned),
    ("tls_certificate", for_clients),
    ("tls_failed", no_tls),
];

pub const RESPONSES: &[Scenario] = &[
    ("reset", resets),
    ("closed", closes),
    ("closed.in_the_head", half_a_head),
    ("closed.in_the_body", half_a_body),
    ("stale_connection", stale),
    ("refused_stream", refuses_streams),
    ("invalid_response", no_http),
    ("answer_unreadable", unreadable),
    ("upstream_4xx", declines),
    ("upstream_5xx", fails),
    ("upstream_5xx.exhausted", fails_again),
    ("upstream_5xx.budget", fails_without_budget),
    ("grpc_status", fails_in_grpc),
];

pub const TIMES: &[Scenario] = &[
    ("attempt_timeout", whole_attempt),
    ("attempt_timeout.first_byte", first_byte),
    ("idle_timeout", silence),
    ("deadline_exceeded.connecting", deadline_while_connecting),
    ("deadline_exceeded.waiting", deadline_while_waiting),
    ("deadline_exceeded.receiving", deadline_while_receiving),
    ("deadline_exceeded.in_a_retry", deadline_in_a_retry),
    ("deadline_exceeded.in_the_queue.of_the_caller", deadline_in_the_queue),
    ("deadline_exceeded.of_the_caller", deadline_of_the_caller),
    ("overdue", deadline_while_sending),
];

const RETRY: &str = "retry: {max_retries: 1, on: [connect_failure, 5xx], methods: any, \
                     backoff: {base: 20ms, max: 20ms, jitter: 0%}}";

/// The line of a GET to this URL.
fn get_from(url: &str, policies: &str, cause: &str) -> Option<Value> {
    let gateway = Plan::route(policies).env("UPSTREAM", url).start();
    gateway.call(call("GET /orders/7"));
    Some(line(&gateway, cause))
}

fn get(upstream: &Upstream, policies: &str, cause: &str) -> Option<Value> {
    get_from(&upstream.url(), policies, cause)
}

fn refused() -> Option<Value> {
    get_from(&format!("http://{}", refused_address()), RETRY, "connect_refused")
}

fn full() -> Option<Value> {
    get_from(&Blackhole::start().url(), "timeout: {connect: 300ms}", "connect_timeout")
}

/// Linux has no route to a group of hosts for a connection, whatever its other routes are.
fn no_route() -> Option<Value> {
    get_from("http://224.0.0.1:80", "", "unreachable")
}

/// An address of a link, without saying of which.
fn no_link() -> Option<Value> {
    get_from("http://[fe80::1]:80", "", "connect_failed")
}

fn nameless() -> Option<Value> {
    get_from("http://no-such-host.invalid:80", "", "dns")
}

fn with_certificate(
    leaf: impl FnOnce(&Authority) -> Leaf,
    trusted: Option<&Authority>,
    cause: &str,
) -> Option<Value> {
    let ours = Authority::new();
    let (gateway, _behind) = over_tls(&leaf(&ours), trusted.unwrap_or(&ours));
    gateway.call(call("GET /orders/7"));
    Some(line(&gateway, cause))
}

const DAY: i64 = 24 * 60 * 60;

fn expired() -> Option<Value> {
    // The hour more is for a test that takes its time.
    with_certificate(
        |ours| ours.sign_between("one.test", -9 * DAY, -2 * DAY - 3600),
        None,
        "tls_expired",
    )
}

fn early() -> Option<Value> {
    let leaf = |ours: &Authority| ours.sign_between("one.test", 2 * DAY + 3600, 9 * DAY);
    with_certificate(leaf, None, "tls_not_yet_valid")
}

fn other_name() -> Option<Value> {
    with_certificate(|ours| ours.sign("two.test"), None, "tls_wrong_name")
}

fn unknown_authority() -> Option<Value> {
    let theirs = Authority::new();
    with_certificate(|ours| ours.sign("one.test"), Some(&theirs), "tls_unknown_authority")
}

fn unpinned() -> Option<Value> {
    let ours = Authority::new();
    let behind = crate::pins::behind(&ours.sign("one.test"));
    let pins = format!("pins: [\"{}\"]", "ab".repeat(32));
    let gateway = crate::pins::in_front(&behind, &ours, RETRY, "http1", &pins).start();
    gateway.call(call("GET /orders/7"));
    let mut line = line(&gateway, "tls_unpinned");
    // The certificate is another one each time.
    without_digest(&mut line);
    Some(line)
}

fn without_digest(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("SHA-256 ") => {
            let (before, after) = text.split_once("SHA-256 ").expect("it is there");
            let (_, after) = after.split_once(' ').expect("more");
            *text = format!("{before}SHA-256 DIGEST {after}");
        }
        Value::Array(values) => values.iter_mut().for_each(without_digest),
        Value::Object(values) => values.values_mut().for_each(without_digest),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn for_clients() -> Option<Value> {
    with_certificate(|ours| ours.sign_for_clients("one.test"), None, "tls_certificate")
}

fn no_tls() -> Option<Value> {
    let plain = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = plain.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut connection in plain.incoming().flatten() {
            // The greeting of a mail server, say. It stays until the gateway leaves.
            let _ = connection.write_all(b"220 mail.test ESMTP\r\n");
            let _ = connection.read_to_end(&mut Vec::new());
        }
    });
    get_from(&format!("https://{address}"), "", "tls_failed")
}

fn resets() -> Option<Value> {
    get(&Upstream::always(Answer::reset()), RETRY, "reset")
}

fn closes() -> Option<Value> {
    get(&Upstream::always(Answer::close()), "", "closed")
}

fn half_a_head() -> Option<Value> {
    let answer = Answer::verbatim("HTTP/1.1 200 OK\r\nContent-Le");
    get(&Upstream::always(answer), "", "closed")
}

fn half_a_body() -> Option<Value> {
    get(&Upstream::always(Answer::truncated("half", 8)), RETRY, "closed")
}

/// A pooled connection that the upstream closes just when it is used again.
fn stale() -> Option<Value> {
    let (address, _) = answering_once();
    let gateway = Plan::route("").env("UPSTREAM", &format!("http://{address}")).start();
    // A connection may return to the pool a little later than the client has its response.
    eventually("a request on a pooled connection", || {
        (gateway.call(call("POST /orders").json("{}")).status == 502).then_some(())
    });
    Some(line(&gateway, "stale_connection"))
}

fn refuses_streams() -> Option<Value> {
    let upstream = H2Upstream::always(Reply::reset(Reason::REFUSED_STREAM));
    let gateway = Plan::route("").h2_upstream(&upstream).start();
    gateway.call(call("GET /orders/7"));
    Some(line(&gateway, "refused_stream"))
}

fn no_http() -> Option<Value> {
    let answer = Answer::verbatim("SSH-2.0-OpenSSH\r\n\r\n");
    get(&Upstream::always(answer), "", "invalid_response")
}

fn unreadable() -> Option<Value> {
    let upstream = H2Upstream::always(Reply::grpc(b"\x0a\x09", 0));
    let plan = crate::transcode_reverse::bound("{path: '/v1/hello', body: '*'}", "");
    let gateway = plan.h2_upstream(&upstream).start();
    gateway.call(call("POST /v1/hello").json("{}"));
    Some(line(&gateway, "answer_unreadable"))
}

/// Not kept by default: the upstream's business with its client.
fn declines() -> Option<Value> {
    let upstream = Upstream::always(404);
    let log = "access_log: {keep: {success: 100%}}";
    let gateway = Plan::route("").section(log).upstream(&upstream).start();
    gateway.call(call("GET /orders/7"));
    Some(line(&gateway, "upstream_4xx"))
}

fn fails() -> Option<Value> {
    get(&Upstream::always(503), "", "upstream_5xx")
}

fn fails_again() -> Option<Value> {
    get(&Upstream::always(503), RETRY, "upstream_5xx")
}

fn fails_without_budget() -> Option<Value> {
    let upstream = Upstream::always(503);
    let budget = "retry_budgets: {few: {ratio: {share: 20%, min_per_second: 0}}}";
    let plan = Plan::route("retry: {max_retries: 3, budget: few}").section(budget);
    let gateway = plan.upstream(&upstream).start();
    gateway.call(call("GET /orders/7"));
    Some(line(&gateway, "upstream_5xx"))
}

fn fails_in_grpc() -> Option<Value> {
    let upstream =
        H2Upstream::always(Reply::trailers_only(14).header("grpc-message", "no%20connection"));
    let gateway = Plan::route("").h2_upstream(&upstream).start();
    grpc(&gateway, None);
    Some(line(&gateway, "grpc_status"))
}

fn grpc(gateway: &Gateway, timeout: Option<&str>) {
    let head = request("POST", "/s.S/M").header("content-type", "application/grpc");
    let mut head = head.header("x-request-id", "req-1");
    if let Some(timeout) = timeout {
        head = head.header("grpc-timeout", timeout);
    }
    H2Client::connect(gateway.address).call(head.body(&frame(b"x")[..]).unwrap());
}

fn whole_attempt() -> Option<Value> {
    get(&Upstream::always(Answer::hang()), "timeout: {attempt: 300ms}", "attempt_timeout")
}

fn first_byte() -> Option<Value> {
    let policies = "timeout: {attempt: 5s, first_byte: 300ms}";
    get(&Upstream::always(Answer::hang()), policies, "attempt_timeout")
}

fn silence() -> Option<Value> {
    get(&Upstream::always(Answer::hang()), "timeout: {idle: 300ms}", "idle_timeout")
}

fn deadline_while_connecting() -> Option<Value> {
    let policies = "timeout: {connect: 5s, request: 300ms}";
    get_from(&Blackhole::start().url(), policies, "deadline_exceeded")
}

fn deadline_while_waiting() -> Option<Value> {
    get(&Upstream::always(Answer::hang()), "timeout: {request: 300ms}", "deadline_exceeded")
}

fn deadline_while_receiving() -> Option<Value> {
    let upstream = Upstream::always(Answer::drip_body(Duration::from_millis(20)));
    get(&upstream, "timeout: {request: 500ms}", "deadline_exceeded")
}

fn deadline_in_a_retry() -> Option<Value> {
    let upstream = Upstream::script([Answer::from(503), Answer::hang()]);
    let policies = format!("timeout: {{request: 600ms}}\n{RETRY}");
    get(&upstream, &policies, "deadline_exceeded")
}

fn deadline_of_the_caller() -> Option<Value> {
    let upstream = H2Upstream::always(Reply::hang());
    let gateway = Plan::route("").h2_upstream(&upstream).start();
    grpc(&gateway, Some("300m"));
    Some(line(&gateway, "deadline_exceeded"))
}

/// The time passes before the upstream is asked: the gateway's fault.
fn deadline_in_the_queue() -> Option<Value> {
    let upstream = Upstream::script([Answer::ok().held()]);
    let queue = "bulkhead: {max_in_flight: 1, queue: {max: 10, max_wait: 30s, interval: 20s}}";
    let gateway = Gateway::route(&upstream, queue);
    let mut first = gateway.connect();
    first.send(Call::new("GET /orders").bytes());
    upstream.wait_for(1);
    let call = call("POST /s.S/M").header("Connect-Protocol-Version", "1");
    gateway.call(call.header("Connect-Timeout-Ms", "300").json("{}"));
    Some(line(&gateway, "deadline_exceeded"))
}

#[test]
fn a_caller_that_leaves_no_time_is_at_fault_itself() {
    let upstream = H2Upstream::always(Reply::hang());
    let gateway = Plan::route("").h2_upstream(&upstream).start();
    grpc(&gateway, Some("1u"));
    let line = line(&gateway, "deadline_exceeded");
    assert_eq!(line["portcullis.fault"], "client", "{line:#}");
    assert_eq!(
        (&line["portcullis.limit"], &line["portcullis.limit_us"]),
        (&"caller".into(), &1.into())
    );
}

/// The upstream does not read, and so the gateway does not read the client.
fn deadline_while_sending() -> Option<Value> {
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = deaf.local_addr().expect("an address");
    let plan = Plan::route("max_body: 0\ntimeout: {request: 500ms}");
    let gateway = plan.env("UPSTREAM", &format!("http://{address}")).start();
    let mut client = gateway.connect();
    let head: Call = call("POST /orders").header("Content-Length", "268435456");
    client.send(head.bytes());
    let chunk = vec![0; 1 << 20];
    while client.try_send(&chunk).is_ok() {}
    Some(line(&gateway, "overdue"))
}
