//! Accepts client connections, one task per listening socket, and follows reloads.
//!
//! Pingora's own service accepts first and lets each connection's task find out later whether there
//! is room for it, so a burst can use up every descriptor. Here a connection takes its place before
//! any other work is done for it, or is closed at once.
//!
//! ```text
//! a reload has      its address        what becomes of the socket           and of open connections
//! a new listener    is new             opened; the reload has bound it
//! a changed one     stays              goes on, for the new settings        go on; drain if it admits others now
//! a moved one       is another         the new one opened, the old closed   drain
//! no such one       is gone            closed, with its queue served        drain
//! ```

mod place;
mod task;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;

use self::task::Accepting;
use crate::proxy::listener::{Listener, Listeners};
use crate::runtime::listening::{Draining, Order};
use crate::runtime::memory;
use crate::runtime::memory::Load;

/// The service that clients connect to.
pub struct Acceptors {
    listeners: Arc<Listeners>,
    /// What it begins with.
    first: Vec<Arc<Listener>>,
    /// The sockets, by the address as configured.
    open: BTreeMap<SocketAddr, Accepting>,
}

impl Acceptors {
    /// With the listeners of the configuration in force. Nothing is accepted yet.
    pub fn new(listeners: Listeners) -> Self {
        let first = Listeners::of(&listeners.shared.snapshot.load(), &[]);
        Acceptors { listeners: Arc::new(listeners), first, open: BTreeMap::new() }
    }

    /// Has the listeners of the configuration in force accept connections, and no others.
    async fn follow(&mut self, order: Order) {
        let Order { mut sockets, done } = order;
        let snapshot = self.listeners.shared.snapshot.load_full();
        self.listeners.limit(&snapshot);
        let before: Vec<_> = self.open.values().map(Accepting::listener).collect();
        let next = Listeners::of(&snapshot, &before);
        drop(snapshot);
        let mut gone = std::mem::take(&mut self.open);
        for listener in &next {
            let address = listener.config.address;
            let accepting = match gone.remove(&address) {
                Some(accepting) => accepting.for_listener(listener.clone()),
                None => {
                    let socket = sockets.remove(&address);
                    Accepting::start(&self.listeners, listener.clone(), socket)
                }
            };
            self.open.insert(address, accepting);
        }
        close(gone).await;
        let mut draining = Vec::new();
        for old in before {
            if next.iter().any(|listener| listener.keeps_those_of(&old)) {
                continue;
            }
            let connections = old.drain();
            if connections > 0 {
                draining.push(Draining { listener: old.name.clone(), connections });
            }
        }
        // A reload that no longer waits was cut off by the shutdown.
        let _ = done.send(draining);
    }
}

#[async_trait]
impl Service for Acceptors {
    /// Runs until the drain begins: then the listening sockets close, and open connections go on.
    async fn start_service(&mut self, _: Option<ListenFds>, mut shutdown: ShutdownWatch, _: usize) {
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
        for listener in std::mem::take(&mut self.first) {
            let address = listener.config.address;
            self.open.insert(address, Accepting::start(&self.listeners, listener, None));
        }
        let mut orders = self.listeners.shared.listening.follow();
        loop {
            let order = async {
                match &mut orders {
                    Some(orders) => orders.recv().await,
                    None => None,
                }
            };
            tokio::select! {
                biased;
                () = until_stopped(&mut shutdown) => break,
                Some(order) = order => self.follow(order).await,
            }
        }
        let last: Vec<_> = self.open.values().map(Accepting::listener).collect();
        close(std::mem::take(&mut self.open)).await;
        for listener in last {
            listener.drain();
        }
        self.listeners.clean_up().await;
    }

    fn name(&self) -> &str {
        "proxy"
    }
}

/// Closes all these sockets at once.
async fn close(sockets: BTreeMap<SocketAddr, Accepting>) {
    let closing: Vec<_> = sockets.into_values().map(Accepting::stop).collect();
    for closed in closing {
        if let Err(error) = closed.await {
            log::error!("a listener has ended: {error}");
        }
    }
}

/// Also returns when the server that would announce the shutdown is gone.
async fn until_stopped(shutdown: &mut ShutdownWatch) {
    let _stopped = shutdown.wait_for(|stops| *stops).await.is_ok();
}
