//! Takes rows from the journal to the store: at least once, and by their ids stored once.
//!
//! An entry leaves the journal after the store has committed its rows. The two writes of one row
//! usually travel together, and are one by the time the store sees them.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::entry::Entry;
use super::keeper::{Job, Parcel};
use crate::record::invocation::{Row, Stage};
use crate::record::link::Link;
use crate::record::stats::Counters;
use crate::record::store::Safety;

/// Rows shipped at a time, at least where there are so many.
const PORTION: usize = 4000;
/// How often an idle shipper looks into the file: another process may have left something there.
const RESCAN: Duration = Duration::from_secs(5);

pub(super) struct Shipper {
    pub(super) jobs: Sender<Job>,
    pub(super) parcels: mpsc::UnboundedReceiver<Parcel>,
    pub(super) held: Arc<AtomicUsize>,
    pub(super) destination: Arc<Link>,
    pub(super) counters: Arc<Counters>,
    /// How long the first row of a portion waits for company.
    pub(super) max_delay: Duration,
}

impl Shipper {
    /// Never returns, but when the journal's thread has ended.
    pub(super) async fn run(mut self) {
        let mut behind = true;
        loop {
            let portion = if behind {
                self.destination.ready().await;
                let Some((portion, all)) = self.read().await else { return };
                behind = !all;
                portion
            } else {
                let Some((portion, fell_behind)) = self.gather().await else { return };
                behind = fell_behind;
                portion
            };
            if portion.is_empty() {
                continue;
            }
            let numbers = portion.iter().map(|entry| entry.number).collect();
            self.counters.damaged.add(portion.iter().map(|entry| entry.damaged).sum());
            self.ship(portion).await;
            if self.jobs.send(Job::Forget(numbers)).is_err() {
                return;
            }
        }
    }

    /// The oldest entries of the file, and whether there are no more. What was in memory is among
    /// them, or will be among the next.
    async fn read(&mut self) -> Option<(Vec<Entry>, bool)> {
        self.jobs.send(Job::Read(PORTION)).ok()?;
        loop {
            let parcel = self.parcels.recv().await?;
            self.let_go(&parcel);
            if let Parcel::Read(entries, all) = parcel {
                return Some((entries, all));
            }
        }
    }

    /// What comes within `max_delay` of the first entry, and whether there is more on disk.
    async fn gather(&mut self) -> Option<(Vec<Entry>, bool)> {
        let first = match timeout(RESCAN, self.parcels.recv()).await {
            Ok(parcel) => parcel?,
            Err(_) => return Some((Vec::new(), true)),
        };
        if !self.max_delay.is_zero() {
            sleep(self.max_delay).await;
        }
        let (mut entries, mut rows, mut next) = (Vec::new(), 0, Some(first));
        while let Some(parcel) = next {
            self.let_go(&parcel);
            match parcel {
                Parcel::Entry(entry) => {
                    rows += entry.rows.len();
                    entries.push(entry);
                }
                // Nobody has asked; whoever did has gone.
                Parcel::Read(..) => {}
                Parcel::Behind => return Some((entries, true)),
            }
            next = if rows < PORTION { self.parcels.try_recv().ok() } else { None };
        }
        Some((entries, false))
    }

    fn let_go(&self, parcel: &Parcel) {
        match parcel {
            Parcel::Entry(entry) => self.held.fetch_sub(entry.rows.len(), Ordering::Relaxed),
            Parcel::Read(..) | Parcel::Behind => 0,
        };
    }

    async fn ship(&self, portion: Vec<Entry>) {
        let rows = Arc::new(merge(portion.into_iter().flat_map(|entry| entry.rows)));
        if rows.is_empty() {
            return;
        }
        let refusals = loop {
            self.destination.ready().await;
            if let Ok(refusals) = self.destination.write(&rows, Safety::Power).await {
                break refusals;
            }
        };
        let is_second = |row: &&Row| row.stage == Stage::Completion;
        let second = rows.iter().filter(is_second).count() as u64;
        let refused = |second: bool| {
            let of = |index: usize| rows.get(index).is_some_and(|row| is_second(&row) == second);
            refusals.iter().filter(|refusal| of(refusal.index)).count() as u64
        };
        self.counters.shipped.add(rows.len() as u64 - second - refused(false));
        self.counters.completed.add(second - refused(true));
        self.counters.dead.add(refusals.len() as u64);
    }
}

/// One row where there were two writes of it.
fn merge(rows: impl Iterator<Item = Row>) -> Vec<Row> {
    let mut merged: Vec<Row> = Vec::new();
    let mut places = HashMap::new();
    for row in rows {
        match places.entry(row.invocation.id) {
            Place::Vacant(place) => {
                place.insert(merged.len());
                merged.push(row);
            }
            Place::Occupied(place) => {
                let first = &mut merged[*place.get()];
                if row.stage.is_complete() {
                    let stage = match first.stage {
                        Stage::Answered | Stage::Whole => Stage::Whole,
                        Stage::Completion => Stage::Completion,
                    };
                    *first = Row { stage, ..row };
                } else if first.stage == Stage::Completion {
                    first.stage = Stage::Whole;
                }
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::invocation::tests::invocation;

    #[test]
    fn two_writes_of_a_row_become_one_in_either_order() {
        let mut row = invocation("row");
        let first = Row::new(row.clone(), Stage::Answered);
        row.bytes_out = 5;
        let second = Row::new(row, Stage::Completion);
        let alone = Row::new(invocation("alone"), Stage::Answered);
        for rows in [[&first, &alone, &second], [&second, &alone, &first]] {
            let merged = merge(rows.into_iter().cloned());
            let said: Vec<_> = merged.iter().map(|r| (r.stage, r.invocation.bytes_out)).collect();
            assert_eq!(said, [(Stage::Whole, 5), (Stage::Answered, 0)]);
        }
        assert_eq!(merge([second.clone(), second].into_iter())[0].stage, Stage::Completion);
    }
}
