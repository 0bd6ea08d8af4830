//! The spans of requests and attempts of every kind.

use std::net::Ipv4Addr;

use super::*;
use crate::observe::trace::context::TraceParent;

const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A request that got status 200 without any attempt.
pub(in crate::observe::trace) fn request() -> Request {
    let caller = TraceParent::parse(PARENT).expect("a parent");
    Request {
        trace: Trace {
            own: caller.with_span(SpanId::random()),
            parent: Some(caller.span),
            recorded: true,
        },
        started: SystemTime::UNIX_EPOCH,
        duration: Duration::from_millis(30),
        method: Method::POST,
        path: "/orders/7".to_owned(),
        host: Some("shop.test".to_owned()),
        client: Ipv4Addr::LOCALHOST.into(),
        certificate: None,
        route: Some(Route { name: "orders".into(), pattern: Some("/orders/:id".into()) }),
        status: 200,
        rejection: None,
        truncated: false,
        cut: None,
        attempts: Vec::new(),
    }
}

fn attempt(status: Option<u16>, error: Option<&'static str>) -> Attempt {
    Attempt {
        span: SpanId::random(),
        after: Duration::from_millis(10),
        duration: Duration::from_millis(5),
        upstream: "warehouse".into(),
        authority: HeaderValue::from_static("warehouse.test:8080"),
        peer: std::net::SocketAddr::from(([10, 0, 0, 1], 8080)).into(),
        status,
        error,
    }
}

fn spans(request: Request) -> Vec<SpanData> {
    request.into_spans(&InstrumentationScope::default()).collect()
}

fn server(request: Request) -> SpanData {
    spans(request).remove(0)
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key)?;
    Some(found.value.to_string())
}

fn is_error(span: &SpanData) -> bool {
    matches!(span.status, Status::Error { .. })
}

#[test]
fn a_server_span_hangs_below_the_callers() {
    let span = server(request());
    assert_eq!(span.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert!(span.parent_span_is_remote);
    assert_eq!(span.span_kind, SpanKind::Server);
}

#[test]
fn a_server_span_says_what_was_asked_and_answered() {
    let span = server(request());
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/orders/:id"),
        ("http.response.status_code", "200"),
        ("url.path", "/orders/7"),
        ("server.address", "shop.test"),
        ("client.address", "127.0.0.1"),
        ("portcullis.route", "orders"),
    ] {
        assert_eq!(attribute(&span, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(attribute(&span, "portcullis.rejection"), None);
    assert_eq!(span.status, Status::Unset);
}

#[test]
fn a_span_is_named_by_pattern_else_by_route_else_by_method() {
    assert_eq!(server(request()).name, "POST /orders/:id");
    let several = Some(Route { name: "orders".into(), pattern: None });
    assert_eq!(server(Request { route: several, ..request() }).name, "POST orders");
    assert_eq!(server(Request { route: None, ..request() }).name, "POST");
}

#[test]
fn a_made_up_method_is_no_name() {
    let method = Method::from_bytes(b"BREW").expect("a method");
    let span = server(Request { method, route: None, ..request() });
    assert_eq!(span.name, "HTTP");
    assert_eq!(attribute(&span, "http.request.method").as_deref(), Some("_OTHER"));
}

#[test]
fn a_refusal_is_named_and_only_a_5xx_is_an_error() {
    let limited = server(Request { status: 429, rejection: Some("rate_limited"), ..request() });
    assert_eq!(attribute(&limited, "portcullis.rejection").as_deref(), Some("rate_limited"));
    assert!(!is_error(&limited));
    let open = server(Request { status: 503, rejection: Some("circuit_open"), ..request() });
    assert_eq!(attribute(&open, "error.type").as_deref(), Some("circuit_open"));
    assert!(is_error(&open));
}

#[test]
fn an_answer_that_broke_off_is_an_error() {
    let span = server(Request { truncated: true, ..request() });
    assert!(is_error(&span));
    assert_eq!(attribute(&span, "error.type").as_deref(), Some("truncated"));
}

#[test]
fn a_request_that_was_cut_off_is_an_error_that_says_why() {
    let span = server(Request { cut: Some("shutdown"), truncated: true, ..request() });
    assert!(is_error(&span));
    assert_eq!(attribute(&span, "error.type").as_deref(), Some("shutdown"));
}

#[test]
fn nothing_sent_is_no_status() {
    let span = server(Request { status: 0, ..request() });
    assert_eq!(attribute(&span, "http.response.status_code"), None);
    assert!(is_error(&span));
}

#[test]
fn every_attempt_is_a_child_of_the_server_span() {
    let attempts = vec![attempt(Some(503), None), attempt(Some(200), None)];
    let ids: Vec<u64> = attempts.iter().map(|attempt| attempt.span.as_u64()).collect();
    let spans = spans(Request { attempts, ..request() });
    let server = spans[0].span_context.span_id();
    assert!(spans[1..].iter().all(|span| span.parent_span_id == server));
    assert!(spans[1..].iter().all(|span| span.span_kind == SpanKind::Client));
    let sent: Vec<u64> = spans[1..]
        .iter()
        .map(|s| u64::from_be_bytes(s.span_context.span_id().to_bytes()))
        .collect();
    assert_eq!(sent, ids);
}

#[test]
fn attempts_after_the_first_are_numbered() {
    let attempts =
        vec![attempt(None, Some("reset")), attempt(Some(503), None), attempt(Some(200), None)];
    let spans = spans(Request { attempts, ..request() });
    let counts: Vec<_> =
        spans[1..].iter().map(|span| attribute(span, "http.request.resend_count")).collect();
    assert_eq!(counts, [None, Some("1".to_owned()), Some("2".to_owned())]);
}

#[test]
fn an_attempt_says_where_it_went_and_what_became_of_it() {
    let attempts = vec![attempt(Some(503), None), attempt(None, Some("timeout"))];
    let spans = spans(Request { attempts, ..request() });
    assert_eq!(attribute(&spans[1], "server.address").as_deref(), Some("warehouse.test"));
    assert_eq!(attribute(&spans[1], "server.port").as_deref(), Some("8080"));
    assert_eq!(attribute(&spans[1], "portcullis.upstream").as_deref(), Some("warehouse"));
    assert_eq!(attribute(&spans[1], "error.type").as_deref(), Some("503"));
    assert_eq!(attribute(&spans[2], "error.type").as_deref(), Some("timeout"));
    assert!(is_error(&spans[1]) && is_error(&spans[2]));
}

#[test]
fn an_attempt_lies_within_its_request() {
    let spans = spans(Request { attempts: vec![attempt(Some(200), None)], ..request() });
    let (server, client) = (&spans[0], &spans[1]);
    assert_eq!(client.start_time, server.start_time + Duration::from_millis(10));
    assert_eq!(client.end_time, client.start_time + Duration::from_millis(5));
    assert_eq!(server.end_time, server.start_time + Duration::from_millis(30));
}
