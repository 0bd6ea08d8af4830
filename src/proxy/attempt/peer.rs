//! An endpoint as Pingora connects to it: address, TLS, timeouts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::Result;
use pingora_core::protocols::{ALPN, TcpKeepalive};
use pingora_core::upstreams::peer::{H1UpgradePolicy, HttpPeer};

use crate::config::route::Timeouts;
use crate::proxy::attempt::race::Race;
use crate::runtime::snapshot::UpstreamTarget;
use crate::upstream::config::{MAX_STREAMS, Protocol};
use crate::upstream::endpoint::Key;
use crate::upstream::{Address, Endpoint};

/// Unanswered TCP keep-alive probes in a row after which a connection is given up.
const PROBES: u32 = 3;

/// State of the client's request when an attempt begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The request is complete.
    Waiting,
    /// The client is still sending it. The gateway may not be reading the client meanwhile, so the
    /// upstream's silence is bounded here too.
    Uploading,
    /// The request asks for a WebSocket, and its route allows that.
    Upgrading,
}

/// The peer for one attempt. Every wait is at most `left`, the time until the deadline.
///
/// # Errors
/// The path of a Unix socket is too long, which the configuration does not allow.
pub fn of(
    endpoint: &Arc<Endpoint>,
    target: &Arc<UpstreamTarget>,
    timeouts: &Timeouts,
    left: Option<Duration>,
    phase: Phase,
) -> Result<Box<HttpPeer>> {
    let Key { address, tls, server_name, .. } = &endpoint.key;
    let mut peer = match address {
        Address::Tcp(address) => HttpPeer::new(*address, *tls, server_name.clone()),
        Address::Pair(pair) => {
            let mut peer = HttpPeer::new(SocketAddr::from(pair.v6), *tls, server_name.clone());
            peer.options.custom_l4 = Some(Arc::new(Race::new(*pair, endpoint, target)));
            peer
        }
        // A path of the configuration is text.
        Address::Unix(path) => {
            HttpPeer::new_uds(&path.to_string_lossy(), *tls, server_name.clone())?
        }
    };
    let config = target.upstream.config();
    peer.group_key = target.pool_key;
    let options = &mut peer.options;
    let connect = capped(*timeouts.connect, left);
    options.connection_timeout = connect;
    options.total_connection_timeout = connect;
    // The guard on the client's connection enforces the deadline. These timeouts bound silence
    // where that is shorter (a timer per read is not free), and cover the time when the gateway
    // does not read the client.
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
        // Over HTTP/2 this timer would keep running while the client sends, and a stream may send
        // for ever.
        (Phase::Uploading, Protocol::H2c | Protocol::H2 | Protocol::Auto) => None,
        // The guard bounds the silence of both sides together.
        (Phase::Upgrading, _) => None,
    };
    if protocol != Protocol::Http1 {
        options.max_h2_streams = MAX_STREAMS as usize;
        options.h2_ping_interval = limit(*config.h2_ping_interval);
    }
    options.tcp_keepalive = match address {
        Address::Tcp(_) | Address::Pair(_) => limit(*config.tcp_keepalive).map(keepalive),
        Address::Unix(_) => None,
    };
    options.write_timeout = capped(*timeouts.idle, left);
    options.idle_timeout = limit(*config.idle_timeout());
    options.http_upstream_request_policy.h1_upgrade = match phase {
        Phase::Upgrading => H1UpgradePolicy::WebSocketOnly,
        Phase::Waiting | Phase::Uploading => H1UpgradePolicy::Deny,
    };
    if phase == Phase::Upgrading {
        // The upgrade to a WebSocket exists only in HTTP/1.1 here.
        options.alpn = ALPN::H1;
    }
    options.upstream_tcp_sock_tweak_hook = Some(target.socket_check.clone());
    options.verify_cert = config.tls.verify;
    options.verify_hostname = config.tls.verify;
    options.ca = target.authorities.clone();
    Ok(Box::new(peer))
}

/// Finds upstreams that have vanished silently: the keep-alive probes on an idle connection, the
/// user timeout on one with unacknowledged data, which the kernel would otherwise retransmit for a
/// quarter of an hour.
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
