//! Where rows wait for a store that is down: an SQLite file of the same shape.
//!
//! Rows are committed here before their response, and shipped to the store when it is back: at least
//! once, and by their id stored once. A row leaves the journal after the store has committed it. The
//! file is made when first needed; one that is left from an earlier run is shipped from the start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, OnceCell};
use tokio::task::AbortHandle;

use super::committer::Lane;
use super::invocation::{Row, Stage};
use super::link::Link;
use super::recorder::{Closing, Unavailable};
use super::stats::Counters;
use super::store::sqlite::Sqlite;
use super::store::{Lost, Safety};

/// Rows shipped at a time.
const PORTION: u32 = 500;

pub(crate) struct Journal {
    path: PathBuf,
    /// Where its rows go.
    destination: Arc<Link>,
    counters: Arc<Counters>,
    /// Commits that may wait.
    most: usize,
    closing: Closing,
    runtime: Handle,
    open: OnceCell<Open>,
}

/// The journal once it is in use; dropped, its upkeep ends.
struct Open {
    lane: Lane,
    filled: Arc<Notify>,
    upkeep: [AbortHandle; 2],
}

impl Journal {
    pub(crate) fn new(
        path: PathBuf,
        destination: Arc<Link>,
        counters: Arc<Counters>,
        most: usize,
        closing: Closing,
        runtime: Handle,
    ) -> Self {
        let open = OnceCell::new();
        Journal { path, destination, counters, most, closing, runtime, open }
    }

    /// Ships what an earlier run has left.
    pub(crate) fn resume(&self) {
        if !self.path.exists() {
            return;
        }
        match self.start() {
            // Nobody else has the journal yet, so the place is free.
            Ok(open) => drop(self.open.set(open)),
            Err(error) => log::error!("record journal: {error}"),
        }
    }

    /// Commits the row here.
    pub(crate) async fn commit(&self, row: Row, within: Duration) -> Result<(), Unavailable> {
        let open = self
            .open
            .get_or_try_init(async || self.start())
            .await
            .map_err(|error| Unavailable::Down(error.to_string()))?;
        open.lane.commit(row, within).await?;
        self.counters.journaled.add(1);
        self.counters.journal_depth.add(1);
        open.filled.notify_one();
        Ok(())
    }

    fn start(&self) -> std::io::Result<Open> {
        let file = Sqlite::start(&self.path)?;
        let link = Arc::new(Link::new("record journal", Arc::new(file.clone())));
        let filled = Arc::new(Notify::new());
        let (lane, committer) = Lane::new(
            Arc::clone(&link),
            // Its batches are not the store's.
            Arc::default(),
            (PORTION as usize, self.most),
            self.closing.clone(),
        );
        self.runtime.spawn(committer);
        let shipping = Shipping {
            file,
            link: Arc::clone(&link),
            destination: Arc::clone(&self.destination),
            counters: Arc::clone(&self.counters),
            filled: Arc::clone(&filled),
        };
        let upkeep = [
            self.runtime.spawn(link.supervise()).abort_handle(),
            self.runtime.spawn(shipping.run()).abort_handle(),
        ];
        Ok(Open { lane, filled, upkeep })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.upkeep.iter().for_each(AbortHandle::abort);
    }
}

struct Shipping {
    file: Sqlite,
    link: Arc<Link>,
    destination: Arc<Link>,
    counters: Arc<Counters>,
    filled: Arc<Notify>,
}

impl Shipping {
    async fn run(self) {
        loop {
            self.link.ready().await;
            match self.ship().await {
                Ok(0) => self.filled.notified().await,
                Ok(_) => {}
                Err(lost) => self.link.lost(&lost),
            }
        }
    }

    /// Ships one portion, and says how many rows it was.
    async fn ship(&self) -> Result<usize, Lost> {
        self.counters.journal_depth.set(self.file.count().await?);
        let rows = self.file.oldest(PORTION).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let ids = rows.iter().map(|invocation| invocation.id).collect();
        // They were answered; whether their end is known, the store knows better.
        let rows = rows.into_iter().map(|row| Row::new(row, Stage::Answered)).collect();
        let rows: Arc<Vec<Row>> = Arc::new(rows);
        let refused = loop {
            self.destination.ready().await;
            if let Ok(refusals) = self.destination.write(&rows, Safety::Power).await {
                break refusals.len();
            }
        };
        self.file.remove(ids).await?;
        self.counters.batches.add(1);
        self.counters.refused.add(refused as u64);
        self.counters.shipped.add((rows.len() - refused) as u64);
        self.counters.journal_depth.set(self.file.count().await?);
        Ok(rows.len())
    }
}
