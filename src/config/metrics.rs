//! The settings of `metrics`.

use serde::{Deserialize, Deserializer};

use super::otlp::Otlp;
use crate::units::{Timespan, positive};

/// Where metrics are sent, in addition to being scraped.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Settings of the collector for metrics that differ from the common `otlp`.
    pub otlp: Otlp,
    /// Time between two exports; longer than zero. Absent: `OTEL_METRIC_EXPORT_INTERVAL`, else 60
    /// s.
    #[serde(deserialize_with = "interval")]
    pub interval: Option<Timespan>,
    /// How responses are counted by their status.
    pub status: Status,
}

/// How responses are counted by their status.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// By its class: `2xx`.
    #[default]
    Class,
    /// Also by the status itself, in a metric of its own.
    Exact,
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timespan>, D::Error> {
    positive(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_not_sent_without_a_pause() {
        assert!(serde_yaml::from_str::<Metrics>("{interval: 0s}").is_err());
        assert!(serde_yaml::from_str::<Metrics>("{interval: 15s}").is_ok());
    }
}
