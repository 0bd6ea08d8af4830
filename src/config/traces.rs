//! What an operator writes under `traces`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::units::{Percent, Timespan, positive};

/// Which requests are traced, and where their spans go. Trace context is passed on either way.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// Absent: nothing is exported.
    pub otlp: Option<Otlp>,
    /// The `service.name` of every span.
    #[serde(deserialize_with = "service_name")]
    pub service_name: String,
    /// The share of the requests that come without anybody's decision.
    pub sample: Percent,
}

impl Default for Traces {
    fn default() -> Self {
        Traces { otlp: None, service_name: "portcullis".to_owned(), sample: Percent::new(100) }
    }
}

impl Traces {
    /// Where spans go and how long sending them may take; `None`: nowhere.
    pub fn collector(&self) -> Option<(&Collector, Timespan)> {
        let otlp = self.otlp.as_ref()?;
        Some((otlp.endpoint.as_ref()?, otlp.timeout))
    }
}

/// A collector that takes OTLP over HTTP, in protobuf.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// `None`, absent or empty: nothing is exported.
    #[serde(default, deserialize_with = "endpoint")]
    pub endpoint: Option<Collector>,
    /// For one export with its repetitions; longer than zero.
    #[serde(default = "ten_seconds", deserialize_with = "positive")]
    pub timeout: Timespan,
}

/// Where spans are posted: the endpoint with `/v1/traces` appended, as the OTLP exporter
/// specification asks of an endpoint for all signals. It holds no credentials and no query, so
/// it may be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector(http::Uri);

impl Collector {
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme() == Some(&http::uri::Scheme::HTTPS)
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected an address such as http://collector:4318".to_owned();
        let uri: http::Uri = text.trim().parse().map_err(|_| wrong())?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) =
            (uri.scheme_str(), uri.authority())
        else {
            return Err(wrong());
        };
        if authority.host().is_empty() {
            return Err(wrong());
        }
        if authority.as_str().contains('@') || uri.query().is_some() {
            let message = "a collector's address must hold no credentials and no query: they go \
                           into OTEL_EXPORTER_OTLP_HEADERS";
            return Err(message.to_owned());
        }
        let path = uri.path().trim_end_matches('/');
        let full = format!("{scheme}://{authority}{path}/v1/traces");
        full.parse().map(Collector).map_err(|_| wrong())
    }
}

fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Collector>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn service_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if name.trim().is_empty() {
        return Err(serde::de::Error::custom("a service needs a name, such as portcullis"));
    }
    Ok(name)
}

fn ten_seconds() -> Timespan {
    Timespan::from_secs(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<Traces, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    fn posts_to(endpoint: &str) -> String {
        endpoint.parse::<Collector>().expect("an endpoint").to_string()
    }

    #[test]
    fn the_path_of_the_signal_is_appended() {
        assert_eq!(posts_to("http://collector:4318"), "http://collector:4318/v1/traces");
        assert_eq!(posts_to("http://collector:4318/"), "http://collector:4318/v1/traces");
        assert_eq!(posts_to("https://otel.test/ingest/"), "https://otel.test/ingest/v1/traces");
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for text in ["collector:4318", "grpc://collector:4317", "/v1/traces", "http://"] {
            assert!(text.parse::<Collector>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_refused_address_does_not_give_its_password_away() {
        let error = "http://me:hunter2@collector:4318".parse::<Collector>().expect_err("refused");
        assert!(!error.contains("hunter2") && error.contains("OTEL_EXPORTER_OTLP_HEADERS"));
    }

    #[test]
    fn an_empty_endpoint_turns_exporting_off() {
        let traces = parse("{otlp: {endpoint: \"\"}}").expect("valid");
        assert_eq!(traces.otlp.expect("the key is there").endpoint, None);
    }

    #[test]
    fn nothing_is_exported_by_default() {
        assert_eq!(parse("{}"), Ok(Traces::default()));
    }

    #[test]
    fn a_service_without_a_name_and_an_export_without_time_are_refused() {
        assert!(parse("{service_name: \" \"}").is_err());
        assert!(parse("{otlp: {endpoint: \"http://c:1\", timeout: 0s}}").is_err());
    }
}
