//! The state of the process: starting, ready or draining; and the number of requests in flight.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Shared by everything that starts, serves or stops.
#[derive(Debug)]
pub struct Lifecycle {
    started: Instant,
    ready: AtomicBool,
    draining: AtomicBool,
    /// How long the requests in flight had, once they are cut off.
    cut: OnceLock<Duration>,
    /// Tells the connections that the requests in flight are cut off.
    cuts: watch::Sender<()>,
    /// How many listeners accept connections.
    listening: watch::Sender<usize>,
    in_flight: AtomicUsize,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle {
            started: Instant::now(),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            cut: OnceLock::new(),
            cuts: watch::Sender::new(()),
            listening: watch::Sender::new(0),
            in_flight: AtomicUsize::new(0),
        }
    }
}

impl Lifecycle {
    /// One more listener accepts connections.
    pub fn listens(&self) {
        self.listening.send_modify(|listeners| *listeners += 1);
    }

    /// Waits until so many listeners accept connections.
    pub async fn until_listening(&self, listeners: usize) {
        // We hold the sender, so it cannot be gone.
        let _ = self.listening.subscribe().wait_for(|open| *open >= listeners).await;
    }

    /// Everything the first request needs is in place.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// The process takes no more requests; those in flight are finished.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether `/readyz` reports ready: started, and not draining.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.is_draining()
    }

    /// Whether the shutdown has begun; it is never taken back.
    pub fn is_draining(&self) -> bool {
        // Acquire pairs with the release above: a reader that sees the drain also sees what was
        // stopped before it.
        self.draining.load(Ordering::Acquire)
    }

    /// The drain's time, `limit`, is over: requests that are still in flight are cut off.
    pub fn cut_off(&self, limit: Duration) {
        // Only the first call counts, and there is only one drain.
        let _ = self.cut.set(limit);
        self.cuts.send_replace(());
    }

    /// Whether requests in flight are cut off: the drain's time is over.
    pub fn is_cut(&self) -> bool {
        self.cut.get().is_some()
    }

    /// Changes when the requests in flight are cut off.
    pub fn cuts(&self) -> watch::Receiver<()> {
        self.cuts.subscribe()
    }

    /// Requests in flight, those that clients disconnected from included until they are dropped.
    pub fn in_flight(&self) -> usize {
        // SeqCst against the drain's own reads: a request counted before the drain looked
        // must not be missed.
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Since the process was set up.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Counts a request until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(self.clone())
    }
}

/// A request in flight.
#[must_use = "dropping it says the request has ended"]
#[derive(Debug)]
pub struct InFlight(Arc<Lifecycle>);

impl InFlight {
    /// Whether the process drains, and this is one of its last requests.
    pub fn is_draining(&self) -> bool {
        self.0.is_draining()
    }

    /// How long it had before it was cut off, if it was.
    pub fn cut_after(&self) -> Option<Duration> {
        self.0.cut.get().copied()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}
