//! A request is one trace from the caller to the service behind, and a collector is told.

use std::path::Path;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;

use crate::support::{
    Answer, Call, Gateway, Plan, Received, Upstream, eventually, refused_address, timed,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const RETRY: &str = "retry: {max_retries: 1, on: [503], backoff: {base: 1ms, max: 1ms}}";

/// Takes whatever is posted and keeps it.
fn collector() -> Upstream {
    Upstream::always(Answer::ok().header("Content-Type", "application/x-protobuf").body(""))
}

fn traced(upstream: &Upstream, collector: &str, policies: &str) -> Plan {
    let section = "traces: {otlp: {endpoint: \"${COLLECTOR}\", timeout: 2s}, service_name: shop}";
    Plan::route(policies).section(section).upstream(upstream).env("COLLECTOR", collector)
}

fn start(upstream: &Upstream, collector: &Upstream, policies: &str) -> Gateway {
    traced(upstream, &collector.url(), policies).start()
}

fn called(traceparent: &str) -> Call {
    Call::new("GET /orders?secret=1").header("traceparent", traceparent)
}

fn sampled() -> Call {
    called(&format!("00-{TRACE}-{CALLER}-01"))
}

/// Trace id, span id and flags of what an upstream was sent.
fn traceparent(request: &Received) -> (String, String, String) {
    let header = request.header("traceparent").expect("a traceparent");
    let parts: Vec<&str> = header.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { panic!("{header}") };
    assert_eq!((version, trace.len(), span.len()), ("00", 32, 16), "{header}");
    (trace.to_owned(), span.to_owned(), flags.to_owned())
}

fn resources(collector: &Upstream) -> Vec<ResourceSpans> {
    let all = collector.requests().into_iter().filter(|request| request.complete);
    let decode = |request: Received| {
        let message = ExportTraceServiceRequest::decode(&request.body[..]);
        message.expect("OTLP in protobuf").resource_spans
    };
    all.flat_map(decode).collect()
}

fn spans(collector: &Upstream) -> Vec<Span> {
    let scopes = resources(collector).into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

/// The spans, once there are `count` of them.
#[track_caller]
fn wait_for_spans(collector: &Upstream, count: usize) -> Vec<Span> {
    let found = eventually(&format!("{count} spans"), || {
        let spans = spans(collector);
        (spans.len() >= count).then_some(spans)
    });
    assert_eq!(found.len(), count, "{found:#?}");
    found
}

fn of_kind(spans: &[Span], kind: SpanKind) -> Vec<&Span> {
    spans.iter().filter(|span| span.kind() == kind).collect()
}

fn value(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    let AnyValue { value, .. } = found.value.as_ref()?;
    match value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key}: {other:?}"),
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    value(&span.attributes, key)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn caller_gateway_and_service_are_one_trace() {
    let (upstream, collector) = (Upstream::script([503]), collector());
    let gateway = start(&upstream, &collector, RETRY);
    assert_eq!(gateway.call(sampled()).status, 200);
    let spans = wait_for_spans(&collector, 3);
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    let [server] = of_kind(&spans, SpanKind::Server)[..] else { panic!("one server span") };
    assert_eq!(hex(&server.parent_span_id), CALLER);
    let attempts = of_kind(&spans, SpanKind::Client);
    assert!(attempts.iter().all(|attempt| attempt.parent_span_id == server.span_id));
    let noted: Vec<String> = attempts.iter().map(|attempt| hex(&attempt.span_id)).collect();
    let sent: Vec<_> = upstream.requests().iter().map(traceparent).collect();
    assert!(sent.iter().all(|(trace, _, flags)| trace == TRACE && flags == "01"));
    assert_eq!(noted, sent.into_iter().map(|(_, span, _)| span).collect::<Vec<_>>());
}

#[test]
fn spans_say_what_happened_and_keep_the_query_to_themselves() {
    let (upstream, collector) = (Upstream::script([503]), collector());
    let gateway = start(&upstream, &collector, RETRY);
    assert_eq!(gateway.call(sampled()).status, 200);
    let spans = wait_for_spans(&collector, 3);
    let server = of_kind(&spans, SpanKind::Server)[0];
    assert_eq!(server.name, "GET /*");
    assert_eq!(attribute(server, "url.path").as_deref(), Some("/orders"));
    assert_eq!(attribute(server, "portcullis.route").as_deref(), Some("all"));
    let attempts = of_kind(&spans, SpanKind::Client);
    let facts = |attempt: &&Span| {
        let of = |key| attribute(attempt, key);
        (of("http.response.status_code"), of("error.type"), of("http.request.resend_count"))
    };
    let (first, second) = (facts(&attempts[0]), facts(&attempts[1]));
    assert_eq!(first, (Some("503".to_owned()), Some("503".to_owned()), None));
    assert_eq!(second, (Some("200".to_owned()), None, Some("1".to_owned())));
    assert!(!format!("{spans:?}").contains("secret"));
}

#[test]
fn spans_go_to_the_path_of_the_protocol_under_the_services_name() {
    let (upstream, collector) = (Upstream::start(), collector());
    let gateway = start(&upstream, &collector, "");
    assert_eq!(gateway.get("/").status, 200);
    wait_for_spans(&collector, 2);
    let post = collector.only();
    assert_eq!((post.method.as_str(), post.target.as_str()), ("POST", "/v1/traces"));
    assert_eq!(post.header("content-type"), Some("application/x-protobuf"));
    let resource = resources(&collector).remove(0).resource.expect("a resource");
    assert_eq!(value(&resource.attributes, "service.name").as_deref(), Some("shop"));
    let exported = || gateway.metric("portcullis_trace_spans_total", &[("result", "exported")]);
    eventually("both spans to be counted", || (exported() == 2.0).then_some(()));
}

#[test]
fn every_attempt_has_a_span_of_its_own_without_a_collector_too() {
    let upstream = Upstream::script([503]);
    let gateway = Gateway::route(&upstream, RETRY);
    assert_eq!(gateway.get("/").status, 200);
    let sent: Vec<_> = upstream.requests().iter().map(traceparent).collect();
    let [(first_trace, first_span, first_flags), (trace, span, flags)] = &sent[..] else {
        panic!("two attempts: {sent:?}")
    };
    assert_eq!(first_trace, trace);
    assert_ne!(first_span, span);
    assert_eq!((first_flags.as_str(), flags.as_str()), ("00", "00"));
}

#[test]
fn a_valid_context_is_continued_with_its_state() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    gateway.call(sampled().header("tracestate", "vendor=1"));
    let (trace, span, flags) = traceparent(&upstream.only());
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
    assert_ne!(span, CALLER);
    assert_eq!(upstream.only().header("tracestate"), Some("vendor=1"));
}

#[test]
fn a_malformed_context_is_replaced_and_loses_its_state() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let malformed = [
        format!("00-{TRACE}-0000000000000000-01"),
        format!("ff-{TRACE}-{CALLER}-01"),
        format!("00-{TRACE}-{CALLER}-01-more"),
        "00-short".to_owned(),
    ];
    for header in &malformed {
        gateway.call(called(header).header("tracestate", "vendor=1"));
    }
    let both = sampled().header("traceparent", &format!("00-{TRACE}-{CALLER}-00"));
    gateway.call(both.header("tracestate", "vendor=1"));
    let requests = upstream.requests();
    assert_eq!(requests.len(), malformed.len() + 1);
    for request in &requests {
        assert_ne!(traceparent(request).0, TRACE);
        assert_eq!(request.header("tracestate"), None);
    }
}

#[test]
fn a_route_may_keep_its_traces_from_an_upstream() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::route(&upstream, "headers: {request: {remove: [traceparent, tracestate]}}");
    gateway.call(sampled().header("tracestate", "vendor=1"));
    assert_eq!(upstream.only().header("traceparent"), None);
    assert_eq!(upstream.only().header("tracestate"), None);
}

#[test]
fn a_callers_decision_against_sampling_is_obeyed() {
    let (upstream, collector) = (Upstream::start(), collector());
    let gateway = start(&upstream, &collector, "");
    gateway.call(called("00-11111111111111111111111111111111-1111111111111111-00"));
    gateway.call(sampled());
    let spans = wait_for_spans(&collector, 2);
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
}

#[test]
fn an_attempt_that_reached_nobody_is_a_span_too() {
    let collector = collector();
    let nobody = format!("http://{}", refused_address());
    let section = "traces: {otlp: {endpoint: \"${COLLECTOR}\"}}";
    let plan = Plan::route("").section(section).env("COLLECTOR", &collector.url());
    let gateway = plan.env("UPSTREAM", &nobody).start();
    assert_eq!(gateway.get("/").status, 502);
    let spans = wait_for_spans(&collector, 2);
    let (server, client) =
        (of_kind(&spans, SpanKind::Server)[0], of_kind(&spans, SpanKind::Client)[0]);
    assert_eq!(attribute(client, "error.type").as_deref(), Some("connect_failure"));
    let rejection = attribute(server, "portcullis.rejection");
    assert_eq!(rejection.as_deref(), Some("connect_refused"));
    for span in [server, client] {
        assert_eq!(span.status.as_ref().map(|s| s.code()), Some(StatusCode::Error));
    }
}

#[test]
fn what_is_still_waiting_is_sent_before_the_end() {
    let (upstream, collector) = (Upstream::start(), collector());
    let mut gateway = start(&upstream, &collector, "");
    assert_eq!(gateway.get("/").status, 200);
    gateway.signal("TERM");
    assert_eq!(gateway.exit().code(), Some(0));
    assert_eq!(spans(&collector).len(), 2);
}

#[test]
fn a_dead_collector_costs_a_warning() {
    let upstream = Upstream::start();
    let nobody = format!("http://{}", refused_address());
    let mut gateway = traced(&upstream, &nobody, "").start();
    let failed = || gateway.metric("portcullis_trace_spans_total", &[("result", "failed")]);
    for batch in 1..=2 {
        assert_eq!(gateway.get("/").status, 200);
        let all = f64::from(batch * 2);
        eventually("a failed export", || (failed() >= all).then_some(()));
    }
    assert_eq!(gateway.log().matches("is away, nothing is exported").count(), 1);
    let (status, took) = timed(|| {
        gateway.signal("TERM");
        gateway.exit()
    });
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(3), "took {took:?}");
}

#[test]
fn the_gateway_service_is_traced_by_its_environment() {
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=attributed");
    let variable = ("OTEL_SERVICE_NAME", "renamed");
    let cases: [(&[(&str, &str)], &str); 3] = [
        (&[], "gateway-service"),
        (&[attributes], "attributed"),
        (&[attributes, variable], "renamed"),
    ];
    for (variables, named) in cases {
        let collector = collector();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/gateway-service.yaml");
        let mut plan = Plan::file(file).env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url());
        for (name, value) in variables {
            plan = plan.env(name, value);
        }
        let call = Call::new("POST /gateway.v1.GatewayService/InvokeCustom").json("{}");
        let gateway = plan.start();
        assert_eq!(gateway.call(call).status, 401);
        wait_for_spans(&collector, 1);
        let resource = resources(&collector).remove(0).resource.expect("a resource");
        assert_eq!(value(&resource.attributes, "service.name").as_deref(), Some(named));
        let server = &spans(&collector)[0];
        assert_eq!(server.name, "POST /gateway.v1.GatewayService/InvokeCustom");
        let rejection = attribute(server, "portcullis.rejection");
        assert_eq!(rejection.as_deref(), Some("credentials_missing"));
    }
}
