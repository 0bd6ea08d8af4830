//! What a collector was sent over HTTP; any upstream that answers can be one.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;

use super::upstream::{Received, Upstream};
use super::wait::eventually;

/// The spans of `service`, once there are `count` of them; there must be no more.
#[track_caller]
pub fn wait_for_spans(collector: &Upstream, service: &str, count: usize) -> Vec<Span> {
    let found = eventually(&format!("{count} spans"), || {
        let spans = spans(collector, service);
        (spans.len() >= count).then_some(spans)
    });
    assert_eq!(found.len(), count, "{found:#?}");
    found
}

/// The paths of the requests that a collector has the server's spans of, in the order they came.
pub fn traced_paths(collector: &Upstream, service: &str) -> Vec<String> {
    let spans = spans(collector, service);
    let servers = spans.iter().filter(|span| span.kind() == SpanKind::Server);
    servers.map(|span| text_of(&span.attributes, "url.path").expect("a path")).collect()
}

/// The metrics of each export, in the order they came, with the `service.instance.id`.
pub fn pushed(collector: &Upstream) -> Vec<(String, Vec<Metric>)> {
    let requests = collector.requests().into_iter();
    let exports = requests.filter(|request| request.complete && request.target == "/v1/metrics");
    let decode = |request: Received| {
        let message = ExportMetricsServiceRequest::decode(&request.body[..]).expect("metrics");
        let [resource] = &message.resource_metrics[..] else { panic!("one resource") };
        let attributes = &resource.resource.as_ref().expect("a resource").attributes;
        let instance = text_of(attributes, "service.instance.id").expect("an instance");
        let metrics = resource.scope_metrics.iter().flat_map(|scope| scope.metrics.clone());
        (instance, metrics.collect())
    };
    exports.map(decode).collect()
}

/// Value and start time of a counter's points together.
pub fn counted(metrics: &[Metric], name: &str) -> Option<(f64, u64)> {
    let metric = metrics.iter().find(|metric| metric.name == name)?;
    let Some(Data::Sum(sum)) = &metric.data else { panic!("{name} is no counter") };
    let value = |value: &Option<number_data_point::Value>| match value {
        Some(number_data_point::Value::AsDouble(value)) => *value,
        other => panic!("{name}: {other:?}"),
    };
    let since = sum.data_points.iter().map(|point| point.start_time_unix_nano).min()?;
    Some((sum.data_points.iter().map(|point| value(&point.value)).sum(), since))
}

fn text_of(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        other => panic!("{key}: {other:?}"),
    }
}

fn spans(collector: &Upstream, service: &str) -> Vec<Span> {
    let requests = collector.requests().into_iter();
    let traces = requests.filter(|request| request.complete && request.target == "/v1/traces");
    let decode = |request: Received| {
        let message = ExportTraceServiceRequest::decode(&request.body[..]);
        message.expect("OTLP in protobuf").resource_spans
    };
    let resources: Vec<_> = traces.flat_map(decode).collect();
    assert!(resources.iter().all(|spans| is_of(spans, service)), "{resources:#?}");
    let scopes = resources.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

fn is_of(spans: &ResourceSpans, service: &str) -> bool {
    let resource = spans.resource.as_ref();
    let name = resource.and_then(|resource| text_of(&resource.attributes, "service.name"));
    name.as_deref() == Some(service)
}
