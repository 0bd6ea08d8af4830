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
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::alarm::Alarm;
use super::detachment::Detachment;
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
    /// How far the request under way depends on its client.
    pub(super) detachment: Detachment,
    idle_timeout: Duration,
    header_timeout: Duration,
}

impl Guard {
    /// A connection just accepted, idle. A zero timeout means no limit.
    pub fn new(idle_timeout: Duration, header_timeout: Duration, now: Moment) -> Self {
        let guard = Guard {
            deadline: AtomicU64::new(NEVER),
            idle: AtomicBool::new(true),
            spaces: AtomicU8::new(0),
            detachment: Detachment::default(),
            idle_timeout,
            header_timeout,
        };
        guard.rest(now);
        guard
    }

    /// Between requests: the next one has the idle timeout to begin.
    pub fn rest(&self, now: Moment) {
        self.idle.store(true, Ordering::Relaxed);
        self.detachment.end();
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
}

impl GuardedIo {
    pub fn new(inner: Stream, guard: Arc<Guard>) -> Self {
        GuardedIo {
            inner,
            guard,
            alarm: Alarm::default(),
            in_request_line: false,
            unflushed: false,
        }
    }

    fn on_bytes(&mut self, bytes: &[u8]) {
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
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > before {
                    self.on_bytes(&buf.filled()[before..]);
                } else if self.guard.detachment.ignores_leaving() {
                    return self.expire(cx);
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
        std::task::ready!(self.guard.detachment.poll_let_go(cx));
        self.unflushed = true;
        match Pin::new(&mut self.inner).poll_write(cx, buf) {
            Poll::Pending => self.expire(cx),
            Poll::Ready(Err(_)) if self.guard.detachment.ignores_leaving() => {
                Poll::Ready(Ok(buf.len()))
            }
            ready => ready,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.guard.detachment.poll_let_go(cx));
        self.unflushed = true;
        match Pin::new(&mut self.inner).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.expire(cx),
            Poll::Ready(Err(_)) if self.guard.detachment.ignores_leaving() => {
                Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
            }
            ready => ready,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_flush(cx) {
            Poll::Pending => self.expire(cx),
            Poll::Ready(Err(_)) if self.guard.detachment.ignores_leaving() => Poll::Ready(Ok(())),
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
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::sync::oneshot;

    use super::*;

    fn guarded(idle: Duration, header: Duration) -> (tokio::io::DuplexStream, GuardedIo) {
        let (client, server) = duplex(64);
        let guard = Arc::new(Guard::new(idle, header, Clock::now()));
        (client, GuardedIo::new(Box::new(server), guard))
    }

    #[tokio::test]
    async fn an_idle_connection_fails_after_its_idle_timeout() {
        let (_client, mut io) = guarded(Duration::from_millis(20), Duration::ZERO);
        let error = io.read_u8().await.expect_err("nothing was sent");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn the_first_byte_starts_the_time_for_the_head() {
        let (mut client, mut io) = guarded(Duration::ZERO, Duration::from_millis(20));
        client.write_all(b"G").await.expect("room for a byte");
        assert_eq!(io.read_u8().await.expect("the byte"), b'G');
        let error = io.read_u8().await.expect_err("the head never ends");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_moved_deadline_is_the_one_that_counts() {
        let (mut client, mut io) = guarded(Duration::from_millis(5), Duration::ZERO);
        io.guard.set_deadline(Some(Clock::now() + Duration::from_millis(80)));
        let started = std::time::Instant::now();
        let error = io.read_u8().await.expect_err("nothing was sent");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= Duration::from_millis(80));
        // An expired deadline that is lifted lets the connection go on.
        io.guard.begin();
        client.write_all(b"x").await.expect("room for a byte");
        assert_eq!(io.read_u8().await.expect("the byte"), b'x');
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_fails_the_write() {
        let (_client, mut io) = guarded(Duration::ZERO, Duration::ZERO);
        io.guard.set_deadline(Some(Clock::now() + Duration::from_millis(20)));
        let error = io.write_all(&[0; 4096]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn what_is_held_is_written_when_it_is_let_go() {
        let (mut client, mut io) = guarded(Duration::ZERO, Duration::ZERO);
        for given_up in [false, true] {
            let (done, until) = oneshot::channel();
            io.guard.detachment.hold(until);
            let mut write = Box::pin(io.write_all(b"x"));
            assert!(futures_executor::block_on(std::future::poll_fn(|cx| {
                Poll::Ready(write.as_mut().poll(cx).is_pending())
            })));
            if given_up {
                drop(done)
            } else {
                done.send(()).expect("somebody waits")
            }
            write.await.expect("written");
            assert_eq!(client.read_u8().await.expect("the byte"), b'x');
        }
    }

    #[tokio::test]
    async fn a_request_that_goes_on_alone_does_not_notice_that_its_client_has_left() {
        let (client, mut io) = guarded(Duration::ZERO, Duration::ZERO);
        io.guard.detachment.go_on_alone();
        assert!(!io.guard.detachment.is_deserted());
        drop(client);
        io.guard.set_deadline(Some(Clock::now() + Duration::from_millis(20)));
        let error = io.read_u8().await.expect_err("the deadline");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(io.guard.detachment.is_deserted());
        io.write_all(b"to nobody").await.expect("nobody minds");
        io.flush().await.expect("nobody minds");
        io.guard.rest(Clock::now());
        assert_eq!(io.read(&mut [0]).await.expect("the end"), 0);
    }
}
