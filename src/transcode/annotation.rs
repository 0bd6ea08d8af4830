//! The HTTP side of a method, as its `google.api.http` option defines it.

use prost_reflect::{DynamicMessage, MethodDescriptor, Value};

use super::config::{Binding, Body};
use super::descriptors::Descriptors;

const OPTION: &str = "google.api.http";
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// The bindings of a method, in their order; empty if the method is not annotated.
pub(super) fn bindings(descriptors: &Descriptors, method: &MethodDescriptor) -> Vec<Binding> {
    let Some(option) = descriptors.pool().get_extension_by_name(OPTION) else { return Vec::new() };
    let options = method.options();
    if !options.has_extension(&option) {
        return Vec::new();
    }
    match options.get_extension(&option).as_message() {
        Some(rule) => {
            let further = rule.get_field_by_name("additional_bindings");
            let further = further.as_deref().and_then(Value::as_list).unwrap_or_default();
            let rules = std::iter::once(rule).chain(further.iter().filter_map(Value::as_message));
            rules.filter_map(binding).collect()
        }
        None => Vec::new(),
    }
}

fn binding(rule: &DynamicMessage) -> Option<Binding> {
    let named = METHODS.iter().find(|name| rule.has_field_by_name(name));
    let (method, path) = match named {
        Some(name) => (name.to_ascii_uppercase(), text(rule, name)),
        None => {
            let custom = rule.get_field_by_name("custom")?;
            let custom = custom.as_message()?;
            (text(custom, "kind"), text(custom, "path"))
        }
    };
    let response_body = text(rule, "response_body");
    Some(Binding {
        method,
        path,
        query: None,
        body: Body::of_annotation(&text(rule, "body")),
        response_body: (!response_body.is_empty()).then_some(response_body),
    })
}

fn text(message: &DynamicMessage, field: &str) -> String {
    let value = message.get_field_by_name(field);
    value.as_deref().and_then(Value::as_str).unwrap_or_default().to_owned()
}
