//! Variables in the specification's form, valid and invalid.

use super::*;
use crate::config::otlp::Compression;

fn read<T>(variables: &[(&str, &str)], of: impl FnOnce(&mut Reader<'_>) -> T) -> (T, Vec<String>) {
    let environment = Environment::fixed(variables.iter().copied());
    let mut reader = Reader::new(&environment);
    let value = of(&mut reader);
    (value, reader.warnings)
}

fn common(variables: &[(&str, &str)]) -> (Otlp, Vec<String>) {
    read(variables, |reader| reader.common())
}

#[test]
fn nothing_is_said_by_an_empty_environment() {
    let empty = [("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_EXPORTER_OTLP_TIMEOUT", " ")];
    for variables in [&[][..], &empty] {
        assert_eq!(common(variables), (Otlp::default(), vec![]));
    }
}

#[test]
fn every_option_has_its_variable_for_all_signals_and_for_one() {
    for (prefix, signal) in [
        ("OTEL_EXPORTER_OTLP", None),
        ("OTEL_EXPORTER_OTLP_TRACES", Some(Signal::Traces)),
        ("OTEL_EXPORTER_OTLP_METRICS", Some(Signal::Metrics)),
    ] {
        let variables = [
            ("ENDPOINT", "https://collector:4318/x"),
            ("PROTOCOL", "http/protobuf"),
            ("HEADERS", "api-key=secret"),
            ("TIMEOUT", "2500"),
            ("COMPRESSION", "gzip"),
            ("CERTIFICATE", "/etc/ca.pem"),
        ];
        let variables = variables.map(|(name, value)| (format!("{prefix}_{name}"), value));
        let environment = Environment::fixed(variables);
        let mut reader = Reader::new(&environment);
        let otlp = match signal {
            None => reader.common(),
            Some(signal) => reader.of(signal),
        };
        let endpoint = match signal {
            None => Endpoint::base("https://collector:4318/x"),
            Some(_) => Endpoint::exact("https://collector:4318/x"),
        };
        assert_eq!(otlp.endpoint, endpoint.ok());
        assert_eq!(otlp.protocol, Some(Protocol::HttpProtobuf));
        assert_eq!(otlp.headers.expect("headers")["api-key"], "secret");
        assert_eq!(otlp.timeout, Some(Timespan::from_millis(2500)));
        assert_eq!(otlp.compression, Some(Compression::Gzip));
        assert_eq!(otlp.ca, Some("/etc/ca.pem".into()));
        assert!(reader.warnings.is_empty(), "{:?}", reader.warnings);
    }
}

#[test]
fn headers_are_a_list_in_percent_encoding() {
    let list = " authorization = Bearer%20a%2Cb%3Dc ,x-tenant=1, ,x-empty=";
    let (otlp, warnings) = common(&[("OTEL_EXPORTER_OTLP_HEADERS", list)]);
    let headers = otlp.headers.expect("headers");
    assert_eq!(headers["authorization"], "Bearer a,b=c");
    assert_eq!(
        (&headers["x-tenant"], &headers["x-empty"]),
        (&"1".parse().expect("a value"), &"".parse().expect("a value"))
    );
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn a_malformed_header_is_left_out_and_does_not_show_in_the_warning() {
    for malformed in
        ["hunter2", "=hunter2", "key=hunter2%", "key=hunter2%0A", "a b=hunter2", "key=hunter2%FF"]
    {
        let list = format!("{malformed},x-tenant=1");
        let (otlp, warnings) = common(&[("OTEL_EXPORTER_OTLP_HEADERS", &list)]);
        let headers = otlp.headers.expect("headers");
        assert_eq!((headers.len(), &headers["x-tenant"]), (1, &"1".parse().expect("a value")));
        assert_eq!(warnings.len(), 1, "{malformed}");
        assert!(warnings[0].starts_with("OTEL_EXPORTER_OTLP_HEADERS: "), "{warnings:?}");
        assert!(!warnings[0].contains("hunter2"), "{warnings:?}");
    }
}

#[test]
fn what_cannot_be_read_is_as_good_as_not_set() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
    ] {
        let (otlp, warnings) = common(&[(name, value)]);
        assert_eq!(otlp, Otlp::default(), "{name}={value}");
        assert_eq!(warnings.len(), 1, "{name}={value}: {warnings:?}");
        assert!(warnings[0].starts_with(name), "{warnings:?}");
    }
}

#[test]
fn a_host_and_port_of_grpc_is_encrypted_unless_the_environment_says_insecure() {
    let bare = ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317");
    let endpoint = |variables: &[(&str, &str)]| {
        let (otlp, warnings) = common(variables);
        assert!(warnings.is_empty(), "{warnings:?}");
        otlp.endpoint
    };
    let (plain, tls) =
        (Endpoint::base("http://collector:4317"), Endpoint::base("https://collector:4317"));
    assert_eq!(endpoint(&[bare]), tls.ok());
    assert_eq!(endpoint(&[bare, ("OTEL_EXPORTER_OTLP_INSECURE", "TRUE")]), plain.ok());
    let said = [("OTEL_EXPORTER_OTLP_ENDPOINT", "c:9"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    assert_eq!(endpoint(&said), Endpoint::base("https://c:9").ok());
}

#[test]
fn exporters_are_a_list() {
    let exporter = |signal, list: &str| {
        let name = format!("OTEL_{}_EXPORTER", signal_name(signal));
        let (exporter, warnings) = read(&[(&name, list)], |reader| reader.exporter(signal));
        (exporter, warnings.len())
    };
    for signal in [Signal::Traces, Signal::Metrics] {
        assert_eq!(exporter(signal, ""), (Exporter::Unsaid, 0));
        assert_eq!(exporter(signal, "none"), (Exporter::None, 0));
        assert_eq!(exporter(signal, "otlp"), (Exporter::Otlp, 0));
        assert_eq!(exporter(signal, "console, otlp"), (Exporter::Otlp, 1));
        assert_eq!(exporter(signal, "zipkin"), (Exporter::Unsaid, 1));
    }
    assert_eq!(exporter(Signal::Metrics, "prometheus"), (Exporter::None, 0));
}

fn signal_name(signal: Signal) -> &'static str {
    signal.infix()
}

#[test]
fn only_true_is_true() {
    for (value, is, warnings) in
        [("true", true, 0), ("True", true, 0), ("false", false, 0), ("1", false, 1)]
    {
        let (disabled, found) =
            read(&[("OTEL_SDK_DISABLED", value)], |reader| reader.is_disabled());
        assert_eq!((disabled, found.len()), (is, warnings), "{value}");
    }
}

#[test]
fn a_malformed_list_of_attributes_is_discarded_whole() {
    let attributes = |list: &str| {
        read(&[("OTEL_RESOURCE_ATTRIBUTES", list)], |reader| reader.resource_attributes())
    };
    let (found, warnings) = attributes("deployment.environment.name=prod,team=a%2Cb");
    let expected = [("deployment.environment.name", "prod"), ("team", "a,b")];
    assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert!(warnings.is_empty());
    let (found, warnings) = attributes("team=a,broken");
    assert_eq!((found.len(), warnings.len()), (0, 1));
}

#[test]
fn the_interval_is_in_milliseconds() {
    let (interval, _) =
        read(&[("OTEL_METRIC_EXPORT_INTERVAL", "15000")], |reader| reader.interval());
    assert_eq!(interval, Some(Timespan::from_secs(15)));
}
