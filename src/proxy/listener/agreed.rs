//! The TLS handshake, and what follows from it or from its failure.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pingora_core::Error;
use pingora_core::listeners::tls::Acceptor;
use pingora_core::protocols::{ALPN, Ssl, Stream};
use rustls::ServerConfig;

use crate::config::server::Listener as Config;
use crate::proxy::downstream::guard::Guard;
use crate::proxy::downstream::http1::GuardedIo;
use crate::proxy::downstream::sniff::Protocol;
use crate::runtime::shared::Shared;
use crate::runtime::tls::handshake;
use crate::summary::attempt::{Bound, Limit};
use crate::time::{Clock, Moment};

/// The TLS handshake, by `config`, over a stream of which `ahead` has been read.
/// Also returns when the client's certificate expires, if it presented one.
///
/// # Errors
/// Why the handshake failed, also if it takes longer than `limit`; and whether the client has said
/// nothing.
pub(super) async fn agree(
    shared: &Shared,
    (stream, ahead): (Stream, Vec<u8>),
    config: &Arc<ServerConfig>,
    limit: Duration,
) -> Result<(Stream, Protocol, Option<Moment>), (Box<Error>, bool)> {
    let guard = Arc::new(Guard::of_stream());
    guard.set_deadline((!limit.is_zero()).then(|| Clock::now() + limit));
    let mut io = GuardedIo::new(stream, guard.clone());
    if !ahead.is_empty() {
        guard.on_head();
        io.unread(ahead);
    }
    let acceptor = Acceptor::from_server_config(config.clone());
    let agreed = handshake::noted(acceptor.tls_handshake(io)).await;
    let (stream, agreed) = agreed.map_err(|error| (error, guard.is_silent()))?;
    guard.set_deadline(None);
    let version = stream.get_ssl().and_then(|tls| tls.version());
    let labels = [version.map_or("", version_label), agreed.kind()];
    shared.metrics.tls_handshakes.with_label_values(&labels).inc();
    let protocol = match stream.selected_alpn_proto() {
        Some(ALPN::H2) => Protocol::Http2,
        _ => Protocol::Http1,
    };
    Ok((Box::new(stream), protocol, agreed.terms.client_until.map(end_of)))
}

/// How long a handshake, or the header before it, may take: `time`, by the listener's shorter limit; `None` if that is zero.
pub(super) fn limit_of_handshake(config: &Config, time: Duration) -> Option<Limit> {
    let key = if time == *config.header_timeout { "header_timeout" } else { "idle_timeout" };
    (!time.is_zero()).then_some(Limit { key, bound: Bound::Time(time) })
}

/// The value of the metric's label.
fn version_label(version: &'static str) -> &'static str {
    match version {
        "TLSv1_2" => "1.2",
        "TLSv1_3" => "1.3",
        other => other,
    }
}

/// The moment at which the given second of Unix time ends; now, if it has passed.
fn end_of(second: u64) -> Moment {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Clock::now() + Duration::from_secs(second.saturating_add(1)).saturating_sub(since_1970)
}
