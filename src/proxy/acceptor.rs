//! Accepts client connections, one task per listener.
//!
//! Pingora's own service accepts first and lets each connection's task find out later whether there
//! is room for it, so a burst can use up every descriptor. Here a connection takes its place before
//! any other work is done for it, or is closed at once.

mod place;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::l4::listener::Listener as Socket;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use place::Place;

use crate::condition::{Condition, Spell};
use crate::proxy::listener::{Full, Listener, Listeners};
use crate::runtime::memory;
use crate::runtime::memory::Load;
use crate::time::Clock;

/// Pause between two attempts to listen on an address.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// Pause after a failure to accept that will not pass at once, such as running out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The service that clients connect to.
pub struct Acceptors {
    listeners: Arc<Listeners>,
}

impl Acceptors {
    /// Nothing is accepted yet.
    pub fn new(listeners: Listeners) -> Self {
        let most = i64::try_from(listeners.max_connections).unwrap_or(i64::MAX);
        listeners.shared.metrics.connections_max.set(most);
        Acceptors { listeners: Arc::new(listeners) }
    }
}

#[async_trait]
impl Service for Acceptors {
    /// Runs until the drain begins: then the listening sockets close, and open connections go on.
    async fn start_service(&mut self, _: Option<ListenFds>, shutdown: ShutdownWatch, _: usize) {
        let listeners = self.listeners.clone();
        let load = move || {
            let in_flight = listeners.shared.lifecycle.in_flight();
            let open = listeners.open.load(Ordering::Relaxed);
            let most_open = listeners.most_open.swap(open, Ordering::Relaxed);
            Load { now: open + in_flight, highest: most_open.max(open) + in_flight }
        };
        if let Err(error) = memory::keep_giving_back(load) {
            log::warn!("memory that becomes free is not given back: {error}");
        }
        let acceptors: Vec<_> = self
            .listeners
            .all()
            .map(|listener| Acceptor {
                listeners: self.listeners.clone(),
                listener: listener.clone(),
                failed: Spell::default(),
            })
            .map(|acceptor| tokio::spawn(acceptor.run(shutdown.clone())))
            .collect();
        for acceptor in acceptors {
            if let Err(error) = acceptor.await {
                log::error!("a listener has ended: {error}");
            }
        }
        self.listeners.clean_up().await;
    }

    fn name(&self) -> &str {
        "proxy"
    }
}

struct Acceptor {
    listeners: Arc<Listeners>,
    listener: Arc<Listener>,
    failed: Spell,
}

impl Acceptor {
    async fn run(self, mut shutdown: ShutdownWatch) {
        let socket = Socket::from(self.listen().await);
        self.listeners.shared.lifecycle.listens();
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = until_stopped(&mut shutdown) => {
                    // Otherwise clients would go on to connect, and wait.
                    self.listeners.shared.sockets.close(self.listener.config.address);
                    return;
                }
            };
            match accepted {
                Ok(stream) => self.take(stream, &shutdown),
                Err(error) => self.recover(&error).await,
            }
        }
    }

    /// Retries for ever: the address was free when the process started, so another process has
    /// taken it since, and may end.
    async fn listen(&self) -> tokio::net::TcpListener {
        let Listener { name, config, .. } = &*self.listener;
        let (key, mut failing) = (format!("listeners.{name}.address"), Condition::default());
        let sockets = &self.listeners.shared.sockets;
        loop {
            match sockets.listen(config.address).and_then(tokio::net::TcpListener::from_std) {
                Ok(socket) => {
                    if let Some(over) = failing.over(Clock::now()) {
                        log::info!("{key}: listening on {} {over}", config.address);
                    }
                    return socket;
                }
                Err(error) if failing.met(Clock::now()) => {
                    log::error!("{key}: cannot listen on {}, trying on: {error}", config.address);
                }
                Err(_) => {}
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    fn take(&self, mut stream: Stream, shutdown: &ShutdownWatch) {
        let place = match Place::take(&self.listeners, &self.listener, &stream) {
            Ok(place) => place,
            Err(full) => return self.refuse(full),
        };
        let arrival = match self.listeners.arrival(&self.listener, &stream) {
            Ok(arrival) => arrival,
            Err(full) => return self.refuse(full),
        };
        // Fails if the client has already disconnected.
        if stream.set_nodelay().is_err() {
            return;
        }
        let (listeners, listener) = (self.listeners.clone(), self.listener.clone());
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let _place = place;
            listeners.serve(Box::new(stream), arrival, &listener, &shutdown).await;
        });
    }

    fn refuse(&self, full: Full) {
        self.listeners.refused(&self.listener, full);
    }

    async fn recover(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        // Concerns one connection only, whose client has left.
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        if let Some(begun) = self.failed.met() {
            let name = self.listener.name.clone();
            log::error!("listener {name}: cannot accept connections: {error}");
            begun
                .until(move |over| log::info!("listener {name}: accepts connections again {over}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Also returns when the server that would announce the shutdown is gone.
async fn until_stopped(shutdown: &mut ShutdownWatch) {
    let _stopped = shutdown.wait_for(|stops| *stops).await.is_ok();
}
