//! A client's connection that obeys its [`Guard`].
//!
//! [`GuardedIo`] wraps the client's stream and fails its reads and writes once the guard's deadline
//! has passed. Pingora keeps reading the client while it waits for the upstream, so the request
//! path is woken in time wherever it waits.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
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
use super::date::Overlay;
use super::guard::Guard;

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
    /// What is left to say of a head's date. Boxed: a head nearly always goes out at once.
    late: Option<Box<Overlay>>,
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
            late: None,
        }
    }

    /// Write `buf`, with the date that was ordered where it is the head of a response.
    fn write_dated(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let late = self.late.take().map(|late| *late);
        let Some(date) = late.or_else(|| Overlay::of(self.guard.date(), buf)) else {
            return Pin::new(&mut self.inner).poll_write(cx, buf);
        };
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, &date.over(buf));
        self.late = match written {
            Poll::Pending => Some(date),
            Poll::Ready(Ok(bytes)) => date.after(bytes),
            Poll::Ready(Err(_)) => None,
        }
        .map(Box::new);
        self.guard.keep_date(0);
        written
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
        if self.guard.takes_stand_in() {
            buf.put_slice(b"\0");
            return Poll::Ready(Ok(()));
        }
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
        match self.write_dated(cx, buf) {
            Poll::Pending => self.expire(cx),
            Poll::Ready(Err(_)) if self.guard.detachment.ignores_leaving() => {
                Poll::Ready(Ok(buf.len()))
            }
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
        std::task::ready!(self.guard.detachment.poll_let_go(cx));
        self.unflushed = true;
        match Pin::new(&mut self.inner).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.expire(cx),
            Poll::Ready(Err(_)) if self.guard.detachment.ignores_leaving() => {
                Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
            }
            ready => {
                self.guard.on_traffic();
                ready
            }
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
mod tests;
