//! Limits the connections of the admin listener: how many there are, and how long each may take.
//!
//! A request has a time limit from its first byte, and an idle connection has another. A connection
//! beyond the limit replaces the oldest one, so that clients that hold connections open cannot
//! block a probe.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::condition::Spell;

/// Pause after a failure to accept that will not pass at once.
const PAUSE: Duration = Duration::from_millis(100);

/// The limits on connections.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) connections: usize,
    /// From the first byte of a request to the first byte of its response. For a new connection it
    /// starts at once.
    pub(super) request: Duration,
    /// Between two requests, and while a client does not read its response.
    pub(super) idle: Duration,
}

/// What accepts connections.
pub(super) trait Accepts: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Where it comes from.
    type Address: fmt::Debug + Send;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Address)>> + Send;

    fn local_address(&self) -> io::Result<Self::Address>;
}

impl Accepts for TcpListener {
    type Stream = TcpStream;
    type Address = std::net::SocketAddr;

    async fn accept(&self) -> io::Result<(Self::Stream, Self::Address)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // Fails if the client has already disconnected, which the first read then reports.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }

    fn local_address(&self) -> io::Result<Self::Address> {
        self.local_addr()
    }
}

impl Accepts for UnixListener {
    type Stream = UnixStream;
    type Address = tokio::net::unix::SocketAddr;

    async fn accept(&self) -> io::Result<(Self::Stream, Self::Address)> {
        UnixListener::accept(self).await
    }

    fn local_address(&self) -> io::Result<Self::Address> {
        self.local_addr()
    }
}

/// Accepts connections, and limits their number.
pub(super) struct Connections<L> {
    socket: L,
    limits: Limits,
    /// The oldest first. Dropping the sender ends the connection; a connection that has ended by
    /// itself has closed the channel.
    open: VecDeque<oneshot::Sender<Infallible>>,
    crowded: Spell,
    failed: Spell,
}

impl<L: Accepts> Connections<L> {
    pub(super) fn new(socket: L, limits: Limits) -> Self {
        Connections {
            socket,
            limits,
            open: VecDeque::with_capacity(limits.connections),
            crowded: Spell::default(),
            failed: Spell::default(),
        }
    }

    fn admit(&mut self, stream: L::Stream) -> Limited<L::Stream> {
        self.open.retain(|connection| !connection.is_closed());
        if self.open.len() >= self.limits.connections
            && self.open.pop_front().is_some()
            && let Some(begun) = self.crowded.met()
        {
            let most = self.limits.connections;
            log::warn!(
                "admin: more than {most} connections: for each new one the oldest is closed"
            );
            begun.until(|over| log::info!("admin: no more connections closed for others {over}"));
        }
        let (end, ended) = oneshot::channel();
        self.open.push_back(end);
        Limited::new(stream, self.limits, ended)
    }

    async fn recover(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        // Concerns one connection only, whose client has left.
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        if let Some(begun) = self.failed.met() {
            log::error!("admin: cannot accept connections: {error}");
            begun.until(|over| log::info!("admin: accepts connections again {over}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl<L: Accepts> Listener for Connections<L> {
    type Io = Limited<L::Stream>;
    type Addr = L::Address;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.socket.accept().await {
                Ok((stream, peer)) => return (self.admit(stream), peer),
                Err(error) => self.recover(&error).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.socket.local_address()
    }
}

/// A connection whose reads and writes fail when its time is over, or when another replaces it.
pub(super) struct Limited<S> {
    stream: S,
    limits: Limits,
    /// No byte of a request has arrived since the last response.
    idle: bool,
    deadline: Instant,
    alarm: Pin<Box<Sleep>>,
    ended: oneshot::Receiver<Infallible>,
}

impl<S> Limited<S> {
    fn new(stream: S, limits: Limits, ended: oneshot::Receiver<Infallible>) -> Self {
        let deadline = Instant::now() + limits.request;
        let alarm = Box::pin(sleep_until(deadline));
        Limited { stream, limits, idle: false, deadline, alarm, ended }
    }

    fn on_read(&mut self) {
        if std::mem::take(&mut self.idle) {
            self.deadline = Instant::now() + self.limits.request;
        }
    }

    fn on_written(&mut self) {
        self.idle = true;
        self.deadline = Instant::now() + self.limits.idle;
    }

    /// Nothing can be read or written now: fails if the deadline has passed or another connection
    /// needs the place.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if Pin::new(&mut self.ended).poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.alarm.deadline() != self.deadline {
            self.alarm.as_mut().reset(self.deadline);
        }
        self.alarm.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(result) => {
                self.on_read();
                Poll::Ready(result)
            }
            Poll::Pending => self.wait(cx),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            Poll::Ready(result) => {
                self.on_written();
                Poll::Ready(result)
            }
            Poll::Pending => self.wait(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(cx, bufs) {
            Poll::Ready(result) => {
                self.on_written();
                Poll::Ready(result)
            }
            Poll::Pending => self.wait(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
