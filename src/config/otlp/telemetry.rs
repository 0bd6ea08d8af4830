//! What is exported, and where to: the file and the environment combined.
//!
//! The file wins over the environment; in each of them, a signal's own setting wins over the common
//! one. `OTEL_SDK_DISABLED` and `OTEL_…_EXPORTER=none` turn exporting off, whatever else is set.

use std::fmt;
use std::path::PathBuf;

use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};

use super::environment::{Exporter, Reader, Signal};
use super::{Compression, Endpoint, Otlp, Protocol};
use crate::config::traces::Traces;
use crate::config::{Config, Environment};
use crate::units::Timespan;

/// The settings of all exports.
#[derive(Debug, PartialEq)]
pub struct Telemetry {
    /// `None` if no spans are exported.
    pub traces: Option<Destination>,
    /// `None` if no metrics are exported.
    pub metrics: Option<Destination>,
    /// Time between two exports of metrics.
    pub interval: Timespan,
    /// Attributes of the exporting process: `service.name`, then those of
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    pub resource: Vec<(String, String)>,
    /// Warnings about invalid variables.
    pub warnings: Vec<String>,
}

/// Where one signal is sent. Printed as its address.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// The address that exports are posted to.
    pub uri: Uri,
    /// How exports are sent; if nothing said it, derived from the address's port.
    pub protocol: Protocol,
    /// Sent with every export; marked as sensitive, because they may hold tokens.
    pub headers: HeaderMap,
    /// Limit on one export with its retries.
    pub timeout: Timespan,
    /// Of each export.
    pub compression: Compression,
    /// PEM file of authorities for the collector's certificate; `None`: the system's.
    pub ca: Option<PathBuf>,
}

impl Telemetry {
    /// The settings for this configuration in this environment.
    pub fn resolve(config: &Config, environment: &Environment) -> Self {
        let mut reader = Reader::new(environment);
        let disabled = reader.is_disabled();
        let common = reader.common();
        let mut resolve = |signal: Signal, own: &Otlp| {
            let (exporter, of_signal) = (reader.exporter(signal), reader.of(signal));
            if disabled || exporter == Exporter::None {
                return None;
            }
            destination(signal, exporter, &[own, &config.otlp, &of_signal, &common])
        };
        let traces = resolve(Signal::Traces, &config.traces.otlp);
        let metrics = resolve(Signal::Metrics, &config.metrics.otlp);
        let interval = config.metrics.interval.or_else(|| reader.interval());
        Telemetry {
            traces,
            metrics,
            interval: interval.unwrap_or(Timespan::from_secs(60)),
            resource: resource(&config.traces, &mut reader),
            warnings: reader.warnings,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.uri, self.protocol)
    }
}

impl Destination {
    /// Whether exports are sent over TLS.
    pub fn is_encrypted(&self) -> bool {
        self.uri.scheme() == Some(&http::uri::Scheme::HTTPS)
    }
}

/// `layers` are in order of precedence.
fn destination(signal: Signal, exporter: Exporter, layers: &[&Otlp]) -> Option<Destination> {
    let protocol = layers.iter().find_map(|layer| layer.protocol);
    let endpoint = layers.iter().find_map(|layer| layer.endpoint.clone());
    let endpoint = match (endpoint, exporter) {
        (Some(endpoint), _) => endpoint,
        // Exporting was requested without an address: use the specification's default.
        (None, Exporter::Otlp) => {
            let port = protocol.unwrap_or(Protocol::HttpProtobuf).port();
            Endpoint::base(&format!("http://localhost:{port}")).ok()?
        }
        (None, Exporter::Unsaid | Exporter::None) => return None,
    };
    let port = endpoint.uri()?.port_u16();
    let protocol = protocol.unwrap_or_else(|| Protocol::by_port(port));
    Some(Destination {
        uri: uri(signal, &endpoint, protocol)?,
        protocol,
        headers: layers.iter().find_map(|layer| layer.headers.clone()).unwrap_or_default(),
        timeout: layers.iter().find_map(|l| l.timeout).unwrap_or(Timespan::from_secs(10)),
        compression: layers.iter().find_map(|l| l.compression).unwrap_or(Compression::None),
        ca: layers.iter().find_map(|layer| layer.ca.clone()),
    })
}

/// Over gRPC the path is the method's, whatever path the address has.
fn uri(signal: Signal, endpoint: &Endpoint, protocol: Protocol) -> Option<Uri> {
    let (method, path) = match signal {
        Signal::Traces => {
            ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", "/v1/traces")
        }
        Signal::Metrics => {
            ("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", "/v1/metrics")
        }
    };
    let full = match (endpoint, protocol) {
        (Endpoint::Off, _) => return None,
        (Endpoint::Base(_) | Endpoint::Exact(_), Protocol::Grpc) => method.to_owned(),
        (Endpoint::Base(uri), Protocol::HttpProtobuf) => {
            format!("{}{path}", uri.path().trim_end_matches('/'))
        }
        (Endpoint::Exact(uri), Protocol::HttpProtobuf) => uri.path().to_owned(),
    };
    let mut parts = endpoint.uri()?.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(full).ok()?);
    Uri::from_parts(parts).ok()
}

fn resource(traces: &Traces, reader: &mut Reader<'_>) -> Vec<(String, String)> {
    let is_name = |(key, _): &&(String, String)| key == "service.name";
    let attributes = reader.resource_attributes();
    let name = traces.service_name.clone().or_else(|| reader.service_name());
    let name = name.or_else(|| attributes.iter().find(is_name).map(|(_, name)| name.clone()));
    let name = name.unwrap_or_else(|| traces.default_service_name.clone());
    let name = ("service.name".to_owned(), name);
    let others = attributes.into_iter().filter(|attribute| !is_name(&attribute));
    std::iter::once(name).chain(others).collect()
}

#[cfg(test)]
mod tests;
