//! A client's HTTP/2 connection: its streams, its idle time, its end.
//!
//! Pingora's own loop does not let the gateway bound the time for the preface, or tell a stream's
//! request about its listener. The request path decides what happens to each stream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::Connection;
use pingora_core::protocols::http::v2::server;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::protocols::{
    Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest, Ssl, Stream,
};
use pingora_core::server::ShutdownWatch;
use tokio::time::Sleep;

use crate::config::server::Listener as Config;
use crate::proxy::downstream::changed::changed;
use crate::proxy::downstream::guard::Guard;
use crate::proxy::downstream::http1::GuardedIo;
use crate::proxy::downstream::http2_stream::H2Stream;
use crate::proxy::downstream::turnover::Turnover;
use crate::time::{Clock, Moment};

/// Time a client has to close the connection after it is told to.
const CLOSING: Duration = Duration::from_secs(1);
/// How many times `max_header_bytes` a head may have for the library to hand it on, so that the gateway
/// refuses it with a problem. The library answers larger ones with an empty 431. The bound is there
/// because a connection may hold `max_streams` such heads until they are refused: 25 MiB with the
/// defaults.
const HEADS: usize = 4;
/// The least size in bytes up to which the library hands on heads, however small `max_header_bytes` is:
/// what it is with the default.
const LEAST_HEAD: usize = 256 * 1024;
/// Requests refused because of their heads, or reset by the library, after which a connection takes no
/// more. Others may share it, behind a proxy, so what they have under way is finished.
const MAX_MALFORMED: u32 = 32;

/// How a client breaks the rules of HTTP/2.
pub enum Broken<'a> {
    /// What it sent is not allowed. The words say what.
    Rules(&'a str),
    /// It sent too many control frames, each of which is allowed.
    Flood,
}

/// The HTTP/2 settings of a connection.
fn options(config: &Config) -> H2Options {
    let mut options = default_h2_options();
    options.max_concurrent_streams(config.http2.max_streams);
    let heads = config.max_header_bytes.as_usize().saturating_mul(HEADS).max(LEAST_HEAD);
    options.max_header_list_size(u32::try_from(heads).unwrap_or(u32::MAX));
    options
}

/// Serves the streams of `io` until the client disconnects or stays idle for too long, or the
/// gateway ends the connection because of a `shutdown` or at the moment `until`. A client that goes on to
/// open streams `CLOSING` after it was told to go is refused them. `begin` gets each stream, with a mark to
/// keep until the stream has ended. `broken` is told how the client has broken the rules of HTTP/2, if it
/// has.
pub async fn serve(
    mut io: GuardedIo,
    guard: &Guard,
    config: &Config,
    shutdown: ShutdownWatch,
    until: Option<Moment>,
    mut begin: impl FnMut(H2Stream, StreamMark),
    broken: impl Fn(Broken<'_>),
) {
    let digest = Arc::new(Digest {
        ssl_digest: io.get_ssl_digest(),
        timing_digest: io.get_timing_digest(),
        proxy_digest: io.get_proxy_digest(),
        socket_digest: io.get_socket_digest(),
    });
    let heads = io.count_frames();
    let io: Stream = Box::new(io);
    let Ok(mut connection) = server::handshake(io, Some(options(config))).await else { return };
    guard.begin();
    let streams = Arc::new(Streams::new());
    let mut going: Option<Going<'_>> = None;
    if *shutdown.borrow() {
        going = Some(Going::told(&mut connection, &streams, CLOSING));
    }
    let turnover = Turnover::of(config, shutdown.clone());
    let mut malformed = 0;
    // Kept for the connection's lifetime, so that requests need not set them up again.
    let mut told = std::pin::pin!(changed(shutdown));
    // Boxed: most connections have no such limit.
    let mut over = until.map(|until| {
        Box::pin(tokio::time::sleep_until(tokio::time::Instant::from_std(Clock::instant(until))))
    });
    let mut idle = std::pin::pin!(streams.idle(*config.idle_timeout));
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut told, if going.is_none() => {
                going = Some(Going::told(&mut connection, &streams, CLOSING));
                continue;
            }
            () = ended(&mut over), if going.is_none() => {
                going = Some(Going::told(&mut connection, &streams, CLOSING));
                continue;
            }
            accepted = H2Stream::accept(&mut connection, &digest, |stream| heads.accepted(stream)) => accepted,
            // Polled after the connection, which refuses streams only while it is polled.
            refused = std::future::poll_fn(|_| match heads.take_refused() {
                0 => Poll::Pending,
                refused => Poll::Ready(refused),
            }) => {
                broken(Broken::Rules("a malformed request"));
                malformed += refused;
                if malformed >= MAX_MALFORMED && going.is_none() {
                    going = Some(Going::told(&mut connection, &streams, Duration::ZERO));
                }
                continue;
            }
            () = &mut idle, if going.is_none() => {
                going = Some(Going::told(&mut connection, &streams, CLOSING));
                guard.set_deadline(Some(Clock::now() + CLOSING));
                continue;
            }
            () = quiet(&mut going) => {
                guard.set_deadline(Some(Clock::now() + CLOSING));
                continue;
            }
        };
        match accepted {
            Ok(Some(stream)) => {
                if going.as_ref().is_some_and(|going| Clock::now() >= going.refuses) {
                    stream.refuse();
                    continue;
                }
                // The request path refuses it, as any other.
                if stream.fault().is_some() {
                    malformed += 1;
                    if malformed >= MAX_MALFORMED && going.is_none() {
                        going = Some(Going::told(&mut connection, &streams, Duration::ZERO));
                    }
                }
                // Also serves a stream that was opened before the client learned of the shutdown.
                guard.begin();
                if going.is_none() && turnover.is_last(Clock::now()) {
                    going = Some(Going::told(&mut connection, &streams, CLOSING));
                }
                begin(stream, streams.mark());
            }
            Ok(None) => return,
            Err(error) => {
                // Not errors that the client reports, nor that it has left.
                if guard.is_malformed() {
                    broken(Broken::Flood);
                } else if error.is_library() {
                    broken(Broken::Rules(&error.to_string()));
                }
                return;
            }
        }
    }
}

/// Waits for `timer`; for ever, if it is `None`.
async fn ended(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

/// A connection whose client has been told to go. The client need not say that it has heard so, without which the
/// library would serve it for ever.
struct Going<'a> {
    /// From then on new streams are refused.
    refuses: Moment,
    /// Resolves once there has been no stream for a while; `None` after that.
    quiet: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
}

impl<'a> Going<'a> {
    /// Tells the client of `connection`. New streams are refused `after` this time.
    fn told(
        connection: &mut Connection<Stream, Bytes>,
        streams: &'a Streams,
        after: Duration,
    ) -> Self {
        connection.graceful_shutdown();
        let refuses = Clock::now() + after;
        Going { refuses, quiet: Some(Box::pin(streams.idle(CLOSING))) }
    }
}

/// Waits until nothing happens any more on a connection that is `going`; once.
async fn quiet(going: &mut Option<Going<'_>>) {
    match going.as_mut().and_then(|going| going.quiet.as_mut()) {
        Some(quiet) => quiet.as_mut().await,
        None => return std::future::pending().await,
    }
    if let Some(going) = going {
        going.quiet = None;
    }
}

/// The streams of a connection.
struct Streams {
    /// How many have not ended.
    open: AtomicUsize,
    /// When the last one ended, in nanoseconds of the clock.
    ended: AtomicU64,
}

impl Streams {
    fn new() -> Self {
        Streams { open: AtomicUsize::new(0), ended: AtomicU64::new(Clock::now().as_nanos()) }
    }

    fn mark(self: &Arc<Self>) -> StreamMark {
        // Relaxed: a reader that sees no open stream also reads when the last one ended, which the
        // release in `drop` orders.
        self.open.fetch_add(1, Ordering::Relaxed);
        StreamMark(self.clone())
    }

    /// Waits until there has been no stream for `limit`; for ever, if that is zero.
    async fn idle(&self, limit: Duration) {
        if limit.is_zero() {
            return std::future::pending().await;
        }
        loop {
            // On a busy connection the timer fires once in a while, and is not touched in between.
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

/// Counts a stream as open until it is dropped.
#[must_use = "dropping it says the stream has ended"]
pub struct StreamMark(Arc<Streams>);

impl Drop for StreamMark {
    fn drop(&mut self) {
        self.0.ended.store(Clock::now().as_nanos(), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}
