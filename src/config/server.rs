//! What is set once for the process: listeners, the admin address, whom to believe.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use http::HeaderName;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use crate::routing::host::HostPattern;
use crate::units::{self, Size, Timespan};

/// The process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Worker threads; 0 = one per core.
    pub threads: usize,
    /// How long requests in flight may go on after SIGTERM.
    pub drain_timeout: Timespan,
    /// How long to stay open, but not ready, after SIGTERM: what the balancer in front
    /// needs to notice.
    pub shutdown_delay: Timespan,
    /// Client connections of all listeners together; 0 = as many as there are descriptors for.
    /// Absent: half of those, because each of them may need a connection to an upstream.
    pub max_connections: Option<usize>,
    /// Idle connections to all upstreams together that are kept for further requests; 0 = as many as
    /// there are descriptors for. Absent: one for each client connection, at most half of those.
    pub upstream_pool: Option<usize>,
    /// Let the kernel back memory with huge pages: a little faster, and an idle connection holds several
    /// times as much.
    pub huge_pages: bool,
    /// Makes the jitter of retries the same in every run, route by route: for tests of whole
    /// systems. Replicas with one seed would retry in step. Absent: by chance.
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
            huge_pages: false,
            retry_jitter_seed: None,
        }
    }
}

/// A port that clients connect to. Limits of zero mean none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    pub address: SocketAddr,
    /// From the first byte of a request's head to its last.
    #[serde(default = "header_timeout")]
    pub header_timeout: Timespan,
    /// A connection without a request is closed after this long.
    #[serde(default = "idle_timeout")]
    pub idle_timeout: Timespan,
    /// Connections beyond this many are closed as they arrive.
    #[serde(default = "max_connections")]
    pub max_connections: usize,
    #[serde(default = "max_header_bytes")]
    pub max_header_bytes: Size,
    #[serde(default = "max_path_bytes")]
    pub max_path_bytes: Size,
    #[serde(default)]
    pub http2: Http2,
    /// Absent: without TLS.
    pub tls: Option<Tls>,
}

/// TLS towards clients, who choose HTTP/2 or HTTP/1.1 in its handshake. The files are read again with
/// every reload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The first one that is for the name a client asks for; else the first.
    pub certificates: Vec<Certificate>,
    /// A PEM file of authorities. Who has no certificate of theirs is not let in.
    pub client_ca: Option<PathBuf>,
    #[serde(default)]
    pub tickets: Tickets,
}

/// How clients that return take up their sessions again, which spares both sides the dear part of a
/// handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tickets {
    /// Not at all.
    Off,
    /// By tickets that this process alone can open.
    #[default]
    On,
    /// By tickets that every replica with a key of this file can open. One key to a line: the first
    /// one seals, each of them opens.
    Keys(PathBuf),
}

/// Two PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The certificate, then those that lead from it to an authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Connections that speak HTTP/2.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http2 {
    /// Requests that one connection may have open at a time; 1 to 10,000.
    #[serde(deserialize_with = "units::bounded::<_, 1, 10_000>")]
    pub max_streams: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Http2 { max_streams: 100 }
    }
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

fn max_header_bytes() -> Size {
    Size::kib(64)
}

fn max_path_bytes() -> Size {
    Size::kib(8)
}

/// Where health, metrics and state are served.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    pub address: SocketAddr,
    /// Names besides `localhost` by which what it shows and does is asked for.
    pub hosts: Vec<HostPattern>,
}

impl Default for Admin {
    fn default() -> Self {
        Admin { address: SocketAddr::from(([127, 0, 0, 1], 9901)), hosts: Vec::new() }
    }
}

/// How the client's address is found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientAddress {
    /// Peers whose `X-Forwarded-*` headers are believed. An element may hold several, separated by
    /// commas, so that one variable can.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
}

/// `10.0.0.0/8`, a single address, or several of them.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    struct Networks(Vec<IpNet>);

    impl<'de> Deserialize<'de> for Networks {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            text.split(',').map(|part| network(part.trim())).collect::<Result<_, _>>().map(Networks)
        }
    }

    fn network<E: serde::de::Error>(text: &str) -> Result<IpNet, E> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map_err(|_| E::custom("expected a network such as 10.0.0.0/8, or an address"))
    }

    let networks = Vec::<Networks>::deserialize(deserializer)?;
    Ok(networks.into_iter().flat_map(|networks| networks.0).collect())
}

/// How many requests one client address may make of the whole gateway, whoever it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloodGuard {
    /// Requests in an interval; 1 to 1,000,000.
    #[serde(deserialize_with = "units::bounded::<_, 1, 1_000_000>")]
    pub requests: u32,
    /// Length of an interval; 1 s to 1 h, default 1 s.
    #[serde(default = "one_second", deserialize_with = "interval")]
    pub per: Timespan,
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

/// The headers by which a request is known.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identifiers {
    pub request_id: Header,
    /// Absent: not handled.
    pub correlation_id: Option<Header>,
    /// Carries the consumer's name upstream.
    pub consumer: Header,
    /// Carries the number of the attempt upstream, from 1; from a trusted caller, says whether the
    /// request is a retry already.
    pub attempt_count: Header,
}

impl Default for Identifiers {
    fn default() -> Self {
        Identifiers {
            request_id: Header(HeaderName::from_static("x-request-id")),
            correlation_id: None,
            consumer: Header(HeaderName::from_static("x-consumer")),
            attempt_count: Header(HeaderName::from_static("x-envoy-attempt-count")),
        }
    }
}

/// The name of a header field. Those that frame a message are not for configuration.
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
            return Err(format!("`{text}` frames the message and cannot be configured"));
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
