//! OpenTelemetry's environment variables, as its specification defines them.
//!
//! An empty variable counts as not set. An invalid value is reported, and then counts as not set
//! too, because a gateway should start without it. No report quotes a value.

use std::time::Duration;

use http::HeaderMap;
use percent_encoding::percent_decode_str;

use super::{Endpoint, Otlp, Protocol, header};
use crate::config::Environment;
use crate::units::Timespan;

/// A signal that is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// What `/metrics` shows.
    Metrics,
}

/// What `OTEL_TRACES_EXPORTER` or `OTEL_METRICS_EXPORTER` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exporter {
    /// Not set: export if there is an address.
    Unsaid,
    /// Export, to the specification's default address if there is no other.
    Otlp,
    /// Export nothing, whatever else is set.
    None,
}

/// Reads variables, and collects warnings about invalid ones.
pub struct Reader<'a> {
    environment: &'a Environment,
    /// One line for each variable that was ignored, in the order they were read, each line once.
    pub warnings: Vec<String>,
}

impl Signal {
    /// The signal's part of a variable's name.
    const fn infix(self) -> &'static str {
        match self {
            Signal::Traces => "TRACES",
            Signal::Metrics => "METRICS",
        }
    }
}

impl<'a> Reader<'a> {
    /// Reads from `environment`; no variable is read yet.
    pub fn new(environment: &'a Environment) -> Self {
        Reader { environment, warnings: Vec::new() }
    }

    /// `OTEL_EXPORTER_OTLP_…`, for all signals.
    pub fn common(&mut self) -> Otlp {
        self.otlp("OTEL_EXPORTER_OTLP", Endpoint::base)
    }

    /// `OTEL_EXPORTER_OTLP_TRACES_…` or `OTEL_EXPORTER_OTLP_METRICS_…`.
    pub fn of(&mut self, signal: Signal) -> Otlp {
        self.otlp(&format!("OTEL_EXPORTER_OTLP_{}", signal.infix()), Endpoint::exact)
    }

    /// `OTEL_TRACES_EXPORTER` or `OTEL_METRICS_EXPORTER`: a list of words, of which `otlp` wins.
    pub fn exporter(&mut self, signal: Signal) -> Exporter {
        let name = format!("OTEL_{}_EXPORTER", signal.infix());
        let Some(list) = self.value(&name) else { return Exporter::Unsaid };
        let mut exporter = Exporter::Unsaid;
        for item in list.split(',').map(str::trim) {
            match item {
                "otlp" => return Exporter::Otlp,
                "none" => exporter = Exporter::None,
                // Metrics can always be scraped at `/metrics`.
                "prometheus" if signal == Signal::Metrics => exporter = Exporter::None,
                _ => self.warn(&name, "expected otlp or none"),
            }
        }
        exporter
    }

    /// `OTEL_SDK_DISABLED`.
    pub fn is_disabled(&mut self) -> bool {
        self.flag("OTEL_SDK_DISABLED")
    }

    /// `OTEL_METRIC_EXPORT_INTERVAL`.
    pub fn interval(&mut self) -> Option<Timespan> {
        self.parsed("OTEL_METRIC_EXPORT_INTERVAL", milliseconds)
    }

    /// `OTEL_SERVICE_NAME`.
    pub fn service_name(&mut self) -> Option<String> {
        self.value("OTEL_SERVICE_NAME")
    }

    /// `OTEL_RESOURCE_ATTRIBUTES`. If one part is malformed, all of it is ignored, as the resource
    /// specification requires.
    pub fn resource_attributes(&mut self) -> Vec<(String, String)> {
        let parse = |text: &str| pairs(text).collect::<Result<Vec<_>, _>>();
        self.parsed("OTEL_RESOURCE_ATTRIBUTES", parse).unwrap_or_default()
    }

    fn otlp(&mut self, prefix: &str, read: fn(&str) -> Result<Endpoint, String>) -> Otlp {
        let protocol = self.parsed(&format!("{prefix}_PROTOCOL"), |text| text.parse());
        Otlp {
            endpoint: self.endpoint(prefix, protocol, read),
            protocol,
            headers: self.headers(&format!("{prefix}_HEADERS")),
            timeout: self.parsed(&format!("{prefix}_TIMEOUT"), milliseconds),
            compression: self.parsed(&format!("{prefix}_COMPRESSION"), |text| text.parse()),
            ca: self.value(&format!("{prefix}_CERTIFICATE")).map(Into::into),
        }
    }

    fn endpoint(
        &mut self,
        prefix: &str,
        protocol: Option<Protocol>,
        read: fn(&str) -> Result<Endpoint, String>,
    ) -> Option<Endpoint> {
        let name = format!("{prefix}_ENDPOINT");
        let text = self.value(&name)?;
        if text.contains("://") {
            return self.parsed(&name, read);
        }
        // gRPC clients accept a bare host and port; `…_INSECURE` decides about TLS.
        let grpc = match protocol {
            Some(protocol) => protocol == Protocol::Grpc,
            None => text.ends_with(":4317"),
        };
        if !grpc {
            self.warn(&name, "expected an address such as http://collector:4318");
            return None;
        }
        let variables = [format!("{prefix}_INSECURE"), "OTEL_EXPORTER_OTLP_INSECURE".to_owned()];
        let said = variables.into_iter().find(|name| self.value(name).is_some());
        let scheme = if said.is_some_and(|name| self.flag(&name)) { "http" } else { "https" };
        self.parsed(&name, |text| read(&format!("{scheme}://{text}")))
    }

    /// Malformed headers are left out; the others are sent.
    fn headers(&mut self, name: &str) -> Option<HeaderMap> {
        let text = self.value(name)?;
        let mut headers = HeaderMap::new();
        for pair in pairs(&text) {
            match pair.and_then(|(name, value)| header(&name, &value)) {
                Ok((name, value)) => {
                    headers.insert(name, value);
                }
                Err(error) => self.warn(name, &error),
            }
        }
        Some(headers)
    }

    /// Only `true` counts as true, as the specification requires.
    fn flag(&mut self, name: &str) -> bool {
        let Some(value) = self.value(name) else { return false };
        let is = |word: &str| value.eq_ignore_ascii_case(word);
        if !is("true") && !is("false") {
            self.warn(name, "expected true or false; it counts as false");
        }
        is("true")
    }

    fn parsed<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(&self.value(name)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.warn(name, &error);
                None
            }
        }
    }

    /// `None` if the variable is not set or is empty.
    fn value(&mut self, name: &str) -> Option<String> {
        match self.environment.lookup(name) {
            Ok(value) => {
                value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
            }
            Err(error) => {
                self.warn(name, &error);
                None
            }
        }
    }

    fn warn(&mut self, name: &str, why: &str) {
        let warning = format!("{name}: {why}; ignored");
        // A variable may be read once for each signal.
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

fn milliseconds(text: &str) -> Result<Timespan, String> {
    let millis = text.parse().ok().filter(|millis| *millis > 0);
    let millis = millis.ok_or("expected a number of milliseconds, such as 10000")?;
    Ok(Timespan(Duration::from_millis(millis)))
}

/// Parses `key=value,key=value`, with `%2C` for a comma in a value.
fn pairs(text: &str) -> impl Iterator<Item = Result<(String, String), String>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| {
        let malformed =
            || "expected key=value,key=value with values in percent-encoding".to_owned();
        let (key, value) = part.split_once('=').ok_or_else(malformed)?;
        let key = key.trim();
        if key.is_empty() || !is_decodable(value) {
            return Err(malformed());
        }
        let value = percent_decode_str(value.trim()).decode_utf8().map_err(|_| malformed())?;
        Ok((key.to_owned(), value.into_owned()))
    })
}

/// Whether every `%` is followed by two hexadecimal digits.
fn is_decodable(value: &str) -> bool {
    value.split('%').skip(1).all(|rest| {
        rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

#[cfg(test)]
mod tests;
