//! Writes to the client. What Pingora writes before the gateway has seen the request is discarded.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::super::date::Overlay;
use super::super::http2_frames::Next;
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

    /// So much has been `written`.
    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        self.guard.client_time.write(false);
        self.guard.on_traffic();
        let Poll::Ready(Ok(bytes)) = written else { return };
        self.guard.pace.pass(*bytes);
        if let Some(frames) = &mut self.frames {
            frames.sent(*bytes);
        }
    }

    /// How many bytes of `bufs` may be written before the gateway inserts a response of its own.
    fn may_write(&mut self, bufs: &[io::IoSlice<'_>]) -> usize {
        loop {
            match self.frames.as_mut().map(|frames| frames.look(bufs)) {
                None => return usize::MAX,
                Some(Next::Bytes(bytes)) => return bytes,
                Some(Next::Response(response)) => self.outbox.append(&response),
            }
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
        let most = self.may_write(&[io::IoSlice::new(buf)]).min(buf.len());
        let buf = &buf[..most];
        match self.write_dated(cx, buf) {
            Poll::Pending => self.wait(cx),
            Poll::Ready(Err(_)) if self.guard.detachment.ignores_leaving() => {
                Poll::Ready(Ok(buf.len()))
            }
            ready => {
                self.wrote(&ready);
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
        let length = bufs.iter().map(|buf| buf.len()).sum();
        let most = self.may_write(bufs);
        let GuardedIo { inner, outbox, .. } = &mut *self;
        let written = match most < length {
            false => outbox.poll_write(inner, cx, bufs),
            // At most that many bytes, and only of the first piece.
            true => {
                let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
                outbox.poll_write(inner, cx, &[io::IoSlice::new(&first[..most.min(first.len())])])
            }
        };
        match written {
            Poll::Pending => self.wait(cx),
            Poll::Ready(Err(_)) if self.guard.detachment.ignores_leaving() => {
                Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
            }
            ready => {
                self.wrote(&ready);
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
