//! An endpoint as Pingora connects to it: address, TLS, timeouts.

use std::time::Duration;

use pingora_core::protocols::{ALPN, TcpKeepalive};
use pingora_core::upstreams::peer::{H1UpgradePolicy, HttpPeer};

use crate::config::route::Timeouts;
use crate::runtime::snapshot::UpstreamTarget;
use crate::upstream::Endpoint;
use crate::upstream::config::Protocol;

/// Requests that share one connection of HTTP/2 to an upstream, if that allows as many.
const MAX_STREAMS: usize = 100;
/// Probes of TCP in a row without an answer, after which a connection is given up.
const PROBES: u32 = 3;

/// What there is between client and upstream when an attempt begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The request is complete.
    Waiting,
    /// The client is still sending it, and nobody may be reading it: the upstream's silence is
    /// bounded then, too.
    Uploading,
    /// The request asks for a WebSocket, and may have it.
    Upgrading,
}

/// The peer for one attempt. Every wait is capped to the time `left` for it.
pub fn of(
    endpoint: &Endpoint,
    target: &UpstreamTarget,
    timeouts: &Timeouts,
    left: Option<Duration>,
    phase: Phase,
) -> Box<HttpPeer> {
    let mut peer = HttpPeer::new(endpoint.address, endpoint.tls, endpoint.server_name.clone());
    let config = target.upstream.config();
    peer.group_key = target.pool_key;
    let options = &mut peer.options;
    let connect = capped(*timeouts.connect, left);
    options.connection_timeout = connect;
    options.total_connection_timeout = connect;
    // The guard on the client's connection keeps the deadline. These bound silence, where that
    // ends sooner (a timer for every read is not free), and what happens while nobody reads the
    // client.
    let protocol = config.protocol;
    options.alpn = match protocol {
        Protocol::Http1 => ALPN::H1,
        Protocol::H2c | Protocol::H2 => ALPN::H2,
        Protocol::Auto => ALPN::H2H1,
    };
    options.read_timeout = match (phase, protocol) {
        (Phase::Waiting, _) => {
            limit(*timeouts.idle).filter(|idle| left.is_none_or(|left| *idle < left))
        }
        (Phase::Uploading, Protocol::Http1) => capped(*timeouts.idle, left),
        // Over HTTP/2 it would run on while the client sends, and a stream may send for ever.
        (Phase::Uploading, Protocol::H2c | Protocol::H2 | Protocol::Auto) => None,
        // The guard bounds the silence of both sides together.
        (Phase::Upgrading, _) => None,
    };
    if protocol != Protocol::Http1 {
        options.max_h2_streams = MAX_STREAMS;
        options.h2_ping_interval = limit(*config.h2_ping_interval);
    }
    options.tcp_keepalive = limit(*config.tcp_keepalive).map(keepalive);
    options.write_timeout = capped(*timeouts.idle, left);
    options.idle_timeout = limit(*config.idle_timeout);
    options.http_upstream_request_policy.h1_upgrade = match phase {
        Phase::Upgrading => H1UpgradePolicy::WebSocketOnly,
        Phase::Waiting | Phase::Uploading => H1UpgradePolicy::Deny,
    };
    if phase == Phase::Upgrading {
        // Only HTTP/1.1 changes protocols like this.
        options.alpn = ALPN::H1;
    }
    options.upstream_tcp_sock_tweak_hook = Some(target.socket_check.clone());
    options.verify_cert = config.tls.verify;
    options.verify_hostname = config.tls.verify;
    options.ca = target.authorities.clone();
    Box::new(peer)
}

/// A peer that has vanished without a word is noticed on a silent connection by the probes, and on one
/// with data under way, which the system would repeat for a quarter of an hour, by the user timeout.
fn keepalive(idle: Duration) -> TcpKeepalive {
    TcpKeepalive {
        idle,
        interval: (idle / PROBES).max(Duration::from_secs(1)),
        count: PROBES as usize,
        #[cfg(target_os = "linux")]
        user_timeout: idle * 2,
    }
}

fn limit(timeout: Duration) -> Option<Duration> {
    (!timeout.is_zero()).then_some(timeout)
}

fn capped(timeout: Duration, left: Option<Duration>) -> Option<Duration> {
    match (limit(timeout), left) {
        (Some(timeout), Some(left)) => Some(timeout.min(left)),
        (one, other) => one.or(other),
    }
}
