//! What a collector was sent over HTTP; any upstream that answers can be one.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
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
    let attributes = spans.resource.iter().flat_map(|resource| &resource.attributes);
    attributes.filter(|attribute| attribute.key == "service.name").any(|attribute| {
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        matches!(value, Some(Value::StringValue(name)) if name == service)
    })
}
