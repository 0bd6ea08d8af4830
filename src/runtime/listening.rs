//! Tells the acceptors that a reload has changed the listeners. They run in the proxy's own runtime, the
//! reload in that of the background work.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

/// The listeners of the configuration in force are to be those that accept connections.
pub struct Order {
    /// The sockets of new addresses, bound already.
    pub sockets: BTreeMap<SocketAddr, TcpListener>,
    /// Told once it has been done.
    pub done: oneshot::Sender<Vec<Draining>>,
}

/// Connections that end as soon as nothing is under way on them, because their listener is gone or
/// admits others.
#[derive(Debug)]
pub struct Draining {
    /// The name of their listener.
    pub listener: Arc<str>,
    /// How many there were.
    pub connections: usize,
}

/// The way from reloads to the acceptors.
#[derive(Debug)]
pub struct Listening {
    orders: mpsc::UnboundedSender<Order>,
    /// Taken by the acceptors as they start.
    pending: Mutex<Option<mpsc::UnboundedReceiver<Order>>>,
}

impl Default for Listening {
    fn default() -> Self {
        let (orders, pending) = mpsc::unbounded_channel();
        Listening { orders, pending: Mutex::new(Some(pending)) }
    }
}

impl Listening {
    /// Has the listeners of the configuration in force accept connections, with `sockets` for new
    /// addresses, and waits until they do. Returns which connections drain for that; `None` if the
    /// gateway accepts no more connections.
    pub(super) async fn change(
        &self,
        sockets: BTreeMap<SocketAddr, TcpListener>,
    ) -> Option<Vec<Draining>> {
        let (done, told) = oneshot::channel();
        self.orders.send(Order { sockets, done }).ok()?;
        told.await.ok()
    }

    /// What reloads order, from the first one on. `None` if it is followed already.
    pub fn follow(&self) -> Option<mpsc::UnboundedReceiver<Order>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
