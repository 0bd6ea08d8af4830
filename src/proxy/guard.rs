//! One clock over a client connection.
//!
//! Pingora's timeouts restart with every byte; none bounds a whole request. [`GuardedIo`]
//! wraps the client's stream and fails its reads and writes once a shared deadline has
//! passed. Pingora keeps reading the client while it waits for the upstream, so the
//! request path is woken in time wherever it waits. [`Guard`] is the handle by which the
//! request path moves that deadline; what an expiry means is decided there.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::alarm::Alarm;
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
    idle: AtomicBool,
    /// Spaces in the last request line: two, or it was not one.
    spaces: AtomicU8,
    idle_timeout: Duration,
    header_timeout: Duration,
    /// Nanoseconds of silence, either way, that a tunnel may last; zero where there is none.
    tunnel_idle: AtomicU64,
}

impl Guard {
    /// A connection just accepted, idle. A zero timeout means no limit.
    pub fn new(idle_timeout: Duration, header_timeout: Duration, now: Moment) -> Self {
        let guard = Guard {
            deadline: AtomicU64::new(NEVER),
            idle: AtomicBool::new(true),
            spaces: AtomicU8::new(0),
            idle_timeout,
            header_timeout,
            tunnel_idle: AtomicU64::new(0),
        };
        guard.rest(now);
        guard
    }

    /// A stream of HTTP/2: its head is there already, its connection bounds everything else.
    pub fn of_stream() -> Self {
        Guard {
            deadline: AtomicU64::new(NEVER),
            idle: AtomicBool::new(false),
            spaces: AtomicU8::new(2),
            idle_timeout: Duration::ZERO,
            header_timeout: Duration::ZERO,
            tunnel_idle: AtomicU64::new(0),
        }
    }

    /// Between requests: the next one has the idle timeout to begin.
    pub fn rest(&self, now: Moment) {
        self.idle.store(true, Ordering::Relaxed);
        self.limit(self.idle_timeout, now);
    }

    /// The head of a request is complete: no deadline until the route says so.
    pub fn begin(&self) {
        self.idle.store(false, Ordering::Relaxed);
        self.set_deadline(None);
    }

    /// Fail the connection's I/O from `deadline` on; `None` = never.
    pub fn set_deadline(&self, deadline: Option<Moment>) {
        self.deadline.store(deadline.map_or(NEVER, Moment::as_nanos), Ordering::Relaxed);
    }

    /// From now on the connection is a tunnel, and fails once nothing has passed for `idle`.
    pub fn tunnel(&self, idle: Duration, now: Moment) {
        let nanos = u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX);
        self.tunnel_idle.store(nanos, Ordering::Relaxed);
        self.limit(idle, now);
    }

    /// Bytes passed, in one direction or the other.
    fn on_traffic(&self) {
        let idle = self.tunnel_idle.load(Ordering::Relaxed);
        if idle != 0 {
            self.limit(Duration::from_nanos(idle), Clock::now());
        }
    }

    /// Whether the request line had its three parts. Pingora repairs one that has more, which is
    /// a guess at what was meant (RFC 9112, section 3).
    pub fn saw_request_line(&self) -> bool {
        self.spaces.load(Ordering::Relaxed) == 2
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        match self.deadline.load(Ordering::Relaxed) {
            NEVER => None,
            nanos => Some(Moment::from_nanos(nanos)),
        }
    }

    fn limit(&self, timeout: Duration, now: Moment) {
        self.set_deadline((!timeout.is_zero()).then(|| now + timeout));
    }

    /// Bytes arrived: after idling they begin a head. Returns whether they did.
    fn on_bytes(&self) -> bool {
        let begins = self.idle.swap(false, Ordering::Relaxed);
        if begins {
            self.spaces.store(0, Ordering::Relaxed);
            self.limit(self.header_timeout, Clock::now());
        }
        begins
    }

    /// A piece of the request line. Returns whether it is complete.
    fn on_request_line(&self, piece: &[u8]) -> bool {
        // Empty lines before a request are skipped (RFC 9112, section 2.2).
        let begun = self.spaces.load(Ordering::Relaxed) > 0;
        let empty = piece.iter().take_while(|byte| matches!(**byte, b'\r' | b'\n')).count();
        let piece = if begun { piece } else { &piece[empty..] };
        let end = memchr::memchr(b'\n', piece);
        let line = &piece[..end.unwrap_or(piece.len())];
        let spaces = memchr::memchr_iter(b' ', line).count();
        let before = self.spaces.load(Ordering::Relaxed);
        self.spaces.store(before.saturating_add(spaces.min(255) as u8), Ordering::Relaxed);
        end.is_some()
    }
}

/// A client stream that obeys its [`Guard`].
pub struct GuardedIo {
    inner: Stream,
    guard: Arc<Guard>,
    alarm: Alarm,
    /// The request line is still arriving.
    in_request_line: bool,
    /// Something was written and not flushed.
    unflushed: bool,
    /// What [`GuardedIo::unread`] has put back.
    ahead: Bytes,
}

impl GuardedIo {
    pub fn new(inner: Stream, guard: Arc<Guard>) -> Self {
        GuardedIo {
            inner,
            guard,
            alarm: Alarm::default(),
            in_request_line: false,
            unflushed: false,
            ahead: Bytes::new(),
        }
    }

    /// Put back what was read last: it is read again before anything else.
    pub fn unread(&mut self, bytes: Bytes) {
        self.ahead = bytes;
    }

    fn read_ahead(&mut self, buf: &mut ReadBuf<'_>) {
        let fits = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead.split_to(fits));
        if self.ahead.is_empty() {
            // An empty slice would keep its memory.
            self.ahead = Bytes::new();
        }
    }

    fn on_bytes(&mut self, bytes: &[u8]) {
        self.guard.on_traffic();
        self.in_request_line |= self.guard.on_bytes();
        if self.in_request_line {
            self.in_request_line = !self.guard.on_request_line(bytes);
        }
    }

    /// Nothing to read: whoever waits for an answer's head shall have it. Pingora holds it back
    /// until the first of the body comes.
    fn flush_idle(&mut self, cx: &mut Context<'_>) {
        if self.unflushed && Pin::new(&mut self.inner).poll_flush(cx).is_ready() {
            // An error shows itself at the next write.
            self.unflushed = false;
        }
    }

    fn expire<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let expired = self.alarm.poll(self.guard.deadline(), cx);
        expired.map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for GuardedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            self.read_ahead(buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > before {
                    self.on_bytes(&buf.filled()[before..]);
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                self.flush_idle(cx);
                self.expire(cx)
            }
        }
    }
}

impl AsyncWrite for GuardedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        match Pin::new(&mut self.inner).poll_write(cx, buf) {
            Poll::Pending => self.expire(cx),
            ready => {
                self.guard.on_traffic();
                ready
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        match Pin::new(&mut self.inner).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.expire(cx),
            ready => ready,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_flush(cx) {
            Poll::Pending => self.expire(cx),
            ready => {
                self.unflushed = false;
                ready
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

// What follows hands every question Pingora asks of a stream to the one inside.

#[async_trait]
impl Shutdown for GuardedIo {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for GuardedIo {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for GuardedIo {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for GuardedIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for GuardedIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for GuardedIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}

#[async_trait]
impl Peek for GuardedIo {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buf).await
    }
}

impl fmt::Debug for GuardedIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedIo").field("guard", &self.guard).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
