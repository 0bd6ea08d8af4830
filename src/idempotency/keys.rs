//! The keys of this gateway, and the tasks behind them.

pub(super) mod lease;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use log::{error, info, warn};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::health::{Advice, Health};
use super::postgres::PostgresKeys;
use super::sqlite::SqliteKeys;
use super::store::{Claim, Insertion, Store};
use crate::condition::{Condition, Spell};
use crate::idempotency::keys::lease::Lease;
use crate::idempotency::tries::{LONGEST_PAUSE, Tries, count};
use crate::policy::idempotency::{Answer, Decision, OnUndecided, Refusal, decide};
use crate::record::Database;
use crate::record::store::error::Lost;
use crate::time::Clock;

/// How often expired keys are deleted, and how many at a time.
const SWEEP: Duration = Duration::from_secs(60);
const PORTION: u32 = 1000;

/// Keeps idempotency keys. Cheap to clone; all work on the store is done on the runtime it was
/// started on, whichever runtime the caller is on.
#[derive(Clone)]
pub struct Keys(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    health: Health,
    /// Set once the schema is known to be up to date.
    migrated: AtomicBool,
    counters: Counters,
    /// Room is lacking.
    full: Spell,
    /// Answers come when their keys have been given to others.
    late: Spell,
    runtime: Handle,
}

/// The result of a claim.
#[derive(Debug)]
pub enum Claimed {
    /// The request is the first with its key.
    First(Lease),
    /// It is not the first, and gets the response that the first one got.
    Replay(Answer),
    /// It is not the first, and is refused.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The owner of the claim of the first.
        first: Uuid,
    },
    /// It may be the first, but the store has no room for its key.
    NoRoom,
}

/// The store did not say in time whether the key is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store of idempotency keys is unavailable")]
pub struct Unavailable;

/// What happened to the leases so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that were the first with their key.
    pub leased: u64,
    /// Of those, requests whose response was kept.
    pub kept: u64,
    /// Of those, requests that were not sent upstream: the key is free again.
    pub released: u64,
    /// Of those, requests that were sent and of which nothing more is known.
    pub undecided: u64,
    /// Responses that were not kept: the store was down, or the key was no longer held.
    pub lost: u64,
    /// Requests that got the response of the first one.
    pub replayed: u64,
    /// Requests that were refused because of the first one.
    pub refused: u64,
    /// Requests whose key could not be looked up.
    pub unavailable: u64,
}

/// Counters that order no other memory: every access is relaxed.
#[derive(Default)]
pub(super) struct Counters {
    leased: AtomicU64,
    pub(super) kept: AtomicU64,
    pub(super) released: AtomicU64,
    pub(super) undecided: AtomicU64,
    pub(super) lost: AtomicU64,
    replayed: AtomicU64,
    refused: AtomicU64,
    unavailable: AtomicU64,
}

impl Keys {
    /// Returns at once: the store is connected to, and its schema brought up to date, when the
    /// first key arrives.
    pub fn start(database: &Database, runtime: &Handle) -> Self {
        let store: Arc<dyn Store> = match database {
            Database::Postgres(postgres) => Arc::new(PostgresKeys(Arc::clone(postgres))),
            Database::Sqlite(file) => Arc::new(SqliteKeys::new(file.clone(), runtime)),
        };
        let keys = Keys(Arc::new(Shared {
            store,
            health: Health::default(),
            migrated: AtomicBool::new(false),
            counters: Counters::default(),
            full: Spell::default(),
            late: Spell::default(),
            runtime: runtime.clone(),
        }));
        runtime.spawn(keys.clone().sweep());
        keys
    }

    /// Claims a key, waiting at most `within` for the store.
    ///
    /// # Errors
    /// The store did not respond in time. If the key gets leased after that, it is released again.
    pub async fn claim(
        &self,
        claim: Claim,
        on_undecided: OnUndecided,
        within: Duration,
    ) -> Result<Claimed, Unavailable> {
        let insist = match self.0.health.advise(within, Instant::now()) {
            Advice::Insist => within,
            Advice::TryOnce => Duration::ZERO,
            Advice::GiveUp => {
                count(&self.0.counters.unavailable);
                return Err(Unavailable);
            }
        };
        let (answer, outcome) = oneshot::channel();
        let keys = self.clone();
        self.0.runtime.spawn(async move {
            // If the request has stopped waiting, its lease is dropped here, which releases the
            // key.
            answer.send(keys.settle(&claim, on_undecided, Instant::now() + insist).await).ok();
        });
        match timeout(within, outcome).await {
            Ok(Ok(Ok(claimed))) => Ok(claimed),
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => {
                count(&self.0.counters.unavailable);
                Err(Unavailable)
            }
        }
    }

    /// The counters, now.
    pub fn stats(&self) -> Stats {
        let counters = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            leased: read(&counters.leased),
            kept: read(&counters.kept),
            released: read(&counters.released),
            undecided: read(&counters.undecided),
            lost: read(&counters.lost),
            replayed: read(&counters.replayed),
            refused: read(&counters.refused),
            unavailable: read(&counters.unavailable),
        }
    }

    /// Why the store cannot be asked; `None` if it is not known to be down.
    pub fn error(&self) -> Option<String> {
        self.0.health.error()
    }

    async fn settle(
        &self,
        claim: &Claim,
        on_undecided: OnUndecided,
        deadline: Instant,
    ) -> Result<Claimed, Unavailable> {
        let lease = Lease::new(self, claim);
        let mut tries = Tries::until(deadline);
        let mut asked = false;
        loop {
            match self.decide(claim, on_undecided, &mut asked).await {
                Ok(None) => {
                    self.answered();
                    count(&self.0.counters.leased);
                    return Ok(Claimed::First(lease));
                }
                Ok(Some(claimed)) => {
                    self.answered();
                    lease.forget();
                    return Ok(claimed);
                }
                Err(lost) if self.again(&mut tries, &lost).await => {}
                Err(_) => break,
            }
        }
        // The store may have inserted the row without our hearing so. Dropping the lease releases
        // it.
        if !asked {
            lease.forget();
        }
        Err(Unavailable)
    }

    /// Inserts the key, or decides by the entry that is found instead. `None`: the key is leased to
    /// us. Sets `asked` once there may be a row of ours.
    async fn decide(
        &self,
        claim: &Claim,
        on_undecided: OnUndecided,
        asked: &mut bool,
    ) -> Result<Option<Claimed>, Lost> {
        let store = self.store().await?;
        *asked = true;
        loop {
            match store.insert(claim).await? {
                Insertion::Done => return Ok(None),
                Insertion::NoRoom => {
                    self.full();
                    return Ok(Some(Claimed::NoRoom));
                }
                Insertion::Taken => {}
            }
            // The entry is gone already: it was released, or has expired.
            let Some(found) = store.find(&claim.scope).await? else { continue };
            if found.owner == claim.owner {
                // An earlier insert did arrive, though the store seemed lost.
                return Ok(None);
            }
            match decide(found.entry.clone(), &claim.fingerprint, on_undecided, found.now) {
                // Another gateway may have been faster; then there is a new entry to decide by.
                Decision::TakeOver => {
                    if store.take_over(claim, &found).await? {
                        return Ok(None);
                    }
                }
                Decision::Replay(answer) => {
                    count(&self.0.counters.replayed);
                    return Ok(Some(Claimed::Replay(answer)));
                }
                Decision::Refuse(refusal) => {
                    count(&self.0.counters.refused);
                    return Ok(Some(Claimed::Refused { refusal, first: found.owner }));
                }
            }
        }
    }

    /// The store, with its schema brought up to date.
    pub(super) async fn store(&self) -> Result<&dyn Store, Lost> {
        let store = &*self.0.store;
        // Relaxed: a caller that misses it migrates once more, which does nothing.
        if !self.0.migrated.load(Ordering::Relaxed) {
            store.migrate().await?;
            self.0.migrated.store(true, Ordering::Relaxed);
        }
        Ok(store)
    }

    /// The store has no room for a key.
    fn full(&self) {
        count(&self.0.counters.unavailable);
        if let Some(begun) = self.0.full.met() {
            error!(
                "idempotency keys: no room for new ones: record.store.sqlite.max_size or the disk is full"
            );
            begun.until(|over| info!("idempotency keys: none wants for room any more {over}"));
        }
    }

    /// An answer came after its key was given to another request.
    pub(super) fn late(&self) {
        count(&self.0.counters.lost);
        if let Some(begun) = self.0.late.met() {
            warn!("idempotency keys: an answer came after its key was given to another");
            begun.until(|over| info!("idempotency keys: no more answers come too late {over}"));
        }
    }

    pub(super) fn answered(&self) {
        self.0.health.answered();
    }

    /// Waits after a failure; `false` if there is no time for another try.
    pub(super) async fn again(&self, tries: &mut Tries, lost: &Lost) -> bool {
        // The file may have to be opened anew, or another server may have taken over.
        self.0.migrated.store(false, Ordering::Relaxed);
        let now = Instant::now();
        self.0.health.failed(lost, now);
        if now + tries.pause >= tries.deadline {
            return false;
        }
        sleep(tries.pause).await;
        tries.pause = (tries.pause * 2).min(LONGEST_PAUSE);
        true
    }

    /// Deletes expired keys; never returns. An expired key that is claimed before that is taken
    /// over, so nothing depends on this.
    async fn sweep(self) {
        let mut failing = Condition::default();
        loop {
            sleep(SWEEP).await;
            if !self.0.migrated.load(Ordering::Relaxed) || self.0.health.is_down() {
                continue;
            }
            loop {
                match self.0.store.expire(PORTION).await {
                    Ok(gone) if gone == u64::from(PORTION) => {}
                    Ok(_) => {
                        if let Some(over) = failing.over(Clock::now()) {
                            info!("idempotency keys: old ones are deleted again {over}");
                        }
                        break;
                    }
                    Err(lost) => {
                        if failing.met(Clock::now()) {
                            warn!("idempotency keys: old ones could not be deleted: {lost}");
                        }
                        break;
                    }
                }
            }
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.0.runtime
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keys").field(&self.stats()).finish()
    }
}
