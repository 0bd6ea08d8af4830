//! Ships rows from the journal to the store: each at least once, and stored once, by its id.
//!
//! An entry leaves the journal after the store has committed its rows. The two writes of one row
//! usually travel together, and are merged before they reach the store.

use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::entry::Entry;
use super::job::{Job, Parcel};
use super::second_writes::SecondWrites;
use crate::record::invocation::{Row, Second, Stage};
use crate::record::lane::closing::Closing;
use crate::record::stats::Counters;
use crate::record::store::link::Link;
use crate::record::store::safety::Safety;

/// Rows shipped at a time, if there are that many.
const PORTION: usize = 4000;
/// How often the shipper looks into the file: another process may have left something there.
const RESCAN: Duration = Duration::from_secs(5);

pub(super) struct Shipper {
    pub(super) jobs: Sender<Job>,
    pub(super) parcels: mpsc::UnboundedReceiver<Parcel>,
    pub(super) held: Arc<AtomicUsize>,
    /// Set while the shipper waits for the store: entries need not be sent to it, because it will
    /// read them from the file. It is set before the read is asked for.
    pub(super) away: Arc<AtomicBool>,
    pub(super) second_writes: Arc<SecondWrites>,
    /// The time from which no row may wait in memory for the store.
    pub(super) hurry: Closing,
    pub(super) destination: Arc<Link>,
    pub(super) counters: Arc<Counters>,
    /// What the store's commit has to survive before the journal forgets.
    pub(super) safety: Safety,
    /// How long the first row of a portion waits for more rows.
    pub(super) max_delay: Duration,
}

/// What is shipped at a time.
#[derive(Default)]
struct Portion {
    entries: Vec<Entry>,
    /// Second writes that are in memory only.
    seconds: Vec<Second>,
}

impl Shipper {
    /// Runs until the journal's thread has ended.
    pub(super) async fn run(mut self) {
        let (mut behind, mut rescan) = (true, Instant::now());
        loop {
            let (portion, more) = if behind {
                if self.store_is_there().await.is_none() {
                    return;
                }
                let Some(found) = self.read().await else { return };
                rescan = Instant::now() + RESCAN;
                found
            } else {
                self.second_writes.welcome(true);
                let Some(found) = self.gather(rescan).await else { return };
                found
            };
            behind = more;
            let numbers: Vec<_> = portion.entries.iter().map(|entry| entry.number).collect();
            let damaged = portion.entries.iter().map(|entry| entry.damaged).sum();
            if !self.ship(portion).await {
                // All entries are on disk, so they need not wait for the store in memory.
                behind = true;
            } else if !numbers.is_empty() {
                self.counters.damaged.add(damaged);
                if self.jobs.send(Job::Forget(numbers)).is_err() {
                    return;
                }
            }
            if behind {
                self.second_writes.welcome(false);
            }
        }
    }

    /// Waits for the store. Meanwhile entries stay on disk, and second writes go there.
    async fn store_is_there(&mut self) -> Option<()> {
        let destination = Arc::clone(&self.destination);
        self.away.store(true, Ordering::Relaxed);
        loop {
            tokio::select! {
                () = destination.ready() => {
                    self.away.store(false, Ordering::Relaxed);
                    return Some(());
                }
                parcel = self.parcels.recv() => {
                    let parcel = parcel?;
                    self.let_go(&parcel);
                    if let Parcel::Second(second) = parcel {
                        self.put_by([second.into_row()]);
                    }
                }
            }
        }
    }

    /// The oldest entries of the file, and whether there are more. Entries that were in memory are
    /// among these, or among the next.
    async fn read(&mut self) -> Option<(Portion, bool)> {
        self.jobs.send(Job::Read(PORTION)).ok()?;
        loop {
            let parcel = self.parcels.recv().await?;
            self.let_go(&parcel);
            match parcel {
                Parcel::Read(entries, all) => {
                    return Some((Portion { entries, seconds: Vec::new() }, !all));
                }
                Parcel::Second(second) => self.put_by([second.into_row()]),
                Parcel::Entry(_) | Parcel::Behind => {}
            }
        }
    }

    /// Collects what arrives within `max_delay` of the first parcel, and whether to look on the disk
    /// next: there is more, or it is time to.
    async fn gather(&mut self, rescan: Instant) -> Option<(Portion, bool)> {
        let mut portion = Portion::default();
        let first = match timeout_at(rescan, self.parcels.recv()).await {
            Ok(parcel) => parcel?,
            Err(_) => return Some((portion, true)),
        };
        if !self.max_delay.is_zero() {
            sleep(self.max_delay).await;
        }
        let (mut rows, mut next) = (0, Some(first));
        while let Some(parcel) = next {
            self.let_go(&parcel);
            match parcel {
                Parcel::Entry(entry) => {
                    rows += entry.rows.len();
                    portion.entries.push(entry);
                }
                Parcel::Second(second) => {
                    rows += 1;
                    portion.seconds.push(second);
                }
                // The reply to a read that was given up.
                Parcel::Read(..) => {}
                Parcel::Behind => return Some((portion, true)),
            }
            next = if rows < PORTION { self.parcels.try_recv().ok() } else { None };
        }
        Some((portion, rescan <= Instant::now()))
    }

    fn let_go(&self, parcel: &Parcel) {
        match parcel {
            Parcel::Entry(entry) => self.held.fetch_sub(entry.rows.len(), Ordering::Relaxed),
            Parcel::Second(_) | Parcel::Read(..) | Parcel::Behind => 0,
        };
    }

    /// Resolves when the end is so near that second writes must no longer wait in memory. Never
    /// resolves if there are none.
    async fn hurried(&self) {
        self.hurry.clone().expired().await;
        if self.second_writes.count() == 0 {
            std::future::pending().await
        }
    }

    /// Writes second writes to disk because the store cannot take them now.
    fn put_by(&self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            // The thread lives as long as any sender, and this is one.
            self.jobs.send(Job::PutBy(row)).ok();
        }
    }

    /// Whether the store has committed all of it. If not, the second writes go to the disk.
    async fn ship(&self, portion: Portion) -> bool {
        let seconds: Vec<Uuid> = portion.seconds.iter().map(|second| second.first.id).collect();
        let firsts = portion.entries.into_iter().flat_map(|entry| entry.rows);
        let rows = Arc::new(merge(firsts, portion.seconds));
        if rows.is_empty() {
            return true;
        }
        let outcome = if self.destination.is_ready() {
            tokio::select! {
                outcome = self.destination.write(&rows, self.safety) => outcome.ok(),
                () = self.hurried() => None,
            }
        } else {
            None
        };
        let Some(refusals) = outcome else {
            let seconds: HashSet<Uuid> = seconds.into_iter().collect();
            let rows = Arc::unwrap_or_clone(rows).into_iter();
            let seconds = rows.filter(|row| seconds.contains(&row.invocation.id));
            self.put_by(seconds.map(|row| Row { stage: Stage::Completion, ..row }));
            return false;
        };
        self.second_writes.leave(seconds.len());
        let is_second = |row: &&Row| row.stage == Stage::Completion;
        let second = rows.iter().filter(is_second).count() as u64;
        let refused = |second: bool| {
            let of = |index: usize| rows.get(index).is_some_and(|row| is_second(&row) == second);
            refusals.iter().filter(|refusal| of(refusal.index)).count() as u64
        };
        self.counters.shipped.add(rows.len() as u64 - second - refused(false));
        self.counters.completed.add(second - refused(true));
        self.counters.dead.add(refused(false));
        self.counters.completions_dropped.add(refused(true));
        true
    }
}

/// Merges the two writes of a row, whether both came from the journal or the second from memory.
fn merge(rows: impl Iterator<Item = Row>, seconds: Vec<Second>) -> Vec<Row> {
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
                    *first = Row { stage: first.stage.completed(), ..row };
                } else if first.stage == Stage::Completion {
                    first.stage = Stage::Whole;
                }
            }
        }
    }
    for second in seconds {
        match places.entry(second.first.id) {
            Place::Vacant(place) => {
                place.insert(merged.len());
                merged.push(second.into_row());
            }
            Place::Occupied(place) => {
                let first = &mut merged[*place.get()];
                first.stage = first.stage.completed();
                second.add_to(first);
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::SystemTime;

    use async_trait::async_trait;
    use tokio::sync::watch;

    use super::*;
    use crate::record::invocation::tests::{ending, invocation};
    use crate::record::meters::Meters;
    use crate::record::store::contract::Store;
    use crate::record::store::error::{Lost, Refusal};

    /// Takes every row.
    struct Willing;

    #[async_trait]
    impl Store for Willing {
        async fn migrate(&self) -> Result<(), Lost> {
            Ok(())
        }

        async fn write(&self, _: &Arc<Vec<Row>>, _: Safety) -> Result<Vec<Refusal>, Lost> {
            Ok(Vec::new())
        }

        async fn ping(&self) -> Result<(), Lost> {
            Ok(())
        }

        async fn expire(&self, _: SystemTime, _: u32) -> Result<u64, Lost> {
            Ok(0)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_process_left_is_found_though_requests_come_all_the_time() {
        let (jobs, asked) = channel();
        let (parcels, arriving) = mpsc::unbounded_channel();
        let (_open, hurry) = watch::channel(None);
        let destination = Arc::new(Link::new("store", Arc::new(Willing), Meters::unseen()));
        tokio::spawn(Arc::clone(&destination).supervise());
        let shipper = Shipper {
            jobs,
            parcels: arriving,
            held: Arc::default(),
            away: Arc::default(),
            second_writes: Arc::new(SecondWrites::at_most(10)),
            hurry: Closing(hurry),
            destination,
            counters: Arc::default(),
            safety: Safety::Process,
            max_delay: Duration::ZERO,
        };
        tokio::spawn(shipper.run());
        let begun = Instant::now();
        let mut reads = Vec::new();
        for number in 0..20 {
            let rows = vec![Row::new(invocation("row"), Stage::Answered)];
            parcels.send(Parcel::Entry(Entry { number, rows, damaged: 0 })).ok();
            sleep(Duration::from_secs(1)).await;
            for job in asked.try_iter() {
                if matches!(job, Job::Read(_)) {
                    reads.push(begun.elapsed().as_secs());
                    parcels.send(Parcel::Read(Vec::new(), true)).ok();
                }
            }
        }
        let pauses: Vec<_> = reads.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(
            pauses.len() >= 2 && pauses.iter().all(|pause| (5..8).contains(pause)),
            "{reads:?}"
        );
    }

    #[test]
    fn two_writes_of_a_row_become_one_in_either_order() {
        let mut row = invocation("row");
        let first = Row::new(row.clone(), Stage::Answered);
        row.bytes_out = 5;
        let second = Row::new(row.clone(), Stage::Completion);
        let in_memory = || {
            let (first, ending) = (first.invocation.clone(), Box::new(ending(&row)));
            vec![Second { first, ending }]
        };
        let alone = Row::new(invocation("alone"), Stage::Answered);
        let said = |rows: &[&Row], seconds| {
            let merged = merge(rows.iter().map(|row| (*row).clone()), seconds);
            merged.iter().map(|r| (r.stage, r.invocation.bytes_out)).collect::<Vec<_>>()
        };
        let both = [(Stage::Whole, 5), (Stage::Answered, 0)];
        assert_eq!(said(&[&first, &alone, &second], Vec::new()), both);
        assert_eq!(said(&[&second, &alone, &first], Vec::new()), both);
        assert_eq!(said(&[&first, &alone], in_memory()), both);
        assert_eq!(said(&[&second], vec![]), [(Stage::Completion, 5)]);
        assert_eq!(said(&[&second, &second], in_memory()), [(Stage::Completion, 5)]);
        assert_eq!(said(&[], in_memory()), [(Stage::Completion, 5)]);
    }
}
