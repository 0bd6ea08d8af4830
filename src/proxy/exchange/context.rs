//! Everything the gateway remembers about one request, from its head to its record.
//!
//! Dropping a context gives back every permit the request holds; Pingora drops it on every
//! way out, a panic included.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderValue;

use crate::observe::trace::context::{SpanId, TraceId};
use crate::observe::trace::{Trace, span};
use crate::policy::Admission;
use crate::policy::auth::Identity;
use crate::policy::dry_run::DryRun;
use crate::policy::outcome::Outcome;
use crate::policy::rate_limit::Standing;
use crate::policy::retry::Stake;
use crate::proxy::dialect::Protocol;
use crate::proxy::downstream::connection::Connection;
use crate::proxy::exchange::asked::Asked;
use crate::proxy::exchange::call::Call;
use crate::proxy::exchange::diverted::Diverted;
use crate::proxy::exchange::end::End;
use crate::proxy::exchange::keyed::Keyed;
use crate::proxy::exchange::translation::Translation;
use crate::proxy::request::envelopes::Envelopes;
use crate::proxy::response::rpc_end::RpcEnd;
use crate::record::{Bounded, Commit, Expected, Findings, Tap};
use crate::runtime::lifecycle::InFlight;
use crate::runtime::pins::Opened;
use crate::runtime::snapshot::{Route, Snapshot, UpstreamTarget};
use crate::summary::attempt::{self, Failure, Past, Times};
use crate::time::Moment;
use crate::upstream::{Endpoint, Ticket};

/// One request.
pub struct Context {
    /// The configuration the request began with, and ends with.
    pub snapshot: Arc<Snapshot>,
    /// Absent only where no listener has taken it, as in tests.
    pub connection: Option<Arc<Connection>>,
    /// When its head was complete.
    pub started: Moment,
    /// The same by the wall clock, for the record and headers.
    pub received_at: SystemTime,
    /// What its head asks for.
    pub asked: Asked,
    /// The client's if it is safe, else one of the gateway's; `-` until the headers were read.
    pub request_id: HeaderValue,
    /// Kept or made as the request id; `None` if it is not configured.
    pub correlation_id: Option<HeaderValue>,
    /// The caller's trace or a new one; unsampled until the headers were read.
    pub trace: Trace,
    /// The attempts that are over; only of a recorded trace.
    pub spans: Vec<span::Attempt>,
    /// The client's address; unspecified until the headers were read.
    pub client: IpAddr,
    /// Whether the peer's forwarding headers are believed.
    pub peer_trusted: bool,
    /// What the caller speaks.
    pub protocol: Protocol,
    /// Set once one is found; never changed.
    pub route: Option<Arc<Route>>,
    /// What goes upstream instead of the path that came, where it differs.
    pub path: Option<String>,
    /// The hash of the path parameter by which its upstream's endpoint is chosen.
    pub parameter: Option<u64>,
    /// The canonical path, for the record; only kept for routes that record.
    pub recorded_path: Option<String>,
    /// Who the credentials say the client is; `None` on routes that need none.
    pub identity: Option<Arc<Identity>>,
    /// The permits and the slot it holds.
    pub admission: Admission,
    /// What policies that are not enforced say to it.
    pub dry_run: DryRun,
    /// Which of its route's upstreams was drawn; `None` also if the route has only one.
    pub drawn: Option<usize>,
    /// Set once the request goes to where its route falls back.
    pub diverted: Option<Diverted>,
    /// Where the requester stands in the route's limits, once they have been asked.
    pub standing: Option<Standing>,
    /// When the request came to the step `rate_limits`, whether or not the route has limits.
    pub decided: Option<Moment>,
    /// For each rate limit of the route, a digest of whom the request counted for; only where the
    /// route records.
    pub limit_keys: Vec<u64>,
    /// The request is the first with its idempotency key.
    pub keyed: Option<Box<Keyed>>,
    /// The request's share in its route's retry budget.
    pub stake: Option<Stake>,
    /// When the request must have been answered in full.
    pub deadline: Option<Moment>,
    /// The attempt under way, or the last one.
    pub attempt: Attempt,
    /// The endpoints of the attempts before it, in their order; allocates nothing without a retry.
    pub tried: Vec<Arc<Endpoint>>,
    /// What became of them; empty without a retry as well.
    pub past: Vec<Past>,
    /// Attempts begun so far.
    pub attempts: u32,
    /// Those among them that took the place of one whose endpoint could not be connected to.
    pub moves: u32,
    /// What took the time; the body is added at the end.
    pub times: Times,
    /// Wait before the next attempt; set when a retry has been granted.
    pub backoff: Option<std::time::Duration>,
    /// A connection that was already closed has been replaced once.
    pub reconnected: bool,
    /// What its attempts have come to.
    pub verdict: Verdict,
    /// The state of both bodies.
    pub body: Body,
    /// How it ends, as far as that is known.
    pub end: End,
    /// The status of the final head that has gone, or is about to go, to the client.
    pub sent: Option<u16>,
    /// Its row, as far as that is known.
    pub row: Row,
    /// Counts it among those in flight.
    pub in_flight: InFlight,
}

/// The attempt under way.
#[derive(Default)]
pub struct Attempt {
    /// When it was given its endpoint.
    pub started: Moment,
    /// Where it goes; `None` before the first attempt.
    pub ticket: Option<Ticket>,
    /// When this attempt must have been answered in full.
    pub deadline: Option<Moment>,
    /// When its response must have begun; `None` also before the request is sent.
    pub first_byte_by: Option<Moment>,
    /// The sockets it has opened, if a certificate on them is to be looked at.
    pub opened: Option<Arc<Opened>>,
    /// When it had a connection.
    pub connected: Option<Moment>,
    /// That connection; only known of an attempt that broke off on it.
    pub connection: Option<attempt::Connection>,
    /// A part of the request's body has been sent, and more is to come.
    pub is_uploading: bool,
    /// When its response's head was there.
    pub head_at: Option<Moment>,
    /// How the upstream failed it.
    pub failure: Option<Arc<Failure>>,
    /// Its outcome, and since when it is known; the breaker has been told then.
    pub concluded: Option<(Outcome, Moment)>,
    /// Its own span, until that has been noted.
    pub span: Option<SpanId>,
    /// What the upstream's answer amounts to, once its head is there.
    pub answered: Option<Outcome>,
    /// `None` until its head is there.
    pub upstream_status: Option<u16>,
    /// From its start to the upstream's head.
    pub upstream_duration: Option<std::time::Duration>,
}

impl Attempt {
    /// Where it goes; `None` before the first attempt.
    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.ticket.as_ref().map(Ticket::endpoint)
    }

    /// The earlier of its two deadlines.
    pub fn next_deadline(&self) -> Option<Moment> {
        earlier(self.first_byte_by, self.deadline)
    }
}

/// What passes through, counted and sometimes changed.
#[derive(Default)]
pub struct Body {
    /// Bytes of the request's body seen in this attempt.
    pub request_bytes: u64,
    /// Bytes that came from the client before the first attempt; `None` if that waited for none.
    pub received: Option<u64>,
    /// The limit in bytes that it was too large for, if that was before the first attempt.
    pub too_large: Option<usize>,
    /// Bytes of the response's body, on their way to the client.
    pub response_bytes: u64,
    /// The request's body, read and perhaps rewritten before the first attempt.
    pub prepared: Option<Bytes>,
    /// It came compressed, and `prepared` is not.
    pub inflated: bool,
    /// The request's body is a stream of messages, and is here.
    pub envelopes: Option<Envelopes>,
    /// What the request is to a transcoding route's upstream.
    pub call: Option<Box<Call>>,
    /// Copies the request's body for the record; `None` if nothing of it is captured.
    pub request_tap: Option<Tap>,
    /// The same of the response's body.
    pub response_tap: Option<Tap>,
    /// The answer's body says how the call ended.
    pub rpc_end: Option<RpcEnd>,
    /// Set if the upstream's error is to be rewritten.
    pub translation: Option<Translation>,
}

/// What became of the attempts.
#[derive(Default)]
pub struct Verdict {
    /// The outcome of the last attempt that has one.
    pub last_outcome: Option<Outcome>,
    /// How the upstream failed the request, once that is settled.
    pub failure: Option<Arc<Failure>>,
    /// Why a failed attempt was not tried again.
    pub retry_stopped: Option<&'static str>,
    /// Why the gateway refuses, as only the operator may know it.
    pub said: Option<Cow<'static, str>>,
    /// Of a refusal because of its idempotency key: the first request with it.
    pub first_request: Option<uuid::Uuid>,
}

/// The request's row in the record.
#[derive(Default)]
pub struct Row {
    /// `None` if the route does not record.
    pub id: Option<uuid::Uuid>,
    /// Its first write is on its way.
    pub expected: Option<Expected>,
    /// The fields found in both bodies.
    pub captured: Findings,
    /// What an upstream's error of RPC says; only where the record wants it.
    pub error: Option<String>,
    /// What has become of its first write.
    pub commit: Commit,
    /// As it was committed, so that the second write need not begin anew.
    pub answered: Option<Bounded>,
}

impl Context {
    /// A request whose head is complete at `now`; nothing of it has been read.
    pub fn new(
        snapshot: Arc<Snapshot>,
        connection: Option<Arc<Connection>>,
        in_flight: InFlight,
        now: Moment,
    ) -> Self {
        Context {
            snapshot,
            connection,
            started: now,
            received_at: SystemTime::now(),
            asked: Asked::default(),
            request_id: HeaderValue::from_static("-"),
            correlation_id: None,
            // Until the headers are there.
            trace: Trace::unsampled(),
            spans: Vec::new(),
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            peer_trusted: false,
            protocol: Protocol::Http,
            route: None,
            path: None,
            parameter: None,
            recorded_path: None,
            identity: None,
            admission: Admission::default(),
            dry_run: DryRun::default(),
            drawn: None,
            diverted: None,
            standing: None,
            decided: None,
            limit_keys: Vec::new(),
            keyed: None,
            stake: None,
            deadline: None,
            attempt: Attempt::default(),
            tried: Vec::new(),
            past: Vec::new(),
            attempts: 0,
            moves: 0,
            times: Times::default(),
            backoff: None,
            reconnected: false,
            verdict: Verdict::default(),
            body: Body::default(),
            end: End::default(),
            sent: None,
            row: Row::default(),
            in_flight,
        }
    }

    /// The request's route is found, and counts it as in flight until it is reported.
    pub fn begin_on(&mut self, route: Arc<Route>) {
        route.metrics.begun();
        self.route = Some(route);
    }

    /// The id as text; ids are ASCII by construction.
    pub fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or("-")
    }

    /// The trace the request belongs to, its caller's or its own.
    pub fn trace_id(&self) -> TraceId {
        self.trace.id()
    }

    /// The upstream the request goes to.
    pub fn upstream(&self) -> Option<&Arc<UpstreamTarget>> {
        match &self.diverted {
            Some(diverted) => Some(&diverted.target),
            None => self.route.as_ref().and_then(|route| route.upstream(self.drawn)),
        }
    }

    /// Fail the client's connection at `deadline`, wherever the request is waiting then.
    pub fn guard(&self, deadline: Option<Moment>) {
        if let Some(connection) = &self.connection {
            connection.guard.set_deadline(deadline);
        }
    }

    /// Whether the response's head is held back until more of the response comes.
    pub fn holds_head(&self) -> bool {
        let orders = self.connection.as_ref().and_then(|connection| connection.orders.as_ref());
        orders.is_some_and(|orders| orders.hold_head.load(Ordering::Relaxed))
    }

    /// Whether the client's body is not framed as its head says.
    pub fn is_malformed(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.guard.is_malformed())
    }

    /// Whether the client sends, or reads, more slowly than its route asks for.
    pub fn is_slow(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.guard.is_slow())
    }

    /// The earliest of the attempt's and the request's deadlines.
    pub fn next_deadline(&self) -> Option<Moment> {
        earlier(self.attempt.next_deadline(), self.deadline)
    }
}

/// The earlier of two deadlines; none is later than any.
pub fn earlier(a: Option<Moment>, b: Option<Moment>) -> Option<Moment> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests;
