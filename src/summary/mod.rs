//! A request as it began and as it ended: two immutable values, from which its row, its metrics, its
//! span and its line of the access log are made.
//!
//! ```text
//!   a durable or sync row commits ──> Opening ──> the row's first write, with what is known so far
//!   the request has ended ──────────> Summary ──> the row completed, metrics, span, access log
//!                                     (with its Opening)
//! ```
//!
//! What ends a request reports it: the phase `logging`; the drop of its context, if a panic, its
//! overdue deadline or the end of a drain cuts it off; or the listener, for a connection on which no
//! request began. `proxy::report` makes both values and hands them on.
//!
//! Both borrow from the request: what no record, span or log asks for is never copied.

pub mod attempt;
pub mod ending;
pub mod values;
pub mod words;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use uuid::Uuid;

use self::attempt::{Failure, Limit, Past, Times};
use self::ending::Ending;
use crate::policy::failure::Fault;

/// What is known of a request before it is answered, and does not change any more.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// The id of its row; `None` if it has none.
    pub id: Option<Uuid>,
    /// When its head was complete, by the wall clock.
    pub received_at: SystemTime,
    /// As the client gets it.
    pub request_id: &'a str,
    /// The W3C trace it belongs to.
    pub trace_id: u128,
    /// The listener that it came through; `None` only where no listener has taken it, as in tests.
    pub listener: Option<&'a str>,
    /// `None` if no request began on the connection.
    pub head: Option<Head<'a>>,
    /// `None` if no route matched, or none was looked for.
    pub route: Option<&'a Arc<str>>,
    /// As the credentials prove it; `None` without credentials.
    pub consumer: Option<&'a str>,
    /// Whom the verified certificate of the client's connection names, whatever the route asks for; `None` without
    /// one.
    pub certificate: Option<&'a str>,
    /// The client's address, after trusted proxies.
    pub client: IpAddr,
    /// `http`, `connect` or `grpc`.
    pub protocol: &'static str,
    /// The configuration that decided: counted by this process, from 1.
    pub generation: u64,
    /// Time from the head to the step `rate_limits`, whether or not the route has limits; zero if the
    /// request did not get that far.
    pub decided_after: Duration,
    /// For each limit of the route, in its order, a digest of whom the request was counted for:
    /// 64 bits of SHA-256. Only of routes that record.
    pub limit_keys: &'a [u64],
}

/// What the client asked for. Nothing of it is bounded here.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// As the client sent it; `None` if it cannot be read.
    pub method: Option<&'a Method>,
    /// In canonical form where that is known, otherwise as it came; `None` if it cannot be read.
    pub path: Option<&'a str>,
    /// As it came, secrets included: the reader removes them.
    pub query: Option<&'a str>,
    /// The host that the client named, as it came.
    pub host: Option<&'a [u8]>,
}

/// A finished request; or, when a row is committed first, what is known of it by then.
#[derive(Debug, Clone, Copy)]
pub struct Summary<'a> {
    /// How it began; the same as when its row was committed first.
    pub opening: Opening<'a>,
    /// How it ended.
    pub ending: Ending<'a>,
    /// Whose fault the failure was; `None` for a success. As [`Ending::fault`], unless more is known
    /// than the cause says.
    pub fault: Option<Fault>,
    /// The status the client got; 499 if it left before it got one; 0 if nothing was sent.
    pub status: u16,
    /// Where it went last, the fallback included.
    pub upstream: Option<&'a Arc<str>>,
    /// The endpoint of the last attempt, as records show it.
    pub endpoint: Option<&'a Arc<str>>,
    /// The status of the last attempt's response.
    pub upstream_status: Option<u16>,
    /// Attempts that were begun.
    pub attempts: u32,
    /// The code with which a policy would have refused the request, had it been enforced: the first
    /// such policy's.
    pub would_refuse: Option<&'static str>,
    /// Why a failed attempt was not tried again.
    pub no_retry: Option<&'static str>,
    /// How the upstream failed the request, or its last attempt. Also of a request that a fallback
    /// saved.
    pub failure: Option<&'a Failure>,
    /// The limit that ended it; `None` if it was something else.
    pub limit: Option<Limit>,
    /// What the operator is told of a refusal, or of what was no request, besides what the client
    /// is: which check failed, what a store said.
    pub said: Option<&'a str>,
    /// The attempts before the last.
    pub past: &'a [Past],
    /// What took the time.
    pub times: Times,
    /// What the upstream says of its error of RPC; only where the record wants it.
    pub error: Option<&'a str>,
    /// From its head to its end.
    pub duration: Duration,
    /// From the last attempt's start to its response's head.
    pub upstream_duration: Option<Duration>,
    /// Bytes of the request's body that came from the client; `None` if it was refused before any
    /// was read.
    pub bytes_in: Option<u64>,
    /// Bytes of the response's body.
    pub bytes_out: u64,
}
