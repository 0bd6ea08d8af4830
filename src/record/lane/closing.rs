//! The recorder's shutdown, as its tasks observe it.

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The recorder's shutdown, as its tasks observe it. Holds the deadline once it has begun.
#[derive(Debug, Clone)]
pub(crate) struct Closing(pub(crate) watch::Receiver<Option<Instant>>);

impl Closing {
    /// Resolves when the recorder closes or is dropped.
    pub(crate) async fn begun(&mut self) {
        self.0.wait_for(Option::is_some).await.ok();
    }

    /// Resolves when the time to finish is over: at once, if the recorder was dropped unclosed. The time
    /// may be shortened meanwhile.
    pub(crate) async fn expired(&mut self) {
        if self.0.wait_for(Option::is_some).await.is_err() {
            return;
        }
        loop {
            let Some(deadline) = *self.0.borrow_and_update() else { return };
            let changed = tokio::select! {
                () = sleep_until(deadline) => return,
                changed = self.0.changed() => changed,
            };
            if changed.is_err() {
                // It stays as it is.
                return sleep_until(deadline).await;
            }
        }
    }

    /// When the time to finish is over; `None` before it has begun.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        *self.0.borrow()
    }
}
