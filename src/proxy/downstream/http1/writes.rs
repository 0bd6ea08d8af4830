//! Writes to the client. What Pingora writes before the gateway has seen the request is discarded.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::super::date::Overlay;
use super::GuardedIo;

impl GuardedIo {
    /// Writes `buf`; if it is the head of a response, with the date the guard keeps for it.
    fn write_dated(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let late = self.late.take().map(|late| *late);
        let Some(date) = late.or_else(|| Overlay::of(self.guard.date(), buf)) else {
            return self.outbox.poll_write(&mut self.inner, cx, &[io::IoSlice::new(buf)]);
        };
        let written = self.outbox.poll_write(&mut self.inner, cx, &date.over(buf));
        self.late = match written {
            Poll::Pending => Some(date),
            Poll::Ready(Ok(bytes)) => date.after(bytes),
            Poll::Ready(Err(_)) => None,
        }
        .map(Box::new);
        self.guard.keep_date(0);
        written
    }

    /// So much of `bufs` has been `written`.
    fn wrote(&mut self, written: &Poll<io::Result<usize>>, bufs: &[io::IoSlice<'_>]) {
        self.guard.client_time.write(false);
        self.guard.on_traffic();
        let Poll::Ready(Ok(bytes)) = written else { return };
        self.guard.pace.pass(*bytes);
        let Some(frames) = &mut self.frames else { return };
        let mut left = *bytes;
        for buf in bufs {
            let sent = left.min(buf.len());
            frames.send(&buf[..sent]);
            left -= sent;
        }
    }

    /// The client has no room for what is to be written.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.guard.client_time.write(true);
        self.expire(cx)
    }
}

impl AsyncWrite for GuardedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_unseen() {
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(self.guard.detachment.poll_let_go(cx));
        self.unflushed = true;
        match self.write_dated(cx, buf) {
            Poll::Pending => self.wait(cx),
            Poll::Ready(Err(_)) if self.guard.detachment.ignores_leaving() => {
                Poll::Ready(Ok(buf.len()))
            }
            ready => {
                self.wrote(&ready, &[io::IoSlice::new(buf)]);
                ready
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_unseen() {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        ready!(self.guard.detachment.poll_let_go(cx));
        self.unflushed = true;
        let GuardedIo { inner, outbox, .. } = &mut *self;
        match outbox.poll_write(inner, cx, bufs) {
            Poll::Pending => self.wait(cx),
            Poll::Ready(Err(_)) if self.guard.detachment.ignores_leaving() => {
                Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
            }
            ready => {
                self.wrote(&ready, bufs);
                ready
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let GuardedIo { inner, outbox, .. } = &mut *self;
        match outbox.poll_flush(inner, cx) {
            Poll::Pending => self.wait(cx),
            Poll::Ready(Err(_)) if self.guard.detachment.ignores_leaving() => Poll::Ready(Ok(())),
            ready => {
                self.guard.client_time.write(false);
                self.unflushed = false;
                ready
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_unseen() {
            return Poll::Ready(Ok(()));
        }
        let GuardedIo { inner, outbox, .. } = &mut *self;
        outbox.poll_shutdown(inner, cx)
    }
}
