//! A client's HTTP/2 connection: its streams, its idle time, its end.
//!
//! Pingora's own loop cannot be told how long a preface may take, nor what a stream's request
//! must know of its listener. What becomes of a stream is the request path's business.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use pingora_core::protocols::http::v2::server;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::protocols::{
    Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest, Ssl, Stream,
};
use pingora_core::server::ShutdownWatch;
use tokio::time::Sleep;

use crate::config::server::Listener as Config;
use crate::proxy::downstream::guard::Guard;
use crate::proxy::downstream::http1::GuardedIo;
use crate::proxy::downstream::http2_stream::{Accepted, H2Stream};
use crate::time::{Clock, Moment};

/// A client that is told to go has this long to hang up.
const CLOSING: Duration = Duration::from_secs(1);
/// Requests that are none, per connection; a client that sends more of them means harm.
const MAX_MALFORMED: u32 = 32;

/// What a client may open on one connection.
fn options(config: &Config) -> H2Options {
    let mut options = default_h2_options();
    options.max_concurrent_streams(config.http2.max_streams);
    let heads = config.max_header_bytes.as_usize();
    if heads != 0 {
        // A head a little too large is refused in words, not by the codec.
        options.max_header_list_size(u32::try_from(heads.saturating_mul(2)).unwrap_or(u32::MAX));
    }
    options
}

/// Serve the streams of `io` until the client leaves, idles for too long, or is told to go by a
/// `shutdown` or at the moment `until`; `begin` is given each of them, and a mark to keep until it has ended.
pub async fn serve(
    io: GuardedIo,
    guard: &Guard,
    config: &Config,
    shutdown: ShutdownWatch,
    until: Option<Moment>,
    mut begin: impl FnMut(H2Stream, StreamMark),
) {
    let digest = Arc::new(Digest {
        ssl_digest: io.get_ssl_digest(),
        timing_digest: io.get_timing_digest(),
        proxy_digest: io.get_proxy_digest(),
        socket_digest: io.get_socket_digest(),
    });
    let io: Stream = Box::new(io);
    let Ok(mut connection) = server::handshake(io, Some(options(config))).await else { return };
    guard.begin();
    let streams = Arc::new(Streams::new());
    let mut going = *shutdown.borrow();
    if going {
        connection.graceful_shutdown();
    }
    let mut malformed = 0;
    // Both for as long as the connection lives: a request begins and ends without them.
    let mut told = std::pin::pin!(told(shutdown));
    // Boxed: most connections have no such moment.
    let mut over = until.map(|until| {
        Box::pin(tokio::time::sleep_until(tokio::time::Instant::from_std(Clock::instant(until))))
    });
    let mut idle = std::pin::pin!(streams.idle(*config.idle_timeout));
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut told, if !going => {
                going = true;
                connection.graceful_shutdown();
                continue;
            }
            () = ended(&mut over), if !going => {
                going = true;
                connection.graceful_shutdown();
                continue;
            }
            accepted = H2Stream::accept(&mut connection, &digest) => accepted,
            () = &mut idle, if !going => {
                going = true;
                connection.graceful_shutdown();
                guard.set_deadline(Some(Clock::now() + CLOSING));
                continue;
            }
        };
        match accepted {
            Ok(Some(Accepted::Stream(stream))) => {
                // One that was on its way when the connection was told to go is served too.
                guard.begin();
                begin(stream, streams.mark());
            }
            Ok(Some(Accepted::Malformed)) => {
                malformed += 1;
                if malformed >= MAX_MALFORMED {
                    return;
                }
            }
            Ok(None) | Err(_) => return,
        }
    }
}

/// Until `timer` has run out; for ever, if there is none.
async fn ended(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

/// Until there is a `shutdown`. For one task: it is polled with each piece of the connection, and
/// looks for a change without asking to be woken by it a second time.
async fn told(mut shutdown: ShutdownWatch) {
    let seen = shutdown.clone();
    // Unconstrained: the one time it asks, it must not be put off instead.
    let mut changed = std::pin::pin!(tokio::task::unconstrained(shutdown.changed()));
    let mut waits = false;
    std::future::poll_fn(|cx| {
        if waits && seen.has_changed().is_ok_and(|changed| !changed) {
            return Poll::Pending;
        }
        waits = true;
        changed.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// The streams of a connection.
struct Streams {
    /// Those that have not ended.
    open: AtomicUsize,
    /// When the last of them did, in nanoseconds of the clock.
    ended: AtomicU64,
}

impl Streams {
    fn new() -> Self {
        Streams { open: AtomicUsize::new(0), ended: AtomicU64::new(Clock::now().as_nanos()) }
    }

    fn mark(self: &Arc<Self>) -> StreamMark {
        // Relaxed: whoever finds none looks at when the last one ended, which is released below.
        self.open.fetch_add(1, Ordering::Relaxed);
        StreamMark(self.clone())
    }

    /// Until there has been no stream for `limit`; for ever, if that is zero.
    async fn idle(&self, limit: Duration) {
        if limit.is_zero() {
            return std::future::pending().await;
        }
        loop {
            // The timer of a busy connection fires now and then, and is not touched in between.
            let rest = match self.open.load(Ordering::Acquire) {
                0 => {
                    let ended = Moment::from_nanos(self.ended.load(Ordering::Relaxed));
                    limit.saturating_sub(Clock::now().since(ended))
                }
                _ => limit,
            };
            if rest.is_zero() {
                return;
            }
            tokio::time::sleep(rest).await;
        }
    }
}

/// A stream is open as long as this lives.
#[must_use = "dropping it says the stream has ended"]
pub struct StreamMark(Arc<Streams>);

impl Drop for StreamMark {
    fn drop(&mut self) {
        self.0.ended.store(Clock::now().as_nanos(), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}
