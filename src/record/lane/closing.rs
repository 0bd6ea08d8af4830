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

    /// Resolves when the time to finish is over: at once, if the recorder was dropped unclosed.
    pub(crate) async fn expired(&mut self) {
        let deadline = match self.0.wait_for(Option::is_some).await {
            Ok(deadline) => *deadline,
            Err(_) => None,
        };
        if let Some(deadline) = deadline {
            sleep_until(deadline).await;
        }
    }
}
