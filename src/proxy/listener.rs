//! Client connections, before Pingora reads from them and between its requests.
//!
//! Bounds what one connection may hold up: how many there are, how long they idle, how
//! long a head may take. What a request may do is decided in [`super::gateway`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use super::alarm::{Overdue, unless_overdue};
use super::client_address::Peer;
use super::gateway::Gateway;
use super::guard::{Guard, GuardedIo};
use crate::config::server::Listener as Config;
use crate::observe::metrics::Metrics;
use crate::time::Clock;

/// A deadline that has passed this long ago was not noticed where it should have been.
const GRACE: Duration = Duration::from_millis(80);

/// All listeners: they share one proxy, and with it one pool of upstream connections.
pub struct Listeners {
    proxy: Arc<HttpProxy<Gateway>>,
    listeners: Vec<Listener>,
    metrics: Arc<Metrics>,
}

struct Listener {
    config: Config,
    limits: Arc<Limits>,
    open: AtomicUsize,
}

/// What a request must know of the listener it came through.
#[derive(Debug)]
pub struct Limits {
    pub max_header_bytes: usize,
    pub max_path_bytes: usize,
}

/// Travels with a connection to each of its requests.
pub struct Connection {
    pub guard: Arc<Guard>,
    pub limits: Arc<Limits>,
    /// Absent where the socket does not say.
    pub peer: Option<Peer>,
}

impl Listeners {
    pub fn new(
        proxy: HttpProxy<Gateway>,
        configs: impl IntoIterator<Item = Config>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let listeners = configs
            .into_iter()
            .map(|config| Listener {
                limits: Arc::new(Limits {
                    max_header_bytes: config.max_header_bytes.as_usize(),
                    max_path_bytes: config.max_path_bytes.as_usize(),
                }),
                config,
                open: AtomicUsize::new(0),
            })
            .collect();
        Listeners { proxy: Arc::new(proxy), listeners, metrics }
    }

    /// The listener a connection came through. Ports tell them apart; one that is bound to
    /// a specific address wins over one bound to all.
    fn listener_of(&self, stream: &Stream) -> Option<&Listener> {
        if let [only] = &self.listeners[..] {
            return Some(only);
        }
        let local = stream.get_socket_digest()?.local_addr()?.as_inet().copied()?;
        let same_port = |l: &&Listener| l.config.address.port() == local.port();
        self.listeners
            .iter()
            .find(|l| l.config.address == local)
            .or_else(|| self.listeners.iter().find(same_port))
    }

    async fn serve(&self, stream: Stream, listener: &Listener, shutdown: &ShutdownWatch) {
        let Config { idle_timeout, header_timeout, .. } = &listener.config;
        // A new connection has no idle time to spend: it has come to send a head.
        let limits = [**idle_timeout, **header_timeout];
        let first = limits.into_iter().filter(|l| !l.is_zero()).min().unwrap_or_default();
        let guard = Arc::new(Guard::new(**idle_timeout, **header_timeout, Clock::now()));
        guard.set_deadline((!first.is_zero()).then(|| Clock::now() + first));
        let connection = Arc::new(Connection {
            guard: guard.clone(),
            limits: listener.limits.clone(),
            peer: peer_of(&stream),
        });

        let mut overdue = Overdue::default();
        let mut stream: Stream = Box::new(GuardedIo::new(stream, guard.clone()));
        let mut settings: Option<HttpPersistentSettings> = None;
        loop {
            let mut session = ServerSession::new_http1(stream);
            // No keep-alive timeout of Pingora's: the guard bounds idle time.
            session.set_keepalive((!*shutdown.borrow()).then_some(0));
            session.set_read_timeout(None);
            if let Some(settings) = settings.take() {
                settings.apply_to_session(&mut session);
            }
            session.set_connection_user_context(Some(Box::new(connection.clone())));
            let request = self.proxy.process_new_http(session, shutdown);
            let reused = match unless_overdue(&guard, &mut overdue, GRACE, request).await {
                Some(Some(reused)) => reused,
                Some(None) => return,
                None => {
                    self.metrics.requests_cut.inc();
                    return;
                }
            };
            guard.rest(Clock::now());
            (stream, settings) = reused.consume();
        }
    }
}

fn peer_of(stream: &Stream) -> Option<Peer> {
    let digest = stream.get_socket_digest()?;
    Some(Peer::new(digest.peer_addr()?.as_inet()?.ip()))
}

#[async_trait]
impl ServerApp for Listeners {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let listener = self.listener_of(&stream)?;
        let Some(_open) = Open::take(listener, &self.metrics) else {
            self.metrics.connections_refused.inc();
            return None;
        };
        self.serve(stream, listener, shutdown).await;
        None
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

/// A place among a listener's `max_connections`, given back on drop.
struct Open<'a> {
    listener: &'a Listener,
    metrics: &'a Metrics,
}

impl<'a> Open<'a> {
    fn take(listener: &'a Listener, metrics: &'a Metrics) -> Option<Self> {
        // Relaxed: a count, nothing is published with it.
        let before = listener.open.fetch_add(1, Ordering::Relaxed);
        metrics.connections.inc();
        let open = Open { listener, metrics };
        let max = listener.config.max_connections;
        (max == 0 || before < max).then_some(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.listener.open.fetch_sub(1, Ordering::Relaxed);
        self.metrics.connections.dec();
    }
}

/// An address nobody else listens on, or why not: Pingora itself would retry for half a
/// minute and then panic.
pub fn check_free(address: SocketAddr) -> std::io::Result<()> {
    let listener = std::net::TcpListener::bind(address)?;
    drop(listener);
    Ok(())
}

/// Kept small: an idle connection holds one of these besides its buffers.
const _: () = assert!(std::mem::size_of::<Guard>() <= 72);
