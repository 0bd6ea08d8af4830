//! How long a request waits for its row to be committed.
//!
//! A burst of requests takes a store some time, and each of them may wait for it as long as its own
//! deadline allows. If the store commits nothing at all meanwhile, a request gives up much earlier.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// The bounds of one wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long to wait for a store that commits nothing.
    pub stalled: Duration,
    /// How long to wait for a store that makes progress: until the request's deadline.
    pub most: Duration,
}

/// The same limit, whether the store makes progress or not.
impl From<Duration> for Patience {
    fn from(within: Duration) -> Self {
        Patience { stalled: within, most: within }
    }
}

impl Patience {
    /// Waits for `outcome`.
    ///
    /// # Errors
    /// The time that was waited in vain.
    pub(super) async fn wait<T>(
        self,
        progress: &Progress,
        outcome: impl Future<Output = T>,
    ) -> Result<T, Duration> {
        let mut outcome = pin!(outcome);
        // A deadline too far away to represent is no limit.
        let end = Instant::now().checked_add(self.most);
        loop {
            let seen = progress.count();
            let stalled = Instant::now() + self.stalled;
            let is_last = end.is_some_and(|end| end <= stalled);
            let until = end.filter(|_| is_last).unwrap_or(stalled);
            match timeout_at(until, &mut outcome).await {
                Ok(outcome) => return Ok(outcome),
                Err(_) if is_last => return Err(self.most),
                Err(_) if progress.count() == seen => return Err(self.stalled),
                Err(_) => {}
            }
        }
    }
}

/// Counts committed transactions. It orders no other memory, so every access is relaxed.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU64);

impl Progress {
    pub(super) fn advance(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { stalled: Duration::from_secs(1), most: Duration::from_secs(10) };

    #[tokio::test(start_paused = true)]
    async fn a_store_that_commits_nothing_is_given_up_early() {
        let outcome = PATIENCE.wait(&Progress::default(), std::future::pending::<()>()).await;
        assert_eq!(outcome, Err(PATIENCE.stalled));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_at_work_is_waited_for_until_the_deadline() {
        let progress = Progress::default();
        let work = async {
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                progress.advance();
            }
        };
        let begun = Instant::now();
        tokio::select! {
            outcome = PATIENCE.wait(&progress, std::future::pending::<()>()) => {
                assert_eq!(outcome, Err(PATIENCE.most));
            }
            () = work => {}
        }
        assert_eq!(begun.elapsed(), PATIENCE.most);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_time_is_had() {
        let late = tokio::time::sleep(Duration::from_millis(900));
        assert_eq!(PATIENCE.wait(&Progress::default(), late).await, Ok(()));
        let forever = Patience { most: Duration::MAX, ..PATIENCE };
        assert_eq!(forever.wait(&Progress::default(), async { 7 }).await, Ok(7));
    }
}
