//! Rows that are written after the response: a queue in memory, emptied in batches.
//!
//! Handing over a row never waits. The queue is bounded, including rows being written; a row that
//! does not fit is dropped. A row counts as written only once the store has committed it, and every
//! row ends as exactly one of written, dead and dropped.

use std::mem;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::record::config::{Chosen, Config};
use crate::record::invocation::{Row, Stage};
use crate::record::lane::closing::Closing;
use crate::record::stats::Counters;
use crate::record::store::error::Refusal;
use crate::record::store::link::Link;
use crate::record::store::safety::Safety;

/// Second writes in one batch for PostgreSQL, unless more are waiting already. They keep it busy
/// for longer than new rows do, and delay the commits that requests wait for. The embedded store
/// has a single writer anyway.
const SECONDS: u32 = 64;

/// The sending side of the queue.
pub(crate) struct Queue {
    rows: mpsc::UnboundedSender<Row>,
    /// `queue_depth` bounds the channel; unlike the channel's own length it includes rows being
    /// written.
    counters: Arc<Counters>,
    most: u64,
    batch: u64,
    seconds: u64,
    /// Notified when a batch is full, so that the task does not wait for more.
    full: Arc<Notify>,
}

impl Queue {
    /// Makes the queue and starts the task that empties it into the store.
    pub(crate) fn new(
        config: &Config,
        link: Arc<Link>,
        counters: Arc<Counters>,
        closing: Closing,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (rows, inbox) = mpsc::unbounded_channel();
        let full = Arc::new(Notify::new());
        let writer = Writer {
            inbox,
            full: Arc::clone(&full),
            link,
            counters: Arc::clone(&counters),
            max_rows: config.batch.max_rows.get() as usize,
            max_delay: *config.batch.max_delay,
            closing,
        };
        let batch = config.batch.max_rows.get();
        let seconds = match config.store.chosen() {
            Some(Chosen::Postgres(..)) => batch.min(SECONDS),
            Some(Chosen::Sqlite(..)) | None => batch,
        };
        let (batch, seconds) = (batch.into(), seconds.into());
        let most = config.queue.get().into();
        let queue = Queue { rows, counters, most, batch, seconds, full };
        (queue, writer.run())
    }

    /// Takes the row, or counts it as dropped.
    pub(crate) fn push(&self, row: Row) {
        let stage = row.stage;
        if stage == Stage::Whole {
            self.counters.enqueued.add(1);
        }
        let depth = self.counters.queue_depth.add(1);
        if depth > self.most || self.rows.send(row).is_err() {
            self.counters.queue_depth.sub(1);
            drop_one(&self.counters, stage);
            return;
        }
        let batch = match stage {
            Stage::Completion => self.seconds,
            Stage::Whole | Stage::Answered => self.batch,
        };
        if depth.is_multiple_of(batch) {
            self.full.notify_one();
        }
    }
}

struct Writer {
    inbox: mpsc::UnboundedReceiver<Row>,
    full: Arc<Notify>,
    link: Arc<Link>,
    counters: Arc<Counters>,
    max_rows: usize,
    max_delay: std::time::Duration,
    closing: Closing,
}

impl Writer {
    /// Runs until the queue is closed and empty, or the time to finish is over.
    async fn run(mut self) {
        loop {
            let batch = self.gather().await;
            if batch.is_empty() {
                return;
            }
            let batch = Arc::new(batch);
            let mut closing = self.closing.clone();
            let outcome = tokio::select! {
                biased;
                refusals = self.deliver(&batch) => Some(refusals),
                () = closing.expired() => None,
            };
            match outcome {
                Some(refusals) => self.count(&batch, &refusals),
                None => return self.give_up(&batch),
            }
        }
    }

    /// The next batch: what is there once the first row has waited for `max_delay`, or once a batch
    /// is full.
    async fn gather(&mut self) -> Vec<Row> {
        let mut batch = Vec::with_capacity(self.max_rows.min(64));
        tokio::select! {
            biased;
            () = self.closing.begun() => self.inbox.close(),
            _ = self.inbox.recv_many(&mut batch, self.max_rows) => {}
        }
        if !self.inbox.is_closed() && batch.len() < self.max_rows {
            tokio::select! {
                () = self.closing.begun() => {}
                _ = timeout(self.max_delay, self.full.notified()) => {}
            }
        }
        while batch.len() < self.max_rows {
            let Ok(row) = self.inbox.try_recv() else { break };
            batch.push(row);
        }
        batch
    }

    /// Writes the batch, retrying until it succeeds.
    async fn deliver(&self, batch: &Arc<Vec<Row>>) -> Vec<Refusal> {
        loop {
            self.link.ready().await;
            if let Ok(refusals) = self.link.write(batch, Safety::Process).await {
                return refusals;
            }
        }
    }

    fn count(&self, batch: &[Row], refusals: &[Refusal]) {
        let of = |stage| batch.iter().filter(|row| row.stage == stage).count() as u64;
        let refused = |stage| {
            let is =
                |refusal: &&Refusal| batch.get(refusal.index).is_some_and(|r| r.stage == stage);
            refusals.iter().filter(is).count() as u64
        };
        self.counters.batches.add(1);
        // A second write is not another row: its row was counted with the first write, refused or
        // not.
        self.counters.dead.add(refused(Stage::Whole) + refused(Stage::Answered));
        self.counters.completions_dropped.add(refused(Stage::Completion));
        self.counters.written.add(of(Stage::Whole) - refused(Stage::Whole));
        self.counters.completed.add(of(Stage::Completion) - refused(Stage::Completion));
        self.counters.queue_depth.sub(batch.len() as u64);
    }

    /// The time is up, so what is left is dropped. The store may still commit the batch under way;
    /// rows not known to be committed do not count as written.
    fn give_up(&mut self, batch: &[Row]) {
        self.inbox.close();
        let mut left: Vec<Stage> = batch.iter().map(|row| row.stage).collect();
        while let Ok(row) = self.inbox.try_recv() {
            left.push(row.stage);
        }
        self.counters.queue_depth.sub(left.len() as u64);
        for stage in mem::take(&mut left) {
            drop_one(&self.counters, stage);
        }
    }
}

fn drop_one(counters: &Counters, stage: Stage) {
    match stage {
        Stage::Whole | Stage::Answered => counters.dropped.add(1),
        Stage::Completion => counters.completions_dropped.add(1),
    };
}
