//! One clock over a client connection.
//!
//! Pingora's timeouts restart with every byte; none bounds a whole request. [`Guard`] is the handle
//! by which the request path moves a deadline that [`super::http1`] and `super::http2_session` obey;
//! what an expiry means is decided there.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pingora_core::protocols::Stream;

use crate::proxy::downstream::detachment::Detachment;
use crate::proxy::downstream::head::Fault;
use crate::time::{Clock, Moment};

const NEVER: u64 = u64::MAX;

/// The deadline of one client connection, shared by its stream and its requests.
///
/// A connection is idle, receiving a head, or in a request. The first byte after idling
/// starts the head's time limit by itself; the request path does the rest.
#[derive(Debug)]
pub struct Guard {
    // Relaxed throughout: the stream and the requests of one HTTP/1 connection run in one
    // task, so the atomics only make the handle shareable, they order nothing.
    deadline: AtomicU64,
    /// The deadline was seen to have passed.
    overdue: AtomicBool,
    idle: AtomicBool,
    /// The gateway has seen the head of the request under way.
    begun: AtomicBool,
    /// Number of the [`Fault`] for which the request under way is refused; 0 if there is none.
    fault: AtomicU8,
    /// The request's body is not framed as its head says.
    malformed: AtomicBool,
    /// What was a request has become a tunnel.
    tunnel: AtomicBool,
    /// How far the request under way depends on its client.
    pub detachment: Detachment,
    idle_timeout: Duration,
    header_timeout: Duration,
    /// Milliseconds of silence, either way, that a tunnel may last; zero where there is none.
    tunnel_idle: AtomicU32,
    /// The next read shall find a byte, whatever the client sends.
    stand_in: AtomicBool,
    /// The `Date` of the response whose head is written next, in seconds since 1970; zero where the
    /// gateway's own will do.
    date: AtomicU32,
    /// Locked only when Pingora has refused a head by itself.
    refused: Mutex<Option<Box<Refused>>>,
}

/// A connection that Pingora has given up before the gateway saw the request.
pub struct Refused {
    pub stream: Stream,
    /// What Pingora was given to read.
    pub head: Vec<u8>,
}

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refused").finish_non_exhaustive()
    }
}

impl Guard {
    /// Let the next head of a response have the `Date` it came with.
    pub fn keep_date(&self, seconds: u32) {
        self.date.store(seconds, Ordering::Relaxed);
    }

    /// That date; zero where there is none.
    pub fn date(&self) -> u32 {
        self.date.load(Ordering::Relaxed)
    }

    /// Let the next read find a byte that the client has not sent, or no longer.
    pub fn stand_in(&self, wanted: bool) {
        self.stand_in.store(wanted, Ordering::Relaxed);
    }

    /// Whether this read is the one. Once.
    pub fn takes_stand_in(&self) -> bool {
        self.stand_in.load(Ordering::Relaxed) && self.stand_in.swap(false, Ordering::Relaxed)
    }

    /// A connection just accepted, idle. A zero timeout means no limit.
    pub fn new(idle_timeout: Duration, header_timeout: Duration, now: Moment) -> Self {
        let guard = Guard {
            deadline: AtomicU64::new(NEVER),
            overdue: AtomicBool::new(false),
            idle: AtomicBool::new(true),
            begun: AtomicBool::new(false),
            fault: AtomicU8::new(0),
            malformed: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            detachment: Detachment::default(),
            idle_timeout,
            header_timeout,
            tunnel_idle: AtomicU32::new(0),
            stand_in: AtomicBool::new(false),
            refused: Mutex::new(None),
            date: AtomicU32::new(0),
        };
        guard.rest(now);
        guard
    }

    /// A stream of HTTP/2: its head is there already, its connection bounds everything else.
    pub fn of_stream() -> Self {
        Guard {
            deadline: AtomicU64::new(NEVER),
            overdue: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            begun: AtomicBool::new(true),
            fault: AtomicU8::new(0),
            malformed: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            detachment: Detachment::default(),
            idle_timeout: Duration::ZERO,
            header_timeout: Duration::ZERO,
            tunnel_idle: AtomicU32::new(0),
            stand_in: AtomicBool::new(false),
            refused: Mutex::new(None),
            date: AtomicU32::new(0),
        }
    }

    /// Between requests: the next one has the idle timeout to begin.
    pub fn rest(&self, now: Moment) {
        self.idle.store(true, Ordering::Relaxed);
        self.begun.store(false, Ordering::Relaxed);
        self.detachment.end();
        self.limit(self.idle_timeout, now);
    }

    /// The head of a request is complete: no deadline until the route says so.
    pub fn begin(&self) {
        self.idle.store(false, Ordering::Relaxed);
        self.begun.store(true, Ordering::Relaxed);
        self.set_deadline(None);
    }

    /// Fail the connection's I/O from `deadline` on; `None` = never.
    pub fn set_deadline(&self, deadline: Option<Moment>) {
        self.deadline.store(deadline.map_or(NEVER, Moment::as_nanos), Ordering::Relaxed);
        self.overdue.store(false, Ordering::Relaxed);
    }

    /// The deadline has passed.
    pub fn expire(&self) {
        self.overdue.store(true, Ordering::Relaxed);
    }

    /// Whether it was seen to have passed. A stream of HTTP/2 fails its reads and writes then.
    pub fn is_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    /// From now on the connection is a tunnel, and fails once nothing has passed for `idle`.
    pub fn tunnel(&self, idle: Duration, now: Moment) {
        let millis = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
        self.tunnel_idle.store(millis, Ordering::Relaxed);
        self.tunnel.store(true, Ordering::Relaxed);
        self.limit(idle, now);
    }

    /// Bytes passed, in one direction or the other.
    pub fn on_traffic(&self) {
        let idle = self.tunnel_idle.load(Ordering::Relaxed);
        if idle != 0 {
            self.limit(Duration::from_millis(idle.into()), Clock::now());
        }
    }

    /// Whether the gateway has seen the head of the request under way.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Refuse the request whose head comes next.
    pub fn set_fault(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::Relaxed);
    }

    /// What the head of the request under way is refused for. The connection ends with it.
    pub fn fault(&self) -> Option<Fault> {
        match self.fault.load(Ordering::Relaxed) {
            0 => None,
            number => Fault::of_number(number),
        }
    }

    /// The body under way is not framed as its head says. The connection ends with it.
    pub fn set_malformed(&self) {
        self.malformed.store(true, Ordering::Relaxed);
    }

    pub fn is_malformed(&self) -> bool {
        self.malformed.load(Ordering::Relaxed)
    }

    pub fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Relaxed)
    }

    pub fn give_back(&self, refused: Refused) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(refused));
    }

    /// The connection, if Pingora has refused its request by itself.
    pub fn take_refused(&self) -> Option<Box<Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub fn deadline(&self) -> Option<Moment> {
        match self.deadline.load(Ordering::Relaxed) {
            NEVER => None,
            nanos => Some(Moment::from_nanos(nanos)),
        }
    }

    fn limit(&self, timeout: Duration, now: Moment) {
        self.set_deadline((!timeout.is_zero()).then(|| now + timeout));
    }

    /// Bytes of a head have arrived: the first of them start its time.
    pub fn on_head(&self) {
        if self.idle.swap(false, Ordering::Relaxed) {
            self.limit(self.header_timeout, Clock::now());
        }
    }
}
