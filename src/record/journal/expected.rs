//! Requests whose rows are about to come. A commit that has company waits for them, a little: what it
//! costs is the same for one row as for all of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Instant;

/// How many there are, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Expecting {
    // Relaxed: a hint; what waits has an end of its own, and rows come by another way.
    count: AtomicUsize,
    keeper: OnceLock<Thread>,
}

impl Expecting {
    pub(super) fn one(self: &Arc<Self>) -> Expected {
        self.count.fetch_add(1, Ordering::Relaxed);
        Expected(Arc::clone(self))
    }

    /// Waits until nobody is expected, or until `latest`. For one thread.
    pub(super) fn wait(&self, latest: Instant) {
        self.keeper.get_or_init(thread::current);
        while self.count.load(Ordering::Relaxed) > 0 {
            let left = latest.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }
}

/// A request that will have a row. To be dropped when that is about to be committed, or will not be.
#[derive(Debug)]
#[must_use = "dropping it says that the row has come"]
pub struct Expected(Arc<Expecting>);

impl Drop for Expected {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Relaxed) == 1
            && let Some(keeper) = self.0.keeper.get()
        {
            keeper.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(30);

    #[test]
    fn whoever_waits_goes_on_with_the_last_one_or_in_time() {
        let expecting = Arc::<Expecting>::default();
        let begun = Instant::now();
        expecting.wait(begun + LONG);
        let (first, last) = (expecting.one(), expecting.one());
        drop(first);
        expecting.wait(Instant::now() + SHORT);
        assert!(begun.elapsed() >= SHORT);
        let leaves = thread::spawn(move || {
            thread::sleep(SHORT);
            drop(last);
        });
        expecting.wait(Instant::now() + LONG);
        leaves.join().expect("no panic");
        assert!(begun.elapsed() < LONG);
    }
}
