//! An endpoint as an attempt connects to it: the limits on its waits.

use std::sync::Arc;
use std::time::Duration;

use pingora_core::Result;
use pingora_core::protocols::ALPN;
use pingora_core::upstreams::peer::{H1UpgradePolicy, HttpPeer};

use crate::config::route::Timeouts;
use crate::runtime::peer;
use crate::runtime::peer::limit;
use crate::runtime::snapshot::UpstreamTarget;
use crate::runtime::socket_check::SocketCheck;
use crate::upstream::Endpoint;
use crate::upstream::config::Protocol;

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

/// The peer for one attempt. Every wait is at most `left`, the time until the deadline. `check` is called
/// before each connection is opened.
///
/// # Errors
/// The path of a Unix socket is too long, which the configuration does not allow.
pub fn of(
    endpoint: &Arc<Endpoint>,
    target: &UpstreamTarget,
    check: &SocketCheck,
    timeouts: &Timeouts,
    left: Option<Duration>,
    phase: Phase,
) -> Result<Box<HttpPeer>> {
    let mut peer = peer::of(endpoint, target, check)?;
    let options = &mut peer.options;
    let connect = capped(*timeouts.connect, left);
    options.connection_timeout = connect;
    options.total_connection_timeout = connect;
    // The guard on the client's connection enforces the deadline. These timeouts bound silence
    // where that is shorter (a timer per read is not free), and cover the time when the gateway
    // does not read the client.
    options.read_timeout = match (phase, target.upstream.config().protocol) {
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
    options.write_timeout = capped(*timeouts.idle, left);
    options.http_upstream_request_policy.h1_upgrade = match phase {
        Phase::Upgrading => H1UpgradePolicy::WebSocketOnly,
        Phase::Waiting | Phase::Uploading => H1UpgradePolicy::Deny,
    };
    if phase == Phase::Upgrading {
        // The upgrade to a WebSocket exists only in HTTP/1.1 here.
        options.alpn = ALPN::H1;
    }
    Ok(peer)
}

/// At least a millisecond: Pingora's timers count in these, and in a build with checks the first
/// timer of a process panics if it is shorter. The guard enforces what is left more exactly.
fn capped(timeout: Duration, left: Option<Duration>) -> Option<Duration> {
    let left = left.map(|left| left.max(Duration::from_millis(1)));
    match (limit(timeout), left) {
        (Some(timeout), Some(left)) => Some(timeout.min(left)),
        (one, other) => one.or(other),
    }
}
