//! Whether a store can be reached, and reconnecting to it.
//!
//! All writes go through the [`Link`]. A write that fails takes it down, for all lanes at once; a
//! single task then retries with growing pauses until the store can be migrated again. That it is away,
//! and that it is back, is one line each. The lanes decide what a request does meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use log::{info, warn};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::condition::Spell;
use crate::record::invocation::Row;
use crate::record::meters::Meters;
use crate::record::store::contract::Store;
use crate::record::store::error::{Lost, Refusal};
use crate::record::store::safety::Safety;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A store that has stayed reachable for this long, even without a write, counts as back.
const STABLE: Duration = Duration::from_secs(30);

/// A store, and what is known about its state.
pub(crate) struct Link {
    /// The store's name in the log.
    name: &'static str,
    store: Arc<dyn Store>,
    meters: Meters,
    ready: watch::Sender<bool>,
    /// Rows are refused by the store.
    refusing: Spell,
    /// Locked once per batch, and by a commit while the store is down; never across an await.
    state: Mutex<State>,
}

struct State {
    /// Failures since the last success.
    failures: u32,
    /// The store can be reached, but a write has failed: only a write proves that it is back.
    unproven: bool,
    down_since: Option<Instant>,
    error: Option<String>,
}

impl Link {
    /// Starts as down, until [`Link::supervise`] has reached the store.
    pub(crate) fn new(name: &'static str, store: Arc<dyn Store>, meters: Meters) -> Self {
        Link {
            name,
            store,
            meters,
            ready: watch::Sender::new(false),
            refusing: Spell::default(),
            state: Mutex::new(State {
                failures: 0,
                unproven: false,
                down_since: Some(Instant::now()),
                error: None,
            }),
        }
    }

    /// Connects to the store, and again whenever it is lost. Never returns.
    pub(crate) async fn supervise(self: Arc<Self>) {
        let mut ready = self.ready.subscribe();
        loop {
            sleep(self.pause()).await;
            match self.store.migrate().await {
                Ok(()) => self.reached(),
                Err(lost) => self.failed(&lost),
            }
            if timeout(STABLE, ready.wait_for(|ready| !ready)).await.is_err() {
                self.stayed();
            }
            if ready.wait_for(|ready| !ready).await.is_err() {
                return;
            }
        }
    }

    /// Resolves when the store is up.
    pub(crate) async fn ready(&self) {
        // We hold the sender, so it cannot be gone.
        self.ready.subscribe().wait_for(|ready| *ready).await.ok();
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// How long the store has been down; `None` while it is up.
    pub(crate) fn down_for(&self) -> Option<Duration> {
        if self.is_ready() {
            return None;
        }
        self.state().down_since.map(|since| since.elapsed())
    }

    /// Why the store is down.
    pub(crate) fn error(&self) -> String {
        self.state().error.clone().unwrap_or_else(|| "not reached yet".to_owned())
    }

    /// As [`Store::write`]; a failure takes the link down.
    pub(crate) async fn write(
        &self,
        rows: &Arc<Vec<Row>>,
        safety: Safety,
    ) -> Result<Vec<Refusal>, Lost> {
        let begun = Instant::now();
        let outcome = self.store.write(rows, safety).await;
        match &outcome {
            Ok(refusals) => {
                self.meters.store_commit(rows.len(), begun.elapsed());
                self.wrote();
                self.report(rows, refusals);
            }
            Err(lost) => self.lost(lost),
        }
        outcome
    }

    pub(crate) async fn ping(&self) -> Result<(), Lost> {
        self.store.ping().await
    }

    pub(crate) async fn prepare(&self) -> Result<(), Lost> {
        self.store.prepare().await
    }

    pub(crate) async fn expire(&self, before: SystemTime, at_most: u32) -> Result<u64, Lost> {
        self.store.expire(before, at_most).await
    }

    /// Takes the link down, unless it is down already.
    pub(crate) fn lost(&self, lost: &Lost) {
        if self.is_ready() {
            self.state().unproven = true;
            self.failed(lost);
        }
    }

    fn failed(&self, lost: &Lost) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        state.error = Some(lost.to_string());
        state.down_since.get_or_insert_with(Instant::now);
        if state.failures == 1 {
            warn!("{}: unavailable, trying on: {lost}", self.name);
        }
        self.ready.send_replace(false);
    }

    fn reached(&self) {
        let mut state = self.state();
        if !state.unproven {
            self.recover(&mut state);
        }
        self.ready.send_replace(true);
    }

    fn wrote(&self) {
        let mut state = self.state();
        if state.unproven {
            self.recover(&mut state);
        }
    }

    /// It has been reachable for a while.
    fn stayed(&self) {
        let mut state = self.state();
        if state.unproven && self.is_ready() {
            self.recover(&mut state);
        }
    }

    fn recover(&self, state: &mut State) {
        let away = state.down_since.take().map(|since| since.elapsed()).unwrap_or_default();
        if state.failures == 0 {
            info!("{}: ready", self.name);
        } else {
            let (name, away, failures) = (self.name, away.as_secs_f64(), state.failures);
            info!("{name}: available again after {away:.1} s ({failures} failures)");
        }
        state.failures = 0;
        state.unproven = false;
        state.error = None;
    }

    fn report(&self, rows: &[Row], refusals: &[Refusal]) {
        let Some(first) = refusals.first() else { return };
        let Some(begun) = self.refusing.met() else { return };
        // What is wrong with one row is usually wrong with many.
        let id = rows.get(first.index).map(|row| row.invocation.id).unwrap_or_default();
        let n = refusals.len();
        let name = self.name;
        warn!("{name}: refused {n} of {} rows; row {id}: {}", rows.len(), first.reason);
        begun.until(move |over| info!("{name}: refuses no more rows {over}"));
    }

    fn pause(&self) -> Duration {
        let failures = self.state().failures;
        if failures == 0 {
            return Duration::ZERO;
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(10)).min(LONGEST_PAUSE);
        // So that replicas that lost the same store do not all come back at once.
        doubled.mul_f64(0.75 + 0.25 * fastrand::f64())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change leaves the state consistent, so a panic elsewhere does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;

    /// Can be reached, and takes no row.
    struct Reluctant;

    #[async_trait]
    impl Store for Reluctant {
        async fn migrate(&self) -> Result<(), Lost> {
            Ok(())
        }

        async fn write(&self, _: &Arc<Vec<Row>>, _: Safety) -> Result<Vec<Refusal>, Lost> {
            Err(Lost("no row today".to_owned()))
        }

        async fn ping(&self) -> Result<(), Lost> {
            Ok(())
        }

        async fn expire(&self, _: SystemTime, _: u32) -> Result<u64, Lost> {
            Ok(0)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stays_reachable_is_back_though_nothing_is_written_to_it() {
        let link = Arc::new(Link::new("store", Arc::new(Reluctant), Meters::unseen()));
        tokio::spawn(link.clone().supervise());
        link.ready().await;
        let is_told = || link.state().failures == 0;
        assert!(is_told(), "it is ready");
        assert!(link.write(&Arc::default(), Safety::Process).await.is_err());
        link.ready().await;
        sleep(STABLE - Duration::from_secs(1)).await;
        assert!(!is_told(), "only a write, or time, proves that it is back");
        sleep(Duration::from_secs(2)).await;
        assert!(is_told() && link.is_ready());
    }
}
