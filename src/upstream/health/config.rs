//! What the operator configures under `upstreams.NAME.health`.

use std::collections::BTreeMap;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::{Deserialize, Deserializer, de};

use super::statuses::Statuses;
use crate::units::schema::SecretText;
use crate::units::{self, Percent, Timespan};

/// Active health checks of an upstream's endpoints.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[schemars(with = "Written", rename = "HealthChecks")]
#[serde(try_from = "Written")]
pub struct Config {
    /// What is sent, and what must come back.
    pub check: Check,
    /// The pause between two checks of an endpoint; default 10 s.
    pub interval: Timespan,
    /// The pause while it is undecided whether the endpoint is healthy; at most `interval`.
    pub fast_interval: Timespan,
    /// By which share of it each pause is longer or shorter, at random; default 10 %.
    pub jitter: Percent,
    /// Limit on a check, from connecting to the end of the response; default 2 s.
    pub timeout: Timespan,
    /// Checks that must pass in a row before an unhealthy endpoint is healthy; default 2.
    pub healthy: u32,
    /// Checks that must fail in a row before an endpoint is unhealthy; default 3.
    pub unhealthy: u32,
}

/// The kinds of check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// A request, and the status of its response.
    Http(Box<Http>),
    /// A connection, over TLS if the endpoint is.
    Tcp,
    /// A call of the gRPC health service.
    Grpc(Grpc),
}

/// `http:`. Redirects are not followed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HttpCheck")]
pub struct Http {
    /// The path, with a query if one is needed. The path of the endpoint's URL is put before it, as
    /// it is for requests.
    #[serde(deserialize_with = "path")]
    #[schemars(with = "String", regex(pattern = "^/"))]
    pub path: PathAndQuery,
    /// Default `GET`.
    #[serde(default, deserialize_with = "method")]
    #[schemars(with = "Option<String>", extend("default" = "GET"))]
    pub method: Method,
    /// Header fields of the request; default: none. `Host` may be one of them; without it, it is the
    /// endpoint's own.
    #[serde(default, deserialize_with = "headers")]
    #[schemars(with = "BTreeMap<String, SecretText>")]
    pub headers: HeaderMap,
    /// The statuses with which a check passes, or classes of them; default `[2xx]`.
    #[serde(default)]
    pub expect: Statuses,
}

/// `grpc:`, the standard health service `grpc.health.v1.Health`. `SERVING` passes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "GrpcCheck")]
pub struct Grpc {
    /// The service that is asked for; default empty: the server as a whole.
    pub service: String,
    /// What the answer of a server without the health service means; default `unhealthy`.
    pub unimplemented: Unimplemented,
}

/// What `UNIMPLEMENTED` means.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Unimplemented {
    /// The check fails.
    #[default]
    Unhealthy,
    /// The check passes: the server answers calls.
    Healthy,
}

/// `tcp:` has no settings.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TcpCheck")]
struct Tcp {}

/// The keys as in the file, before one kind is picked.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// A request, and the status of its response.
    #[serde(default)]
    http: Option<Http>,
    /// A connection, over TLS if the endpoint is; `{}`.
    #[serde(default)]
    tcp: Option<Tcp>,
    /// A call of the gRPC health service.
    #[serde(default)]
    grpc: Option<Grpc>,
    /// The pause between two checks of an endpoint; default 10 s.
    #[serde(default = "default_interval", deserialize_with = "pause")]
    interval: Timespan,
    /// The pause while it is undecided whether the endpoint is healthy: before its first check has
    /// passed, and while the latest checks contradict its state. At most `interval`; default 1 s, or
    /// `interval` if that is less.
    #[serde(default, deserialize_with = "fast_pause")]
    fast_interval: Option<Timespan>,
    /// By which share of it each pause is longer or shorter, at random, so that gateways that
    /// started together do not check together; default 10 %.
    #[serde(default = "default_jitter")]
    jitter: Percent,
    /// Limit on a check, from connecting to the end of the response; default 2 s.
    #[serde(default = "default_timeout", deserialize_with = "units::positive")]
    timeout: Timespan,
    /// Checks that must pass in a row before an unhealthy endpoint is healthy; 1 to 100, default 2.
    /// For an endpoint that has not been found unhealthy, the first one suffices.
    #[serde(default = "default_healthy", deserialize_with = "units::bounded::<_, 1, 100>")]
    #[schemars(range(min = 1, max = 100))]
    healthy: u32,
    /// Checks that must fail in a row before an endpoint is unhealthy; 1 to 100, default 3.
    #[serde(default = "default_unhealthy", deserialize_with = "units::bounded::<_, 1, 100>")]
    #[schemars(range(min = 1, max = 100))]
    unhealthy: u32,
}

impl TryFrom<Written> for Config {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { http, tcp, grpc, interval, fast_interval, .. } = written;
        let check = match (http, tcp, grpc) {
            (Some(http), None, None) => Check::Http(Box::new(http)),
            (None, Some(Tcp {}), None) => Check::Tcp,
            (None, None, Some(grpc)) => Check::Grpc(grpc),
            (None, None, None) => return Err("needs a check, such as `http: {path: /health}`"),
            (_, _, _) => return Err("has more than one check: write one of `http`, `tcp`, `grpc`"),
        };
        let fast_interval = match fast_interval {
            Some(fast) if fast > interval => {
                return Err("fast_interval: must be at most `interval`");
            }
            Some(fast) => fast,
            None => DEFAULT_FAST_INTERVAL.min(interval),
        };
        let Written { jitter, timeout, healthy, unhealthy, .. } = written;
        Ok(Config { check, interval, fast_interval, jitter, timeout, healthy, unhealthy })
    }
}

/// The least pause: an endpoint is a service that has other work to do.
const LEAST_PAUSE: Timespan = Timespan::from_millis(10);
const DEFAULT_FAST_INTERVAL: Timespan = Timespan::from_secs(1);

fn default_interval() -> Timespan {
    Timespan::from_secs(10)
}

fn default_jitter() -> Percent {
    Percent::new(10)
}

fn default_timeout() -> Timespan {
    Timespan::from_secs(2)
}

// As HAProxy has it (`rise` 2, `fall` 3): one answer out of turn decides nothing.
fn default_healthy() -> u32 {
    2
}

fn default_unhealthy() -> u32 {
    3
}

fn pause<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    let pause = Timespan::deserialize(deserializer)?;
    if pause < LEAST_PAUSE {
        return Err(de::Error::custom(format_args!("must be at least {LEAST_PAUSE}")));
    }
    Ok(pause)
}

fn fast_pause<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timespan>, D::Error> {
    pause(deserializer).map(Some)
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathAndQuery, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = text.parse::<PathAndQuery>().ok().filter(|_| text.starts_with('/'));
    // The parser drops a fragment without a word.
    let parsed = parsed.filter(|_| !text.contains('#'));
    parsed.ok_or_else(|| {
        de::Error::custom(format_args!("`{text}` is not a path, such as /health?full=1"))
    })
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
    let text = String::deserialize(deserializer)?;
    let method = text.parse::<Method>().ok().filter(|method| *method != Method::CONNECT);
    method.ok_or_else(|| {
        de::Error::custom(format_args!("`{text}` is not a method for a health check, such as GET"))
    })
}

/// What the gateway sets itself, because it frames the request.
const FRAMING: [&str; 5] = ["connection", "content-length", "te", "transfer-encoding", "upgrade"];

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderMap, D::Error> {
    let written = BTreeMap::<String, String>::deserialize(deserializer)?;
    let field = |(name, value): (&String, &String)| {
        let parsed: HeaderName =
            name.parse().map_err(|_| format!("`{name}` is not a header's name"))?;
        if FRAMING.contains(&parsed.as_str()) {
            return Err(format!("{name}: `{name}` frames the request: use another header"));
        }
        let mut value: HeaderValue =
            value.parse().map_err(|_| format!("the value of `{name}` is not one for a header"))?;
        // It may be a token: `Debug` does not show it.
        value.set_sensitive(true);
        Ok((parsed, value))
    };
    written.iter().map(field).collect::<Result<_, String>>().map_err(de::Error::custom)
}
