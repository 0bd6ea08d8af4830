//! One shape for every refusal: RFC 9457, with a code for machines and an id for people.

use crate::support::{Answer, Blackhole, Call, Gateway, Plan, Response, Upstream};

const YAML: &str = "
auth: {partners: {api_key: {header: X-Api-Key, keys: {acme: {key: acme-key-0123456789, scopes: [read]}}}}}
upstreams:
  service: {endpoints: ['${UPSTREAM}']}
  dead: {endpoints: ['http://127.0.0.1:9'], circuit_breaker: {consecutive: {failures: 2}}}
  slow: {endpoints: ['${SLOW}']}
routes:
  keyed: {match: {path: /keyed}, upstream: service, auth: {require: partners}}
  scoped: {match: {path: /scoped}, upstream: service, auth: {require: partners, scopes: [write]}}
  limited: {match: {path: /limited}, upstream: service, rate_limit: {fixed_window: {requests: 1, per: 1m}}}
  dead: {match: {path: /dead}, upstream: dead}
  slow: {match: {path: /slow}, upstream: slow, timeout: {connect: 100ms}}
  small: {match: {path: /small, methods: [POST]}, upstream: service, max_body: 1KiB}
";

#[track_caller]
fn assert_problem(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let problem = response.json();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["code"], code);
    assert!(problem["type"].is_string(), "{problem}");
    for member in ["title", "detail"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    }
    assert_eq!(problem["request_id"].as_str(), response.header("x-request-id"));
}

#[test]
fn every_refusal_has_the_same_shape() {
    let (upstream, hole) = (Upstream::start(), Blackhole::start());
    let gateway = Plan::new(YAML).env("SLOW", &hole.url()).upstream(&upstream).start();
    let keyed = |line: &str| Call::new(line).header("X-Api-Key", "acme-key-0123456789");
    gateway.get("/limited");
    for (call, status, code) in [
        (Call::new("GET /nowhere"), 404, "no_route"),
        (Call::new("GET /small"), 405, "method_not_allowed"),
        (Call::new("GET /a%5cb"), 400, "bad_request"),
        (Call::new("GET /keyed"), 401, "credentials_missing"),
        (keyed("GET /scoped"), 403, "scope_missing"),
        (Call::new("GET /limited"), 429, "rate_limited"),
        (Call::new("POST /small").body("x".repeat(1025)), 413, "body_too_large"),
        (Call::new("GET /dead"), 502, "connect_refused"),
        (Call::new("GET /dead"), 502, "connect_refused"),
        (Call::new("GET /dead"), 503, "circuit_open"),
        (Call::new("GET /slow"), 504, "connect_timeout"),
    ] {
        assert_problem(&gateway.call(call), status, code);
    }
}

#[test]
fn the_code_is_the_label_in_the_metrics() {
    let upstream = Upstream::start();
    let gateway = Plan::new(YAML).env("SLOW", "http://127.0.0.1:9").upstream(&upstream).start();
    gateway.get("/keyed");
    let labels = [("route", "keyed"), ("code", "credentials_missing")];
    crate::support::eventually("a counted refusal", || {
        (gateway.metric("portcullis_rejections_total", &labels) == 1.0).then_some(())
    });
}

#[test]
fn a_refused_request_does_not_cost_the_connection() {
    let upstream = Upstream::start();
    let gateway = Plan::new(YAML).env("SLOW", "http://127.0.0.1:9").upstream(&upstream).start();
    let mut client = gateway.connect();
    for path in ["/nowhere", "/small", "/keyed", "/limited", "/limited", "/nowhere"] {
        client.call(&Call::new(&format!("GET {path}")));
    }
    assert_eq!(client.call(&"GET /nowhere".into()).status, 404);
}

#[test]
fn a_refusal_says_truly_whether_the_connection_goes_on() {
    let upstream = Upstream::always(Answer::close());
    let gateway = Gateway::route(&upstream, "");
    let mut client = gateway.connect();
    let refused = client.call(&"GET /".into());
    assert_eq!(refused.status, 502);
    let closes = refused.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
    assert!(!closes || client.is_closed(), "said to be closed, and is not");
    if !closes {
        assert_eq!(client.call(&"GET /".into()).status, 502, "said to be kept, and is not");
    }
}

#[test]
fn a_refusal_quotes_nothing_the_client_sent() {
    let upstream = Upstream::start();
    let gateway = Plan::new(YAML).env("SLOW", "http://127.0.0.1:9").upstream(&upstream).start();
    let call = Call::new("GET /<script>alert(1)</script>").header("X-Api-Key", "guess-0123456789");
    let text = gateway.call(call).text();
    assert!(!text.contains("script") && !text.contains("guess"), "{text}");
}
