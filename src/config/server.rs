//! Settings of the whole process: listeners, trusted proxies. `admin` has its own file.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use crate::config::socket_path::socket_path;
use crate::config::tls::Tls;
use crate::policy::dry_run::Enforce;
use crate::policy::networks;
use crate::policy::networks::{networks, some_networks};
use crate::units::schema::written_as;
use crate::units::{self, Size, Timespan};

/// The process itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Worker threads; 0, the default, means one per core.
    pub threads: usize,
    /// How long requests in flight may continue after SIGTERM; default 25 s.
    pub drain_timeout: Timespan,
    /// How long the gateway keeps accepting connections after SIGTERM while it reports not ready,
    /// so that the load balancer in front notices; default 0 s.
    pub shutdown_delay: Timespan,
    /// Limit on the client connections of all listeners together; further ones are closed on
    /// arrival. 0 means as many as there are descriptors for; absent: half of those, because each
    /// client connection may need one to an upstream.
    pub max_connections: Option<usize>,
    /// Limit on the idle connections to all upstreams together that are kept for reuse. 0 means as
    /// many as there are descriptors for; absent: one for each client connection, at most half of
    /// those.
    pub upstream_pool: Option<usize>,
    /// Whether the configuration is taken again when its files change, as with SIGHUP; default no.
    pub watch: bool,
    /// How often the files that `${file:…}` names are looked at, such as API keys and passwords. When their content has
    /// changed, the configuration is reloaded, as with SIGHUP, unless its own files have changed as well: those
    /// wait for the signal. At least 1 s, default 10 s; 0: only a reload reads them again. Part of `watch` where that is on.
    #[serde(deserialize_with = "look_for_secrets_every")]
    pub watch_secrets: Timespan,
    /// How often the files of certificates, keys and authorities of listeners and upstreams are looked at. What has
    /// changed in them is put in force by itself, without a reload; what cannot be used leaves the one before in
    /// force. At least 100 ms, default 10 s; 0: only a reload reads them again.
    #[serde(deserialize_with = "look_every")]
    pub watch_certificates: Timespan,
    /// Lets the kernel back memory with huge pages: a little faster, but an idle connection holds
    /// several times as much memory. Default: no.
    pub huge_pages: bool,
    /// Whether the process names itself in `Via` of requests that go upstream, and refuses one with 508
    /// that comes back with that name; default yes.
    pub via: bool,
    /// Absolute path of a Unix socket by which a new process takes over from this one: it gets the listening
    /// sockets, and this one drains once it serves. Only processes of the gateway's own user, and root's, can
    /// (mode 0600). Default: none, and an upgrade is a restart.
    #[serde(deserialize_with = "socket_path")]
    pub upgrade_socket: Option<PathBuf>,
    /// How long a new process may take until it can serve, once it has the sockets; after that this one goes
    /// on, and the new one ends. Default 60 s.
    pub upgrade_timeout: Timespan,
    /// Seed that makes the jitter of retries the same in every run, per route; for tests of whole
    /// systems. Replicas with the same seed would retry in step. Absent: random.
    pub retry_jitter_seed: Option<u64>,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            threads: 0,
            drain_timeout: Timespan::from_secs(25),
            shutdown_delay: Timespan::default(),
            max_connections: None,
            upstream_pool: None,
            watch: false,
            watch_secrets: Timespan::from_secs(10),
            watch_certificates: Timespan::from_secs(10),
            huge_pages: false,
            via: true,
            upgrade_socket: None,
            upgrade_timeout: Timespan::from_secs(60),
            retry_jitter_seed: None,
        }
    }
}

/// An address that clients connect to. A limit of zero means no limit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// IP address and port to listen on. No two listeners have the same.
    pub address: SocketAddr,
    /// Limit on a request's head from its first byte to its last, on the TLS handshake, and on the
    /// header of `proxy_protocol`; default 10 s.
    #[serde(default = "header_timeout")]
    pub header_timeout: Timespan,
    /// A connection without a request is closed after this long; default 75 s.
    #[serde(default = "idle_timeout")]
    pub idle_timeout: Timespan,
    /// Limit on this listener's connections; further ones are closed on arrival. Default 10,000.
    #[serde(default = "max_connections")]
    pub max_connections: usize,
    /// Limit on this listener's connections of one address (of IPv6, one /64 network); further ones
    /// are closed on arrival. With `proxy_protocol`, addresses are those that are announced. 0, the
    /// default, means no limit.
    #[serde(default)]
    pub max_connections_per_address: usize,
    /// The most bytes of a request's header fields together, 431 beyond it; default 64 KiB.
    #[serde(default = "max_header_bytes")]
    pub max_header_bytes: Size,
    /// The largest path in bytes, with its query, 414 beyond it; default 8 KiB.
    #[serde(default = "max_path_bytes")]
    pub max_path_bytes: Size,
    /// Requests after which a connection ends, by `Connection: close` or GOAWAY, so that the client comes
    /// back by another one; default 0, no limit: a busy client of HTTP/2 would open one after the other.
    #[serde(default)]
    pub max_requests_per_connection: u32,
    /// The first request after this time is the connection's last; up to a tenth is taken off by chance.
    /// What is under way is not cut. Default 1 h.
    #[serde(default = "max_age")]
    pub max_connection_age: Timespan,
    /// Limits of connections that speak HTTP/2, which every listener accepts.
    #[serde(default)]
    pub http2: Http2,
    /// Certificates; absent: the listener has no TLS.
    pub tls: Option<Tls>,
    /// Load balancers in front that announce whose connection they relay, by the PROXY protocol;
    /// absent: such a header is not understood.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Which peers may connect, by their address, before anything is read of them; absent: all.
    /// With `proxy_protocol`, addresses are those that are announced.
    pub networks: Option<Box<networks::Config>>,
}

/// The PROXY protocol of versions 1 and 2, from peers that are trusted to announce clients.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Peers that begin each connection with a PROXY header, before TLS: networks such as
    /// 10.0.0.0/8, or addresses. Connections of theirs without one are closed; from any other peer
    /// a header is not parsed. The announced address is that of the connection's peer.
    #[serde(deserialize_with = "some_networks")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub from: Vec<IpNet>,
}

/// Limits of connections that speak HTTP/2.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// Requests that one connection may have open at a time; 1 to 10,000, default 100.
    #[serde(deserialize_with = "units::bounded::<_, 1, 10_000>")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_streams: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Http2 { max_streams: 100 }
    }
}

fn look_every<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    never_or_from(deserializer, Duration::from_millis(100), "must be 0, or at least 100ms")
}

fn look_for_secrets_every<'de, D: Deserializer<'de>>(from: D) -> Result<Timespan, D::Error> {
    never_or_from(from, Duration::from_secs(1), "must be 0, or at least 1s")
}

fn never_or_from<'de, D: Deserializer<'de>>(
    deserializer: D,
    least: Duration,
    why: &str,
) -> Result<Timespan, D::Error> {
    let every = Timespan::deserialize(deserializer)?;
    if !every.is_zero() && *every < least {
        return Err(serde::de::Error::custom(why));
    }
    Ok(every)
}

fn header_timeout() -> Timespan {
    Timespan::from_secs(10)
}

fn idle_timeout() -> Timespan {
    Timespan::from_secs(75)
}

fn max_connections() -> usize {
    10_000
}

fn max_age() -> Timespan {
    Timespan::from_secs(3600)
}

fn max_header_bytes() -> Size {
    Size::kib(64)
}

fn max_path_bytes() -> Size {
    Size::kib(8)
}

/// How the client's address is determined.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientAddress {
    /// Peers whose `X-Forwarded-*` headers are trusted: networks such as 10.0.0.0/8, or addresses.
    /// An element may hold several, separated by commas, so that one variable can list them all.
    /// Default: none.
    #[serde(deserialize_with = "networks")]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
}

/// Limit on the requests of one client address to the whole gateway, whichever caller sends them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FloodGuard {
    /// Requests in an interval; 1 to 1,000,000.
    #[serde(deserialize_with = "units::bounded::<_, 1, 1_000_000>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// Length of an interval; 1 s to 1 h, default 1 s.
    #[serde(default = "one_second", deserialize_with = "interval")]
    pub per: Timespan,
    /// `false`: requests that would be refused are counted in `would_refuse_total`, and pass.
    /// Default `true`.
    #[serde(default)]
    pub enforce: Enforce,
}

fn one_second() -> Timespan {
    Timespan::from_secs(1)
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    let per = Timespan::deserialize(deserializer)?;
    if per < Timespan::from_secs(1) || per > Timespan::from_secs(3600) {
        return Err(serde::de::Error::custom("must be from 1s to 1h"));
    }
    Ok(per)
}

/// The headers that hold a request's ids.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Identifiers {
    /// Holds the request's id: the client's if it is safe, else one of the gateway's. It is sent
    /// upstream and echoed. Default `X-Request-Id`.
    pub request_id: Header,
    /// Holds an id that the client shares among requests, handled as `request_id` is. Absent: not
    /// handled.
    pub correlation_id: Option<Header>,
    /// Carries the consumer's name to the upstream; clients cannot set it. Default `X-Consumer`.
    pub consumer: Header,
    /// Tells the upstream of the client's certificate, if it has shown one to the gateway; clients cannot
    /// set it, and trusted proxies can. Default `X-Forwarded-Client-Cert`.
    pub client_certificate: Header,
    /// Carries the number of the attempt to the upstream, from 1. From a trusted caller, it says
    /// whether the request is already a retry. Default `X-Envoy-Attempt-Count`.
    pub attempt_count: Header,
}

impl Default for Identifiers {
    fn default() -> Self {
        Identifiers {
            request_id: Header(HeaderName::from_static("x-request-id")),
            correlation_id: None,
            consumer: Header(HeaderName::from_static("x-consumer")),
            client_certificate: Header(HeaderName::from_static("x-forwarded-client-cert")),
            attempt_count: Header(HeaderName::from_static("x-envoy-attempt-count")),
        }
    }
}

/// The name of a header field. Fields that frame a message cannot be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header(pub HeaderName);

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name: HeaderName =
            text.parse().map_err(|_| "expected the name of a header, such as X-Request-Id")?;
        const FRAMING: [&str; 6] =
            ["connection", "content-length", "host", "te", "transfer-encoding", "upgrade"];
        if FRAMING.contains(&name.as_str()) {
            return Err(format!(
                "`{text}` frames the message and cannot be configured: use another header"
            ));
        }
        Ok(Header(name))
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

written_as!(Header, "HeaderName", {
    "description": "The name of a header.",
    "type": "string",
    "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
});

impl serde::Serialize for Header {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}
