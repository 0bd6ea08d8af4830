//! The contents of spans: a request and its attempts, in OpenTelemetry's terms.
//!
//! Names and attributes follow the semantic conventions for HTTP spans; those with the prefix
//! `portcullis.` are the gateway's own. Nothing here runs on the request path: a finished request
//! is moved to the exporting thread, and converted to spans there. Spans never contain queries,
//! headers or bodies.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::uri::Authority;
use http::{HeaderValue, Method};
use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::Trace;
use super::context::SpanId;
use crate::upstream::Address;

/// A finished request, exported as one server span.
#[derive(Debug)]
pub struct Request {
    /// Its ids, and whose child it is.
    pub trace: Trace,
    /// When the head had arrived.
    pub started: SystemTime,
    /// From then to the last byte of the response.
    pub duration: Duration,
    /// Exported as `_OTHER` if it is not one of RFC 9110, or PATCH.
    pub method: Method,
    /// The caller of this module bounds its length, and that of the host.
    pub path: String,
    /// The host that the client named, without the port.
    pub host: Option<String>,
    /// The client's address, after trusted proxies.
    pub client: IpAddr,
    /// Whom the certificate of the client's connection names, if there is one.
    pub certificate: Option<String>,
    /// `None` if no route was found.
    pub route: Option<Route>,
    /// The status sent to the client; 499 if it disconnected before, 0 if nothing was sent.
    pub status: u16,
    /// The code of the gateway's refusal.
    pub rejection: Option<&'static str>,
    /// The response broke off after its head had been sent.
    pub truncated: bool,
    /// Why the gateway dropped the request.
    pub cut: Option<&'static str>,
    /// In the order of their starts.
    pub attempts: Vec<Attempt>,
}

/// The request's route.
#[derive(Debug)]
pub struct Route {
    /// The key under `routes`.
    pub name: Arc<str>,
    /// The pattern of its path, if it has exactly one.
    pub pattern: Option<Arc<str>>,
}

/// An attempt, exported as one client span.
#[derive(Debug)]
pub struct Attempt {
    /// Sent to the upstream as the parent of its own.
    pub span: SpanId,
    /// Time from the request's start to the attempt's start.
    pub after: Duration,
    /// To the last byte of its response, or its failure.
    pub duration: Duration,
    /// Its name.
    pub upstream: Arc<str>,
    /// The endpoint's authority; `peer` is its address.
    pub authority: HeaderValue,
    /// The address that was called.
    pub peer: Address,
    /// `None` if there was no head.
    pub status: Option<u16>,
    /// Why the response is missing or incomplete.
    pub error: Option<&'static str>,
}

impl Request {
    /// The number of spans it becomes.
    pub fn span_count(&self) -> usize {
        1 + self.attempts.len()
    }

    /// Its spans, the server span first.
    pub(super) fn into_spans(self, scope: &InstrumentationScope) -> impl Iterator<Item = SpanData> {
        let server = self.server_span(scope);
        let attempts: Vec<_> = self
            .attempts
            .iter()
            .enumerate()
            .map(|(number, attempt)| self.client_span(number, attempt, scope))
            .collect();
        std::iter::once(server).chain(attempts)
    }

    fn server_span(&self, scope: &InstrumentationScope) -> SpanData {
        let method = method(&self.method);
        let mut attributes = vec![
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("url.path", self.path.clone()),
            KeyValue::new("url.scheme", "http"),
            KeyValue::new("client.address", self.client.to_canonical().to_string()),
        ];
        let mut add = |key: &'static str, value: Option<Value>| {
            attributes.extend(value.map(|value| KeyValue::new(key, value)));
        };
        let route = self.route.as_ref();
        let pattern = route.and_then(|route| route.pattern.clone());
        add("server.address", self.host.clone().map(Value::from));
        add("http.route", pattern.clone().map(Value::from));
        add("portcullis.client_certificate", self.certificate.clone().map(Value::from));
        add("portcullis.route", route.map(|route| route.name.clone().into()));
        add("portcullis.rejection", self.rejection.map(Value::from));
        add("http.response.status_code", status_code(self.status));
        let failed = self.status == 0 || self.status >= 500 || self.truncated || self.cut.is_some();
        let why = match self.cut.or(self.rejection) {
            Some(word) => Value::from(word),
            None if self.truncated => Value::from("truncated"),
            None => Value::from(self.status.to_string()),
        };
        add("error.type", failed.then_some(why));
        SpanData {
            parent_span_id: self.trace.parent.map_or(0, SpanId::as_u64).into(),
            parent_span_is_remote: self.trace.parent.is_some(),
            span_kind: SpanKind::Server,
            name: match route {
                Some(route) => {
                    format!("{} {}", name(method), pattern.as_ref().unwrap_or(&route.name)).into()
                }
                None => name(method).to_owned().into(),
            },
            attributes,
            status: outcome(failed, self.rejection),
            ..self.span(self.trace.span(), Duration::ZERO, self.duration, scope)
        }
    }

    fn client_span(
        &self,
        number: usize,
        attempt: &Attempt,
        scope: &InstrumentationScope,
    ) -> SpanData {
        let method = method(&self.method);
        let mut attributes = vec![
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("portcullis.upstream", attempt.upstream.clone()),
        ];
        let port = match &attempt.peer {
            Address::Tcp(peer) => {
                attributes.push(KeyValue::new("network.peer.address", peer.ip().to_string()));
                Some(Value::from(i64::from(peer.port())))
            }
            // It is not known here which of them was connected to.
            Address::Pair(pair) => Some(Value::from(i64::from(pair.v4.port()))),
            Address::Unix(path) => {
                let path = path.display().to_string();
                attributes.push(KeyValue::new("network.peer.address", path));
                attributes.push(KeyValue::new("network.transport", "unix"));
                None
            }
        };
        let mut add = |key: &'static str, value: Option<Value>| {
            attributes.extend(value.map(|value| KeyValue::new(key, value)));
        };
        let authority = Authority::try_from(attempt.authority.as_bytes()).ok();
        add("server.address", authority.map(|authority| authority.host().to_owned().into()));
        add("network.peer.port", port.clone());
        add("server.port", port);
        add("http.response.status_code", attempt.status.and_then(status_code));
        // Only for resent requests, as the conventions require.
        let resent = i64::try_from(number).ok().filter(|number| *number > 0);
        add("http.request.resend_count", resent.map(Value::from));
        let refused = attempt.status.filter(|status| *status >= 400);
        let failed = attempt.error.is_some() || refused.is_some();
        let why = attempt.error.map(Value::from);
        add("error.type", why.or(refused.map(|status| status.to_string().into())));
        SpanData {
            parent_span_id: self.trace.span().as_u64().into(),
            span_kind: SpanKind::Client,
            name: name(method).to_owned().into(),
            attributes,
            status: outcome(failed, attempt.error),
            ..self.span(attempt.span, attempt.after, attempt.duration, scope)
        }
    }

    /// The parts common to all spans.
    fn span(
        &self,
        id: SpanId,
        after: Duration,
        duration: Duration,
        scope: &InstrumentationScope,
    ) -> SpanData {
        let start_time = self.started + after;
        SpanData {
            span_context: SpanContext::new(
                self.trace.id().as_u128().into(),
                id.as_u64().into(),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: 0.into(),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "".into(),
            start_time,
            end_time: start_time + duration,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: scope.clone(),
        }
    }
}

/// A known method, or a single value for all methods that clients invent.
fn method(method: &Method) -> &str {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::CONNECT,
        Method::TRACE,
    ];
    if KNOWN.contains(method) { method.as_str() } else { "_OTHER" }
}

/// The method as it appears in a span's name.
fn name(method: &str) -> &str {
    if method == "_OTHER" { "HTTP" } else { method }
}

fn status_code(status: u16) -> Option<Value> {
    (status != 0).then(|| i64::from(status).into())
}

fn outcome(failed: bool, why: Option<&'static str>) -> Status {
    if failed { Status::error(why.unwrap_or_default()) } else { Status::Unset }
}

#[cfg(test)]
pub(super) mod tests;
