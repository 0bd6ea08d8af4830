//! An endpoint as Pingora connects to it: address, TLS, protocol. Attempts and health checks add
//! their limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::Result;
use pingora_core::protocols::{ALPN, TcpKeepalive};
use pingora_core::upstreams::peer::HttpPeer;

use super::race::Race;
use super::snapshot::UpstreamTarget;
use super::socket_check::SocketCheck;
use crate::upstream::config::{MAX_STREAMS, Protocol};
use crate::upstream::endpoint::Key;
use crate::upstream::{Address, Endpoint};

/// Unanswered TCP keep-alive probes in a row after which a connection is given up.
const PROBES: u32 = 3;

/// The peer, without limits on its waits. `check` is called before each connection is opened.
///
/// # Errors
/// The path of a Unix socket is too long, which the configuration does not allow.
pub fn of(
    endpoint: &Arc<Endpoint>,
    target: &UpstreamTarget,
    check: &SocketCheck,
) -> Result<Box<HttpPeer>> {
    let Key { address, tls, server_name, .. } = &endpoint.key;
    let mut peer = Box::new(match address {
        Address::Tcp(address) => HttpPeer::new(*address, *tls, server_name.clone()),
        Address::Pair(pair) => {
            let mut peer = HttpPeer::new(SocketAddr::from(pair.v6), *tls, server_name.clone());
            peer.options.custom_l4 = Some(Arc::new(Race::new(*pair, endpoint, check)));
            peer
        }
        // A path of the configuration is text.
        Address::Unix(path) => {
            HttpPeer::new_uds(&path.to_string_lossy(), *tls, server_name.clone())?
        }
    });
    let config = target.upstream.config();
    let trust = target.trust.load();
    peer.group_key = trust.pool_key;
    let options = &mut peer.options;
    options.alpn = match config.protocol {
        Protocol::Http1 => ALPN::H1,
        Protocol::H2c | Protocol::H2 => ALPN::H2,
        Protocol::Auto => ALPN::H2H1,
    };
    if config.protocol != Protocol::Http1 {
        options.max_h2_streams = MAX_STREAMS as usize;
        options.h2_ping_interval = limit(*config.h2_ping_interval);
    }
    options.tcp_keepalive = match address {
        Address::Tcp(_) | Address::Pair(_) => limit(*config.tcp_keepalive).map(keepalive),
        Address::Unix(_) => None,
    };
    options.idle_timeout = limit(*config.idle_timeout());
    options.upstream_tcp_sock_tweak_hook = Some(check.clone());
    options.verify_cert = config.tls.verify;
    options.verify_hostname = config.tls.verify;
    options.ca = trust.authorities.clone();
    Ok(peer)
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

/// A timeout; zero means none.
pub fn limit(timeout: Duration) -> Option<Duration> {
    (!timeout.is_zero()).then_some(timeout)
}
