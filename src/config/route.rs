//! The settings of `routes.NAME`.

use http::Method;
use serde::Deserialize;

use super::error_codes::ErrorCodes;
pub use super::header_fields::Fields;
use super::max_body::MaxBody;
use super::origin::Origin;
use super::respond::Respond;
use super::server::Header;
use super::status_map::StatusMap;
pub use super::timeouts::Timeouts;
use crate::policy::split::{self, Destination};
use crate::policy::{auth, breaker, bulkhead, fallback, idempotency, networks, rate_limit, retry};
use crate::record;
use crate::routing;
use crate::routing::Redirect;
use crate::transcode;
use crate::units::Timespan;

/// Which requests a route takes, what they must pass, and where they go.
// Large settings that are rarely used are boxed, because there may be ten thousand routes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Which requests the route takes; absent: all that no more specific route takes.
    #[serde(rename = "match", default)]
    pub matches: routing::Match,
    /// The upstream's name in `upstreams`; or a list of several with their weights, among which
    /// requests are drawn; or those of which the path or the host of a request names one. A route has exactly one of `upstream`, `serve`, `respond` and `redirect`.
    pub upstream: Option<Destination>,
    /// How requests are drawn among several upstreams; absent: at random, each by itself.
    pub split: Option<Box<split::Config>>,
    /// What the gateway serves itself, instead of an upstream.
    pub serve: Option<Serve>,
    /// Which clients may use the route, by their address; absent: all.
    pub networks: Option<Box<networks::Config>>,
    /// The same response to every request, instead of an upstream's.
    pub respond: Option<Box<Respond>>,
    /// The URL that clients are sent to, instead of an upstream's response.
    pub redirect: Option<Box<Redirect>>,
    /// Credentials that a request needs; absent: none, and credentials are not looked at.
    pub auth: Option<auth::Requirement>,
    /// One rate limit, or a list: a request must be within all of them. Default: none.
    #[serde(default)]
    pub rate_limit: rate_limit::Limits,
    /// Requests with an `Idempotency-Key` are executed once, and their response is replayed.
    /// Absent: the key is an ordinary header.
    pub idempotency: Option<Box<idempotency::Config>>,
    /// The route's own circuit, in addition to its upstream's; absent: none.
    pub circuit_breaker: Option<Box<breaker::Config>>,
    /// Limit on the route's requests in flight; absent: none.
    pub bulkhead: Option<Box<bulkhead::Config>>,
    /// Limits on the time of a request and its attempts.
    #[serde(default)]
    pub timeout: Timeouts,
    /// When a failed attempt is followed by another; absent: never.
    pub retry: Option<Box<retry::Config>>,
    /// The response header that tells the client how many attempts were made, and why there were no
    /// more. Absent: none.
    pub retry_info_header: Option<Header>,
    /// Another upstream, or a response, instead of a refusal or the upstream's last failure;
    /// absent: none.
    pub fallback: Option<fallback::Config>,
    /// Changes to the path on its way to the upstream; absent: it is sent as it came.
    pub rewrite: Option<routing::Rewrite>,
    /// Changes to the headers of requests and responses; default: none.
    #[serde(default)]
    pub headers: Headers,
    /// The largest request body in bytes (413 beyond it); in an RPC stream, the largest message. 0
    /// means no limit; default 10 MiB.
    #[serde(default)]
    #[schemars(extend("default" = "10MiB"))]
    pub max_body: MaxBody,
    /// Changes to a request's JSON object; absent: none.
    pub json: Option<Json>,
    /// Conversion of RPC calls to plain HTTP with JSON, or the other way round; absent: none.
    /// Excludes `rewrite` and `json`.
    pub transcode: Option<Box<transcode::Config>>,
    /// The form of errors for clients of plain HTTP; default `problem`.
    #[serde(default)]
    pub errors: Dialect,
    /// Which RPC codes callers get for a plain HTTP upstream's error statuses; default `gateway`.
    #[serde(default)]
    #[schemars(extend("default" = "gateway"))]
    pub error_codes: ErrorCodes,
    /// Statuses that plain HTTP clients get instead of the upstream's; default: none.
    #[serde(default)]
    pub status_map: StatusMap,
    /// Which pages of other origins may call; absent: the gateway leaves CORS to the upstream.
    pub cors: Option<Box<Cors>>,
    /// Connections may become WebSockets. Absent: the gateway does not change protocols on request.
    pub websocket: Option<WebSocket>,
    /// What is recorded of each request; replaces `record.default` as a whole.
    pub record: Option<record::Policy>,
}

impl Route {
    /// The upstreams that its requests go to; none if the gateway serves them itself.
    pub fn upstreams(&self) -> impl Iterator<Item = &str> {
        self.upstream.iter().flat_map(Destination::names)
    }

    /// The key by which the gateway answers its requests itself; `None`: an upstream does.
    pub fn own_answer(&self) -> Option<&'static str> {
        let keys = [
            ("serve", self.serve.is_some()),
            ("respond", self.respond.is_some()),
            ("redirect", self.redirect.is_some()),
        ];
        keys.into_iter().find(|(_, is_written)| *is_written).map(|(key, _)| key)
    }

    /// How the path changes before the request goes on: to the upstream, or elsewhere.
    pub fn rewrite(&self) -> Option<&routing::Rewrite> {
        let redirect = self.redirect.as_ref();
        redirect.map_or(self.rewrite.as_ref(), |redirect| redirect.path.as_ref())
    }

    /// Whether both are open to the same clients.
    pub fn is_open_as(&self, other: &Route) -> bool {
        self.networks == other.networks
            && self.auth == other.auth
            && self.cors == other.cors
            && self.matches.client_certificate == other.matches.client_certificate
    }

    /// Whether both have the same policy under a key of [`Route::not_enforced`].
    pub(super) fn agrees(&self, other: &Route, key: &str) -> bool {
        match key {
            "networks" => self.networks == other.networks,
            "auth" => self.auth == other.auth,
            "circuit_breaker" => self.circuit_breaker == other.circuit_breaker,
            "bulkhead" => self.bulkhead == other.bulkhead,
            "max_body" => self.max_body == other.max_body,
            _ => self.rate_limit == other.rate_limit,
        }
    }

    /// The keys of the policies that are dry runs.
    pub fn not_enforced(&self) -> Vec<String> {
        let limits = self.rate_limit.0.iter().enumerate();
        let limits = limits.map(|(n, limit)| match self.rate_limit.0.len() {
            1 => ("rate_limit".to_owned(), limit.enforce),
            _ => (format!("rate_limit[{n}]"), limit.enforce),
        });
        let others = [
            ("networks", self.networks.as_ref().map(|networks| networks.enforce)),
            ("auth", self.auth.as_ref().map(|auth| auth.enforce)),
            ("circuit_breaker", self.circuit_breaker.as_ref().map(|breaker| breaker.enforce)),
            ("bulkhead", self.bulkhead.as_ref().map(|bulkhead| bulkhead.enforce)),
            ("max_body", Some(self.max_body.enforce)),
        ];
        let others = others.into_iter().map(|(key, of)| (key.to_owned(), of.unwrap_or_default()));
        limits.chain(others).filter(|(_, enforce)| enforce.is_dry()).map(|(key, _)| key).collect()
    }
}

/// What the gateway serves itself.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
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

impl Serve {
    /// The name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Serve::Health => "health",
            Serve::HealthDetails => "health_details",
            Serve::Ready => "ready",
            Serve::Live => "live",
            Serve::Status => "status",
        }
    }
}

/// Edits of request and response headers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    /// What the upstream gets. Values may not depend on the response.
    pub request: Edits,
    /// What the client gets.
    pub response: Edits,
}

/// Fields are first removed, then set, then added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Edits {
    /// Replaces all fields of the name; default: none.
    pub set: Fields,
    /// Adds a field, and keeps those of the name that are there; default: none.
    pub add: Fields,
    /// Removes all fields of the name; default: none.
    pub remove: Vec<Header>,
}

/// Changes to a request's JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Json {
    /// Values for fields that are absent, null or empty, by the field's name.
    pub defaults: std::collections::BTreeMap<String, String>,
}

/// How errors are written for requests that name no RPC protocol. The others get errors in their
/// own protocol.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `application/problem+json`, RFC 9457.
    #[default]
    Problem,
    /// A Connect unary error; an upstream's plain HTTP error is translated too.
    Connect,
}

/// Connections that become a WebSocket (RFC 6455).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocket {
    /// The connection is closed after this long without traffic in either direction; 0 means never,
    /// default 5 min. The limits of `timeout` apply to the handshake only.
    pub idle_timeout: Timespan,
}

impl Default for WebSocket {
    fn default() -> Self {
        WebSocket { idle_timeout: Timespan::from_secs(300) }
    }
}

/// Which other origins' pages may call this route from a browser.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// The origins that may call.
    pub origins: Vec<Origin>,
    /// The methods that a preflight allows; `*` allows whichever it asks for. Default: GET, HEAD,
    /// POST.
    #[serde(default = "cors_methods")]
    pub methods: Vec<String>,
    /// The request headers that a preflight allows; `*` allows whichever it asks for. Default:
    /// none.
    #[serde(default)]
    pub request_headers: Vec<Header>,
    /// The response headers that a page may read; `*` means every one. Default: none.
    #[serde(default)]
    pub expose: Vec<Header>,
    /// How long a browser may remember the response to a preflight, in whole seconds; default 2 h.
    #[serde(default = "cors_max_age")]
    pub max_age: Timespan,
    /// Whether cookies and credentials are allowed; the response then names the request's origin.
    /// Default: no.
    #[serde(default)]
    pub credentials: bool,
}

fn cors_methods() -> Vec<String> {
    [Method::GET, Method::HEAD, Method::POST].iter().map(Method::to_string).collect()
}

fn cors_max_age() -> Timespan {
    Timespan::from_secs(7200)
}
