//! What an operator writes under `routes.NAME`.

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

/// What a request must look like, what it must pass, and where it goes. What is large and seldom
/// written is in a box: there may be ten thousand routes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    #[serde(rename = "match", default)]
    pub matches: routing::Match,
    /// The upstream's name. Exactly one of `upstream` and `serve`.
    pub upstream: Option<String>,
    pub serve: Option<Serve>,
    pub auth: Option<auth::Requirement>,
    /// One limit or a list of them.
    #[serde(default)]
    pub rate_limit: rate_limit::Limits,
    /// Absent: an `Idempotency-Key` is a header like any other.
    pub idempotency: Option<Box<idempotency::Config>>,
    pub circuit_breaker: Option<Box<breaker::Config>>,
    pub bulkhead: Option<bulkhead::Config>,
    #[serde(default)]
    pub timeout: Timeouts,
    pub retry: Option<Box<retry::Config>>,
    /// Tells the client how many attempts were made, and why no more were. Absent: nothing does.
    pub retry_info_header: Option<Header>,
    /// What is answered where the upstream's answer cannot be had.
    pub fallback: Option<fallback::Config>,
    pub rewrite: Option<routing::Rewrite>,
    #[serde(default)]
    pub headers: Headers,
    /// The largest request body; zero means no limit.
    #[serde(default = "max_body")]
    pub max_body: Size,
    pub json: Option<Json>,
    /// Calls of RPC that become plain HTTP with JSON, or the other way round.
    pub transcode: Option<Box<transcode::Config>>,
    #[serde(default)]
    pub errors: Dialect,
    /// What a plain HTTP upstream's errors are to callers of RPC.
    #[serde(default)]
    pub error_codes: ErrorCodes,
    /// What plain HTTP clients get instead of a status of the upstream's.
    #[serde(default)]
    pub status_map: StatusMap,
    pub cors: Option<Box<Cors>>,
    /// Absent: a request to change protocols is an ordinary one.
    pub websocket: Option<WebSocket>,
    /// As a whole in place of `record.default`.
    pub record: Option<record::Policy>,
}

fn max_body() -> Size {
    Size::mib(10)
}

/// What the gateway answers by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Serve {
    /// 200, or 503 when the configured store does not answer.
    Health,
    /// The same, with the state of every circuit. An open circuit does not make the gateway unhealthy.
    HealthDetails,
    /// 200 while the process takes requests, 503 when it drains.
    Ready,
    /// 200.
    Live,
    /// The state of every route, as JSON.
    Status,
}

/// Limits on time. Zero means none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// TCP and TLS connect of one attempt.
    pub connect: Timespan,
    /// One attempt, from its start to the last byte of its answer.
    pub attempt: Timespan,
    /// The whole request, from its head to the last byte of the answer.
    pub request: Timespan,
    /// Silence of the upstream, and of the client that sends a body.
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

/// Header edits, both ways.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    pub request: Edits,
    pub response: Edits,
}

/// First removed, then set, then added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Edits {
    pub set: Fields,
    pub add: Fields,
    pub remove: Vec<Header>,
}

impl Edits {
    pub fn is_empty(&self) -> bool {
        self.set.0.is_empty() && self.add.0.is_empty() && self.remove.is_empty()
    }
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

/// What is done to a request's JSON object on its way.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Json {
    /// Values for fields that are absent, null or empty.
    pub defaults: std::collections::BTreeMap<String, String>,
}

/// How errors are written for requests that name no protocol of RPC; those that do are answered in
/// theirs.
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
    /// One that nobody sends anything over, either way, is closed after this long; zero means never.
    /// The limits of `timeout` end with the handshake.
    pub idle_timeout: Timespan,
}

impl Default for WebSocket {
    fn default() -> Self {
        WebSocket { idle_timeout: Timespan::from_secs(300) }
    }
}

/// Which other origins a browser may call this route from.
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
    /// Whether cookies and credentials are allowed; the origin is echoed then.
    #[serde(default)]
    pub credentials: bool,
}

fn cors_methods() -> Vec<String> {
    [Method::GET, Method::HEAD, Method::POST].iter().map(Method::to_string).collect()
}

fn cors_max_age() -> Timespan {
    Timespan::from_secs(7200)
}
