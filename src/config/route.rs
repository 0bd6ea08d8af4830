//! The settings of `routes.NAME`.

use http::{HeaderName, Method};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::error_codes::ErrorCodes;
use super::header_value::Value;
use super::origin::Origin;
use super::server::Header;
use super::status_map::StatusMap;
use crate::policy::{auth, breaker, bulkhead, fallback, idempotency, rate_limit, retry};
use crate::record;
use crate::routing;
use crate::transcode;
use crate::units::{Size, Timespan};

/// Which requests a route takes, what they must pass, and where they go. Large settings that are
/// rarely used are boxed, because there may be ten thousand routes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    #[serde(rename = "match", default)]
    pub matches: routing::Match,
    /// The upstream's name. A route has exactly one of `upstream` and `serve`.
    pub upstream: Option<String>,
    pub serve: Option<Serve>,
    pub auth: Option<auth::Requirement>,
    /// One rate limit, or a list of them.
    #[serde(default)]
    pub rate_limit: rate_limit::Limits,
    /// If absent, an `Idempotency-Key` is an ordinary header.
    pub idempotency: Option<Box<idempotency::Config>>,
    pub circuit_breaker: Option<Box<breaker::Config>>,
    pub bulkhead: Option<bulkhead::Config>,
    #[serde(default)]
    pub timeout: Timeouts,
    pub retry: Option<Box<retry::Config>>,
    /// The header that tells the client how many attempts were made, and why they stopped. Absent:
    /// none.
    pub retry_info_header: Option<Header>,
    /// The response if the upstream fails.
    pub fallback: Option<fallback::Config>,
    pub rewrite: Option<routing::Rewrite>,
    #[serde(default)]
    pub headers: Headers,
    /// The largest request body in bytes; zero means no limit.
    #[serde(default = "max_body")]
    pub max_body: Size,
    pub json: Option<Json>,
    /// Conversion of RPC calls to plain HTTP with JSON, or the other way round.
    pub transcode: Option<Box<transcode::Config>>,
    #[serde(default)]
    pub errors: Dialect,
    /// Which RPC codes callers get for a plain HTTP upstream's error statuses.
    #[serde(default)]
    pub error_codes: ErrorCodes,
    /// Statuses that replace the upstream's for plain HTTP clients.
    #[serde(default)]
    pub status_map: StatusMap,
    pub cors: Option<Box<Cors>>,
    /// If absent, the gateway does not change protocols on request.
    pub websocket: Option<WebSocket>,
    /// Replaces `record.default` as a whole.
    pub record: Option<record::Policy>,
}

fn max_body() -> Size {
    Size::mib(10)
}

/// What the gateway serves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Serve {
    /// 200, or 503 if the configured store does not respond.
    Health,
    /// The same, with the state of every circuit. An open circuit does not make the gateway
    /// unhealthy.
    HealthDetails,
    /// 200 while the process accepts requests, 503 while it drains.
    Ready,
    /// Always 200.
    Live,
    /// The state of every route, as JSON.
    Status,
}

/// Time limits. Zero means no limit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Establishing one attempt's TCP and TLS connection.
    pub connect: Timespan,
    /// One attempt, from its start to the last byte of its response.
    pub attempt: Timespan,
    /// The whole request, from its head to the last byte of the response.
    pub request: Timespan,
    /// Silence of the upstream, or of a client that is sending a body.
    pub idle: Timespan,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Timespan::from_secs(1),
            attempt: Timespan::default(),
            request: Timespan::from_secs(60),
            idle: Timespan::from_secs(60),
        }
    }
}

/// Edits of request and response headers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    pub request: Edits,
    pub response: Edits,
}

/// Fields are first removed, then set, then added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Edits {
    pub set: Fields,
    pub add: Fields,
    pub remove: Vec<Header>,
}

/// Header fields with their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(HeaderName, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("header names with their values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key::<Header>()? {
                    fields.push((name.0, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// Changes to a request's JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Json {
    /// Values for fields that are absent, null or empty.
    pub defaults: std::collections::BTreeMap<String, String>,
}

/// How errors are written for requests that name no RPC protocol. The others get errors in their
/// own protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `application/problem+json`, RFC 9457.
    #[default]
    Problem,
    /// A Connect unary error; an upstream's plain HTTP error is translated too.
    Connect,
}

/// Connections that become a WebSocket (RFC 6455).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocket {
    /// The connection is closed after this long without traffic in either direction; zero means
    /// never. The limits of `timeout` apply to the handshake only.
    pub idle_timeout: Timespan,
}

impl Default for WebSocket {
    fn default() -> Self {
        WebSocket { idle_timeout: Timespan::from_secs(300) }
    }
}

/// Which other origins' pages may call this route from a browser.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    pub origins: Vec<Origin>,
    #[serde(default = "cors_methods")]
    pub methods: Vec<String>,
    #[serde(default)]
    pub request_headers: Vec<Header>,
    #[serde(default)]
    pub expose: Vec<Header>,
    #[serde(default = "cors_max_age")]
    pub max_age: Timespan,
    /// Whether cookies and credentials are allowed; the response then names the request's origin.
    #[serde(default)]
    pub credentials: bool,
}

fn cors_methods() -> Vec<String> {
    [Method::GET, Method::HEAD, Method::POST].iter().map(Method::to_string).collect()
}

fn cors_max_age() -> Timespan {
    Timespan::from_secs(7200)
}
