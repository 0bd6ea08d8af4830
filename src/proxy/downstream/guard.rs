//! The deadline of a client connection.
//!
//! Pingora's timeouts restart with every byte, so none of them bounds a whole request. The request
//! path moves the deadline through [`Guard`]; [`super::http1`] and `super::http2_session` obey it,
//! and decide what its expiry means.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pingora_core::protocols::Stream;

use crate::proxy::downstream::client_time::ClientTime;
use crate::proxy::downstream::detachment::Detachment;
use crate::proxy::downstream::head::Fault;
use crate::proxy::downstream::legible::Legible;
use crate::proxy::downstream::pace::{Pace, Verdict};
use crate::time::{Clock, Moment};

const NEVER: u64 = u64::MAX;

/// The deadline of one client connection, shared by its stream and its requests.
///
/// A connection is idle, receiving a head, or in a request. The first byte after an idle time
/// starts the head's time limit; the request path makes all other changes.
#[derive(Debug)]
pub struct Guard {
    // Relaxed throughout: the stream and the requests of one HTTP/1 connection run in one task. The
    // atomics make the handle shareable; they order nothing.
    deadline: AtomicU64,
    /// The deadline is known to have passed.
    overdue: AtomicBool,
    idle: AtomicBool,
    /// The gateway has seen the head of the request under way.
    begun: AtomicBool,
    /// Number of the [`Fault`] for which the request under way is refused; 0 if there is none.
    fault: AtomicU8,
    /// The request's body is not framed as its head says.
    malformed: AtomicBool,
    /// The connection has become a tunnel.
    tunnel: AtomicBool,
    /// How far the request under way depends on its client.
    pub detachment: Detachment,
    /// How long that has waited for its client.
    pub client_time: ClientTime,
    /// How fast its client must be.
    pub pace: Pace,
    /// Its client was slower.
    slow: AtomicBool,
    idle_timeout: Duration,
    header_timeout: Duration,
    /// Milliseconds without traffic in either direction that a tunnel may last; zero means no
    /// limit.
    tunnel_idle: AtomicU32,
    /// The next read returns a placeholder byte, whatever the client sends.
    stand_in: AtomicBool,
    /// The `Date` of the response whose head is written next, in seconds since 1970; zero if the
    /// current date will do.
    date: AtomicU32,
    /// Locked only if a head was refused.
    refused: Mutex<Option<Box<Aside>>>,
}

/// What is kept of a refused head.
enum Aside {
    /// Pingora has refused it: the gateway is to do that again.
    Connection(Refused),
    /// The gateway refuses it.
    Legible(Legible),
}

/// A connection that Pingora gave up before the gateway saw the request.
pub struct Refused {
    /// Still open, for the response.
    pub stream: Stream,
    /// The head that Pingora was given.
    pub head: Vec<u8>,
}

impl std::fmt::Debug for Aside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Aside::Connection(_) => f.debug_struct("Refused").finish_non_exhaustive(),
            Aside::Legible(legible) => legible.fmt(f),
        }
    }
}

impl Guard {
    /// Keeps the date `seconds` after 1970 in the next response head.
    pub fn keep_date(&self, seconds: u32) {
        self.date.store(seconds, Ordering::Relaxed);
    }

    /// The date to keep, in seconds since 1970; zero if there is none.
    pub fn date(&self) -> u32 {
        self.date.load(Ordering::Relaxed)
    }

    /// Sets whether the next read returns a placeholder byte that the client did not send.
    pub fn stand_in(&self, wanted: bool) {
        self.stand_in.store(wanted, Ordering::Relaxed);
    }

    /// Whether this read returns the placeholder byte; true only once.
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
            client_time: ClientTime::default(),
            pace: Pace::default(),
            slow: AtomicBool::new(false),
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

    /// For an HTTP/2 stream, whose head is already complete and whose connection bounds the rest;
    /// or for a handshake.
    pub fn of_stream() -> Self {
        Guard {
            deadline: AtomicU64::new(NEVER),
            overdue: AtomicBool::new(false),
            idle: AtomicBool::new(true),
            begun: AtomicBool::new(true),
            fault: AtomicU8::new(0),
            malformed: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            detachment: Detachment::default(),
            client_time: ClientTime::default(),
            pace: Pace::default(),
            slow: AtomicBool::new(false),
            idle_timeout: Duration::ZERO,
            header_timeout: Duration::ZERO,
            tunnel_idle: AtomicU32::new(0),
            stand_in: AtomicBool::new(false),
            refused: Mutex::new(None),
            date: AtomicU32::new(0),
        }
    }

    /// Called between requests: the next one must begin within the idle timeout.
    pub fn rest(&self, now: Moment) {
        self.idle.store(true, Ordering::Relaxed);
        self.begun.store(false, Ordering::Relaxed);
        self.detachment.end();
        self.pace.rest();
        self.limit(self.idle_timeout, now);
    }

    /// The head of a request is complete. There is no deadline until the route sets one.
    pub fn begin(&self) {
        self.idle.store(false, Ordering::Relaxed);
        self.begun.store(true, Ordering::Relaxed);
        self.client_time.restart();
        self.pace.rest();
        self.slow.store(false, Ordering::Relaxed);
        self.set_deadline(None);
    }

    /// Makes the connection's I/O fail from `deadline` on; `None` means never.
    pub fn set_deadline(&self, deadline: Option<Moment>) {
        self.deadline.store(deadline.map_or(NEVER, Moment::as_nanos), Ordering::Relaxed);
        self.overdue.store(false, Ordering::Relaxed);
    }

    /// When to ask [`Guard::is_due`]: at the deadline, or once the client can be judged by its pace.
    pub fn due(&self) -> Option<Moment> {
        let deadline = self.deadline();
        match self.pace.over_after().and_then(|waited| self.client_time.reaches(waited)) {
            None => deadline,
            Some(judged) => Some(deadline.map_or(judged, |deadline| deadline.min(judged))),
        }
    }

    /// Whether the connection's I/O fails at `now`. If that is because the client is too slow, this is the
    /// deadline.
    pub fn is_due(&self, now: Moment) -> bool {
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            return true;
        }
        match self.pace.judge(self.client_time.so_far(now)) {
            Verdict::Open | Verdict::Fast => false,
            Verdict::Slow => {
                self.slow.store(true, Ordering::Relaxed);
                self.pace.rest();
                self.set_deadline(Some(now));
                true
            }
        }
    }

    /// Whether the client of the request under way was slower than [`Guard::pace`] asks for.
    pub fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Whether not a byte has come from the client: of a handshake, or since the last request.
    pub fn is_silent(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// Notes that the deadline has passed.
    pub fn expire(&self) {
        self.overdue.store(true, Ordering::Relaxed);
    }

    /// Whether the deadline is known to have passed. The reads and writes of an HTTP/2 stream fail
    /// then.
    pub fn is_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    /// From now on the connection is a tunnel, and fails after `idle` without traffic. Zero means
    /// no limit.
    pub fn tunnel(&self, idle: Duration, now: Moment) {
        let millis = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
        self.tunnel_idle.store(millis, Ordering::Relaxed);
        self.tunnel.store(true, Ordering::Relaxed);
        self.pace.rest();
        self.limit(idle, now);
    }

    /// Bytes passed in either direction.
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

    /// Refuses the request whose head comes next, of which this can be read.
    pub fn set_fault(&self, fault: Fault, legible: Legible) {
        self.fault.store(fault as u8, Ordering::Relaxed);
        *self.aside() = Some(Box::new(Aside::Legible(legible)));
    }

    /// Refuses the request of an HTTP/2 stream, whose head can be read as it is.
    pub fn set_stream_fault(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::Relaxed);
    }

    /// What can be read of the head of the request under way; `None` if its head is not refused, or can
    /// be read as it is.
    pub fn take_legible(&self) -> Option<Legible> {
        self.fault()?;
        match *self.aside().take()? {
            Aside::Legible(legible) => Some(legible),
            Aside::Connection(_) => None,
        }
    }

    /// Why the request under way is refused because of its head. A connection of HTTP/1 ends with it.
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

    /// Whether [`Guard::set_malformed`] was called on this connection.
    pub fn is_malformed(&self) -> bool {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Whether [`Guard::tunnel`] was called on this connection.
    pub fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Relaxed)
    }

    /// Called when Pingora lets go of the connection before the request path saw its request.
    pub fn give_back(&self, refused: Refused) {
        *self.aside() = Some(Box::new(Aside::Connection(refused)));
    }

    /// The connection, if Pingora has refused its request by itself.
    pub fn take_refused(&self) -> Option<Refused> {
        match *self.aside().take()? {
            Aside::Connection(refused) => Some(refused),
            Aside::Legible(_) => None,
        }
    }

    fn aside(&self) -> MutexGuard<'_, Option<Box<Aside>>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the connection's I/O fails; `None` means never.
    pub fn deadline(&self) -> Option<Moment> {
        match self.deadline.load(Ordering::Relaxed) {
            NEVER => None,
            nanos => Some(Moment::from_nanos(nanos)),
        }
    }

    fn limit(&self, timeout: Duration, now: Moment) {
        self.set_deadline((!timeout.is_zero()).then(|| now + timeout));
    }

    /// Bytes of a head have arrived. The first of them start the head's time limit.
    pub fn on_head(&self) {
        if self.idle.swap(false, Ordering::Relaxed) && !self.has_begun() {
            self.limit(self.header_timeout, Clock::now());
        }
    }
}

/// Kept small: an idle connection holds one of these, and little else besides its buffers.
const _: () = assert!(std::mem::size_of::<Guard>() <= 160);
