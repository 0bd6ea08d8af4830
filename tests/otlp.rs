//! Traces and metrics to a collector, as OpenTelemetry's variables say: over gRPC and over HTTP.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, number_data_point};
use prost::Message;

use crate::support::{
    Answer, Authority, Call, Gateway, H2Received, H2Upstream, Issuer, Plan, Received, Reply,
    Upstream, decompress, eventually, frame, refused_address, timed,
};

const POLICIES: &str = "
circuit_breaker: {consecutive: {failures: 2}, open_for: 1m}
retry: {max_retries: 1, on: [503], budget: shared, backoff: {base: 1ms, max: 1ms}}";
const SECTION: &str =
    "retry_budgets: {shared: {token_bucket: {capacity: 5, refill_per_second: 0.001}}}";
const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// A gateway that knows its collector from the environment alone.
fn plan(upstream: &Upstream, collector: &str) -> Plan {
    Plan::route(POLICIES)
        .section(SECTION)
        .upstream(upstream)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret,x-tenant=shop")
        .env("OTEL_SERVICE_NAME", "orders")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "200")
}

/// What a collector got: whether it was a trace, its headers, the message.
struct Export {
    is_trace: bool,
    authorization: Option<String>,
    message: Vec<u8>,
}

fn over_grpc(collector: &H2Upstream) -> Vec<Export> {
    let complete = collector.requests().into_iter().filter(|request| request.complete);
    let export = |request: H2Received| {
        assert!([TRACES, METRICS].contains(&request.path.as_str()), "{}", request.path);
        let header = |name: &str| request.headers.get(name).and_then(|v| v.to_str().ok());
        assert_eq!(
            (header("content-type"), header("te")),
            (Some("application/grpc"), Some("trailers"))
        );
        let message = request.body[5..].to_vec();
        assert_eq!(request.body[..5], frame(&message)[..5]);
        let authorization = header("authorization").map(str::to_owned);
        Export { is_trace: request.path == TRACES, authorization, message }
    };
    complete.map(export).collect()
}

fn over_http(collector: &Upstream, coding: Option<&str>) -> Vec<Export> {
    let complete = collector.requests().into_iter().filter(|request| request.complete);
    let export = |request: Received| {
        assert!(["/v1/traces", "/v1/metrics"].contains(&request.target.as_str()));
        assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
        assert_eq!(request.header("content-encoding"), coding);
        Export {
            is_trace: request.target == "/v1/traces",
            authorization: request.header("authorization").map(str::to_owned),
            message: coding.map_or(request.body.clone(), |c| decompress(c, &request.body)),
        }
    };
    complete.map(export).collect()
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        other => panic!("{key}: {other:?}"),
    }
}

fn is_of_service(attributes: &[KeyValue]) -> bool {
    attribute(attributes, "service.instance.id").is_some()
        && attribute(attributes, "service.name").as_deref() == Some("orders")
        && attribute(attributes, "deployment.environment.name").as_deref() == Some("test")
}

/// The metrics of the latest export.
fn latest(exports: &[Export]) -> Option<Vec<Metric>> {
    let export = exports.iter().rfind(|export| !export.is_trace)?;
    let request = ExportMetricsServiceRequest::decode(&export.message[..]).expect("metrics");
    let [resource] = &request.resource_metrics[..] else { panic!("one resource") };
    assert!(is_of_service(&resource.resource.as_ref().expect("a resource").attributes));
    Some(resource.scope_metrics.iter().flat_map(|scope| scope.metrics.clone()).collect())
}

fn spans(exports: &[Export]) -> usize {
    let decode = |export: &Export| {
        let request = ExportTraceServiceRequest::decode(&export.message[..]).expect("spans");
        let resources = request.resource_spans.iter();
        resources.for_each(|resource| {
            assert!(is_of_service(&resource.resource.as_ref().expect("a resource").attributes));
        });
        let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        scopes.map(|scope| scope.spans.len()).sum::<usize>()
    };
    exports.iter().filter(|export| export.is_trace).map(decode).sum()
}

/// The sum of the points that have this attribute: their value, or their count.
fn sum(metrics: &[Metric], name: &str, (key, wanted): (&str, &str)) -> Option<f64> {
    let metric = metrics.iter().find(|metric| metric.name == name)?;
    let is_wanted = |attributes: &[KeyValue]| attribute(attributes, key).as_deref() == Some(wanted);
    let points = match metric.data.as_ref()? {
        Data::Gauge(gauge) => &gauge.data_points,
        Data::Sum(sum) => {
            assert!(sum.is_monotonic && sum.aggregation_temporality == 2, "{name}");
            &sum.data_points
        }
        Data::Histogram(histogram) => {
            let points = histogram.data_points.iter().filter(|p| is_wanted(&p.attributes));
            return Some(points.map(|point| point.count as f64).sum());
        }
        other => panic!("{name}: {other:?}"),
    };
    let of = |value: &Option<number_data_point::Value>| match value {
        Some(number_data_point::Value::AsDouble(value)) => *value,
        other => panic!("{name}: {other:?}"),
    };
    let points = points.iter().filter(|point| is_wanted(&point.attributes));
    Some(points.map(|point| of(&point.value)).sum())
}

/// Fail until the circuit is open, then wait until the collector knows what `/metrics` says.
fn watched(gateway: &Gateway, exports: impl Fn() -> Vec<Export>) {
    for _ in 0..3 {
        gateway.get("/");
    }
    for (name, label, expected) in [
        ("portcullis_circuit_state", ("name", "all"), Some(2.0)),
        ("portcullis_retry_budget_tokens", ("budget", "shared"), None),
        ("portcullis_requests_total", ("route", "all"), Some(3.0)),
        ("portcullis_request_duration_seconds", ("route", "all"), Some(3.0)),
    ] {
        let own = match name {
            "portcullis_request_duration_seconds" => "portcullis_request_duration_seconds_count",
            name => name,
        };
        let shown = gateway.metric(own, &[label]);
        assert!(expected.is_none_or(|expected| expected == shown), "{name}: {shown}");
        eventually(&format!("{name} to be {shown}"), || {
            (sum(&latest(&exports())?, name, label)?.floor() == shown.floor()).then_some(())
        });
    }
    eventually("spans", || (spans(&exports()) >= 5).then_some(()));
    let authorized = |export: &Export| export.authorization.as_deref() == Some("Bearer secret");
    assert!(exports().iter().all(authorized));
}

#[test]
fn traces_and_metrics_arrive_over_grpc_and_are_those_that_are_shown() {
    let collector = H2Upstream::always(Reply::grpc(&[], 0).body(&frame(&[])));
    let upstream = Upstream::always(503);
    let plan = plan(&upstream, &collector.url()).env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let gateway = plan.start();
    watched(&gateway, || over_grpc(&collector));
    assert!(gateway.metric("portcullis_metric_exports_total", &[("result", "exported")]) >= 1.0);
}

#[test]
fn traces_and_metrics_arrive_over_http_compressed_if_asked_for() {
    for coding in [None, Some("gzip")] {
        let answer = Answer::ok().header("Content-Type", "application/x-protobuf").body("");
        let collector = Upstream::always(answer);
        let upstream = Upstream::always(503);
        let plan = plan(&upstream, &collector.url());
        let plan = plan.env("OTEL_EXPORTER_OTLP_COMPRESSION", coding.unwrap_or("none"));
        let gateway = plan.start();
        watched(&gateway, || over_http(&collector, coding));
    }
}

#[test]
fn the_gateway_service_as_deployed_tells_a_collector_on_its_grpc_port() {
    // The port says that it is gRPC. An address of this process's own: others run the same test.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = SocketAddr::from((Ipv4Addr::new(127, high | 1, low, 9), 4317));
    let collector = H2Upstream::listen(address, Reply::grpc(&[], 0).body(&frame(&[])));
    let upstream = Upstream::always(Answer::json(200, r#"{"message":"Hello"}"#));
    let issuer = Issuer::start();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/gateway-service.yaml");
    let gateway = Plan::file(file)
        .env("CUSTOM_LANG_BASE_URL", &upstream.url())
        .env("JWKS_URL", &issuer.url())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{address}"))
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .env("OTEL_SERVICE_NAME", "orders")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "200")
        .start();
    let call = Call::new("POST /gateway.v1.GatewayService/InvokeCustom").json("{}");
    let call = call.header("Connect-Protocol-Version", "1").bearer(&issuer.token("ada"));
    assert_eq!(gateway.call(call).status, 200);
    for (name, label, expected) in [
        ("portcullis_circuit_state", ("name", "custom-lang-service"), 0.0),
        ("portcullis_retry_budget_tokens", ("budget", "custom-lang"), 20.0),
        ("portcullis_requests_total", ("route", "invoke-custom"), 1.0),
        ("portcullis_request_duration_seconds", ("route", "invoke-custom"), 1.0),
    ] {
        eventually(&format!("{name} to be {expected}"), || {
            (sum(&latest(&over_grpc(&collector))?, name, label)? == expected).then_some(())
        });
    }
    // The call and its attempt.
    eventually("spans", || (spans(&over_grpc(&collector)) >= 2).then_some(()));
}

#[test]
fn a_collector_behind_tls_is_told_if_its_certificate_is_good() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let leaf = ours.sign("localhost");
    for (trusted, is_told) in [(&ours, true), (&theirs, false)] {
        let collector = Upstream::always(Answer::ok().body(""));
        let listener = "listeners: {public: {address: \"127.0.0.1:${PORT}\", tls: {certificates: \
                        [{certificate: one.pem, key: one.key}]}}}";
        let front = Plan::route("").section(listener).upstream(&collector);
        let front = front.beside("one.pem", &leaf.pem()).beside("one.key", &leaf.key_pem()).start();
        let upstream = Upstream::start();
        let url = format!("https://localhost:{}", front.address.port());
        let gateway = plan(&upstream, &url)
            .env("OTEL_EXPORTER_OTLP_CERTIFICATE", "collector-ca.pem")
            .beside("collector-ca.pem", &trusted.pem())
            .start();
        gateway.get("/");
        if is_told {
            eventually("metrics", || latest(&over_http(&collector, None)));
            eventually("spans", || (spans(&over_http(&collector, None)) >= 2).then_some(()));
        } else {
            gateway.wait_for_log("is away");
            assert!(gateway.log().contains("certificate"), "{}", gateway.log());
            assert_eq!(collector.count(), 0);
        }
    }
}

/// Each family at `/metrics`: its series (of a histogram, its counts), and the sum of their values.
fn shown(gateway: &Gateway) -> BTreeMap<String, (usize, f64)> {
    let text = gateway.admin("GET /metrics").text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let family = |(name, kind): (&str, &str)| {
        let counted = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(&counted)?;
            let is_it = rest.starts_with('{') || rest.starts_with(' ');
            is_it.then(|| rest.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()))?
        });
        let values: Vec<f64> = values.collect();
        (name.to_owned(), (values.len(), values.iter().sum()))
    };
    types.map(family).collect()
}

/// The same of an export.
fn exported(metrics: &[Metric]) -> BTreeMap<String, (usize, f64)> {
    let number = |value: &Option<number_data_point::Value>| match value {
        Some(number_data_point::Value::AsDouble(value)) => *value,
        other => panic!("{other:?}"),
    };
    let family = |metric: &Metric| {
        let values: Vec<f64> = match metric.data.as_ref().expect("data") {
            Data::Gauge(gauge) => gauge.data_points.iter().map(|p| number(&p.value)).collect(),
            Data::Sum(sum) => sum.data_points.iter().map(|p| number(&p.value)).collect(),
            Data::Histogram(data) => data.data_points.iter().map(|p| p.count as f64).collect(),
            other => panic!("{}: {other:?}", metric.name),
        };
        (metric.name.clone(), (values.len(), values.iter().sum()))
    };
    metrics.iter().map(family).collect()
}

/// What changes between an export and a look at `/metrics`, besides what is said of the process.
const MOVING: [&str; 3] = [
    "portcullis_metric_exports_total",
    "portcullis_retry_budget_tokens",
    "portcullis_trace_spans_total",
];

#[test]
fn every_family_that_is_shown_is_exported_with_the_same_series_and_values() {
    let collector = Upstream::always(Answer::ok().body(""));
    let upstream = Upstream::script([503, 503, 200]);
    let policies = format!("{POLICIES}\nbulkhead: {{max_in_flight: 9}}\nrecord: {{mode: async}}");
    let gateway = Plan::route(&policies)
        .section(SECTION)
        .upstream(&upstream)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .env("OTEL_SERVICE_NAME", "orders")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "200")
        .start();
    for path in ["/a", "/b", "/%zz"] {
        gateway.get(path);
    }
    eventually("an export of what is shown", || {
        let exported = exported(&latest(&over_http(&collector, None))?);
        let mut shown = shown(&gateway);
        assert!(shown.len() > 30, "{:?}", shown.keys());
        let is_same = exported.keys().eq(shown.keys());
        shown.retain(|name, value| exported.get(name) != Some(value));
        shown.retain(|name, _| !name.starts_with("process_") && !MOVING.contains(&name.as_str()));
        (is_same && shown.is_empty()).then_some(())
    });
}

#[test]
fn one_signal_can_go_elsewhere_or_nowhere() {
    let upstream = Upstream::start();
    let collector = Upstream::always(Answer::ok().body(""));
    let plan = plan(&upstream, &format!("http://{}", refused_address()))
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &format!("{}/v1/metrics", collector.url()));
    let gateway = plan.start();
    gateway.get("/");
    eventually("metrics", || latest(&over_http(&collector, None)));
    assert!(over_http(&collector, None).iter().all(|export| !export.is_trace));
    assert!(!gateway.log().contains("is away"));
}

#[test]
fn a_collector_that_never_answers_costs_a_request_nothing_and_is_told_of_once() {
    let upstream = Upstream::start();
    let collector = H2Upstream::always(Reply::hang());
    let plan = plan(&upstream, &collector.url())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "300");
    let mut gateway = plan.start();
    for _ in 0..3 {
        let mut client = gateway.connect();
        let ((), took) = timed(|| {
            for _ in 0..20 {
                assert_eq!(client.call(&"GET /".into()).status, 200);
            }
        });
        assert!(took < Duration::from_secs(2), "{took:?}");
        let failed = || gateway.metric("portcullis_metric_exports_total", &[("result", "failed")]);
        let before = failed();
        eventually("another failed export", || (failed() > before).then_some(()));
    }
    assert_eq!(gateway.log().matches("is away").count(), 1);
    let (status, took) = timed(|| {
        gateway.signal("TERM");
        gateway.exit()
    });
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_collector_that_comes_back_is_told_of_and_gets_what_there_is() {
    let address = refused_address();
    let upstream = Upstream::start();
    let gateway = plan(&upstream, &format!("http://{address}")).start();
    gateway.wait_for_log("is away");
    let collector = Upstream::listen(address);
    gateway.wait_for_log("is back");
    gateway.get("/");
    eventually("metrics", || latest(&over_http(&collector, None)));
    assert_eq!(gateway.log().matches("is away").count(), 1);
}

#[test]
fn a_variable_that_cannot_be_read_is_a_warning_and_never_shown() {
    let upstream = Upstream::start();
    let collector = Upstream::always(Answer::ok().body(""));
    let plan = plan(&upstream, &collector.url())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "hunter2")
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "soon");
    let gateway = plan.start();
    gateway.wait_for_log("OTEL_EXPORTER_OTLP_PROTOCOL: expected grpc or http/protobuf; ignored");
    gateway.wait_for_log("OTEL_EXPORTER_OTLP_TIMEOUT: expected a number of milliseconds");
    assert!(!gateway.log().contains("hunter2"));
    eventually("metrics all the same", || latest(&over_http(&collector, None)));
}
