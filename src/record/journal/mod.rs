//! The local journal: rows are committed here before their response, and shipped to the store.
//!
//! Mode `durable` writes here first; so does `on_failure: journal` while the store is down. The
//! file is made when first needed, and one left by an earlier run is shipped from the start.
//! `record.journal.when_full` decides what happens to a response whose row does not fit.
//!
//! Builds may use one file after each other. What a row of another build is to this one, [`super::row`]
//! says; an entry of a form that is unknown here stays in the file.

mod check;
mod entry;
mod expected;
mod failure;
mod file;
mod frame;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod job;
mod keeper;
mod later;
mod left;
mod reserve;
mod salvage;
mod second_writes;
mod shipper;
#[cfg(test)]
mod tests;
mod wal;

mod page;

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{SendError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

pub use self::expected::Expected;
use self::expected::Expecting;
use self::job::{Job, Parcel};
use self::keeper::Keeper;
use self::later::Later;
pub use self::left::Left;
use self::second_writes::SecondWrites;
use self::shipper::Shipper;
use super::config;
use super::config::WhenFull;
use super::invocation::{Row, Second};
use super::meters::Meters;
use super::patience::{Patience, Progress};
use super::stats::Counters;
use crate::record::lane::answers::Answer;
use crate::record::lane::closing::Closing;
use crate::record::outcome::{Committed, Unavailable};
use crate::record::store::link::Link;
use crate::record::store::safety::Safety;

/// How often `close` checks whether everything has been shipped.
const POLL: Duration = Duration::from_millis(5);
/// How long rows in memory may take to the disk once there is no more time for the store.
const SETTLE: Duration = Duration::from_millis(500);
/// How long rows that are left may be counted.
const COUNT: Duration = Duration::from_millis(500);
/// How much longer than its time the end of the journal may take.
pub(super) const LEAVE: Duration = SETTLE.saturating_add(COUNT);

pub(crate) struct Journal {
    config: config::Journal,
    /// The most rows that may wait to be committed, and the most that the shipper may hold.
    most: usize,
    batch: config::Batch,
    /// What a commit has to survive, here and in the store.
    safety: Safety,
    /// The store that rows are shipped to.
    destination: Arc<Link>,
    counters: Arc<Counters>,
    meters: Meters,
    runtime: Handle,
    expecting: Arc<Expecting>,
    open: OnceLock<std::io::Result<Open>>,
}

/// The journal once it is in use. Dropping it ends its tasks.
struct Open {
    jobs: Sender<Job>,
    /// Room for rows on their way to the thread; it bounds memory.
    places: Arc<Semaphore>,
    progress: Arc<Progress>,
    parcels: mpsc::UnboundedSender<Parcel>,
    second_writes: Arc<SecondWrites>,
    /// Until when the shipper may keep second writes in memory while it waits for the store.
    hurry: watch::Sender<Option<Instant>>,
    shipper: AbortHandle,
}

impl Journal {
    pub(crate) fn new(
        config: &config::Config,
        destination: Arc<Link>,
        counters: Arc<Counters>,
        meters: Meters,
        runtime: Handle,
    ) -> Self {
        Journal {
            config: config.journal.clone(),
            most: config.queue.get() as usize,
            batch: config.batch.clone(),
            safety: config.safety(),
            destination,
            counters,
            meters,
            runtime,
            expecting: Arc::default(),
            open: OnceLock::new(),
        }
    }

    /// Opens the journal, and ships the rows left by an earlier run.
    pub(crate) fn resume(&self) {
        self.open().ok();
    }

    /// Whether an earlier run has left a journal file.
    pub(crate) fn exists(&self) -> bool {
        self.config.path.exists()
    }

    /// Announces a request that will commit its row here.
    pub(crate) fn expect(&self) -> Expected {
        self.expecting.one()
    }

    /// Commits the row here, within `patience`. `expected` is what [`Journal::expect`] returned for
    /// the request.
    pub(crate) async fn commit(
        &self,
        row: Row,
        mut expected: Option<Expected>,
        patience: Patience,
    ) -> Result<Committed, Unavailable> {
        let open = self.open()?;
        let (answer, outcome) = Answer::channel();
        let committed = async {
            let place = match open.places.try_acquire() {
                Ok(place) => place,
                Err(_) => {
                    // The row has to wait for a place, so commits must not wait for it.
                    expected = None;
                    open.places.acquire().await.map_err(|_| Unavailable::Closing)?
                }
            };
            place.forget();
            let sent = open.jobs.send(Job::Append(row, Some(answer)));
            drop(expected.take());
            sent.map_err(|_| Unavailable::Closing)?;
            outcome.await.unwrap_or(Err(Unavailable::Closing))
        };
        let outcome = patience.wait(&open.progress, committed).await;
        let outcome = outcome.unwrap_or_else(|waited| Err(Unavailable::Late(waited)));
        match (outcome, self.config.when_full) {
            (Ok(()), _) => Ok(Committed::Journal),
            (Err(Unavailable::Full(_)), WhenFull::Drop) => {
                self.counters.dropped.add(1);
                Ok(Committed::Nowhere)
            }
            (Err(unavailable), _) => Err(unavailable),
        }
    }

    /// Takes the second write of a row that was committed here; gives the row back if there is no
    /// room. Never waits.
    ///
    /// While the shipper keeps up, it merges both writes in memory: the row is durable already, and
    /// what the end of the request adds need not be written to the disk. Otherwise it is written
    /// here, too.
    pub(crate) fn complete(&self, second: Second) -> Option<Row> {
        let Ok(open) = self.open() else { return Some(second.into_row()) };
        if !open.second_writes.admit() {
            return self.push(second.into_row());
        }
        match open.parcels.send(Parcel::Second(second)) {
            Err(mpsc::error::SendError(Parcel::Second(second))) => {
                open.second_writes.leave(1);
                Some(second.into_row())
            }
            Ok(()) | Err(_) => None,
        }
    }

    /// Writes the row here soon; gives it back if there is no room. Never waits.
    pub(crate) fn push(&self, row: Row) -> Option<Row> {
        let Ok(open) = self.open() else { return Some(row) };
        let Ok(place) = open.places.try_acquire() else { return Some(row) };
        place.forget();
        match open.jobs.send(Job::Append(row, None)) {
            Err(SendError(Job::Append(row, _))) => Some(row),
            Ok(()) | Err(_) => None,
        }
    }

    /// Waits until every row handed over is on disk and in the store, or until the time of `closing` is
    /// over; what is in memory then has [`SETTLE`] to get to the disk. Nothing is shipped after that.
    pub(crate) async fn close(&self, mut closing: Closing) {
        let Some(Ok(open)) = self.open.get() else { return };
        open.second_writes.close();
        let now = Instant::now();
        let time = closing.deadline().unwrap_or(now).saturating_duration_since(now);
        open.hurry.send_replace(Some(now + time / 2));
        let settled = async || {
            while open.second_writes.count() > 0 {
                sleep(POLL).await;
            }
            open.flush().await;
        };
        let shipped = async {
            open.flush().await;
            while self.counters.journal_depth.value() > 0 || open.second_writes.count() > 0 {
                sleep(POLL).await;
            }
        };
        tokio::select! {
            () = shipped => {}
            () = closing.expired() => {
                open.hurry.send_replace(Some(Instant::now()));
                timeout(SETTLE, settled()).await.ok();
            }
        }
        open.shipper.abort();
        self.counters.completions_dropped.add(open.second_writes.count() as u64);
    }

    /// The rows that [`Journal::close`] has left; `None` if the journal was not in use, or cannot be read.
    pub(crate) async fn left(&self) -> Option<Left> {
        let Some(Ok(open)) = self.open.get() else { return None };
        let (reply, counted) = oneshot::channel();
        let until = std::time::Instant::now() + COUNT;
        open.jobs.send(Job::Count(until, reply)).ok()?;
        // The thread may be in a transaction with a slow disk.
        timeout(COUNT, counted).await.ok()?.ok()?
    }

    fn open(&self) -> Result<&Open, Unavailable> {
        let open = self.open.get_or_init(|| {
            let open = self.start();
            if let Err(error) = &open {
                log::error!("record journal: no thread for it: {error}");
            }
            open
        });
        open.as_ref().map_err(|error| Unavailable::Down(error.to_string()))
    }

    fn start(&self) -> std::io::Result<Open> {
        let (jobs, inbox) = channel();
        let (parcels, arriving) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(self.most));
        let (progress, held) = (Arc::<Progress>::default(), Arc::<AtomicUsize>::default());
        let second_writes = Arc::new(SecondWrites::at_most(self.most));
        let away = Arc::<AtomicBool>::default();
        let (hurry, hurried) = watch::channel(None);
        let keeper = Keeper {
            path: self.config.path.clone(),
            max_size: self.config.max_size.0,
            safety: self.safety,
            max_delay: *self.batch.max_delay,
            commit_interval: *self.batch.commit_interval,
            longest_interval: self.batch.longest_interval(),
            last_commit: None,
            expecting: Arc::clone(&self.expecting),
            inbox,
            places: Arc::clone(&places),
            progress: Arc::clone(&progress),
            parcels: parcels.clone(),
            held: Arc::clone(&held),
            most_held: self.most,
            away: Arc::clone(&away),
            second_writes: Arc::clone(&second_writes),
            counters: Arc::clone(&self.counters),
            meters: self.meters.clone(),
            file: None,
            behind: true,
            later: Later::default(),
            reads: Vec::new(),
            failing: Default::default(),
            unreadable: Default::default(),
        };
        std::thread::Builder::new().name("record-journal".to_owned()).spawn(|| keeper.run())?;
        let shipper = Shipper {
            jobs: jobs.clone(),
            parcels: arriving,
            held,
            away,
            second_writes: Arc::clone(&second_writes),
            hurry: Closing(hurried),
            destination: Arc::clone(&self.destination),
            counters: Arc::clone(&self.counters),
            safety: self.safety,
            max_delay: *self.batch.max_delay,
        };
        let shipper = self.runtime.spawn(shipper.run()).abort_handle();
        Ok(Open { jobs, places, progress, parcels, second_writes, hurry, shipper })
    }
}

impl Open {
    /// Waits until everything so far is on disk.
    async fn flush(&self) {
        let (reply, flushed) = oneshot::channel();
        if self.jobs.send(Job::Flush(reply)).is_ok() {
            flushed.await.ok();
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // The shipper holds a sender too, which would keep the thread alive.
        self.shipper.abort();
    }
}
