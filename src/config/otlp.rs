//! The configuration of a collector: `otlp` for traces and metrics together, `traces.otlp` and
//! `metrics.otlp` for one of them.
//!
//! [`environment`] reads the same settings from variables; [`telemetry`] combines both.

pub mod environment;
pub mod telemetry;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::units::schema::SecretText;
use crate::units::{Timespan, positive};

/// A collector. An absent setting is given elsewhere, or has its default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Otlp {
    /// The collector's address: scheme, host, port, and over HTTP a path, to which `/v1/traces` or
    /// `/v1/metrics` is appended. An empty string turns exporting off. Absent: that of
    /// OpenTelemetry's variables, else nothing is exported.
    #[serde(deserialize_with = "endpoint")]
    #[schemars(with = "Option<String>")]
    pub endpoint: Option<Endpoint>,
    /// Absent: that of OpenTelemetry's variables, else `grpc` for port 4317, else `http/protobuf`.
    pub protocol: Option<Protocol>,
    /// Headers of every export, such as a token. Absent: those of OpenTelemetry's variables, else
    /// none.
    #[serde(deserialize_with = "headers")]
    #[schemars(with = "Option<std::collections::BTreeMap<String, SecretText>>")]
    pub headers: Option<HeaderMap>,
    /// Limit on one export with its retries; longer than zero. Absent: that of OpenTelemetry's
    /// variables, else 10 s.
    #[serde(deserialize_with = "timeout")]
    pub timeout: Option<Timespan>,
    /// Compression of exports. Absent: that of OpenTelemetry's variables, else `none`.
    pub compression: Option<Compression>,
    /// PEM file of authorities for the collector's certificate. Absent: that of OpenTelemetry's
    /// variables, else the system's.
    pub ca: Option<PathBuf>,
}

/// The address of a collector. It holds no credentials and no query, so it may be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Written as an empty string: nothing is exported.
    Off,
    /// For all signals. Over HTTP, the signal's path is appended.
    Base(Uri),
    /// For one signal. Over HTTP, it is used as it is.
    Exact(Uri),
}

/// The transport of OTLP.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
pub enum Protocol {
    /// Unary calls of gRPC, by convention to port 4317.
    #[serde(rename = "grpc")]
    Grpc,
    /// Protocol buffers in a POST over HTTP, by convention to port 4318.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// Compression of exports.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Exports are sent as they are.
    None,
    /// Bodies, or gRPC messages, are compressed with gzip.
    Gzip,
}

impl Protocol {
    /// The port on which collectors listen for this protocol.
    pub const fn port(self) -> u16 {
        match self {
            Protocol::Grpc => 4317,
            Protocol::HttpProtobuf => 4318,
        }
    }

    /// The default for an address without a protocol. The specification's default is HTTP, but no
    /// collector listens for HTTP on the gRPC port.
    fn by_port(port: Option<u16>) -> Self {
        if port == Some(Protocol::Grpc.port()) { Protocol::Grpc } else { Protocol::HttpProtobuf }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "grpc" => Ok(Protocol::Grpc),
            "http/protobuf" => Ok(Protocol::HttpProtobuf),
            _ => Err("expected grpc or http/protobuf".to_owned()),
        }
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Compression::None),
            "gzip" => Ok(Compression::Gzip),
            _ => Err("expected gzip or none".to_owned()),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Grpc => "grpc",
            Protocol::HttpProtobuf => "http/protobuf",
        })
    }
}

impl Endpoint {
    /// Parses an address for all signals.
    ///
    /// # Errors
    /// Says what an address looks like. Never quotes it, because it may hold a password.
    pub fn base(text: &str) -> Result<Self, String> {
        address(text).map(Endpoint::Base)
    }

    /// Parses an address for one signal.
    ///
    /// # Errors
    /// As [`Endpoint::base`].
    pub fn exact(text: &str) -> Result<Self, String> {
        address(text).map(Endpoint::Exact)
    }

    /// `None` if nothing is exported.
    fn uri(&self) -> Option<&Uri> {
        match self {
            Endpoint::Off => None,
            Endpoint::Base(uri) | Endpoint::Exact(uri) => Some(uri),
        }
    }
}

fn address(text: &str) -> Result<Uri, String> {
    let wrong = || "expected an address such as http://collector:4317".to_owned();
    let uri: Uri = text.trim().parse().map_err(|_| wrong())?;
    let scheme = uri.scheme().filter(|s| **s == Scheme::HTTP || **s == Scheme::HTTPS);
    let (Some(_), Some(authority)) = (scheme, uri.authority()) else { return Err(wrong()) };
    if authority.host().is_empty() {
        return Err(wrong());
    }
    if holds_credentials(authority) || uri.query().is_some() {
        let message = "a collector's address must hold no credentials and no query: they go into \
                       `headers`, or OTEL_EXPORTER_OTLP_HEADERS";
        return Err(message.to_owned());
    }
    Ok(uri)
}

fn holds_credentials(authority: &Authority) -> bool {
    authority.as_str().contains('@')
}

/// Parses a header of every export. It is marked so that its value is not printed.
///
/// # Errors
/// Says what is wrong with the header, without its value.
pub fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name: HeaderName = name.parse().map_err(|_| format!("`{name}` is not a header's name"))?;
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| format!("the value of `{name}` is not a header's value"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Endpoint>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.trim().is_empty() {
        return Ok(Some(Endpoint::Off));
    }
    Endpoint::base(&text).map(Some).map_err(D::Error::custom)
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HeaderMap>, D::Error> {
    let written = std::collections::BTreeMap::<String, String>::deserialize(deserializer)?;
    let headers = written.iter().map(|(name, value)| header(name, value));
    headers.collect::<Result<_, _>>().map(Some).map_err(D::Error::custom)
}

fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timespan>, D::Error> {
    positive(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<Otlp, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for text in ["collector:4318", "grpc://collector:4317", "/v1/traces", "http://"] {
            assert!(Endpoint::base(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refused_address_does_not_give_its_password_away() {
        for text in ["http://me:hunter2@collector:4318", "http://collector:4318?key=hunter2"] {
            let error = Endpoint::base(text).expect_err("refused");
            assert!(!error.contains("hunter2") && error.contains("OTEL_EXPORTER_OTLP_HEADERS"));
        }
    }

    #[test]
    fn an_empty_endpoint_turns_exporting_off() {
        assert_eq!(parse("{endpoint: \"\"}").expect("valid").endpoint, Some(Endpoint::Off));
        assert_eq!(parse("{}").expect("valid").endpoint, None);
    }

    #[test]
    fn an_export_without_time_and_an_unknown_protocol_are_refused() {
        assert!(parse("{timeout: 0s}").is_err());
        assert!(parse("{protocol: http/json}").is_err());
        assert!(parse("{compression: zstd}").is_err());
    }

    #[test]
    fn headers_are_checked_and_not_printed() {
        let otlp = parse("{headers: {authorization: Bearer hunter2}}").expect("valid");
        assert!(!format!("{otlp:?}").contains("hunter2"));
        assert_eq!(otlp.headers.expect("headers")["authorization"], "Bearer hunter2");
        assert!(parse("{headers: {\"no name\": x}}").is_err());
        let error = parse("{headers: {key: \"hunter2\\n\"}}").expect_err("a line feed");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
