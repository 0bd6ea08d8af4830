//! The thread that owns the journal's file: one transaction after the other, each for everybody who
//! came while the last one was under way.
//!
//! Committed rows are handed to the shipper in memory, so that in good times nothing is read back.
//! When it cannot keep up, they stay on disk alone, and it asks for them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::thread::sleep;
use std::time::{Duration, Instant, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use super::entry::Entry;
use super::expected::Expecting;
use super::file::{Failure, File};
use super::seconds::Seconds;
use crate::record::answer::{Answer, Answers};
use crate::record::invocation::{Row, Second, Stage};
use crate::record::meters::Meters;
use crate::record::recorder::Unavailable;
use crate::record::stats::Counters;
use crate::record::store::Safety;

/// Rows in one transaction at most.
const GROUP: usize = 4096;

pub(super) enum Job {
    Append(Row, Option<Answer>),
    /// A second write that the shipper had in memory, and that the store cannot have now.
    PutBy(Row),
    /// These entries are in the store.
    Forget(Vec<i64>),
    /// The oldest entries, until there are so many rows; they come as a parcel.
    Read(usize),
    /// Says when everything before it is on disk.
    Flush(oneshot::Sender<()>),
}

/// What the shipper is told.
pub(super) enum Parcel {
    Entry(Entry),
    /// The second write of a row that is here, in memory alone.
    Second(Second),
    /// What a `Read` found, and whether that was all. Entries sent before it are in the file, too.
    Read(Vec<Entry>, bool),
    /// From here on entries are on disk alone, until a `Read` finds them all.
    Behind,
}

pub(super) struct Keeper {
    pub(super) path: PathBuf,
    pub(super) max_size: u64,
    pub(super) safety: Safety,
    /// How long rows that nobody waits for wait for company.
    pub(super) max_delay: Duration,
    /// The least time from one commit that several wait for to the next.
    pub(super) commit_interval: Duration,
    /// The same, while rows are expected.
    pub(super) longest_interval: Duration,
    /// When the last commit began, if several waited for it.
    pub(super) last_commit: Option<Instant>,
    pub(super) expecting: Arc<Expecting>,
    pub(super) inbox: Receiver<Job>,
    /// Rows in the inbox.
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) parcels: mpsc::UnboundedSender<Parcel>,
    /// Rows the shipper holds in memory, and how many that may be.
    pub(super) held: Arc<AtomicUsize>,
    pub(super) most_held: usize,
    pub(super) seconds: Arc<Seconds>,
    pub(super) counters: Arc<Counters>,
    pub(super) meters: Meters,
    pub(super) file: Option<File>,
    pub(super) behind: bool,
    /// In the store, but not yet forgotten by the file.
    pub(super) done: Vec<i64>,
    /// The last failure has been logged.
    pub(super) failing: bool,
}

#[derive(Default)]
struct Group {
    rows: Vec<(Row, Option<Answer>)>,
    reads: Vec<usize>,
    flushes: Vec<oneshot::Sender<()>>,
    /// Somebody waits for it.
    urgent: bool,
    /// Requests that do.
    awaited: usize,
    /// Rows that were put by.
    put_by: usize,
}

impl Keeper {
    /// Ends when nobody can ask for anything any more and all is written.
    pub(super) fn run(mut self) {
        // What an earlier run has left is read by the shipper, and counted before that.
        self.write(&[]).ok();
        while let Ok(first) = self.inbox.recv() {
            let group = self.gather(first);
            self.serve(group);
        }
    }

    fn gather(&mut self, first: Job) -> Group {
        let mut group = Group::default();
        self.take(first, &mut group);
        let mut until = None;
        let last = self.last_commit.take();
        let mut rested = last.is_none();
        while group.rows.len() < GROUP {
            match self.inbox.try_recv() {
                Ok(job) => self.take(job, &mut group),
                Err(TryRecvError::Empty) if !group.urgent => {
                    let until = *until.get_or_insert_with(|| Instant::now() + self.max_delay);
                    match self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                        Ok(job) => self.take(job, &mut group),
                        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                    }
                }
                // Asleep, for to be woken for each of them costs each of them a system call.
                Err(TryRecvError::Empty) => match last {
                    Some(last) if !rested => {
                        rested = true;
                        let earliest = last + self.commit_interval;
                        sleep(earliest.saturating_duration_since(Instant::now()));
                        self.expecting.wait(last + self.longest_interval);
                    }
                    Some(_) | None => break,
                },
                Err(TryRecvError::Disconnected) => break,
            }
        }
        if group.awaited > 1 {
            self.last_commit = Some(Instant::now());
        }
        group
    }

    fn take(&mut self, job: Job, group: &mut Group) {
        match job {
            Job::Append(row, answer) => {
                // A bound on memory; it orders nothing.
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                group.urgent |= answer.is_some();
                group.awaited += usize::from(answer.is_some());
                group.rows.push((row, answer));
            }
            Job::PutBy(row) => {
                group.urgent = true;
                group.put_by += 1;
                group.rows.push((row, None));
            }
            Job::Forget(entries) => self.done.extend(entries),
            Job::Read(most) => {
                group.urgent = true;
                group.reads.push(most);
            }
            Job::Flush(reply) => {
                group.urgent = true;
                group.flushes.push(reply);
            }
        }
    }

    fn serve(&mut self, group: Group) {
        // A request that has stopped waiting was answered that its row is not kept.
        let wanted = group
            .rows
            .into_iter()
            .filter(|(_, answer)| answer.as_ref().is_none_or(|answer| !answer.is_unwanted()));
        let (rows, answers): (Vec<Row>, Vec<Option<Answer>>) = wanted.unzip();
        let outcome = self.write(&rows);
        let unavailable = outcome.as_ref().err().map(|failure| match failure {
            Failure::Full(_) => Unavailable::Full(failure.to_string()),
            Failure::Damaged(..) | Failure::Other(..) => Unavailable::Down(failure.to_string()),
        });
        if unavailable.is_some() {
            let unheard = rows.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
            for (row, _) in unheard {
                match row.stage {
                    Stage::Completion => self.counters.completions_dropped.add(1),
                    Stage::Answered | Stage::Whole => self.counters.dropped.add(1),
                };
            }
        }
        let outcome_of_all = unavailable.map_or(Ok(()), Err);
        Answers::give(answers.into_iter().flatten().map(|answer| (answer, outcome_of_all.clone())));
        self.seconds.leave(group.put_by);
        if let Ok(entries) = outcome {
            self.hand_over(rows, entries);
        }
        for most in group.reads {
            let (entries, all) = self.read(most);
            self.behind &= !all;
            self.parcels.send(Parcel::Read(entries, all)).ok();
        }
        for reply in group.flushes {
            reply.send(()).ok();
        }
    }

    /// Commits the rows, and says which entry holds how many.
    fn write(&mut self, rows: &[Row]) -> Result<Vec<(i64, usize)>, Failure> {
        if rows.is_empty() && self.done.is_empty() && self.file.is_some() {
            return Ok(Vec::new());
        }
        let begun = Instant::now();
        let mut outcome = self.append(rows);
        if matches!(outcome, Err(Failure::Damaged(..) | Failure::Other(..))) {
            // Opened anew, it may be mended.
            self.file = None;
            outcome = self.append(rows);
        }
        match &outcome {
            Ok(_) => {
                self.done.clear();
                self.failing = false;
                let answered = rows.iter().filter(|row| row.stage == Stage::Answered).count();
                self.counters.journaled.add(answered as u64);
                self.meters.journal_commit(begun.elapsed());
            }
            Err(failure) => {
                if !self.failing {
                    log::error!("record journal: {failure}");
                }
                self.failing = true;
            }
        }
        self.publish();
        outcome
    }

    fn append(&mut self, rows: &[Row]) -> Result<Vec<(i64, usize)>, Failure> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let (file, repaired) = File::open(&self.path, self.max_size, self.safety)?;
                if repaired.found + repaired.damaged > 0 {
                    let (found, damaged) = (repaired.found, repaired.damaged);
                    log::warn!("record journal: {found} rows recovered, {damaged} are damaged");
                    self.counters.damaged.add(damaged);
                }
                self.behind = true;
                self.parcels.send(Parcel::Behind).ok();
                self.file.insert(file)
            }
        };
        file.append(rows, &self.done)
    }

    /// A file that cannot be read is opened anew with the next group, and the shipper told then.
    fn read(&mut self, most: usize) -> (Vec<Entry>, bool) {
        let Some(file) = &mut self.file else { return (Vec::new(), true) };
        match file.oldest(most) {
            Ok((mut entries, all)) => {
                let done: HashSet<i64> = self.done.iter().copied().collect();
                entries.retain(|entry| !done.contains(&entry.number));
                (entries, all)
            }
            Err(failure) => {
                log::error!("record journal: {failure}");
                self.file = None;
                (Vec::new(), true)
            }
        }
    }

    fn hand_over(&mut self, rows: Vec<Row>, entries: Vec<(i64, usize)>) {
        let mut rows = rows.into_iter();
        for (number, count) in entries {
            if self.behind {
                return;
            }
            if self.held.fetch_add(count, Ordering::Relaxed) > self.most_held {
                self.held.fetch_sub(count, Ordering::Relaxed);
                self.behind = true;
                self.parcels.send(Parcel::Behind).ok();
                return;
            }
            let rows = rows.by_ref().take(count).collect();
            self.parcels.send(Parcel::Entry(Entry { number, rows, damaged: 0 })).ok();
        }
    }

    fn publish(&mut self) {
        let Some(file) = &mut self.file else { return };
        self.counters.journal_depth.set(file.depth);
        let oldest = if file.depth == 0 { None } else { file.oldest_since() };
        let micros =
            oldest.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|d| d.as_micros());
        self.counters
            .journal_oldest_us
            .set(micros.and_then(|n| u64::try_from(n).ok()).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::record::invocation::tests::invocation;

    const INTERVAL: Duration = Duration::from_millis(500);

    fn keeper(directory: &Path) -> (Keeper, Sender<Job>) {
        let (jobs, inbox) = channel();
        let keeper = Keeper {
            path: directory.join("journal.db"),
            max_size: 0,
            safety: Safety::Process,
            max_delay: Duration::ZERO,
            commit_interval: INTERVAL,
            longest_interval: INTERVAL,
            last_commit: None,
            expecting: Arc::default(),
            inbox,
            waiting: Arc::default(),
            parcels: mpsc::unbounded_channel().0,
            held: Arc::default(),
            most_held: 10,
            seconds: Arc::new(Seconds::at_most(10)),
            counters: Arc::default(),
            meters: Meters::unseen(),
            file: None,
            behind: false,
            done: Vec::new(),
            failing: false,
        };
        (keeper, jobs)
    }

    fn append() -> (Job, oneshot::Receiver<Result<(), Unavailable>>) {
        let (answer, outcome) = Answer::channel();
        (Job::Append(Row::new(invocation("row"), Stage::Answered), Some(answer)), outcome)
    }

    #[tokio::test]
    async fn a_commit_with_company_waits_for_who_is_expected() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut keeper, jobs) = keeper(directory.path());
        keeper.commit_interval = INTERVAL / 10;
        let expecting = Arc::clone(&keeper.expecting);
        let mut gather = |rows: usize| {
            let begun = Instant::now();
            let mut outcomes = Vec::new();
            for _ in 0..rows {
                let (job, outcome) = append();
                jobs.send(job).expect("the keeper is there");
                outcomes.push(outcome);
            }
            let first = keeper.inbox.recv().expect("a job");
            assert_eq!(keeper.gather(first).awaited, rows);
            begun.elapsed()
        };
        let slow = expecting.one();
        gather(2);
        assert!(gather(2) > INTERVAL / 2, "it waits");
        assert!(gather(2) < INTERVAL / 2, "once");
        drop(slow);
    }

    #[tokio::test]
    async fn a_commit_waits_for_company_only_after_one_that_had_some() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut keeper, jobs) = keeper(directory.path());
        let mut outcomes = Vec::new();
        let mut send = |count| {
            for _ in 0..count {
                let (job, outcome) = append();
                jobs.send(job).expect("the keeper is there");
                outcomes.push(outcome);
            }
            Instant::now()
        };
        let mut gather = || {
            let first = keeper.inbox.recv().expect("a job");
            keeper.gather(first).awaited
        };
        // Alone, and alone again: nobody waits.
        let begun = send(1);
        assert_eq!(gather(), 1);
        send(3);
        assert_eq!(gather(), 3);
        assert!(begun.elapsed() < INTERVAL);
        let begun = send(1);
        assert_eq!(gather(), 1);
        assert!(begun.elapsed() > INTERVAL / 2, "{:?}", begun.elapsed());
    }
}
