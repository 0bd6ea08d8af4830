//! An endpoint: where it is reached, and its state.
//!
//! The state belongs to the endpoint's key, which is everything that says where and as what it is
//! reached. It outlives changes of the set and reloads, for as long as the key is in the set.

use std::fmt;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use http::HeaderValue;

use super::balance::load::{Ended, Load};
use super::ejection::{Due, Ejection, Pass};
use super::health::Health;
use super::orders::Orders;
use super::standing::{Absence, Standing};
use crate::time::Moment;

/// Where an endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// One address of each family, of a server that may be reached at either.
    Pair(Pair),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// An address of each family, with their port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Tried first before anything is known.
    pub v6: SocketAddrV6,
    /// Tried soon after.
    pub v4: SocketAddrV4,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Pair(Pair { v6, v4 }) => write!(f, "{v6},{v4}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Tcp(address)
    }
}

/// What tells endpoints apart: two with the same key are one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Resolved, with its port.
    pub address: Address,
    /// Whether it is reached over TLS.
    pub tls: bool,
    /// The name that the certificate is verified against; empty without TLS.
    pub server_name: String,
    /// The `Host` header for this endpoint.
    pub authority: HeaderValue,
    /// Put before the path of every request.
    pub base_path: String,
}

/// One address that serves an upstream.
#[derive(Debug)]
pub struct Endpoint {
    /// What it is.
    pub key: Key,
    /// The address, as records show it.
    pub label: Arc<str>,
    /// How much it has to do, and how well it does it.
    pub load: Load,
    /// What its active checks have found.
    pub health: Health,
    /// Whether its attempts fail.
    pub ejection: Ejection,
    /// What an operator has ordered of it.
    pub orders: Orders,
    /// Why it is not available, if it is not.
    pub standing: Standing,
    /// When it may be given its full share, counted from when it came into the set, in nanoseconds;
    /// 0: at once.
    warming_since: AtomicU64,
    /// Attempts sent here since the endpoint was found.
    attempts: AtomicU64,
    in_flight: AtomicU32,
    /// Attempts that have ended without a result: their client left.
    without_result: AtomicU64,
    /// Of a pair, the IPv4 address has answered last.
    answers_v4: AtomicBool,
}

impl Endpoint {
    /// An endpoint that nothing is known of.
    pub fn new(key: Key) -> Self {
        Endpoint {
            label: key.address.to_string().into(),
            key,
            load: Load::default(),
            health: Health::default(),
            ejection: Ejection::default(),
            orders: Orders::default(),
            standing: Standing::default(),
            warming_since: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            without_result: AtomicU64::new(0),
            answers_v4: AtomicBool::new(false),
        }
    }

    /// Attempts sent here since the endpoint was found.
    pub fn attempts(&self) -> u64 {
        // Relaxed: a count for people to read.
        self.attempts.load(Ordering::Relaxed)
    }

    /// Attempts that have neither ended nor failed.
    pub fn in_flight(&self) -> u32 {
        // Relaxed, here and below: a choice by a count that is a moment old is as good.
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Attempts that have ended with a result. What has begun is counted in any case, so that a
    /// success need not be counted once more.
    pub(super) fn ended(&self) -> u64 {
        let others = u64::from(self.in_flight()) + self.without_result.load(Ordering::Relaxed);
        self.attempts().saturating_sub(others)
    }

    /// The addresses of a pair, the one that answered last first.
    pub fn in_order(&self, pair: &Pair) -> [SocketAddr; 2] {
        let (v6, v4) = (pair.v6.into(), pair.v4.into());
        if self.answers_v4.load(Ordering::Relaxed) { [v4, v6] } else { [v6, v4] }
    }

    /// A connection was made to this address of a pair.
    pub fn answered_at(&self, address: SocketAddr) {
        self.answers_v4.store(address.is_ipv4(), Ordering::Relaxed);
    }

    /// It takes the place of `before`, at an address of which it is: what is known of that one, and is
    /// ordered of it, holds for it. To be called before it gets any request.
    pub(super) fn succeed(&self, before: &Endpoint) {
        self.load.succeed(&before.load);
        self.health.succeed(&before.health);
        self.ejection.succeed(&before.ejection);
        before.orders.in_force().into_iter().for_each(|order| self.orders.put(order));
        for absence in [Absence::Ejected, Absence::EjectedByOrder, Absence::DrainedByOrder] {
            self.standing.set(absence, before.standing.has(absence));
        }
        let warming_since = before.warming_since.load(Ordering::Relaxed);
        self.warming_since.store(warming_since, Ordering::Relaxed);
    }

    /// Its share grows from now on, as `slow_start` says.
    pub(super) fn warm_up(&self, now: Moment) {
        self.warming_since.store(now.as_nanos().max(1), Ordering::Relaxed);
    }

    /// When its share began to grow; `None` if it has its full share from the start.
    pub(super) fn warming_since(&self) -> Option<Moment> {
        match self.warming_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(Moment::from_nanos(since)),
        }
    }
}

/// An attempt at an endpoint. It counts as in flight until it ends or is dropped.
#[must_use = "dropped, the attempt counts as over"]
#[derive(Debug)]
pub struct Ticket {
    endpoint: Arc<Endpoint>,
    /// What is in flight at all endpoints, where that is counted.
    in_flight: Option<Arc<AtomicU32>>,
    is_open: bool,
    pass: Pass,
    /// Of a probe: where it is noted that another one is due, if this one has no result.
    due: Option<Arc<Due>>,
}

impl Ticket {
    pub(super) fn take(endpoint: &Arc<Endpoint>, in_flight: Option<Arc<AtomicU32>>) -> Self {
        Ticket::begin(endpoint, in_flight, endpoint.ejection.pass())
    }

    /// An attempt that decides about an ejected endpoint.
    pub(super) fn probe(
        endpoint: &Arc<Endpoint>,
        in_flight: Option<Arc<AtomicU32>>,
        pass: Pass,
        due: Arc<Due>,
    ) -> Self {
        let mut ticket = Ticket::begin(endpoint, in_flight, pass);
        ticket.due = Some(due);
        ticket
    }

    fn begin(endpoint: &Arc<Endpoint>, in_flight: Option<Arc<AtomicU32>>, pass: Pass) -> Self {
        endpoint.attempts.fetch_add(1, Ordering::Relaxed);
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        if let Some(in_flight) = &in_flight {
            in_flight.fetch_add(1, Ordering::Relaxed);
        }
        Ticket { endpoint: endpoint.clone(), in_flight, is_open: true, pass, due: None }
    }

    /// Where the attempt goes.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The attempt is over, and says this about its endpoint. Returns what it counts for; `None` if
    /// it was over before.
    pub(super) fn ended(&mut self, ended: Ended, now: Moment) -> Option<Pass> {
        if !self.close() {
            return None;
        }
        self.endpoint.load.note(ended, now);
        Some(self.pass)
    }

    /// Whether it is the probe of an ejected endpoint.
    pub fn is_probe(&self) -> bool {
        matches!(self.pass, Pass::Probe(_))
    }

    /// The attempt is over. Whether it was not over before.
    fn close(&mut self) -> bool {
        let was_open = std::mem::replace(&mut self.is_open, false);
        if was_open {
            self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
            if let Some(in_flight) = &self.in_flight {
                in_flight.fetch_sub(1, Ordering::Relaxed);
            }
        }
        was_open
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end_without_result();
    }
}

impl Ticket {
    /// The attempt is over, and says nothing about its endpoint. Does nothing if it was over before.
    pub fn end_without_result(&mut self) {
        if self.close() {
            self.endpoint.without_result.fetch_add(1, Ordering::Relaxed);
        }
        if let (Pass::Probe(epoch), Some(due)) = (self.pass, self.due.take())
            && let Some(at) = self.endpoint.ejection.drop_probe(epoch)
        {
            due.note(at);
        }
    }
}
