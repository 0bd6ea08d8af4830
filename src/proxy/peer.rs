//! An endpoint as Pingora connects to it: address, TLS, timeouts.

use std::time::Duration;

use pingora_core::protocols::ALPN;
use pingora_core::upstreams::peer::{H1UpgradePolicy, HttpPeer};

use crate::config::route::Timeouts;
use crate::runtime::snapshot::UpstreamTarget;
use crate::upstream::Endpoint;
use crate::upstream::config::Protocol;

/// Requests that share one connection of HTTP/2 to an upstream, if that allows as many.
const MAX_STREAMS: usize = 100;
/// How often a connection of HTTP/2 is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// The peer for one attempt. Every wait is capped to the time `left` for it. While the client
/// is still `uploading`, nobody may be reading it: the upstream's silence is bounded then, too.
pub fn of(
    endpoint: &Endpoint,
    target: &UpstreamTarget,
    timeouts: &Timeouts,
    left: Option<Duration>,
    uploading: bool,
) -> Box<HttpPeer> {
    let mut peer = HttpPeer::new(endpoint.address, endpoint.tls, endpoint.server_name.clone());
    peer.group_key = target.upstream.group_key;
    let options = &mut peer.options;
    let connect = capped(*timeouts.connect, left);
    options.connection_timeout = connect;
    options.total_connection_timeout = connect;
    // The guard on the client's connection keeps the deadline. These bound silence, where that
    // ends sooner (a timer for every read is not free), and what happens while nobody reads the
    // client.
    let protocol = target.upstream.config().protocol;
    options.alpn = match protocol {
        Protocol::Http1 => ALPN::H1,
        Protocol::H2c | Protocol::H2 => ALPN::H2,
        Protocol::Auto => ALPN::H2H1,
    };
    options.read_timeout = match (uploading, protocol) {
        (false, _) => limit(*timeouts.idle).filter(|idle| left.is_none_or(|left| *idle < left)),
        (true, Protocol::Http1) => capped(*timeouts.idle, left),
        // Over HTTP/2 it would run on while the client sends, and a stream may send for ever.
        (true, Protocol::H2c | Protocol::H2 | Protocol::Auto) => None,
    };
    if protocol != Protocol::Http1 {
        options.max_h2_streams = MAX_STREAMS;
        options.h2_ping_interval = Some(PING_INTERVAL);
    }
    options.write_timeout = capped(*timeouts.idle, left);
    options.idle_timeout = limit(*target.upstream.config().idle_timeout);
    // Upgrades are for routes that allow them; none can yet.
    options.http_upstream_request_policy.h1_upgrade = H1UpgradePolicy::Deny;
    let tls = &target.upstream.config().tls;
    options.verify_cert = tls.verify;
    options.verify_hostname = tls.verify;
    options.ca = target.authorities.clone();
    Box::new(peer)
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
