//! What the operator configures under `upstreams.NAME`.

mod listed;
mod none_available;
mod pin;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

pub use listed::{Listed, Place, Url};
pub use none_available::{NoneAvailable, Use};
pub use pin::Pin;
use serde::{Deserialize, Deserializer, de};

use super::balance::Policy;
use super::discovery::config::Discover;
use super::ejection;
use super::ejection::config::Ejection;
use super::endpoint::Key;
use super::health;
use crate::policy::breaker;
use crate::units::{self, Timespan};

/// A named group of endpoints that provide the same service.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Names, each of an upstream that is made of this entry, with the name in the place of `{name}` in every
    /// text; an element may hold several, separated by commas. They are names of hosts in lower case, at most
    /// 1,000; none at all makes none. `among` of a route takes the name of the entry for all of them. Absent:
    /// the entry is an upstream itself.
    // Always absent here: the upstreams are made before they are read.
    pub each: Option<Each>,
    /// Where the service is; at least one, unless `discover` finds them. Each is a URL, or
    /// `{url, weight, backup}`: `http://host:port` or `https://…`, by name or address, or
    /// `unix:/path`. Each address of a name is an endpoint.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub endpoints: Vec<Listed>,
    /// A source that knows further endpoints, and tells of changes; absent: none.
    pub discover: Option<Discover>,
    /// Which endpoint gets a request; default `least_request`.
    #[serde(default)]
    #[schemars(extend("default" = "least_request"))]
    pub balance: Policy,
    /// How long the share of an endpoint that is new or has recovered grows to what its weight says,
    /// from a tenth of it. 0, the default: it has its share at once. Endpoints that are there when
    /// the process starts have their share.
    #[serde(default)]
    pub slow_start: Timespan,
    /// Endpoints whose attempts fail are not used for a time; `off`: never. Default: after 5 failures
    /// in a row, for 10 s. The only endpoint of an upstream is never ejected.
    #[serde(default)]
    pub ejection: Option<Ejection>,
    /// What is used when no endpoint is available: `all` of them that are known and not drained, the
    /// default; none (`refuse`: 503); or, with a share such as `50%`, all as soon as fewer than that
    /// are available.
    #[serde(default)]
    pub when_none_available: NoneAvailable,
    /// How many connections each endpoint may have from this process; 1 to 1,000,000. What is counted
    /// are attempts in flight: one for each connection, or 100 over HTTP/2. Absent: no limit.
    #[serde(default, deserialize_with = "max_connections")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,
    /// The protocol the gateway speaks to it; default `http1`.
    #[serde(default)]
    pub protocol: Protocol,
    /// How often names are resolved again, in the background; default 10 s.
    #[serde(default = "default_resolve_every")]
    pub resolve_every: Timespan,
    /// Which of a name's addresses are used; default `both`.
    #[serde(default)]
    pub ip_family: IpFamily,
    /// A name of which the resolver says for this long that it does not exist, or has no address, loses
    /// the addresses known so far, and a source that has no endpoint for this long those that it named;
    /// 0 means never, default 30 s. A resolver or source that fails changes nothing.
    #[serde(default = "default_empty_after")]
    pub empty_after: Timespan,
    /// The most endpoints that are taken from `discover`, and the most addresses from a name; 1 to
    /// 100,000, default 5,000. An answer with more is a mistake: what is known stays.
    #[serde(
        default = "default_max_endpoints",
        deserialize_with = "units::bounded::<_, 1, 100_000>"
    )]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_endpoints: u32,
    /// Which `Host` header the upstream gets; default `endpoint`.
    #[serde(default)]
    pub host_header: HostHeader,
    /// An unused pooled connection is closed after this long; 0 means never. Keep it below the
    /// upstream's own timeout. Default: 4 s where the connection may speak HTTP/1 (Node closes it
    /// after 5 s), else 50 s.
    pub idle_timeout: Option<Timespan>,
    /// A connection that is silent for this long is probed by TCP, and closed after twice as long
    /// without a reply. 0 means never, else 1 s to 1 h; default 30 s. TCP counts whole seconds.
    #[serde(default = "default_tcp_keepalive", deserialize_with = "tcp_keepalive")]
    pub tcp_keepalive: Timespan,
    /// How often an HTTP/2 connection is pinged; at least 10 s, or 0, the default, for never. gRPC
    /// servers close connections that ping more often than every five minutes, unless told
    /// otherwise.
    #[serde(default, deserialize_with = "ping_interval")]
    pub h2_ping_interval: Timespan,
    /// How `https://` endpoints are verified; default: by the system's authorities.
    #[serde(default)]
    pub tls: Tls,
    /// Active checks of each endpoint; absent: none. An endpoint that fails them gets no requests, and
    /// one that appears later gets none before its first pass.
    pub health: Option<health::Config>,
    /// The breaker, shared by every route to this upstream; absent: none.
    pub circuit_breaker: Option<breaker::Config>,
}

/// The names that an entry makes upstreams of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Each(Vec<String>);

/// Which version of HTTP an upstream speaks.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    Deserialize,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, with prior knowledge.
    H2c,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/2 if the TLS handshake agrees on it, else HTTP/1.1.
    Auto,
}

/// Which `Host` header goes upstream.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum HostHeader {
    /// The endpoint's own, as written in its URL.
    #[default]
    Endpoint,
    /// The one that the client sent.
    Client,
}

/// Which of a name's addresses are used if it has both families.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum IpFamily {
    /// The IPv4 addresses; the IPv6 ones of a name that has no others.
    PreferIpv4,
    /// The IPv6 addresses; the IPv4 ones of a name that has no others.
    PreferIpv6,
    /// All addresses. One of each family is an endpoint: which of them answers is found out by
    /// connecting to both, the second 250 ms after the first (RFC 8305).
    #[default]
    Both,
}

/// TLS towards `https://` endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The name the certificate must carry, sent to the endpoint as SNI; absent: the endpoint's
    /// host.
    pub server_name: Option<String>,
    /// Whether the certificate is verified at all; default: yes.
    pub verify: bool,
    /// A PEM file with the authorities to trust instead of the system's; absent: the system's.
    pub ca: Option<PathBuf>,
    /// The certificate by which the gateway proves to the endpoints who it is; absent: none.
    pub client_certificate: Option<ClientCertificate>,
    /// The only certificates that an endpoint may show, each by the SHA-256 of its DER in hexadecimal,
    /// with or without colons. A connection with another one gets no request, whether the certificate
    /// is verified besides (`verify`) or not. Absent: any certificate that passes `verify`.
    #[serde(deserialize_with = "pin::pins")]
    #[schemars(with = "Vec<Pin>", length(min = 1))]
    pub pins: BTreeSet<Pin>,
}

/// The gateway's certificate for an upstream and its key, in two PEM files.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// The certificate, followed by the intermediate certificates, each of which has signed the one
    /// before it.
    pub certificate: PathBuf,
    /// The private key of `certificate`.
    pub key: PathBuf,
}

impl Tls {
    /// All files that are named here.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let own = self.client_certificate.iter();
        self.ca.iter().chain(own.flat_map(|own| [&own.certificate, &own.key]))
    }
}

impl Default for Tls {
    fn default() -> Self {
        Tls {
            server_name: None,
            verify: true,
            ca: None,
            client_certificate: None,
            pins: BTreeSet::new(),
        }
    }
}

fn default_empty_after() -> Timespan {
    Timespan::from_secs(30)
}

fn default_max_endpoints() -> u32 {
    5_000
}

fn default_resolve_every() -> Timespan {
    Timespan::from_secs(10)
}

impl Config {
    /// Why the upstream's protocol cannot be spoken at `url`, if it cannot. TLS negotiates HTTP/2;
    /// without TLS it must be known beforehand.
    pub fn unfit(&self, url: &Url) -> Option<&'static str> {
        self.unfit_for(url.tls)
    }

    /// The same for every URL with TLS, or every one without.
    pub fn unfit_for(&self, is_tls: bool) -> Option<&'static str> {
        match self.protocol {
            Protocol::Http1 | Protocol::Auto => None,
            Protocol::H2c => is_tls.then_some("`h2c` is HTTP/2 without TLS, not for https://"),
            Protocol::H2 => (!is_tls).then_some("`h2` is HTTP/2 with TLS, only for https://"),
        }
    }

    /// Whether there is TLS to each of `endpoints`, in their order, and then to those of `discover` as far as that is
    /// known.
    pub fn schemes(&self) -> impl Iterator<Item = bool> {
        let source = self.discover.as_ref().and_then(Discover::is_tls);
        self.endpoints.iter().map(|entry| entry.url.tls).chain(source)
    }

    /// How long an unused pooled connection is kept. A server may close an HTTP/1 connection in
    /// the moment in which a request is sent on it, and then only some requests can be sent again.
    /// HTTP/2 announces the end of a connection, so it can be kept longer.
    pub fn idle_timeout(&self) -> Timespan {
        self.idle_timeout.unwrap_or(match self.protocol {
            Protocol::Http1 | Protocol::Auto => Timespan::from_secs(4),
            Protocol::H2c | Protocol::H2 => Timespan::from_secs(50),
        })
    }

    /// When endpoints are ejected; `None`: never.
    pub(super) fn ejection_rules(&self) -> Option<ejection::config::Config> {
        match &self.ejection {
            None => Some(ejection::config::Config::default()),
            Some(written) => written.rules().cloned(),
        }
    }

    /// How many attempts an endpoint may have in flight.
    pub(super) fn max_in_flight(&self) -> u32 {
        let for_each = match self.protocol {
            // What `auto` agrees on is not known before.
            Protocol::Http1 | Protocol::Auto => 1,
            Protocol::H2c | Protocol::H2 => MAX_STREAMS,
        };
        self.max_connections.map_or(u32::MAX, |most| most.saturating_mul(for_each))
    }
}

/// Requests that share one HTTP/2 connection to an upstream, if the upstream allows that many.
pub const MAX_STREAMS: u32 = 100;

fn max_connections<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    units::bounded::<_, 1, 1_000_000>(from).map(Some)
}

fn default_tcp_keepalive() -> Timespan {
    Timespan::from_secs(30)
}

fn tcp_keepalive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    within(deserializer, Duration::from_secs(1), Duration::from_secs(3600), "0s, or from 1s to 1h")
}

fn ping_interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    within(deserializer, Duration::from_secs(10), Duration::MAX, "0s, or at least 10s")
}

/// Accepts zero, or a value between the two bounds.
fn within<'de, D: Deserializer<'de>>(
    deserializer: D,
    least: Duration,
    most: Duration,
    bounds: &str,
) -> Result<Timespan, D::Error> {
    let span = Timespan::deserialize(deserializer)?;
    match span.is_zero() || (least..=most).contains(&*span) {
        true => Ok(span),
        false => Err(de::Error::custom(format_args!("must be {bounds}"))),
    }
}

/// Whether the endpoint belongs to `url`.
pub(super) fn is_of(url: &Url, key: &Key) -> bool {
    key.tls == url.tls
        && key.authority.as_bytes() == url.authority.as_bytes()
        && key.base_path == url.base_path
}

impl schemars::JsonSchema for Each {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "UpstreamNames".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = generator.subschema_for::<String>();
        schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// The upstreams by name.
pub type Upstreams = BTreeMap<String, Config>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_that_could_not_work_are_refused() {
        let parse = |line: &str| {
            serde_yaml::from_str::<Config>(&format!("{{endpoints: ['http://a:1'], {line}}}"))
        };
        for right in ["tcp_keepalive: 0s", "tcp_keepalive: 1s", "h2_ping_interval: 10s"] {
            assert!(parse(right).is_ok(), "{right}");
        }
        for wrong in ["tcp_keepalive: 900ms", "tcp_keepalive: 2h", "h2_ping_interval: 9s"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn idle_connections_of_http1_are_closed_before_a_node_server_closes_them() {
        for (line, seconds) in [
            ("protocol: http1", 4),
            ("protocol: auto", 4),
            ("protocol: h2c", 50),
            ("protocol: h2", 50),
            ("protocol: http1, idle_timeout: 9s", 9),
            ("protocol: h2, idle_timeout: 0", 0),
        ] {
            let yaml = format!("{{endpoints: ['http://a:1'], {line}}}");
            let config: Config = serde_yaml::from_str(&yaml).expect("valid");
            assert_eq!(config.idle_timeout(), Timespan::from_secs(seconds), "{line}");
        }
    }
}
