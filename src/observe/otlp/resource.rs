//! Attributes of the exporting process, the same for spans and metrics.

use opentelemetry::KeyValue;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;

/// A `service.instance.id`. Random at each start, so that replicas and successors can be told apart.
pub(super) fn instance() -> String {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid().to_string()
}

/// `attributes`, with what every process can add about itself: it is the `instance` of its service. The
/// operator's attributes win.
pub(super) fn of(attributes: &[(String, String)], instance: &str) -> ResourceAttributesWithSchema {
    let own = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.to_owned()),
    ];
    let said = attributes.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(own)
        .with_attributes(said)
        .build();
    ResourceAttributesWithSchema::from(&resource)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;

    use super::*;

    fn value(resource: &ResourceAttributesWithSchema, key: &str) -> Vec<String> {
        let found = resource.attributes.0.iter().filter(|attribute| attribute.key == key);
        let text = |attribute: &opentelemetry_proto::tonic::common::v1::KeyValue| match attribute
            .value
            .as_ref()
            .and_then(|value| value.value.as_ref())
        {
            Some(Value::StringValue(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        found.map(text).collect()
    }

    #[test]
    fn what_the_operator_says_replaces_what_the_process_says() {
        let said = [("service.instance.id", "pod-1"), ("service.name", "shop")];
        let said = said.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let resource = of(&said, "random");
        assert_eq!(value(&resource, "service.instance.id"), ["pod-1"]);
        assert_eq!(value(&resource, "service.name"), ["shop"]);
        assert_eq!(value(&resource, "service.version"), [env!("CARGO_PKG_VERSION")]);
    }

    #[test]
    fn every_start_is_an_instance_of_its_own() {
        let id = || value(&of(&[], &instance()), "service.instance.id");
        assert_eq!(id().len(), 1);
        assert_ne!(id(), id());
    }
}
