//! A client's connection, as its requests know it.

use std::sync::Arc;

use crate::proxy::downstream::address::Peer;
use crate::proxy::downstream::guard::Guard;
use crate::proxy::downstream::limits::Limits;
use crate::proxy::downstream::orders::Orders;
use crate::time::{Clock, Moment};

tokio::task_local! {
    /// The connection whose request a task is about.
    pub static OF_TASK: Arc<Connection>;
}

/// Travels with a connection to each of its requests.
pub struct Connection {
    pub guard: Arc<Guard>,
    pub limits: Arc<Limits>,
    /// Absent where the socket does not say.
    pub peer: Option<Peer>,
    /// Over TLS.
    pub secure: bool,
    /// When the certificate expires that the client has shown: no request is served after that.
    pub until: Option<Moment>,
    /// Of a stream of HTTP/2.
    pub orders: Option<Orders>,
}

impl Connection {
    /// The connection that the request in hand came through. Pingora's sessions of HTTP/1 and
    /// HTTP/2 have no common place for it, and each of their own costs an allocation.
    pub fn of_task() -> Option<Arc<Connection>> {
        OF_TASK.try_with(Arc::clone).ok()
    }

    pub fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Clock::now() >= until)
    }
}
