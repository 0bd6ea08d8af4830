//! Client connections, before Pingora reads from them and between its requests.
//!
//! Bounds what one connection may use: how many connections there are, how long they stay idle, how
//! long a head may take. [`super::gateway`] decides what a request may do.

mod addresses;
mod agreed;
mod announced;
mod arrival;
mod entry;
mod lost;
mod plain;
mod refused;
mod unagreed;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pingora_core::apps::{HttpPersistentSettings, HttpServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use self::agreed::{agree, limit_of_handshake};
pub use self::arrival::Arrival;
pub use self::entry::Listener;
pub use self::refused::Full;
use self::unagreed::Reason;
use crate::config::server::Listener as Config;
use crate::policy::auth::Recent;
use crate::proxy::downstream;
use crate::proxy::downstream::alarm::{Alarms, Overdue, unless_overdue};
use crate::proxy::downstream::connection::{Connection, Inbound, OF_TASK};
use crate::proxy::downstream::guard::Guard;
use crate::proxy::downstream::head::Scanner;
use crate::proxy::downstream::http1::GuardedIo;
use crate::proxy::downstream::http2_session::GuardedStream;
use crate::proxy::downstream::orders::Orders;
use crate::proxy::downstream::sniff::{Protocol, sniff};
use crate::proxy::downstream::turnover::Turnover;
use crate::proxy::gateway::Gateway;
use crate::runtime::shared::Shared;
use crate::runtime::snapshot::Snapshot;
use crate::time::{Clock, Moment};

/// A request that is this far past its deadline is cut off: the phase that was to notice has not.
const GRACE: Duration = Duration::from_millis(80);

/// What all listeners share: one proxy, and with it one pool of upstream connections.
pub struct Listeners {
    proxy: Arc<HttpProxy<Gateway>>,
    /// That of the process.
    pub shared: Arc<Shared>,
    /// Limit on the client connections of all listeners together.
    pub max_connections: AtomicUsize,
    /// Client connections open now, of all listeners.
    pub open: AtomicUsize,
    /// The highest number open at once since this was last read.
    pub most_open: AtomicUsize,
}

impl Listeners {
    /// Without a listener yet.
    pub fn new(proxy: HttpProxy<Gateway>, shared: Arc<Shared>) -> Self {
        let listeners = Listeners {
            proxy: Arc::new(proxy),
            shared,
            max_connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
        };
        listeners.limit(&listeners.shared.snapshot.load());
        listeners
    }

    /// Limits the connections of all listeners as `snapshot` says. Those that are open stay. Begins the
    /// series of its listeners.
    pub fn limit(&self, snapshot: &Snapshot) {
        for listener in snapshot.tls.load().keys() {
            self.shared.metrics.begin_tls(listener, Reason::ALL.map(Reason::as_str));
        }
        let most = self.shared.descriptors.connections(&snapshot.config.server);
        self.max_connections.store(most, Ordering::Relaxed);
        self.shared.metrics.connections_max.set(i64::try_from(most).unwrap_or(i64::MAX));
    }

    /// The listeners of `snapshot`, of which those go on that are among `before`: first of the same
    /// name, else at the same address.
    pub fn of(snapshot: &Snapshot, before: &[Arc<Listener>]) -> Vec<Arc<Listener>> {
        let (wanted, tls) = (&snapshot.config.listeners, snapshot.tls.load());
        let listeners = wanted.iter().map(|(name, config)| {
            let new = Listener::new(name, config, tls.get(name));
            let same_name = before.iter().find(|old| *old.name == **name);
            let same_address = || {
                let mut others = before.iter().filter(|old| !wanted.contains_key(&*old.name));
                others.find(|old| old.config.address == config.address)
            };
            Arc::new(match same_name.or_else(same_address) {
                Some(old) => new.continuing(old, snapshot.router.names_listeners()),
                None => new,
            })
        });
        listeners.collect()
    }

    /// Ends background work that belongs to no client connection.
    pub async fn clean_up(&self) {
        self.proxy.http_cleanup().await;
    }

    /// Serves `stream` to its end: whose it is, TLS, then the protocol that the client speaks.
    pub async fn serve(
        self: &Arc<Self>,
        mut stream: Stream,
        arrival: Arrival,
        listener: &Arc<Listener>,
    ) {
        let drains = listener.drains();
        let Config { idle_timeout, header_timeout, .. } = &listener.config;
        // A new connection has no idle time: the client connected to send a request.
        let limits = [**idle_timeout, **header_timeout];
        let first = limits.into_iter().filter(|l| !l.is_zero()).min().unwrap_or_default();
        let guard = Arc::new(Guard::new(**idle_timeout, **header_timeout, Clock::now()));
        guard.set_deadline((!first.is_zero()).then(|| Clock::now() + first));
        let accepted = Clock::now();
        let name = &listener.name;
        let client =
            |peer| lost::Client { shared: &self.shared, listener: name, peer, since: accepted };
        let limit_before = || limit_of_handshake(&listener.config, first);
        let (place, ahead) = match arrival {
            Arrival::Known(place) => (place, Vec::new()),
            Arrival::Announced { by } => {
                let (shared, peer) = (&*self.shared, Some(&by));
                let client = lost::Client { shared, listener: name, peer, since: accepted };
                let limit = (first, limit_before());
                let arrived = self.announced(&mut stream, listener, client, limit);
                // Boxed, as for TLS and HTTP/2 below, so that a plain HTTP/1 connection does not
                // carry this state.
                let Some(arrived) = Box::pin(arrived).await else { return };
                arrived
            }
        };
        let secure = place.secure;
        let (peer, _counted) = place.into_parts();
        let (mut until, mut certified) = (None, None);
        let (stream, ahead, protocol) = match &listener.tls {
            None => (stream, ahead, None),
            Some(tls) => {
                let agreed = agree(&self.shared, (stream, ahead), listener, tls, first);
                match Box::pin(agreed).await {
                    Ok(agreed) => {
                        (until, certified) = (agreed.until, agreed.client);
                        (agreed.stream, Vec::new(), Some(agreed.protocol))
                    }
                    Err(failed) => {
                        return client(peer.as_ref()).handshake(&failed, limit_before());
                    }
                }
            }
        };
        // A client that is behind a balancer may have its TLS with either.
        let secure = secure || protocol.is_some();
        let mut io = GuardedIo::new(stream, guard.clone());
        if !ahead.is_empty() {
            io.unread(ahead);
        }
        let protocol = match protocol {
            Some(agreed) => agreed,
            None => match sniff(&mut io).await {
                Ok(seen) => seen,
                Err(error) => return client(peer.as_ref()).head(&io, &error, **header_timeout),
            },
        };
        let (of_listener, limits) = (name.clone(), listener.limits.clone());
        let inbound = Inbound {
            listener: of_listener,
            limits,
            peer,
            secure,
            until,
            certified,
            recent: Recent::default(),
        };
        let connection = Connection {
            guard,
            inbound: Arc::new(inbound),
            turnover: (protocol == Protocol::Http1)
                .then(|| Turnover::of(&listener.config, drains.clone())),
            orders: None,
        };
        match protocol {
            Protocol::Http1 => {
                let connection = Arc::new(connection);
                let requests = self.serve_h1(io, &connection, listener, accepted, &drains);
                OF_TASK.scope(connection.clone(), requests).await
            }
            Protocol::Http2 => Box::pin(self.serve_h2(io, connection, listener, &drains)).await,
        }
    }

    /// Serves one request after the other. The gateway reads each head before Pingora does.
    async fn serve_h1(
        &self,
        io: GuardedIo,
        connection: &Connection,
        listener: &Listener,
        mut since: Moment,
        shutdown: &ShutdownWatch,
    ) {
        let Connection { guard, inbound, .. } = connection;
        let Inbound { limits, peer, .. } = &**inbound;
        let mut shutdown_seen = shutdown.clone();
        let lifecycle = &self.shared.lifecycle;
        let mut stop = std::pin::pin!(async {
            let _ = shutdown_seen.wait_for(|stops| *stops).await;
            // Boxed: it is needed once, at the end.
            Box::pin(lifecycle.until_idle_are_closed()).await;
        });
        let mut cut = std::pin::pin!(lifecycle.until_cut());
        let mut overdue = Overdue::default();
        let mut io = Box::new(io);
        let mut settings: Option<HttpPersistentSettings> = None;
        loop {
            let mut scanner = Scanner::default();
            // A client that has just connected has come to send a request, which the guard waits for.
            let was_used = settings.is_some();
            let head = std::future::poll_fn(|cx| {
                // This also registers the task, so that it is woken for a request that is cut.
                if cut.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                let head = io.poll_head(&mut scanner, limits, cx);
                let rests = was_used && head.is_pending() && !io.has_begun_head();
                if rests && stop.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                head
            });
            // A connection usually ends here: closed between two requests, or at its time limit.
            if let Err(error) = head.await {
                let (shared, peer) = (&self.shared, peer.as_ref());
                let client = lost::Client { shared, listener: &listener.name, peer, since };
                return client.head(&io, &error, *listener.config.header_timeout);
            }
            if connection.is_over() {
                return;
            }
            let (stream, kept) = loop {
                let mut session = ServerSession::new_http1(io);
                // No keep-alive timeout in Pingora: the guard bounds idle time.
                session.set_keepalive((!*shutdown.borrow()).then_some(0));
                session.set_read_timeout(None);
                if let Some(settings) = settings.take() {
                    settings.apply_to_session(&mut session);
                }
                let request = self.proxy.process_new_http(session, shutdown);
                match unless_overdue(guard, &mut overdue, GRACE, |_| lifecycle.is_cut(), request)
                    .await
                {
                    Some(Some(reused)) => break reused.consume(),
                    Some(None) => match guard.take_refused() {
                        Some(refused) if guard.fault().is_none() => {
                            io = Box::new(GuardedIo::refusing(refused, guard.clone()));
                        }
                        Some(_) | None => return,
                    },
                    None => return,
                }
            };
            since = Clock::now();
            guard.rest(since);
            let Ok(stream) = stream.into_any().downcast::<GuardedIo>() else { return };
            (io, settings) = (stream, kept);
        }
    }

    /// Each stream has its own task, which ends with the request.
    async fn serve_h2(
        self: &Arc<Self>,
        io: GuardedIo,
        connection: Connection,
        listener: &Listener,
        shutdown: &ShutdownWatch,
    ) {
        let Connection { guard, inbound, .. } = connection;
        let since = Clock::now();
        let alarms = Arc::new(Alarms::default());
        downstream::http2::serve(
            io,
            &guard,
            &listener.config,
            shutdown.clone(),
            inbound.until,
            |stream, mark| {
                let connection = Arc::new(Connection {
                    guard: Arc::new(Guard::of_stream()),
                    inbound: inbound.clone(),
                    turnover: None,
                    orders: Some(Orders::default()),
                });
                // The stream was opened before the client learned that the connection is closing.
                if connection.is_over() {
                    return;
                }
                // Boxed before it becomes part of a task: the future is moved several times before
                // it runs.
                let stream = Box::new(GuardedStream::new(stream, connection.clone()));
                let (listeners, shutdown) = (self.clone(), shutdown.clone());
                let alarms = alarms.clone();
                tokio::spawn(OF_TASK.scope(connection.clone(), async move {
                    let _mark = mark;
                    let mut alarm = alarms.lend();
                    listeners.serve_stream(stream, &connection.guard, &mut alarm, &shutdown).await;
                    alarms.give_back(alarm);
                }));
            },
            |said| {
                let (shared, peer) = (&self.shared, inbound.peer.as_ref());
                lost::Client { shared, listener: &inbound.listener, peer, since }.http2(said)
            },
        )
        .await;
    }

    async fn serve_stream(
        &self,
        stream: Box<GuardedStream>,
        guard: &Guard,
        alarm: &mut Overdue,
        shutdown: &ShutdownWatch,
    ) {
        let session = ServerSession::new_custom(stream);
        let request = self.proxy.process_new_http(session, shutdown);
        // Not the connection's, which may be gone before a request that goes on without its client.
        let mut cut = std::pin::pin!(self.shared.lifecycle.until_cut());
        let is_cut = |cx: &mut Context<'_>| cut.as_mut().poll(cx).is_ready();
        // A request that is given up reports itself.
        let _ = unless_overdue(guard, alarm, GRACE, is_cut, request).await;
    }
}
