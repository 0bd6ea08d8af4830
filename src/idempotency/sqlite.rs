//! Keys in the SQLite file of one gateway, on the thread that writes the record. Times are the
//! machine's.
//!
//! Every change waits for the disk: if a power failure undid a lease, its request could be executed
//! twice. Changes that wait for the same transaction share it. A full file accepts no new keys, but
//! the ones it holds are still found.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::store::{Claim, Found, Insertion, Row, Store};
use crate::policy::idempotency::{Answer, Kept, Scope};
use crate::record::Database;
use crate::record::store::error::Lost;
use crate::record::store::sqlite::Sqlite;
use crate::record::store::sqlite::room::{Room, is_full, make_room};

const INSERT: &str = "INSERT INTO idempotency_keys \
    (scope, fingerprint, route, owner, lease_until, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
    ON CONFLICT (scope) DO NOTHING";

const FIND: &str = "SELECT fingerprint, owner, lease_until, expires_at, status, head, body, \
    trailers \
    FROM idempotency_keys WHERE scope = ?1";

const TAKE_OVER: &str = "UPDATE idempotency_keys SET fingerprint = ?2, owner = ?3, \
    lease_until = ?4, expires_at = ?5, status = NULL, head = NULL, body = NULL, trailers = NULL \
    WHERE scope = ?1 AND owner = ?6 AND (status IS NOT NULL) = ?7";

const KEEP: &str = "UPDATE idempotency_keys SET status = ?3, head = ?4, body = ?5, \
    trailers = ?6, expires_at = ?7 WHERE scope = ?1 AND owner = ?2";

const RELEASE: &str =
    "DELETE FROM idempotency_keys WHERE scope = ?1 AND owner = ?2 AND status IS NULL";

const EXPIRE: &str = "DELETE FROM idempotency_keys WHERE scope IN \
    (SELECT scope FROM idempotency_keys WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";

/// Steps in one transaction at most.
const GROUP: usize = 256;

pub(super) struct SqliteKeys {
    file: Sqlite,
    waiting: mpsc::UnboundedSender<Box<dyn Step>>,
}

impl SqliteKeys {
    pub(super) fn new(file: Sqlite, runtime: &Handle) -> Self {
        let (waiting, inbox) = mpsc::unbounded_channel();
        runtime.spawn(serve(file.clone(), inbox));
        SqliteKeys { file, waiting }
    }

    /// Resolves when the result of `work` is on the disk; `None` if there was no room for it.
    async fn try_run<T: Send + 'static>(
        &self,
        work: impl Fn(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Option<T>, Lost> {
        let gone = || Lost("the SQLite file is not served any more".to_owned());
        let (answer, outcome) = oneshot::channel();
        let step = Pending { work, value: None, answer };
        self.waiting.send(Box::new(step)).map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// As `try_run`, for work that must not be skipped for lack of room: that is an error.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Lost> {
        let full = || {
            Lost(
                "the SQLite file is full: the disk, its max_size or the limit on the size of files"
                    .to_owned(),
            )
        };
        self.try_run(work).await?.ok_or_else(full)
    }
}

#[async_trait]
impl Store for SqliteKeys {
    async fn migrate(&self) -> Result<(), Lost> {
        Database::Sqlite(self.file.clone()).migrate().await
    }

    async fn insert(&self, claim: &Claim) -> Result<Insertion, Lost> {
        let claim = claim.clone();
        let inserted = self.try_run(move |transaction| {
            transaction.prepare_cached(INSERT)?.execute(params![
                claim.scope.0,
                claim.fingerprint.0,
                &*claim.route,
                claim.owner.as_bytes(),
                from_now(claim.lease),
                from_now(claim.ttl),
            ])
        });
        Ok(inserted.await?.map_or(Insertion::NoRoom, |rows| Insertion::from(rows == 1)))
    }

    async fn find(&self, scope: &Scope) -> Result<Option<Found>, Lost> {
        let scope = *scope;
        let row = self
            .run(move |transaction| {
                transaction.prepare_cached(FIND)?.query_row([scope.0], read).optional()
            })
            .await?;
        row.map(Row::read).transpose()
    }

    async fn take_over(&self, claim: &Claim, found: &Found) -> Result<bool, Lost> {
        let (claim, before, answered) = (claim.clone(), found.owner, found.is_answered());
        let taken = self.run(move |transaction| {
            transaction.prepare_cached(TAKE_OVER)?.execute(params![
                claim.scope.0,
                claim.fingerprint.0,
                claim.owner.as_bytes(),
                from_now(claim.lease),
                from_now(claim.ttl),
                before.as_bytes(),
                answered,
            ])
        });
        Ok(taken.await? == 1)
    }

    async fn keep(
        &self,
        scope: &Scope,
        owner: Uuid,
        answer: &Answer,
        ttl: Duration,
    ) -> Result<bool, Lost> {
        let scope = *scope;
        let keep = move |kept: Kept| {
            move |transaction: &Transaction<'_>| {
                transaction.prepare_cached(KEEP)?.execute(params![
                    scope.0,
                    owner.as_bytes(),
                    kept.status,
                    kept.head,
                    kept.body.as_deref(),
                    kept.trailers,
                    from_now(ttl),
                ])
            }
        };
        let whole = answer.to_kept();
        let bare = Kept { head: Vec::new(), body: None, trailers: None, ..whole };
        let kept = match self.try_run(keep(whole)).await? {
            Some(kept) => kept,
            // Keep at least that there was a response, without its content.
            None => self.run(keep(bare)).await?,
        };
        Ok(kept == 1)
    }

    async fn release(&self, scope: &Scope, owner: Uuid) -> Result<(), Lost> {
        let scope = *scope;
        let released = self.run(move |transaction| {
            transaction.prepare_cached(RELEASE)?.execute(params![scope.0, owner.as_bytes()])
        });
        released.await.map(drop)
    }

    async fn expire(&self, at_most: u32) -> Result<u64, Lost> {
        let gone = self.run(move |transaction| {
            transaction.prepare_cached(EXPIRE)?.execute(params![from_now(Duration::ZERO), at_most])
        });
        Ok(gone.await? as u64)
    }
}

/// One step of a transaction: executed in it, and answered once it has ended.
trait Step: Send {
    fn work(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()>;
    /// The transaction was rolled back, and the step with it.
    fn undo(&mut self);
    fn answer(self: Box<Self>, lost: Option<&Lost>);
}

struct Pending<T, F> {
    work: F,
    /// `None` if there was no room for it.
    value: Option<T>,
    answer: oneshot::Sender<Result<Option<T>, Lost>>,
}

impl<T, F> Step for Pending<T, F>
where
    T: Send,
    F: Fn(&Transaction<'_>) -> rusqlite::Result<T> + Send,
{
    fn work(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        self.value = Some((self.work)(transaction)?);
        Ok(())
    }

    fn undo(&mut self) {
        self.value = None;
    }

    fn answer(self: Box<Self>, lost: Option<&Lost>) {
        let outcome = match lost {
            Some(lost) => Err(lost.clone()),
            None => Ok(self.value),
        };
        // A caller that has stopped waiting was told by its own timer.
        self.answer.send(outcome).ok();
    }
}

/// Executes waiting steps, as many in one transaction as there are. Ends with the last sender.
async fn serve(file: Sqlite, mut inbox: mpsc::UnboundedReceiver<Box<dyn Step>>) {
    let mut group = Vec::new();
    while inbox.recv_many(&mut group, GROUP).await > 0 {
        let steps = Arc::new(Mutex::new(std::mem::take(&mut group)));
        let shared = Arc::clone(&steps);
        let outcome = file
            .run_for_room(move |connection, room| {
                connection.pragma_update(None, "synchronous", "full")?;
                let mut steps = shared.lock().unwrap_or_else(PoisonError::into_inner);
                work_all(connection, &mut steps, room)
            })
            .await;
        let steps = std::mem::take(&mut *steps.lock().unwrap_or_else(PoisonError::into_inner));
        steps.into_iter().for_each(|step| step.answer(outcome.as_ref().err()));
    }
}

/// Executes all steps together. If there is no room, it makes some and tries once more, and then
/// executes each step alone, so that steps that need no room do not fail because of the others.
fn work_all(
    connection: &mut Connection,
    steps: &mut [Box<dyn Step>],
    room: &Room,
) -> rusqlite::Result<()> {
    if work(connection, steps)? {
        return Ok(());
    }
    if make_room(connection, steps.len(), room)? && work(connection, steps)? {
        return Ok(());
    }
    for step in steps.chunks_mut(1) {
        work(connection, step)?;
    }
    Ok(())
}

/// Whether there was room for the steps.
fn work(connection: &mut Connection, steps: &mut [Box<dyn Step>]) -> rusqlite::Result<bool> {
    let mut work = || {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        steps.iter_mut().try_for_each(|step| step.work(&transaction))?;
        transaction.commit()
    };
    match work() {
        Ok(()) => Ok(true),
        Err(error) => {
            steps.iter_mut().for_each(|step| step.undo());
            if is_full(&error) { Ok(false) } else { Err(error) }
        }
    }
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let owner: [u8; 16] = row.get(1)?;
    Ok(Row {
        fingerprint: row.get(0)?,
        owner: Uuid::from_bytes(owner),
        lease_until: row.get(2)?,
        expires_at: row.get(3)?,
        status: row.get(4)?,
        head: row.get(5)?,
        body: row.get(6)?,
        trailers: row.get(7)?,
        now: from_now(Duration::ZERO),
    })
}

/// The time `after` now, in milliseconds since 1970.
fn from_now(after: Duration) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.saturating_add(after).as_millis()).unwrap_or(i64::MAX)
}
