//! A client's HTTP/2 connection: its streams, its idle time, its end.
//!
//! Pingora's own loop cannot be told how long a preface may take, nor what a stream's request
//! must know of its listener. What becomes of a stream is the request path's business.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::protocols::http::v2::server::{
    self, H2Accept, H2Options, HttpSession, default_h2_options,
};
use pingora_core::protocols::{
    Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest, Ssl, Stream,
};
use pingora_core::server::ShutdownWatch;
use tokio::sync::Notify;

use super::guard::Guard;
use super::guarded_io::GuardedIo;
use crate::config::server::Listener as Config;
use crate::time::Clock;

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
/// `shutdown`; `begin` is given each of them, and a mark to keep until it has ended.
pub async fn serve(
    io: GuardedIo,
    guard: &Guard,
    config: &Config,
    mut shutdown: ShutdownWatch,
    mut begin: impl FnMut(HttpSession, StreamMark),
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
    let streams = Arc::new(Streams::default());
    let mut going = *shutdown.borrow();
    if going {
        connection.graceful_shutdown();
    }
    let mut malformed = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = shutdown.changed(), if !going => {
                going = true;
                connection.graceful_shutdown();
                continue;
            }
            accepted = HttpSession::from_h2_conn(&mut connection, digest.clone()) => accepted,
            () = streams.idle(*config.idle_timeout), if !going => {
                going = true;
                connection.graceful_shutdown();
                guard.set_deadline(Some(Clock::now() + CLOSING));
                continue;
            }
        };
        match accepted {
            Ok(Some(H2Accept::Session(stream))) => {
                // One that was on its way when the connection was told to go is served too.
                guard.begin();
                begin(stream, streams.mark());
            }
            Ok(Some(H2Accept::Rejected)) => {
                malformed += 1;
                if malformed >= MAX_MALFORMED {
                    return;
                }
            }
            Ok(None) | Err(_) => return,
        }
    }
}

/// The streams of a connection that have not ended.
#[derive(Default)]
struct Streams {
    open: AtomicUsize,
    none: Notify,
}

impl Streams {
    fn mark(self: &Arc<Self>) -> StreamMark {
        // Relaxed, here and below: a count; whoever waits for zero is woken by `none`.
        self.open.fetch_add(1, Ordering::Relaxed);
        StreamMark(self.clone())
    }

    /// Until there has been no stream for `limit`; for ever, if that is zero.
    async fn idle(&self, limit: Duration) {
        if limit.is_zero() {
            return std::future::pending().await;
        }
        while self.open.load(Ordering::Relaxed) != 0 {
            self.none.notified().await;
        }
        tokio::time::sleep(limit).await;
    }
}

/// A stream is open as long as this lives.
#[must_use = "dropping it says the stream has ended"]
pub struct StreamMark(Arc<Streams>);

impl Drop for StreamMark {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.none.notify_one();
        }
    }
}
