//! How far a request depends on its client: whether it ends when the client leaves, and whether what
//! is written may go out.
//!
//! Obeyed by the stream to the client ([`super::guard`]), ordered by requests that hold an
//! idempotency key.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

/// What is written waits.
const HELD: u8 = 1;
/// The request goes on if its client leaves.
const ALONE: u8 = 1 << 1;
/// It has left.
const DESERTED: u8 = 1 << 2;

/// Of one connection, for the request under way.
#[derive(Debug, Default)]
pub struct Detachment {
    // Relaxed throughout, as in the guard: one task reads and writes it.
    flags: AtomicU8,
    /// Locked only while something is held. Boxed: idle connections hold none.
    until: Mutex<Option<Box<oneshot::Receiver<()>>>>,
}

impl Detachment {
    /// Write nothing more before `until` has resolved.
    pub fn hold(&self, until: oneshot::Receiver<()>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(until));
        self.flags.fetch_or(HELD, Ordering::Relaxed);
    }

    /// From now on and until the end of the request, a client that leaves is noted and not reported:
    /// what it is sent goes nowhere.
    pub fn go_on_alone(&self) {
        self.flags.fetch_or(ALONE, Ordering::Relaxed);
    }

    /// Whether the client has left since then.
    pub fn is_deserted(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & DESERTED != 0
    }

    /// The client has left. Whether the request goes on without it.
    pub fn ignores_leaving(&self) -> bool {
        let alone = self.flags.load(Ordering::Relaxed) & ALONE != 0;
        if alone {
            self.flags.fetch_or(DESERTED, Ordering::Relaxed);
        }
        alone
    }

    /// Ready when something may be written.
    pub fn poll_let_go(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.flags.load(Ordering::Relaxed) & HELD == 0 {
            return Poll::Ready(());
        }
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until.as_mut() {
            // Whoever was to say so may be gone: that is an end as well.
            ready!(Pin::new(until).poll(cx)).ok();
        }
        *until = None;
        self.flags.fetch_and(!HELD, Ordering::Relaxed);
        Poll::Ready(())
    }

    /// The request is over.
    pub fn end(&self) {
        self.flags.store(0, Ordering::Relaxed);
    }
}
