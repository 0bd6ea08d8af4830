//! The file wins over the environment, and a signal's setting over the common one.

use super::*;

const MINIMUM: &str = "listeners: {public: {address: \"127.0.0.1:1\"}}\n";

fn resolve(yaml: &str, variables: &[(&str, &str)]) -> Telemetry {
    let config: Config = serde_yaml::from_str(&format!("{MINIMUM}{yaml}")).expect("valid");
    Telemetry::resolve(&config, &Environment::fixed(variables.iter().copied()))
}

fn addresses(telemetry: &Telemetry) -> (Option<String>, Option<String>) {
    let of = |to: &Option<Destination>| to.as_ref().map(|to| to.uri.to_string());
    (of(&telemetry.traces), of(&telemetry.metrics))
}

fn both(traces: &str, metrics: &str) -> (Option<String>, Option<String>) {
    (Some(traces.to_owned()), Some(metrics.to_owned()))
}

const GRPC_TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const GRPC_METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

#[test]
fn nothing_is_exported_by_default() {
    let telemetry = resolve("", &[]);
    assert_eq!(addresses(&telemetry), (None, None));
    assert_eq!(telemetry.interval, Timespan::from_secs(60));
    assert_eq!(telemetry.resource, [("service.name".to_owned(), "portcullis".to_owned())]);
}

#[test]
fn an_endpoint_in_the_environment_alone_turns_both_signals_on() {
    let telemetry = resolve("", &[(ENDPOINT, "http://collector:4318/otel/")]);
    let expected =
        both("http://collector:4318/otel/v1/traces", "http://collector:4318/otel/v1/metrics");
    assert_eq!(addresses(&telemetry), expected);
    assert_eq!(telemetry.traces.expect("traces").protocol, Protocol::HttpProtobuf);
}

#[test]
fn port_4317_means_grpc_unless_a_protocol_is_said() {
    let telemetry = resolve("", &[(ENDPOINT, "http://otel-collector:4317")]);
    let grpc = |path| format!("http://otel-collector:4317{path}");
    assert_eq!(addresses(&telemetry), both(&grpc(GRPC_TRACES), &grpc(GRPC_METRICS)));
    let said = [(ENDPOINT, "http://c:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    let expected = both("http://c:4317/v1/traces", "http://c:4317/v1/metrics");
    assert_eq!(addresses(&resolve("", &said)), expected);
    let said = [(ENDPOINT, "http://c:4318"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")];
    let expected = both(&format!("http://c:4318{GRPC_TRACES}"), "http://c:4318/v1/metrics");
    assert_eq!(addresses(&resolve("", &said)), expected);
}

#[test]
fn the_endpoint_of_one_signal_is_used_as_it_is() {
    let traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let telemetry = resolve("", &[(traces, "http://t:4318/in"), (ENDPOINT, "http://c:4318")]);
    assert_eq!(addresses(&telemetry), both("http://t:4318/in", "http://c:4318/v1/metrics"));
    let alone = resolve("", &[(traces, "http://t:4318")]);
    assert_eq!(addresses(&alone), (Some("http://t:4318/".to_owned()), None));
    // A frequent mistake: over gRPC the only path is the method's.
    let grpc = resolve("", &[(traces, "http://t:4317/v1/traces")]);
    assert_eq!(addresses(&grpc).0, Some(format!("http://t:4317{GRPC_TRACES}")));
}

#[test]
fn the_file_comes_before_the_environment() {
    let environment = [
        (ENDPOINT, "http://environment:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://environment:4318/in"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "3000"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
    ];
    let telemetry = resolve("otlp: {endpoint: \"http://file:4318\"}", &environment);
    assert_eq!(
        addresses(&telemetry),
        both("http://file:4318/v1/traces", "http://file:4318/v1/metrics")
    );
    assert_eq!(telemetry.traces.expect("traces").timeout, Timespan::from_secs(1));
    assert_eq!(telemetry.metrics.expect("metrics").timeout, Timespan::from_secs(3));
    assert_eq!(telemetry.interval, Timespan::from_secs(5));
    let yaml =
        "traces: {otlp: {endpoint: \"http://file:4318\", timeout: 2s}}\nmetrics: {interval: 9s}";
    let telemetry = resolve(yaml, &environment);
    let expected = both("http://file:4318/v1/traces", "http://environment:4318/v1/metrics");
    assert_eq!(addresses(&telemetry), expected);
    assert_eq!(telemetry.traces.expect("traces").timeout, Timespan::from_secs(2));
    assert_eq!(telemetry.interval, Timespan::from_secs(9));
}

#[test]
fn a_file_that_is_about_traces_alone_exports_no_metrics() {
    let telemetry = resolve("traces: {otlp: {endpoint: \"http://file:4318\"}}", &[]);
    assert_eq!(addresses(&telemetry), (Some("http://file:4318/v1/traces".to_owned()), None));
}

#[test]
fn exporting_can_be_turned_off_for_each_signal_and_for_all() {
    let on = (ENDPOINT, "http://c:4318");
    assert_eq!(addresses(&resolve("", &[on, ("OTEL_SDK_DISABLED", "true")])), (None, None));
    let file = "otlp: {endpoint: \"http://c:4318\"}";
    assert_eq!(addresses(&resolve(file, &[("OTEL_SDK_DISABLED", "true")])), (None, None));
    assert_eq!(addresses(&resolve("", &[on, ("OTEL_TRACES_EXPORTER", "none")])).0, None);
    assert!(addresses(&resolve("", &[on, ("OTEL_TRACES_EXPORTER", "none")])).1.is_some());
    assert_eq!(addresses(&resolve(file, &[("OTEL_METRICS_EXPORTER", "none")])).1, None);
    let empty = "metrics: {otlp: {endpoint: \"\"}}";
    assert_eq!(addresses(&resolve(empty, &[on])).1, None);
    assert!(addresses(&resolve(empty, &[on])).0.is_some());
}

#[test]
fn an_exporter_that_is_asked_for_has_the_default_endpoint() {
    let telemetry = resolve("", &[("OTEL_TRACES_EXPORTER", "otlp")]);
    assert_eq!(addresses(&telemetry), (Some("http://localhost:4318/v1/traces".to_owned()), None));
    let grpc = [("OTEL_METRICS_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let expected = format!("http://localhost:4317{GRPC_METRICS}");
    assert_eq!(addresses(&resolve("", &grpc)), (None, Some(expected)));
}

#[test]
fn the_name_is_that_of_the_file_then_of_its_variable_then_of_the_attributes_then_the_default() {
    let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=attributes,team=a");
    let variable = ("OTEL_SERVICE_NAME", "variable");
    let name = |yaml: &str, variables: &[(&str, &str)]| {
        let resource = resolve(yaml, variables).resource;
        let names = resource.iter().filter(|(key, _)| key == "service.name");
        let names: Vec<&String> = names.map(|(_, name)| name).collect();
        assert_eq!(names.len(), 1, "{resource:?}");
        names[0].clone()
    };
    let file = "traces: {service_name: file}";
    assert_eq!(name(file, &[attributes, variable]), "file");
    assert_eq!(name("", &[attributes, variable]), "variable");
    assert_eq!(name("", &[attributes]), "attributes");
    let default = "traces: {default_service_name: default}";
    assert_eq!(name(default, &[attributes, variable]), "variable");
    assert_eq!(name(default, &[attributes]), "attributes");
    assert_eq!(name(default, &[]), "default");
    assert_eq!(name("traces: {service_name: file, default_service_name: default}", &[]), "file");
    let team = ("team".to_owned(), "a".to_owned());
    assert!(resolve(file, &[attributes]).resource.contains(&team));
}

#[test]
fn one_mistake_is_one_warning() {
    let telemetry = resolve("", &[("OTEL_EXPORTER_OTLP_INSECURE", "yes"), (ENDPOINT, "c:4317")]);
    assert_eq!(telemetry.warnings.len(), 1, "{:?}", telemetry.warnings);
}
