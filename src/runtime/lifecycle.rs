//! The state of the process: starting, ready or draining; and the number of requests in flight.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

/// Shared by everything that starts, serves or stops.
#[derive(Debug)]
pub struct Lifecycle {
    started: Instant,
    ready: watch::Sender<bool>,
    draining: AtomicBool,
    /// How long the requests in flight had, once they are cut off.
    cut: OnceLock<Duration>,
    /// Changes when the drain begins.
    drains: watch::Sender<bool>,
    /// Whether connections are accepted: from the start, or once another process has given up its sockets.
    accepting: watch::Sender<bool>,
    /// Whether another process has been told to serve, and has not said yet that it does.
    handing_over: watch::Sender<bool>,
    /// The process that serves from now on.
    successor: watch::Sender<Option<Successor>>,
    /// Whether the drain leaves idle connections of HTTP/1 open.
    sparing: watch::Sender<bool>,
    /// Tell the requests in flight that they are cut off. Several, because every request waits for one of
    /// them, and that takes its lock.
    cuts: [Notify; 8],
    /// How many listeners of the start listen.
    listening: watch::Sender<usize>,
    /// How many sockets clients can connect to.
    open: watch::Sender<usize>,
    in_flight: AtomicUsize,
}

/// The process that has taken over from this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// Its number.
    pub process: i32,
    /// The files of Unix sockets that are its own now.
    pub files: Vec<PathBuf>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle {
            started: Instant::now(),
            ready: watch::Sender::new(false),
            draining: AtomicBool::new(false),
            cut: OnceLock::new(),
            drains: watch::Sender::new(false),
            accepting: watch::Sender::new(true),
            handing_over: watch::Sender::new(false),
            successor: watch::Sender::new(None),
            sparing: watch::Sender::new(false),
            cuts: Default::default(),
            listening: watch::Sender::new(0),
            open: watch::Sender::new(0),
            in_flight: AtomicUsize::new(0),
        }
    }
}

impl Lifecycle {
    /// One more listener of the start listens, or is gone before it could.
    pub fn listens(&self) {
        self.listening.send_modify(|listeners| *listeners += 1);
    }

    /// One more socket is open for clients.
    pub fn opened(&self) {
        self.open.send_modify(|sockets| *sockets += 1);
    }

    /// A socket that was [`Self::opened`] is closed.
    pub fn closed(&self) {
        self.open.send_modify(|sockets| *sockets = sockets.saturating_sub(1));
    }

    /// Waits until no socket is open for clients.
    pub async fn until_closed(&self) {
        until(&self.open, |open| *open == 0).await;
    }

    /// Waits until so many listeners listen.
    pub async fn until_listening(&self, listeners: usize) {
        until(&self.listening, |open| *open >= listeners).await;
    }

    /// No connection is accepted until [`Self::accept`]: the process before this one still does.
    pub fn hold(&self) {
        self.accepting.send_replace(false);
    }

    /// Whether another process still serves, from which this one is to take over.
    pub fn is_held(&self) -> bool {
        !*self.accepting.borrow()
    }

    /// Connections are accepted from now on.
    pub fn accept(&self) {
        self.accepting.send_replace(true);
    }

    /// Waits until connections are accepted: not at all, unless the process takes over from another.
    pub async fn until_accepting(&self) {
        until(&self.accepting, |accepting| *accepting).await;
    }

    /// Another process has been told to serve: it says that it does before the guard is dropped, or it has failed.
    pub fn hand_over(self: &Arc<Self>) -> HandingOver {
        self.handing_over.send_replace(true);
        HandingOver(self.clone())
    }

    /// Waits until a process that has been told to serve does or has failed. Returns the one that has
    /// taken over, if any.
    pub async fn until_handed_over(&self) -> Option<Successor> {
        until(&self.handing_over, |handing_over| !*handing_over).await;
        self.successor.borrow().clone()
    }

    /// Another process serves from now on.
    pub fn succeed(&self, successor: Successor) {
        self.successor.send_replace(Some(successor));
    }

    /// Whether another process has taken over.
    pub fn has_successor(&self) -> bool {
        self.successor.borrow().is_some()
    }

    /// Waits until another process has taken over.
    pub async fn until_succeeded(&self) -> Successor {
        loop {
            until(&self.successor, Option::is_some).await;
            if let Some(successor) = &*self.successor.borrow() {
                return successor.clone();
            }
        }
    }

    /// The drain leaves idle connections of HTTP/1 open until [`Self::close_idle`].
    pub fn spare_idle(&self) {
        self.sparing.send_replace(true);
    }

    /// The drain closes idle connections.
    pub fn close_idle(&self) {
        self.sparing.send_replace(false);
    }

    /// Waits until the drain may close idle connections.
    pub async fn until_idle_are_closed(&self) {
        until(&self.sparing, |sparing| !*sparing).await;
    }

    /// Everything the first request needs is in place.
    pub fn set_ready(&self) {
        self.ready.send_replace(true);
    }

    /// Waits until everything is in place.
    pub async fn until_ready(&self) {
        until(&self.ready, |ready| *ready).await;
    }

    /// The process takes no more requests; those in flight are finished.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
        self.drains.send_replace(true);
    }

    /// Waits until the shutdown begins.
    pub async fn until_draining(&self) {
        until(&self.drains, |drains| *drains).await;
    }

    /// Whether `/readyz` reports ready: started, and not draining.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow() && !self.is_draining()
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
        self.cuts.iter().for_each(Notify::notify_waiters);
    }

    /// Whether requests in flight are cut off: the drain's time is over.
    pub fn is_cut(&self) -> bool {
        self.cut.get().is_some()
    }

    /// Waits until the requests in flight are cut off. Polled with every event of a request: so it registers its
    /// waker once, and afterwards only reads. Must be polled by one task.
    pub async fn until_cut(&self) {
        // Made before the first look, so that a call which comes between the two is not missed. Unconstrained: this is
        // polled only once to register, and tokio's budget must not defer that.
        let told = self.cuts[fastrand::usize(..self.cuts.len())].notified();
        let mut told = std::pin::pin!(tokio::task::unconstrained(told));
        let mut waits = false;
        std::future::poll_fn(|cx| {
            if self.is_cut() {
                return Poll::Ready(());
            }
            if std::mem::replace(&mut waits, true) {
                return Poll::Pending;
            }
            told.as_mut().poll(cx)
        })
        .await;
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

/// Waits until `is` what is watched. The sender is ours, so it cannot be gone.
async fn until<T>(watched: &watch::Sender<T>, is: impl FnMut(&T) -> bool) {
    let _ = watched.subscribe().wait_for(is).await;
}

/// Another process is told to serve.
#[must_use = "dropping it says that this is over"]
#[derive(Debug)]
pub struct HandingOver(Arc<Lifecycle>);

impl Drop for HandingOver {
    fn drop(&mut self) {
        self.0.handing_over.send_replace(false);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_cut_reaches_all_that_wait_for_it_and_those_that_come_later() {
        let lifecycle = Arc::new(Lifecycle::default());
        let wait = || {
            let lifecycle = lifecycle.clone();
            async move { lifecycle.until_cut().await }
        };
        let waiting: Vec<_> = (0..100).map(|_| tokio::spawn(wait())).collect();
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|task| !task.is_finished()));
        lifecycle.cut_off(Duration::from_secs(1));
        for task in waiting {
            let woken = tokio::time::timeout(Duration::from_secs(20), task).await;
            woken.expect("woken").expect("no panic");
        }
        tokio::time::timeout(Duration::from_secs(20), wait()).await.expect("at once");
    }
}
