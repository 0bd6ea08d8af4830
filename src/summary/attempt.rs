//! Attempts at a request: how they failed, and what took the time.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::failure::{Cause, Fault};
use crate::summary::words::Words;

/// What took a request's time, over all of its attempts. No two of these overlap. What is in none of
/// them is what the gateway did itself, such as to decide on a retry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// From the head to the first attempt: stores that were asked, a body that had to be read, the
    /// wait for a slot. Of a request that waited for a slot in vain, up to then.
    pub queue: Duration,
    /// Waiting for connections, new or pooled, TLS included.
    pub connect: Duration,
    /// From there to the heads of responses, or to the ends of attempts without one.
    pub first_byte: Duration,
    /// From the last response's head to its end, with what that was withheld for, such as the
    /// commit of its row.
    pub body: Duration,
    /// Waiting between attempts.
    pub backoff: Duration,
    /// Waiting for the client: for more of the request's body, until the response's head is there,
    /// and then for room to write to a client that reads slowly. What the sockets' buffers take at
    /// once costs nothing of it, and a tunnel has none.
    pub client: Duration,
}

/// A limit that a request has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The key that sets it, of its route or its listener; or [`Limit::OF_CALLER`].
    pub key: &'static str,
    /// How much it allows.
    pub bound: Bound,
}

/// What a limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// A time.
    Time(Duration),
    /// A number of bytes.
    Bytes(u64),
    /// A number of requests, connections or fields.
    Count(u64),
    /// A number of requests within a time.
    Rate(u64, Duration),
}

impl Limit {
    /// Stands for a key where the caller itself has set the limit, as callers of RPC may.
    pub const OF_CALLER: &'static str = "caller";
    /// The same for a limit that no key sets, because it is part of the program.
    pub const BUILT_IN: &'static str = "built_in";
}

/// How an upstream failed an attempt.
#[derive(Debug)]
pub struct Failure {
    /// In one word.
    pub cause: Cause,
    /// What the engine or the system said.
    pub words: Words,
    /// Its name.
    pub upstream: Arc<str>,
    /// Its address, as the configuration has it; `None` if there was none to ask.
    pub endpoint: Option<Arc<str>>,
    /// The connection that the request was sent on; `None` if there was none.
    pub connection: Option<Connection>,
}

impl Failure {
    /// Whose fault it was. The gateway's, if its own system did not even try to connect.
    pub fn fault(&self) -> Fault {
        match self.cause {
            Cause::ConnectFailed | Cause::Unreachable if self.words.is_of_own_system() => {
                Fault::Gateway
            }
            cause => cause.fault(),
        }
    }
}

/// A connection to an upstream, when a request is sent on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// It was opened for the request.
    New,
    /// It has served another request before.
    Reused,
}

impl Connection {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Connection::New => "new",
            Connection::Reused => "reused",
        }
    }
}

/// An attempt that was followed by another.
#[derive(Debug)]
pub struct Past {
    /// Its address, as the configuration has it.
    pub endpoint: Arc<str>,
    /// From the request's head to the attempt's start.
    pub after: Duration,
    /// To the moment when its outcome was known.
    pub duration: Duration,
    /// That of its response.
    pub status: Option<u16>,
    /// Why it was not the last.
    pub failure: Option<Arc<Failure>>,
}
