//! A client's connection, as its requests see it.

use std::sync::Arc;

use http::HeaderValue;

use crate::identity;
use crate::policy::auth::Recent;
use crate::proxy::downstream::address::Peer;
use crate::proxy::downstream::guard::Guard;
use crate::proxy::downstream::limits::Limits;
use crate::proxy::downstream::orders::Orders;
use crate::proxy::downstream::turnover::Turnover;
use crate::time::{Clock, Moment};

tokio::task_local! {
    /// The connection of the request that the current task serves.
    pub static OF_TASK: Arc<Connection>;
}

/// A client that has proved who it is by a certificate.
pub struct Certified {
    /// Whom the certificate names.
    pub peer: identity::Peer,
    /// The same for upstreams, made once and not for every request.
    pub field: HeaderValue,
}

impl Certified {
    /// `None` if the names fit no header, which those that are read here always do.
    pub fn new(peer: identity::Peer) -> Option<Self> {
        let field = HeaderValue::try_from(peer.to_field()).ok()?;
        Some(Certified { peer, field })
    }
}

/// What each request knows of its connection.
pub struct Connection {
    /// Its deadline, and what was found about the request under way; of a stream, its own.
    pub guard: Arc<Guard>,
    /// What all its streams have in common.
    pub inbound: Arc<Inbound>,
    /// When it gives way to another one; `None` for an HTTP/2 stream, whose connection knows.
    pub turnover: Option<Turnover>,
    /// Only for an HTTP/2 stream.
    pub orders: Option<Orders>,
}

/// How a client's connection came in. Shared by its streams, so that each costs one count.
pub struct Inbound {
    /// The name of its listener.
    pub listener: Arc<str>,
    /// Those of its listener.
    pub limits: Arc<Limits>,
    /// `None` if the socket has no peer address.
    pub peer: Option<Peer>,
    /// Whether the client's side is over TLS: to the gateway, or, as the load balancer announces, to
    /// the balancer.
    pub secure: bool,
    /// When the client's certificate expires: no request is served after that.
    pub until: Option<Moment>,
    /// Whom the client's certificate names, which was verified.
    pub certified: Option<Arc<Certified>>,
    /// The token that came last.
    pub recent: Recent,
}

impl Connection {
    /// The connection of the current request. Pingora's HTTP/1 and HTTP/2 sessions have no common
    /// place to store it, and a separate one in each would cost an allocation.
    pub fn of_task() -> Option<Arc<Connection>> {
        OF_TASK.try_with(Arc::clone).ok()
    }

    /// Whether the request that begins at `now` is its last.
    pub fn is_last(&self, now: Moment) -> bool {
        self.turnover.as_ref().is_some_and(|turnover| turnover.is_last(now))
    }

    /// Whether it ends with the request under way, because its listener is gone or admits others, or
    /// the process ends.
    pub fn is_ordered_to_end(&self) -> bool {
        self.turnover.as_ref().is_some_and(Turnover::is_ordered)
    }

    /// What logs call the client's certificate by.
    pub fn shown(&self) -> Option<&str> {
        self.inbound.certified.as_ref().map(|certified| certified.peer.label())
    }

    /// Whom the client's certificate names, unless it has expired.
    pub fn certificate(&self) -> Option<&identity::Peer> {
        let certified = self.inbound.certified.as_ref().filter(|_| !self.is_over());
        certified.map(|certified| &certified.peer)
    }

    /// Whether the client's certificate has expired.
    pub fn is_over(&self) -> bool {
        self.inbound.until.is_some_and(|until| Clock::now() >= until)
    }
}
