//! The settings of `traces`.

use serde::{Deserialize, Deserializer};

use super::otlp::Otlp;
use crate::units::Percent;

/// Which requests are traced, and where their spans go. Trace context is forwarded in any case.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// Settings of the collector for spans that differ from the common `otlp`.
    pub otlp: Otlp,
    /// The `service.name` of every span and every metric. Absent: `OTEL_SERVICE_NAME`, else the
    /// `service.name` in `OTEL_RESOURCE_ATTRIBUTES`, else `default_service_name`.
    #[serde(deserialize_with = "some_name")]
    pub service_name: Option<String>,
    /// The `service.name` if neither `service_name` nor OpenTelemetry's variables have one; default
    /// `portcullis`.
    #[serde(deserialize_with = "name")]
    pub default_service_name: String,
    /// The share of requests to sample, among those without a caller's decision; default 100 %.
    pub sample: Percent,
}

impl Default for Traces {
    fn default() -> Self {
        Traces {
            otlp: Otlp::default(),
            service_name: None,
            default_service_name: "portcullis".to_owned(),
            sample: Percent::new(100),
        }
    }
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if name.trim().is_empty() {
        return Err(serde::de::Error::custom("a service needs a name, such as portcullis"));
    }
    Ok(name)
}

fn some_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    name(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<Traces, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_has_a_default() {
        assert_eq!(parse("{}"), Ok(Traces::default()));
    }

    #[test]
    fn a_service_without_a_name_is_refused() {
        assert!(parse("{service_name: \" \"}").is_err());
        assert!(parse("{default_service_name: \" \"}").is_err());
    }
}
