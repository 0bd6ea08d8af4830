//! The TLS handshake, and what follows from it or from its failure.
//!
//! ```text
//! first bytes ──> the client's hello, whole ──> its turn (`max_handshakes`) ──> the rest ──> agreed
//!      │                   │                         │                             │
//! plain HTTP:         unknown name:             late: closed                  it fails: an alert
//! answered            an alert
//! ```
//!
//! A client waits for its turn once its hello is there: before that, it costs next to nothing, and one that
//! says nothing must not keep others waiting. Nothing has been computed for it yet.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pingora_core::protocols::Stream;
use prometheus::IntGauge;
use rustls::ProtocolVersion;
use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::Listener;
use super::plain;
use super::unagreed::{Reason, Unagreed};
use crate::config::server::Listener as Config;
use crate::proxy::downstream::connection::Certified;
use crate::proxy::downstream::guard::Guard;
use crate::proxy::downstream::http1::GuardedIo;
use crate::proxy::downstream::secure::Secure;
use crate::proxy::downstream::sniff::Protocol;
use crate::runtime::shared::Shared;
use crate::runtime::tls::{Handshakes, clients, handshake};
use crate::summary::attempt::{Bound, Limit};
use crate::time::{Clock, Moment};

/// A fatal alert, `unrecognized_name` (RFC 6066, section 3; RFC 8446, section 6): rustls has no way to
/// send this one.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// The TLS handshake, as `tls` of `listener` has it, over a stream of which `ahead` has been read.
///
/// # Errors
/// Why the handshake failed, also if it takes longer than `limit`.
pub(super) async fn agree(
    shared: &Shared,
    (stream, ahead): (Stream, Vec<u8>),
    listener: &Listener,
    tls: &Handshakes,
    limit: Duration,
) -> Result<Agreed, Unagreed> {
    let guard = Arc::new(Guard::of_stream());
    let until = (!limit.is_zero()).then(|| Clock::now() + limit);
    guard.set_deadline(until);
    let local = tls.asks_for_address().then(|| local_address(&stream)).flatten();
    let mut io = GuardedIo::new(stream, guard.clone());
    if !ahead.is_empty() {
        guard.on_head();
        io.unread(ahead);
    }
    let handshake = handshake(shared, io, listener, tls, until);
    let agreed = handshake::noted(local, handshake).await;
    let (stream, agreed) =
        agreed.map_err(|failed| Unagreed { silent: guard.is_silent(), ..failed })?;
    guard.set_deadline(None);
    let (_, session) = stream.get_ref();
    let labels = [session.protocol_version().map_or("", version_label), agreed.kind()];
    shared.metrics.tls_handshakes.with_label_values(&labels).inc();
    let protocol = match session.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    // It can be read: it was read before, in the handshake that began this session.
    let client = leaf.and_then(|leaf| Certified::new(clients::peer(leaf).ok()?)).map(Arc::new);
    let until = agreed.terms.client_until.map(end_of);
    Ok(Agreed { stream: Box::new(Secure(stream)), protocol, until, client })
}

/// A connection over TLS.
pub(super) struct Agreed {
    pub(super) stream: Stream,
    pub(super) protocol: Protocol,
    /// When the client's certificate expires, if it presented one.
    pub(super) until: Option<Moment>,
    /// Whom that certificate names.
    pub(super) client: Option<Arc<Certified>>,
}

async fn handshake(
    shared: &Shared,
    mut io: GuardedIo,
    listener: &Listener,
    tls: &Handshakes,
    until: Option<Moment>,
) -> Result<TlsStream<GuardedIo>, Unagreed> {
    if plain::answered(&mut io).await? {
        return Err(Unagreed::new(Reason::NotTls, "plain HTTP on a port that takes HTTPS"));
    }
    let mut hello = LazyConfigAcceptor::new(Acceptor::default(), io);
    let mut begun = match (&mut hello).await {
        Ok(begun) => begun,
        Err(error) => return Err(after_alert(error, hello.take_io()).await),
    };
    let name = begun.client_hello().server_name().map(str::to_owned);
    if let Some(name) = name.filter(|name| !tls.admits(Some(name))) {
        // The client may have left meanwhile, which changes nothing.
        let _ = begun.io.write_all(&UNRECOGNIZED_NAME).await;
        let _ = begun.io.flush().await;
        let said = format!("no certificate is for the name {name}");
        return Err(Unagreed::new(Reason::UnknownName, said));
    }
    let _turn = match &listener.turns {
        Some(turns) => Some(turn(shared, turns, until).await?),
        None => None,
    };
    match begun.into_stream(tls.config.clone()).into_fallible().await {
        Ok(stream) => Ok(stream),
        Err((error, io)) => Err(after_alert(error, Some(io)).await),
    }
}

/// Sends the alert that rustls has written, which says to the client what `error` says.
async fn after_alert(error: io::Error, io: Option<GuardedIo>) -> Unagreed {
    if let Some(mut io) = io {
        // The client may have left meanwhile, which changes nothing.
        let _ = io.flush().await;
    }
    error.into()
}

/// Waits until another handshake may be under way.
async fn turn(
    shared: &Shared,
    turns: &Arc<Semaphore>,
    until: Option<Moment>,
) -> Result<OwnedSemaphorePermit, Unagreed> {
    if let Ok(turn) = turns.clone().try_acquire_owned() {
        return Ok(turn);
    }
    let _counted = Waiting::begin(&shared.metrics.tls_waiting);
    let turn = turns.clone().acquire_owned();
    let turn = match until {
        None => turn.await.ok(),
        Some(until) => {
            let until = tokio::time::Instant::from_std(Clock::instant(until));
            tokio::time::timeout_at(until, turn).await.ok().and_then(Result::ok)
        }
    };
    let late = "max_handshakes are under way, and its turn did not come in time";
    turn.ok_or_else(|| Unagreed::new(Reason::QueueTimeout, late))
}

/// Counts a client that waits for its turn, until it is dropped.
struct Waiting<'a>(&'a IntGauge);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a IntGauge) -> Self {
        waiting.inc();
        Waiting(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The address that the client has connected to.
fn local_address(stream: &Stream) -> Option<IpAddr> {
    let digest = stream.get_socket_digest()?;
    let address = digest.local_addr()?.as_inet()?;
    Some(address.ip())
}

/// How long a handshake, or the header before it, may take: `time`, by the listener's shorter limit; `None` if that is zero.
pub(super) fn limit_of_handshake(config: &Config, time: Duration) -> Option<Limit> {
    let key = if time == *config.header_timeout { "header_timeout" } else { "idle_timeout" };
    (!time.is_zero()).then_some(Limit { key, bound: Bound::Time(time) })
}

/// The value of the metric's label.
fn version_label(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "1.2",
        ProtocolVersion::TLSv1_3 => "1.3",
        _ => "",
    }
}

/// The moment at which the given second of Unix time ends; now, if it has passed.
fn end_of(second: u64) -> Moment {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Clock::now() + Duration::from_secs(second.saturating_add(1)).saturating_sub(since_1970)
}
