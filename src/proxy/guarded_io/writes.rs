//! What is written to the client, unless Pingora writes it before the gateway has seen the request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::GuardedIo;

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
        match Pin::new(&mut self.inner).poll_write(cx, buf) {
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
        if self.is_unseen() {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        ready!(self.guard.detachment.poll_let_go(cx));
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
        if self.is_unseen() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
