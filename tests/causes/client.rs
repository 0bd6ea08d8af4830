//! Clients that send what cannot be taken, or leave; and what the gateway itself ends.

use serde_json::Value;

use super::{Scenario, call, line};
use crate::support::{
    Answer, Authority, Call, Client, Gateway, H2Client, H2Upstream, Plan, Reply, Upstream, frame,
    request,
};
use crate::transcode_reverse::bound;

pub const REQUESTS: &[Scenario] = &[
    ("bad_request", ambiguous),
    ("path_too_long", long_path),
    ("headers_too_large", large_headers),
    ("body_too_large", large_body),
    ("invalid_body", malformed_json),
    ("invalid_rpc", malformed_timeout),
    ("unexpected_compression", undeclared_compression),
    ("unsupported_compression", unknown_compression),
    ("unsupported_media_type", form),
    ("not_for_rpc", redirected_call),
    ("no_route", elsewhere),
    ("loop", circle),
    ("method_not_allowed", other_method),
    ("flood", flood),
];

pub const ENDS: &[Scenario] = &[
    ("client_gone.waiting", leaves),
    ("client_gone.receiving", leaves_midway),
    ("request_timeout.idle", stalls),
    ("request_timeout.deadline", uploads_too_slowly),
    ("proxy_header", no_proxy_header),
    ("tls_handshake", no_tls),
    ("header_timeout", slow_head),
    ("head_cut_off", half_a_head),
    ("http2_violation", no_http2),
    ("shutdown", drained),
];

/// The line of one call to a gateway before an upstream that is well.
fn of(plan: Plan, call: Call, cause: &str) -> Option<Value> {
    let upstream = Upstream::start();
    let gateway = plan.upstream(&upstream).start();
    gateway.call(call);
    assert_eq!(upstream.count(), 0, "{cause}: nothing was asked of it");
    Some(line(&gateway, cause))
}

fn listener(settings: &str) -> Plan {
    let address = "address: '127.0.0.1:${PORT}'";
    Plan::route("").section(&format!("listeners: {{public: {{{address}, {settings}}}}}"))
}

fn ambiguous() -> Option<Value> {
    let call = call("POST /orders").header("Content-Length", "2").header("Content-Length", "3");
    of(Plan::route(""), call.body("{}"), "bad_request")
}

fn long_path() -> Option<Value> {
    let path = format!("GET /{}", "x".repeat(1024));
    of(listener("max_path_bytes: 1KiB"), call(&path), "path_too_long")
}

fn large_headers() -> Option<Value> {
    let call = call("GET /orders").header("X-Big", &"x".repeat(5000));
    of(listener("max_header_bytes: 4KiB"), call, "headers_too_large")
}

fn large_body() -> Option<Value> {
    let call = call("POST /orders").body("x".repeat(1025));
    of(Plan::route("max_body: 1KiB"), call, "body_too_large")
}

const HELLO: &str = "{path: '/v1/hello', body: '*'}";

/// The line of one call in JSON to a route whose upstream speaks gRPC.
fn of_transcoding(call: Call, cause: &str) -> Option<Value> {
    let upstream = H2Upstream::always(Reply::grpc(b"", 0));
    let gateway = bound(HELLO, "").h2_upstream(&upstream).start();
    gateway.call(call);
    assert_eq!(upstream.count(), 0, "{cause}: nothing was asked of it");
    Some(line(&gateway, cause))
}

fn malformed_json() -> Option<Value> {
    of_transcoding(call("POST /v1/hello").json("{\"name\":"), "invalid_body")
}

fn form() -> Option<Value> {
    let form = call("POST /v1/hello").header("Content-Type", "application/x-www-form-urlencoded");
    of_transcoding(form.body("name=Ada"), "unsupported_media_type")
}

fn malformed_timeout() -> Option<Value> {
    let call = call("POST /s.S/M").header("Connect-Protocol-Version", "1");
    of(Plan::route(""), call.header("Connect-Timeout-Ms", "soon").json("{}"), "invalid_rpc")
}

/// A message of gRPC whose flag says that it is compressed, and no header says how.
fn undeclared_compression() -> Option<Value> {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let head = request("POST", "/s.S/M").header("content-type", "application/grpc");
    let mut message = frame(b"x");
    message[0] = 1;
    let head = head.header("x-request-id", "req-1");
    H2Client::connect(gateway.address).call(head.body(&message[..]).unwrap());
    Some(line(&gateway, "unexpected_compression"))
}

fn unknown_compression() -> Option<Value> {
    let call = call("POST /orders").header("Content-Encoding", "br").json("{}");
    of(Plan::route("json: {defaults: {name: World}}"), call, "unsupported_compression")
}

/// No client of RPC follows a redirect.
fn redirected_call() -> Option<Value> {
    let call = call("POST /s.S/M").header("Connect-Protocol-Version", "1").json("{}");
    let plan = Plan::route("redirect: {path: /new}").replacing("    upstream: service\n", "");
    of(plan, call, "not_for_rpc")
}

fn elsewhere() -> Option<Value> {
    of(Plan::route("").replacing("path: /*", "path: /users"), call("GET /orders"), "no_route")
}

/// What it sent upstream comes back.
fn circle() -> Option<Value> {
    let upstream = Upstream::start();
    let gateway = Plan::route("").upstream(&upstream).start();
    gateway.get("/");
    let via = upstream.only().header("via").expect("its name").to_owned();
    gateway.call(call("GET /orders").header("Via", &via));
    assert_eq!(upstream.count(), 1, "nothing was asked of it");
    Some(line(&gateway, "loop"))
}

fn other_method() -> Option<Value> {
    let plan = Plan::route("").replacing("path: /*", "path: /orders, methods: [GET]");
    of(plan, call("DELETE /orders"), "method_not_allowed")
}

fn flood() -> Option<Value> {
    let upstream = Upstream::start();
    let plan = Plan::route("").section("flood_guard: {requests: 1, per: 1h}");
    let gateway = plan.upstream(&upstream).start();
    assert_eq!(gateway.get("/orders").status, 200);
    gateway.call(call("GET /orders"));
    Some(line(&gateway, "flood"))
}

fn leaves() -> Option<Value> {
    let upstream = Upstream::always(Answer::hang());
    let gateway = Gateway::route(&upstream, "");
    let mut client = gateway.connect();
    client.send(call("GET /orders").bytes());
    upstream.wait_for(1);
    client.vanish();
    Some(line(&gateway, "client_gone"))
}

fn leaves_midway() -> Option<Value> {
    let upstream = Upstream::always(Answer::hold_body());
    let gateway = Gateway::route(&upstream, "");
    let mut client = gateway.connect();
    client.send(call("GET /orders").bytes());
    assert_eq!(client.receive_head().status, 200);
    client.vanish();
    Some(line(&gateway, "client_gone"))
}

/// The line of a client that sends half of its body.
fn half_a_body(policies: &str) -> Option<Value> {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, policies);
    let mut client = gateway.connect();
    let head = call("POST /orders").header("Content-Length", "10").bytes();
    client.send([&head[..], b"half "].concat());
    assert_eq!(client.receive().status, 408);
    Some(line(&gateway, "request_timeout"))
}

fn stalls() -> Option<Value> {
    half_a_body("timeout: {idle: 300ms}")
}

fn uploads_too_slowly() -> Option<Value> {
    half_a_body("timeout: {request: 300ms}")
}

fn no_tls() -> Option<Value> {
    let leaf = Authority::new().sign("one.test");
    let plan = listener("tls: {certificates: [{certificate: one.pem, key: one.key}]}");
    let plan = plan.beside("one.pem", &leaf.pem()).beside("one.key", &leaf.key_pem());
    after(plan.start(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "tls_handshake")
}

fn no_proxy_header() -> Option<Value> {
    let plan = listener("proxy_protocol: {from: [127.0.0.1]}");
    after(plan.start(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "proxy_header")
}

/// The line of a client that sends these bytes and no more.
fn after(gateway: Gateway, bytes: &[u8], cause: &str) -> Option<Value> {
    let mut client = gateway.connect();
    client.send(bytes);
    let line = line(&gateway, cause);
    drop::<Client>(client);
    Some(line)
}

fn slow_head() -> Option<Value> {
    let gateway = listener("header_timeout: 300ms").start();
    after(gateway, b"GET /orders HTTP/1.1\r\nHost: a\r\n", "header_timeout")
}

fn half_a_head() -> Option<Value> {
    let gateway = Plan::route("").start();
    let mut client = gateway.connect();
    client.send("GET /orders HTTP/1.1\r\nHost: a\r\n");
    drop(client);
    Some(line(&gateway, "head_cut_off"))
}

/// The preface, empty settings, and a body on stream 0, which has none (RFC 9113, section 6.1).
fn no_http2() -> Option<Value> {
    let gateway = Plan::route("").start();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let body = [0, 0, 1, 0, 0, 0, 0, 0, 0, b'x'];
    let bytes = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &body].concat();
    after(gateway, &bytes, "http2_violation")
}

fn drained() -> Option<Value> {
    let upstream = Upstream::always(Answer::hang());
    let plan = Plan::route("").section("server: {drain_timeout: 300ms}");
    let mut gateway = plan.upstream(&upstream).start();
    let mut client = gateway.connect();
    client.send(call("GET /orders").bytes());
    upstream.wait_for(1);
    gateway.signal("TERM");
    gateway.exit();
    Some(line(&gateway, "shutdown"))
}
