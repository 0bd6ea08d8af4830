//! An endpoint: where it is reached, and its state.
//!
//! The state belongs to the endpoint's key, which is everything that says where and as what it is
//! reached. It outlives changes of the set and reloads, for as long as the key is in the set.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;

use super::balance::load::Load;
use super::standing::Standing;
use crate::time::Moment;

/// Where an endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
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
    /// Why it is not available, if it is not.
    pub standing: Standing,
    /// When it may be given its full share, counted from when it came into the set, in nanoseconds;
    /// 0: at once.
    warming_since: AtomicU64,
    /// Attempts sent here since the endpoint was found.
    attempts: AtomicU64,
    in_flight: AtomicU32,
}

impl Endpoint {
    /// An endpoint that nothing is known of.
    pub fn new(key: Key) -> Self {
        Endpoint {
            label: key.address.to_string().into(),
            key,
            load: Load::default(),
            standing: Standing::default(),
            warming_since: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
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
    is_open: bool,
}

/// How an attempt has ended, as far as its endpoint is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Whether it counts as a failure of the endpoint.
    pub failed: bool,
    /// From its start to the response's head, if there was one.
    pub latency: Option<Duration>,
}

impl Ticket {
    pub(super) fn take(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.attempts.fetch_add(1, Ordering::Relaxed);
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Ticket { endpoint: endpoint.clone(), is_open: true }
    }

    /// Where the attempt goes.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The attempt is over, and says this about its endpoint. Later calls do nothing.
    pub fn ended(&mut self, ended: Ended, now: Moment) {
        if self.release() {
            self.endpoint.load.note(ended, now);
        }
    }

    /// The attempt is over, and says nothing about its endpoint. Whether it was not over before.
    pub fn release(&mut self) -> bool {
        let was_open = std::mem::replace(&mut self.is_open, false);
        if was_open {
            self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        was_open
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.release();
    }
}
