//! Small writes to a client, gathered until they are flushed.
//!
//! Pingora writes the head of a response and its body separately, which would take a system call
//! and a packet each. Large pieces are not copied: they are written together with the waiting
//! bytes. The buffer is allocated only while the connection is in use.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pingora_core::protocols::Stream;
use tokio::io::AsyncWrite as _;

/// Limit in bytes on the waiting bytes: enough for a head and a body of common sizes.
const ROOM: usize = 4 * 1024;

/// Bytes waiting for the next flush.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Vec<u8>,
    /// How many of them have been written.
    written: usize,
}

impl Outbox {
    /// Frees the buffer, because no writes are expected for a while.
    pub(super) fn release(&mut self) {
        if self.is_empty() {
            *self = Outbox::default();
        }
    }

    fn is_empty(&self) -> bool {
        self.written == self.waiting.len()
    }

    /// Has a few more bytes wait, behind those that do.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// Keeps `bufs`, or writes as much of them as `stream` takes.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.waiting.len() + length <= ROOM {
            bufs.iter().for_each(|buf| self.waiting.extend_from_slice(buf));
            return Poll::Ready(Ok(length));
        }
        if let [buf] = bufs {
            return self.poll_write_after(stream, cx, buf);
        }
        ready!(self.poll_drain(stream, cx))?;
        Pin::new(stream).poll_write_vectored(cx, bufs)
    }

    /// Writes the waiting bytes, followed by `buf`.
    fn poll_write_after(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        while !self.is_empty() {
            let waiting = &self.waiting[self.written..];
            let both = [IoSlice::new(waiting), IoSlice::new(buf)];
            let before = waiting.len();
            let written = ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &both))?;
            self.advance(written.min(before))?;
            if written > before {
                return Poll::Ready(Ok(written - before));
            }
        }
        Pin::new(stream).poll_write(cx, buf)
    }

    /// Writes the waiting bytes.
    fn poll_drain(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let waiting = &self.waiting[self.written..];
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, waiting))?;
            self.advance(written)?;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.written += written;
        if self.is_empty() {
            self.waiting.clear();
            self.written = 0;
        }
        Ok(())
    }

    pub(super) fn poll_flush(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(stream, cx))?;
        Pin::new(stream).poll_flush(cx)
    }

    pub(super) fn poll_shutdown(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(stream, cx))?;
        Pin::new(stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    async fn write(outbox: &mut Outbox, stream: &mut Stream, bufs: &[&[u8]]) -> usize {
        let bufs: Vec<_> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
        poll_fn(|cx| outbox.poll_write(stream, cx, &bufs)).await.expect("written")
    }

    async fn flush(outbox: &mut Outbox, stream: &mut Stream) {
        poll_fn(|cx| outbox.poll_flush(stream, cx)).await.expect("flushed");
    }

    #[tokio::test]
    async fn small_writes_leave_together_with_the_flush() {
        let (mut client, server) = duplex(64 * 1024);
        let (mut outbox, mut stream): (_, Stream) = (Outbox::default(), Box::new(server));
        assert_eq!(write(&mut outbox, &mut stream, &[b"head ", b"more "]).await, 10);
        assert_eq!(write(&mut outbox, &mut stream, &[b"body"]).await, 4);
        let mut received = [0; 64];
        let nothing = poll_fn(|cx| {
            let mut read = tokio::io::ReadBuf::new(&mut received);
            let polled = tokio::io::AsyncRead::poll_read(Pin::new(&mut client), cx, &mut read);
            Poll::Ready(polled.is_pending())
        });
        assert!(nothing.await);
        flush(&mut outbox, &mut stream).await;
        assert_eq!(client.read(&mut received).await.expect("bytes"), 14);
        assert_eq!(&received[..14], b"head more body");
        outbox.release();
        assert_eq!(outbox.waiting.capacity(), 0);
    }

    #[tokio::test]
    async fn every_byte_arrives_once_and_in_order_whatever_the_sizes() {
        let sizes = [1, 300, ROOM - 301, 1, ROOM, ROOM + 1, 0, 50_000, 7, 100_000, ROOM - 7, 8];
        // Smaller than a single write, so that nearly every write is partial.
        let (mut client, server) = duplex(1000);
        let sent: Vec<u8> = (0..=u8::MAX).cycle().take(sizes.iter().sum()).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            let (mut outbox, mut stream): (_, Stream) = (Outbox::default(), Box::new(server));
            let mut rest = &sent[..];
            for size in sizes {
                let (mut piece, after) = rest.split_at(size);
                while !piece.is_empty() {
                    let (one, two) = piece.split_at(piece.len() / 3);
                    let bufs = [one, two];
                    let bufs = if size % 2 == 0 { &bufs[..] } else { &[piece][..] };
                    let written = write(&mut outbox, &mut stream, bufs).await;
                    piece = &piece[written..];
                }
                rest = after;
            }
            flush(&mut outbox, &mut stream).await;
            poll_fn(|cx| outbox.poll_shutdown(&mut stream, cx)).await.expect("closed");
        });
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.expect("all of it");
        writer.await.expect("no panic");
        assert!(received == expected, "{} of {}", received.len(), expected.len());
    }
}
