//! A client's connection that obeys its [`Guard`], and gives Pingora one request at a time.
//!
//! [`GuardedIo`] wraps the client's stream and fails its reads and writes once the guard's deadline
//! has passed. Pingora keeps reading the client while it waits for the upstream, so this wakes the
//! request path wherever it waits.
//!
//! On an HTTP/1 connection it reads each head itself (`super::head`), and follows the body
//! (`super::framing`). Bytes that the client sends beyond the request under way are kept here for
//! the next request.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use self::outbox::Outbox;
use crate::proxy::downstream;
use crate::proxy::downstream::alarm::Alarm;
use crate::proxy::downstream::date::Overlay;
use crate::proxy::downstream::framing::{Framing, Malformed};
use crate::proxy::downstream::guard::{Guard, Refused};
use crate::proxy::downstream::head::{Fault, Head, Scanner};
use crate::proxy::downstream::http2_frames::{Flood, Frames, Streams};
use crate::proxy::downstream::legible::Legible;
use crate::proxy::downstream::limits::Limits;
use crate::time::Clock;

/// Limit in bytes on what a client sends ahead of its turn.
const AHEAD_LIMIT: usize = 64 * 1024;
/// Bytes per read that does not go into Pingora's buffer.
const READ: usize = 4 * 1024;

/// A client stream that obeys its [`Guard`].
pub struct GuardedIo {
    inner: Stream,
    outbox: Outbox,
    guard: Arc<Guard>,
    alarm: Alarm,
    /// Bytes were written and not flushed.
    unflushed: bool,
    /// Received bytes; Pingora has read those before `at`. They are kept until the gateway has seen
    /// the request, because Pingora may refuse it.
    ahead: Vec<u8>,
    at: usize,
    /// The end of what Pingora may read.
    readable: usize,
    /// What remains of the request under way. For protocols other than HTTP/1 the connection counts
    /// as a tunnel.
    framing: Framing,
    /// Pingora has been given a head, and the gateway has not seen the request yet.
    unseen: bool,
    /// The part of a response's date that is not written yet. Boxed: a head nearly always goes out
    /// in one write.
    late: Option<Box<Overlay>>,
    /// Only over HTTP/2.
    frames: Option<Box<Frames>>,
}

impl GuardedIo {
    /// Reads and writes `inner` for as long as `guard` allows.
    pub fn new(inner: Stream, guard: Arc<Guard>) -> Self {
        GuardedIo {
            inner,
            outbox: Outbox::default(),
            guard,
            alarm: Alarm::default(),
            unflushed: false,
            ahead: Vec::new(),
            at: 0,
            readable: 0,
            framing: Framing::Tunnel,
            unseen: false,
            late: None,
            frames: None,
        }
    }

    /// Wraps the connection of a request that Pingora has `refused`, with the refusal as its next
    /// request.
    pub fn refusing(refused: Refused, guard: Arc<Guard>) -> Self {
        let Refused { stream, head } = refused;
        let mut io = GuardedIo::new(stream, guard);
        let fault = downstream::head::diagnose(&head);
        io.ahead = head;
        io.refuse(fault);
        io
    }

    /// Reads frames of HTTP/2 from now on, and fails if too many of them are control frames: the guard says
    /// so, by [`Guard::is_malformed`].
    pub fn count_frames(&mut self) -> Arc<Streams> {
        self.frames.insert(Box::new(Frames::new(Clock::now()))).streams()
    }

    /// Puts back the bytes read last: they are read again first.
    pub fn unread(&mut self, bytes: Vec<u8>) {
        let rest = std::mem::replace(&mut self.ahead, bytes);
        self.ahead.extend_from_slice(&rest[self.at..]);
        (self.at, self.readable) = (0, self.ahead.len());
    }

    /// Waits for the head of the next request. If the head is invalid, the fault is stored in the
    /// guard, and a head that Pingora accepts takes its place.
    ///
    /// # Errors
    /// The connection has ended, or its deadline has passed.
    pub fn poll_head(
        &mut self,
        scanner: &mut Scanner,
        limits: &Limits,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.forget_read();
        loop {
            self.skip_empty_lines();
            if !matches!(self.ahead[..], [] | [b'\r']) {
                match scanner.scan(&self.ahead, limits) {
                    Ok(None) => self.guard.on_head(),
                    // Most heads arrive whole and start no time limit, which saves reading the
                    // clock.
                    Ok(Some(head)) => {
                        self.begin(head);
                        return Poll::Ready(Ok(()));
                    }
                    Err(fault) => {
                        self.guard.on_head();
                        self.refuse(fault);
                        return Poll::Ready(Ok(()));
                    }
                }
            } else if self.ahead.is_empty() {
                // An idle connection holds no buffer.
                self.ahead = Vec::new();
                self.outbox.release();
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Whether part of the next head has arrived.
    pub fn has_begun_head(&self) -> bool {
        !self.ahead.is_empty()
    }

    fn forget_read(&mut self) {
        self.ahead.drain(..self.at);
        (self.at, self.readable) = (0, 0);
    }

    /// Empty lines before a request are skipped (RFC 9112, section 2.2).
    fn skip_empty_lines(&mut self) {
        let lines = self.ahead.chunks(2).take_while(|line| *line == b"\r\n").count();
        if lines > 0 {
            self.ahead.drain(..lines * 2);
        }
    }

    fn begin(&mut self, head: Head) {
        let Head { mut length, mut framing, must_escape, target } = head;
        if must_escape {
            length += downstream::head::escape(&mut self.ahead, target);
        }
        match framing.take(&self.ahead[length..]) {
            Ok(taken) => self.readable = length + taken,
            Err(Malformed) => return self.refuse(Fault::Body),
        }
        self.framing = framing;
        self.unseen = true;
    }

    /// Gives Pingora a replacement head, for a request that is refused.
    fn refuse(&mut self, fault: Fault) {
        self.guard.set_fault(fault, Legible::of(&self.ahead));
        let (head, framing) = downstream::head::stand_in(&self.ahead);
        (self.ahead, self.framing) = (head, framing);
        (self.at, self.readable) = (0, self.ahead.len());
        self.unseen = true;
    }

    /// Reads bytes from the client into `ahead`. Returns zero at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); READ];
        let mut read = ReadBuf::uninit(&mut room);
        match Pin::new(&mut self.inner).poll_read(cx, &mut read) {
            Poll::Ready(result) => {
                self.ahead.extend_from_slice(read.filled());
                Poll::Ready(result.map(|()| read.filled().len()))
            }
            Poll::Pending => {
                self.flush_idle(cx);
                self.expire(cx)
            }
        }
    }

    fn read_ahead(&mut self, buf: &mut ReadBuf<'_>) {
        let end = self.readable.min(self.at + buf.remaining());
        buf.put_slice(&self.ahead[self.at..end]);
        self.at = end;
        if self.at == self.ahead.len() && !self.is_unseen() {
            (self.ahead, self.at, self.readable) = (Vec::new(), 0, 0);
        }
    }

    /// Whether Pingora has a head that the gateway has not seen yet: what it writes then must not
    /// reach the client.
    fn is_unseen(&mut self) -> bool {
        self.unseen = self.unseen && !self.guard.has_begun();
        self.unseen
    }

    /// Takes the bytes of `buf` from `before` on as the next part of the body.
    fn on_body(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let bytes = &buf.filled()[before..];
        let Ok(taken) = self.framing.take(bytes) else {
            self.guard.set_malformed();
            buf.set_filled(before);
            return Err(io::ErrorKind::InvalidData.into());
        };
        if taken < bytes.len() {
            self.ahead.extend_from_slice(&bytes[taken..]);
            buf.set_filled(before + taken);
        }
        Ok(())
    }

    /// The request is complete: waits for the client to disconnect, and keeps what else it sends.
    fn poll_leaving(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() - self.at < AHEAD_LIMIT {
            match ready!(self.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) if self.guard.detachment.ignores_leaving() => {
                    return self.expire(cx);
                }
                ended => return Poll::Ready(ended.map(drop)),
            }
        }
        self.flush_idle(cx);
        self.expire(cx)
    }

    /// There is nothing to read, so the response's head is flushed to the client now. Pingora would
    /// hold it back until the first byte of the body.
    fn flush_idle(&mut self, cx: &mut Context<'_>) {
        if self.unflushed && self.outbox.poll_flush(&mut self.inner, cx).is_ready() {
            // An error shows up again at the next write.
            self.unflushed = false;
        }
    }

    fn expire<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        loop {
            ready!(self.alarm.poll(self.guard.due(), cx));
            if self.guard.is_due(Clock::now()) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
    }
}

impl Drop for GuardedIo {
    /// Pingora drops the connection after refusing a head. The gateway keeps it, to send a refusal
    /// that says why.
    fn drop(&mut self) {
        if self.is_unseen() {
            let nothing: Stream = Box::new(tokio::io::duplex(1).0);
            let stream = std::mem::replace(&mut self.inner, nothing);
            self.guard.give_back(Refused { stream, head: std::mem::take(&mut self.ahead) });
        }
    }
}

impl AsyncRead for GuardedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.poll_bytes(cx, buf))?;
        let GuardedIo { frames, guard, .. } = &mut *self;
        let frames = frames.as_mut();
        match frames.map(|frames| frames.receive(&buf.filled()[before..], Clock::now)) {
            None | Some(Ok(())) => Poll::Ready(Ok(())),
            Some(Err(Flood)) => {
                guard.set_malformed();
                Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
            }
        }
    }
}

impl GuardedIo {
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.at < self.readable {
            self.read_ahead(buf);
            return Poll::Ready(Ok(()));
        }
        if self.guard.takes_stand_in() {
            buf.put_slice(b"\0");
            return Poll::Ready(Ok(()));
        }
        if self.framing.is_done() {
            if !self.guard.is_tunnel() {
                return self.poll_leaving(cx);
            }
            self.framing = Framing::Tunnel;
            self.readable = self.ahead.len();
            if self.at < self.readable {
                self.read_ahead(buf);
                return Poll::Ready(Ok(()));
            }
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > before {
                    self.guard.on_head();
                    self.guard.on_traffic();
                    self.guard.client_time.read(false);
                    self.guard.pace.pass(buf.filled().len() - before);
                    self.on_body(buf, before)?;
                } else if self.guard.detachment.ignores_leaving() {
                    return self.expire(cx);
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                self.flush_idle(cx);
                // Of other protocols than HTTP/1, and of tunnels, it is not known who waits for whom.
                if self.framing != Framing::Tunnel {
                    self.guard.client_time.read(true);
                }
                self.expire(cx)
            }
        }
    }
}

mod inner;
mod outbox;
#[cfg(test)]
mod tests;
mod writes;
