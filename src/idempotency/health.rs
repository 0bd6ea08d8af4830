//! Whether the store of keys can be reached, so that each request need not wait to find out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use log::{info, warn};
use tokio::time::Instant;

use crate::record::store::error::Lost;

/// Between two attempts to reach a store that has been down for longer than a request waits.
const PROBE: Duration = Duration::from_millis(200);

/// What a request does about the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Ask the store, and retry if that fails: it is up, or has only just failed.
    Insist,
    /// The store has been down for longer than a request waits. This request finds out whether it
    /// is back.
    TryOnce,
    GiveUp,
}

/// Whether the store is down. Changes are logged, repetitions are not.
#[derive(Default)]
pub(super) struct Health(Mutex<Option<Down>>);

struct Down {
    since: Instant,
    next_probe: Instant,
    failures: u64,
    /// What the last of them was.
    last_error: String,
}

impl Health {
    /// What a request should do that would wait for `within`.
    pub(super) fn advise(&self, within: Duration, now: Instant) -> Advice {
        let mut state = self.lock();
        let Some(down) = state.as_mut() else { return Advice::Insist };
        if down.since + within > now {
            return Advice::Insist;
        }
        if down.next_probe > now {
            return Advice::GiveUp;
        }
        down.next_probe = now + PROBE;
        Advice::TryOnce
    }

    pub(super) fn is_down(&self) -> bool {
        self.lock().is_some()
    }

    /// Why the store is down; `None` if it is not known to be.
    pub(super) fn error(&self) -> Option<String> {
        self.lock().as_ref().map(|down| down.last_error.clone())
    }

    pub(super) fn failed(&self, lost: &Lost, now: Instant) {
        let mut state = self.lock();
        let down = state.get_or_insert_with(|| {
            warn!("idempotency keys: the store is unavailable: {lost}");
            Down { since: now, next_probe: now, failures: 0, last_error: String::new() }
        });
        down.failures += 1;
        down.last_error = lost.to_string();
        down.next_probe = now + PROBE;
    }

    pub(super) fn answered(&self) {
        if let Some(down) = self.lock().take() {
            let away = down.since.elapsed().as_secs_f64();
            let failures = down.failures;
            info!(
                "idempotency keys: the store is available again after {away:.1} s ({failures} failures)"
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Down>> {
        // Every change leaves the state consistent, so a panic elsewhere does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_find_out_whether_a_store_that_stays_away_is_back() {
        const WITHIN: Duration = Duration::from_secs(1);
        let health = Health::default();
        let start = Instant::now();
        assert_eq!(health.advise(WITHIN, start), Advice::Insist);
        health.failed(&Lost("gone".to_owned()), start);
        assert_eq!(health.advise(WITHIN, start), Advice::Insist, "it may be back in time");
        let later = start + WITHIN;
        assert_eq!(health.advise(WITHIN, later), Advice::TryOnce);
        assert_eq!(health.advise(WITHIN, later), Advice::GiveUp);
        assert_eq!(health.advise(WITHIN, later + PROBE), Advice::TryOnce);
        health.answered();
        assert_eq!(health.advise(WITHIN, later + PROBE), Advice::Insist);
    }
}
