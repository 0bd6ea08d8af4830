//! The keys of this gateway, and the tasks behind them.

pub(super) mod lease;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::{error, warn};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::health::{Advice, Health};
use super::postgres::PostgresKeys;
use super::sqlite::SqliteKeys;
use super::store::{Claim, Insertion, Store};
use crate::idempotency::keys::lease::Lease;
use crate::idempotency::tries::{LONGEST_PAUSE, Tries, count};
use crate::policy::idempotency::{Answer, Decision, OnUndecided, Refusal, decide};
use crate::record::Database;
use crate::record::store::error::Lost;

/// How often keys are deleted whose time is over, and how many at a time.
const SWEEP: Duration = Duration::from_secs(60);
const PORTION: u32 = 1000;

/// Keeps idempotency keys. Cheap to clone; all work on the store is done on the runtime it was
/// started on, whoever asks.
#[derive(Clone)]
pub struct Keys(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    health: Health,
    /// The schema is known to be there.
    migrated: AtomicBool,
    counters: Counters,
    /// When it was last said that there is no room. Locked only then.
    told_full: Mutex<Option<Instant>>,
    runtime: Handle,
}

/// What a claim came to.
#[derive(Debug)]
pub enum Claimed {
    /// The request is the first.
    First(Lease),
    /// It is not, and gets the answer that the first one got.
    Replay(Answer),
    /// It is not.
    Refused(Refusal),
    /// It may be, but there is no room for its key.
    NoRoom,
}

/// The store did not say in time whether the key is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store of idempotency keys is unavailable")]
pub struct Unavailable;

/// What became of the leases so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that were the first with their key.
    pub leased: u64,
    /// Of those, answered, and the answer kept.
    pub kept: u64,
    /// Of those, not sent: the key is free again.
    pub released: u64,
    /// Of those, sent, and nothing more is known.
    pub undecided: u64,
    /// Answers that could not be kept for want of the store.
    pub lost: u64,
    /// Requests that got the answer of the first one.
    pub replayed: u64,
    /// Requests that were refused for what became of the first one.
    pub refused: u64,
    /// Requests whose key could not be looked up.
    pub unavailable: u64,
}

/// Numbers that order nothing: every access is relaxed.
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
    /// Returns at once: the store is reached, and its schema brought up to date, when the first key
    /// comes.
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
            told_full: Mutex::default(),
            runtime: runtime.clone(),
        }));
        runtime.spawn(keys.clone().sweep());
        keys
    }

    /// Claims a key, waiting at most `within` for the store.
    ///
    /// # Errors
    /// It did not answer in time. Should the key be leased after that, it is released again.
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
            // Nobody may wait any more: a lease is dropped then, and with that released.
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
        // What was asked may have been done, though we never heard so: the lease is dropped.
        if !asked {
            lease.forget();
        }
        Err(Unavailable)
    }

    /// Inserts first; what is found instead is decided upon. `None`: the key is ours. From when on
    /// there may be a row of ours, is said by `asked`.
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
            // Gone again already: it was released, or its time was over.
            let Some(found) = store.find(&claim.scope).await? else { continue };
            if found.owner == claim.owner {
                // It had arrived after all, when the store seemed lost.
                return Ok(None);
            }
            match decide(found.entry.clone(), &claim.fingerprint, on_undecided, found.now) {
                // Another may have been faster; then there is something else to decide upon.
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
                    return Ok(Some(Claimed::Refused(refusal)));
                }
            }
        }
    }

    /// The store, once its schema is known to be there.
    pub(super) async fn store(&self) -> Result<&dyn Store, Lost> {
        let store = &*self.0.store;
        // Relaxed: whoever misses it migrates once more, which does nothing.
        if !self.0.migrated.load(Ordering::Relaxed) {
            store.migrate().await?;
            self.0.migrated.store(true, Ordering::Relaxed);
        }
        Ok(store)
    }

    /// There is no room for a key. Said once in a while: somebody must make some.
    fn full(&self) {
        count(&self.0.counters.unavailable);
        let mut told = self.0.told_full.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() > SWEEP) {
            *told = Some(Instant::now());
            error!(
                "idempotency keys: no room for new ones: record.store.sqlite.max_size or the disk is full"
            );
        }
    }

    pub(super) fn answered(&self) {
        self.0.health.answered();
    }

    /// The store was lost: wait, and say whether there is time for another try.
    pub(super) async fn again(&self, tries: &mut Tries, lost: &Lost) -> bool {
        // The file has to be opened again; another server may have taken over.
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

    /// Deletes keys whose time is over, for ever. One that comes again before that is found to be
    /// over and taken anew, so nothing depends on it.
    async fn sweep(self) {
        loop {
            sleep(SWEEP).await;
            if !self.0.migrated.load(Ordering::Relaxed) || self.0.health.is_down() {
                continue;
            }
            loop {
                match self.0.store.expire(PORTION).await {
                    Ok(gone) if gone == u64::from(PORTION) => {}
                    Ok(_) => break,
                    Err(lost) => {
                        warn!("idempotency keys: old ones could not be deleted: {lost}");
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
