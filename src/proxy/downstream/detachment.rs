//! How far a request depends on its client: whether it ends when the client disconnects, and
//! whether written bytes may be sent yet.
//!
//! The stream to the client obeys it; requests that hold an idempotency key set it.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

/// Writes must wait.
const HELD: u8 = 1;
/// The request goes on if its client disconnects.
const ALONE: u8 = 1 << 1;
/// The client has disconnected while `ALONE` was set.
const DESERTED: u8 = 1 << 2;

/// The flags of one connection, for the request under way.
#[derive(Debug, Default)]
pub struct Detachment {
    // Relaxed throughout, as in the guard: a single task reads and writes it.
    flags: AtomicU8,
    /// Locked only while writes are held. Boxed because idle connections hold none.
    until: Mutex<Option<Box<oneshot::Receiver<()>>>>,
}

impl Detachment {
    /// Holds all writes until `until` resolves.
    pub fn hold(&self, until: oneshot::Receiver<()>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(until));
        self.flags.fetch_or(HELD, Ordering::Relaxed);
    }

    /// From now until the end of the request, a disconnecting client is noted but not reported, and
    /// further writes to it are discarded.
    pub fn go_on_alone(&self) {
        self.flags.fetch_or(ALONE, Ordering::Relaxed);
    }

    /// Whether the client has disconnected since [`Detachment::go_on_alone`].
    pub fn is_deserted(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & DESERTED != 0
    }

    /// Called when the client has disconnected. Returns whether the request goes on without it.
    pub fn ignores_leaving(&self) -> bool {
        let alone = self.flags.load(Ordering::Relaxed) & ALONE != 0;
        if alone {
            self.flags.fetch_or(DESERTED, Ordering::Relaxed);
        }
        alone
    }

    /// Ready when writes may go out.
    pub fn poll_let_go(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.flags.load(Ordering::Relaxed) & HELD == 0 {
            return Poll::Ready(());
        }
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until.as_mut() {
            // A dropped sender also releases the writes.
            ready!(Pin::new(until).poll(cx)).ok();
        }
        *until = None;
        self.flags.fetch_and(!HELD, Ordering::Relaxed);
        Poll::Ready(())
    }

    /// Called when the request is over.
    pub fn end(&self) {
        self.flags.store(0, Ordering::Relaxed);
    }
}
