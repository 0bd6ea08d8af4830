//! The recorder: what the request path calls, and the owner of the tasks behind it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout};

use super::config::{Chosen, Config, Mode, OnFailure};
use super::invocation::{Bounded, Completion, Invocation, Row, Second, Stage};
use super::journal::{self, Expected, Journal, Left};
use super::meters::Meters;
use super::patience::Patience;
use super::stats::{Counters, Stats};
use super::store::Database;
use crate::record::lane::closing::Closing;
use crate::record::lane::queue::Queue;
use crate::record::lane::sync::Lane;
use crate::record::outcome::{Commit, Committed, Unavailable};
use crate::record::store::contract::Store;
use crate::record::store::link::Link;
use crate::record::store::retention;

/// How long a result of the health check is reused, and how long the check may take.
const HEALTH_TTL: Duration = Duration::from_secs(1);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Keeps the record. Cheap to clone. Dropping the last clone ends its tasks and loses rows not yet
/// written: call [`Recorder::close`] first.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    counters: Arc<Counters>,
    queue: Queue,
    lane: Lane,
    journal: Journal,
    link: Arc<Link>,
    /// Where mode `durable` commits rows.
    durable: Durable,
    /// The last health result. Locked during a check, so that only one runs at a time.
    health: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
    closing: watch::Sender<Option<Instant>>,
    runtime: Handle,
    /// Tasks that end by themselves when the recorder closes.
    lanes: Mutex<Vec<JoinHandle<()>>>,
    /// Tasks that have to be aborted.
    upkeep: [AbortHandle; 2],
}

/// Where mode `durable` commits rows: the embedded store serves as well as the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durable {
    Store,
    Journal,
}

impl Recorder {
    /// Starts the recorder's tasks on `runtime`. Returns at once: a store that is down is connected
    /// to, and its schema brought up to date, once it can be reached.
    pub fn start(database: &Database, config: &Config, runtime: &Handle, meters: Meters) -> Self {
        Self::with_store(database.store(), config, runtime, meters)
    }

    pub(crate) fn with_store(
        store: Arc<dyn Store>,
        config: &Config,
        runtime: &Handle,
        meters: Meters,
    ) -> Self {
        let counters = Arc::<Counters>::default();
        let (closing, closed) = watch::channel(None);
        let closed = Closing(closed);
        let link = Arc::new(Link::new("record store", store, meters.clone()));
        let (queue, writer) =
            Queue::new(config, Arc::clone(&link), Arc::clone(&counters), closed.clone());
        let most = config.queue.get() as usize;
        let (lane, committer) = Lane::new(
            Arc::clone(&link),
            Arc::clone(&counters),
            (config.batch.max_rows.get() as usize, most),
            config.safety(),
            closed,
        );
        let journal =
            Journal::new(config, Arc::clone(&link), Arc::clone(&counters), meters, runtime.clone());
        if journal.exists() {
            journal.resume();
        }
        let durable = match config.store.chosen() {
            Some(Chosen::Sqlite(..)) => Durable::Store,
            Some(Chosen::Postgres(..)) | None => Durable::Journal,
        };
        let lanes = Mutex::new(vec![runtime.spawn(writer), runtime.spawn(committer)]);
        let keep = retention::keep(Arc::clone(&link), *config.retention, Arc::clone(&counters));
        let upkeep = [
            runtime.spawn(Arc::clone(&link).supervise()).abort_handle(),
            runtime.spawn(keep).abort_handle(),
        ];
        let health = tokio::sync::Mutex::default();
        Recorder(Arc::new(Shared {
            counters,
            queue,
            lane,
            journal,
            link,
            durable,
            health,
            closing,
            runtime: runtime.clone(),
            lanes,
            upkeep,
        }))
    }

    /// Opens the journal if mode `durable` needs one, so that the first request need not wait for
    /// that.
    pub fn expect_durable(&self) {
        if self.0.durable == Durable::Journal {
            self.0.journal.resume();
        }
    }

    /// Mode `async`: the only write of a row, after the response. Never waits; a row that does not
    /// fit into the queue is dropped and counted.
    pub fn enqueue(&self, invocation: Invocation) {
        self.0.queue.push(Row::new(invocation, Stage::Whole));
    }

    /// Announces a request that will commit its row in this mode: commits of the journal that
    /// several requests wait for wait a little for it as well. `None` if the mode does not use the
    /// journal.
    pub fn expect(&self, mode: Mode) -> Option<Expected> {
        let journal = mode == Mode::Durable && self.0.durable == Durable::Journal;
        journal.then(|| self.0.journal.expect())
    }

    /// Modes `durable` and `sync`: resolves when the row is committed. The response may not leave
    /// before.
    ///
    /// Waits for the store or the journal within `patience`. If `on_failure` lets the journal take
    /// the row, a busy store is waited for no longer than a stalled one. After an error the row may
    /// still be stored, if its transaction was under way: refuse the request, and `complete` the
    /// row with that refusal.
    ///
    /// # Errors
    /// The row is not known to be committed anywhere.
    pub async fn commit(
        &self,
        invocation: Bounded,
        expected: Option<Expected>,
        patience: impl Into<Patience>,
        (mode, on_failure): (Mode, OnFailure),
    ) -> Result<Committed, Unavailable> {
        let patience = patience.into();
        let row = Row::new(invocation, Stage::Answered);
        let outcome = match (mode, self.0.durable, on_failure) {
            (Mode::Durable, Durable::Journal, _) => {
                self.0.journal.commit(row, expected, patience).await
            }
            (Mode::Durable, Durable::Store, _) | (_, _, OnFailure::Reject) => {
                self.0.lane.commit(row, patience).await.map(|()| Committed::Store)
            }
            (_, _, OnFailure::Journal) => {
                let brief = patience.stalled.into();
                match self.0.lane.commit(row.clone(), brief).await {
                    Ok(()) => Ok(Committed::Store),
                    Err(_) => self.0.journal.commit(row, None, brief).await,
                }
            }
        };
        match &outcome {
            Ok(Committed::Store) => self.0.counters.committed.add(1),
            Ok(Committed::Journal | Committed::Nowhere) => 0,
            Err(Unavailable::Refused(_)) => self.0.counters.dead.add(1),
            Err(_) => self.0.counters.unavailable.add(1),
        };
        outcome
    }

    /// Modes `durable` and `sync`: the second write of a row, at the end of the request, with what
    /// was not known before. Never waits. It also corrects, or creates, the row of a request whose
    /// commit failed or was never tried. A write that does not fit into the queue is dropped and
    /// counted.
    pub fn complete(&self, first: Bounded, ending: Completion, mode: Mode, commit: Commit) {
        let second = Second { first, ending: Box::new(ending) };
        let journal = match commit {
            Commit::Made(Committed::Nowhere) => return,
            Commit::Made(Committed::Journal) => true,
            Commit::Made(Committed::Store) | Commit::Failed => false,
            Commit::NotTried => mode == Mode::Durable && self.0.durable == Durable::Journal,
        };
        let left = match (journal, commit) {
            (true, Commit::Made(_)) => self.0.journal.complete(second),
            (true, Commit::NotTried | Commit::Failed) => self.0.journal.push(second.into_row()),
            (false, _) => Some(second.into_row()),
        };
        if let Some(row) = left {
            self.0.queue.push(row);
        }
    }

    /// Whether the store responds and can be written to. It is asked at most once a second, and not
    /// at all while it is known to be down.
    ///
    /// # Errors
    /// What is wrong, without secrets.
    pub async fn health(&self) -> Result<(), String> {
        if !self.0.link.is_ready() {
            return Err(self.0.link.error());
        }
        let mut last = self.0.health.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < HEALTH_TTL
        {
            return answer.clone();
        }
        let answer = self.ask().await;
        *last = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn ask(&self) -> Result<(), String> {
        let link = Arc::clone(&self.0.link);
        // On the recorder's runtime, not the caller's: a new connection lives on where it was made.
        let ping = async move { timeout(HEALTH_TIMEOUT, link.ping()).await };
        match self.0.runtime.spawn(ping).await {
            Ok(Ok(answer)) => answer.map_err(|lost| lost.to_string()),
            Ok(Err(_)) => Err(format!("no answer within {HEALTH_TIMEOUT:?}")),
            Err(_) => Err("the recorder is closing".to_owned()),
        }
    }

    /// How much longer than it is told the end of the recorder may take: what is left goes to the disk, and
    /// is counted.
    pub const LEAVE: Duration = journal::LEAVE;

    /// Takes no more rows, writes those it has, and returns when that is done or `within` is over.
    /// Rows left in memory then are counted as dropped; rows in the journal stay for the next
    /// start, and [`Recorder::left`] says how many there are.
    pub async fn close(&self, within: Duration) -> Stats {
        let deadline = Instant::now() + within;
        self.0.closing.send_if_modified(|closing| {
            let first = closing.is_none();
            *closing = closing.or(Some(deadline));
            first
        });
        let lanes =
            std::mem::take(&mut *self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        let lanes = async {
            for lane in lanes {
                // A panic in a lane has been reported already.
                lane.await.ok();
            }
        };
        // At the same time: a queue that waits for the store must not take the journal's time.
        tokio::join!(lanes, self.0.journal.close(Closing(self.0.closing.subscribe())));
        self.stats()
    }

    /// Ends the wait for the store of a [`Recorder::close`] that is under way.
    pub fn hurry(&self) {
        let now = Instant::now();
        self.0.closing.send_modify(|closing| *closing = closing.map(|deadline| deadline.min(now)));
    }

    /// The rows that [`Recorder::close`] has left in the journal; `None` if that was not in use, or cannot
    /// be read.
    pub async fn left(&self) -> Option<Left> {
        self.0.journal.left().await
    }

    /// The counters, now.
    pub fn stats(&self) -> Stats {
        self.0.counters.read()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recorder").field(&self.stats()).finish()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.upkeep.iter().for_each(AbortHandle::abort);
    }
}
