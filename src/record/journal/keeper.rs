//! The thread that owns the journal's file. It runs one transaction after the other, each for all
//! requests that arrived during the last one. Work that no request waits for gets transactions of
//! its own, now and then, so that requests wait only for their own rows; these transactions do not
//! wait for the disk.
//!
//! Committed rows are handed to the shipper in memory, so that usually nothing is read back. When
//! the shipper cannot keep up, rows stay on disk only, and it asks for them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::thread::sleep;
use std::time::{Duration, Instant, UNIX_EPOCH};

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::entry::Entry;
use super::expected::Expecting;
use super::failure::{Failure, Trouble};
use super::file::File;
use super::job::{Job, Parcel};
use super::later::Later;
use super::second_writes::SecondWrites;
use crate::record::invocation::{Row, Stage};
use crate::record::lane::answers::{Answer, Answers};
use crate::record::meters::Meters;
use crate::record::patience::Progress;
use crate::record::stats::Counters;
use crate::record::store::safety::Safety;

/// Rows in one transaction at most.
const GROUP: usize = 4096;

pub(super) struct Keeper {
    pub(super) path: PathBuf,
    pub(super) max_size: u64,
    pub(super) safety: Safety,
    /// How long entries to be forgotten wait for others. Rows that no request waits for wait longer
    /// ([`Later`]).
    pub(super) max_delay: Duration,
    /// The least time from the start of one commit that several requests wait for to the next.
    pub(super) commit_interval: Duration,
    /// The most this time may be extended to while rows are expected.
    pub(super) longest_interval: Duration,
    /// When the last commit began, if several requests waited for it.
    pub(super) last_commit: Option<Instant>,
    pub(super) expecting: Arc<Expecting>,
    pub(super) inbox: Receiver<Job>,
    /// Free places for rows in the inbox.
    pub(super) places: Arc<Semaphore>,
    /// Observed by requests that wait for a place, or for their row.
    pub(super) progress: Arc<Progress>,
    pub(super) parcels: mpsc::UnboundedSender<Parcel>,
    /// Rows the shipper holds in memory. `most_held` bounds them, and the rows in the inbox.
    pub(super) held: Arc<AtomicUsize>,
    pub(super) most_held: usize,
    /// Set while the shipper waits for the store; it will read what it ships from the file.
    pub(super) away: Arc<AtomicBool>,
    pub(super) second_writes: Arc<SecondWrites>,
    pub(super) counters: Arc<Counters>,
    pub(super) meters: Meters,
    pub(super) file: Option<File>,
    pub(super) behind: bool,
    pub(super) later: Later,
    /// Reads that the shipper has asked for. They are served once all shipped entries are
    /// forgotten.
    pub(super) reads: Vec<usize>,
    /// Writing fails, until the next success.
    pub(super) failing: Trouble,
    /// Reading fails.
    pub(super) unreadable: Trouble,
}

/// What requests, or a flush, wait for.
#[derive(Default)]
struct Group {
    rows: Vec<(Row, Answer)>,
    flushes: Vec<oneshot::Sender<()>>,
}

impl Keeper {
    /// Runs until all senders are gone and everything is written.
    pub(super) fn run(mut self) {
        // Opens the file: the shipper reads what an earlier run left, and it must be counted before
        // that.
        self.write(&[], self.safety).ok();
        while let Some(first) = self.next() {
            let group = self.gather(first);
            self.serve(group);
        }
    }

    /// The next job. Deferred work is done here when it is due.
    fn next(&mut self) -> Option<Job> {
        loop {
            let somebody_waits = self.places.available_permits() < self.most_held;
            if let Some(file) = &self.file
                && file.wants_checkpoint(somebody_waits)
            {
                file.checkpoint();
            }
            let due = self.due();
            if due.is_some_and(|due| due <= Instant::now()) {
                // Entries are forgotten together with rows, if there are any.
                if self.later.rows() == 0
                    && let Ok(job) = self.inbox.try_recv()
                {
                    return Some(job);
                }
                self.catch_up(Safety::Process);
                continue;
            }
            let job = match due {
                None => self.inbox.recv().map_err(RecvTimeoutError::from),
                Some(due) => self.inbox.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match job {
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    while self.due().is_some() && self.catch_up(Safety::Process) {}
                    return None;
                }
            }
        }
    }

    /// When deferred work is due, if there is any.
    fn due(&self) -> Option<Instant> {
        let hurried = !self.reads.is_empty() && self.later.is_forgetting();
        self.later.due(self.max_delay, hurried)
    }

    /// Does the deferred work: writes rows, and forgets some of the shipped entries. Whether it
    /// succeeded.
    fn catch_up(&mut self, safety: Safety) -> bool {
        let (rows, put_by) = self.later.take();
        let outcome = self.write(&rows, safety);
        self.second_writes.leave(put_by);
        let written = outcome.is_ok();
        if !written {
            self.later.wait();
        }
        match outcome {
            Ok(entries) => self.hand_over(rows, entries),
            Err(_) => {
                for row in rows {
                    match row.stage {
                        Stage::Completion => self.counters.completions_dropped.add(1),
                        Stage::Answered | Stage::Whole => self.counters.dropped.add(1),
                    };
                }
            }
        }
        self.read_if_asked();
        written
    }

    fn gather(&mut self, first: Job) -> Group {
        let mut group = Group::default();
        self.take(first, &mut group);
        let last = self.last_commit.take();
        let mut rested = last.is_none();
        while group.rows.len() + self.later.rows() < GROUP {
            match self.inbox.try_recv() {
                Ok(job) => self.take(job, &mut group),
                // Sleep while more jobs arrive: waking this thread for each of them would cost each
                // sender a system call.
                Err(TryRecvError::Empty) => match last {
                    Some(last) if !rested && !group.rows.is_empty() => {
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
        self.last_commit = match group.rows.len() {
            0 => last,
            1 => None,
            _ => Some(Instant::now()),
        };
        group
    }

    fn take(&mut self, job: Job, group: &mut Group) {
        match job {
            Job::Append(row, answer) => {
                self.places.add_permits(1);
                match answer {
                    Some(answer) => group.rows.push((row, answer)),
                    None => self.later.put_off(row),
                }
            }
            Job::PutBy(row) => self.later.put_by(row),
            Job::Forget(entries) => self.later.forget(entries),
            Job::Read(most) => self.reads.push(most),
            Job::Flush(reply) => group.flushes.push(reply),
            Job::Count(until, reply) => {
                let file = self.file.as_ref();
                reply.send(file.and_then(|f| f.left(&self.later.unforgotten(), until))).ok();
            }
        }
    }

    fn serve(&mut self, group: Group) {
        // A request that has stopped waiting was told that its row is not kept.
        let wanted = group.rows.into_iter().filter(|(_, answer)| !answer.is_unwanted());
        let (rows, answers): (Vec<Row>, Vec<Answer>) = wanted.unzip();
        if !rows.is_empty() {
            let outcome = self.write(&rows, self.safety);
            let all = outcome.as_ref().map(drop).map_err(Failure::unavailable);
            Answers::give(answers.into_iter().map(|answer| (answer, all.clone())));
            if let Ok(entries) = outcome {
                self.hand_over(rows, entries);
            }
        }
        self.read_if_asked();
        if !group.flushes.is_empty() {
            self.catch_up(self.safety);
        }
        for reply in group.flushes {
            reply.send(()).ok();
        }
    }

    /// Commits the rows, and returns each new entry with the number of rows it holds.
    fn write(&mut self, rows: &[Row], safety: Safety) -> Result<Vec<(i64, usize)>, Failure> {
        if rows.is_empty() && !self.later.is_forgetting() && self.file.is_some() {
            return Ok(Vec::new());
        }
        let begun = Instant::now();
        let forgotten = self.later.to_forget(!rows.is_empty());
        let mut outcome = self.append(rows, &forgotten, safety);
        if matches!(outcome, Err(Failure::Damaged(..) | Failure::Other(..))) {
            // Opening it anew may repair it.
            self.file = None;
            outcome = self.append(rows, &forgotten, safety);
        }
        match &outcome {
            Ok(_) => {
                self.later.forgotten(forgotten.len());
                self.failing.over();
                self.progress.advance();
                let answered = rows.iter().filter(|row| row.stage == Stage::Answered).count();
                self.counters.journaled.add(answered as u64);
                self.meters.journal_commit(begun.elapsed());
            }
            Err(failure) => self.failing.met(failure),
        }
        self.publish();
        outcome
    }

    fn append(
        &mut self,
        rows: &[Row],
        done: &[i64],
        safety: Safety,
    ) -> Result<Vec<(i64, usize)>, Failure> {
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
        file.survive(safety)?;
        file.append(rows, done)
    }

    fn read_if_asked(&mut self) {
        // Wait until the shipped entries are deleted, or this would read them again. Not after a
        // failure: deleting may fail for a while, and `read` leaves them out.
        if self.later.is_forgetting() && !self.failing.is_met() {
            return;
        }
        if self.file.is_none() && !self.reads.is_empty() {
            self.write(&[], self.safety).ok();
        }
        for most in std::mem::take(&mut self.reads) {
            let (entries, all) = self.read(most);
            self.behind &= !all;
            self.parcels.send(Parcel::Read(entries, all)).ok();
            // Another process may have taken entries out of the file.
            self.publish();
        }
    }

    /// Reads entries for the shipper. A file that cannot be read is opened anew by the next read or
    /// group, which also tells the shipper.
    fn read(&mut self, most: usize) -> (Vec<Entry>, bool) {
        let Some(file) = &mut self.file else { return (Vec::new(), true) };
        match file.oldest(most) {
            Ok((mut entries, all)) => {
                self.unreadable.over();
                let done = self.later.unforgotten();
                entries.retain(|entry| !done.contains(&entry.number));
                (entries, all)
            }
            Err(failure) => {
                self.unreadable.met(&failure);
                self.file = None;
                (Vec::new(), true)
            }
        }
    }

    fn hand_over(&mut self, rows: Vec<Row>, entries: Vec<(i64, usize)>) {
        // Relaxed: if the flag is missed, the shipper reads what is committed by now anyway.
        self.behind |= self.away.load(Ordering::Relaxed);
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
    use std::slice;
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::record::invocation::tests::invocation;
    use crate::record::outcome::Unavailable;

    const INTERVAL: Duration = Duration::from_millis(500);

    fn keeper(directory: &Path) -> (Keeper, Sender<Job>) {
        let (jobs, inbox) = channel();
        let keeper = Keeper {
            path: directory.join("journal.db"),
            max_size: 0,
            safety: Safety::Process,
            max_delay: INTERVAL / 10,
            commit_interval: INTERVAL,
            longest_interval: INTERVAL,
            last_commit: None,
            expecting: Arc::default(),
            inbox,
            places: Arc::new(Semaphore::new(10)),
            progress: Arc::default(),
            parcels: mpsc::unbounded_channel().0,
            held: Arc::default(),
            most_held: 10,
            away: Arc::default(),
            second_writes: Arc::new(SecondWrites::at_most(10)),
            counters: Arc::default(),
            meters: Meters::unseen(),
            file: None,
            behind: false,
            later: Later::default(),
            reads: Vec::new(),
            failing: Trouble::default(),
            unreadable: Trouble::default(),
        };
        (keeper, jobs)
    }

    fn append() -> (Job, oneshot::Receiver<Result<(), Unavailable>>) {
        let (answer, outcome) = Answer::channel();
        (Job::Append(Row::new(invocation("row"), Stage::Answered), Some(answer)), outcome)
    }

    #[test]
    fn what_is_shipped_is_forgotten_bit_by_bit_and_read_no_more() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut keeper, jobs) = keeper(directory.path());
        let (parcels, mut sent) = mpsc::unbounded_channel();
        let row = Row::new(invocation("row"), Stage::Answered);
        let mut one =
            || keeper.write(slice::from_ref(&row), Safety::Process).expect("written")[0].0;
        let entries: Vec<i64> = (0..100).map(|_| one()).collect();
        let left = one();
        keeper.parcels = parcels;
        jobs.send(Job::Forget(entries)).expect("the keeper is there");
        jobs.send(Job::Read(10)).expect("the keeper is there");
        let first = keeper.next().expect("a job");
        let group = keeper.gather(first);
        keeper.serve(group);
        assert!(keeper.catch_up(Safety::Process));
        assert_eq!(keeper.later.unforgotten().len(), 36);
        assert!(sent.try_recv().is_err(), "not while others are left to be forgotten");
        drop(jobs);
        assert!(keeper.next().is_none());
        let Ok(Parcel::Read(found, true)) = sent.try_recv() else { panic!("nothing read") };
        assert_eq!(found.iter().map(|entry| entry.number).collect::<Vec<_>>(), [left]);
        assert_eq!(keeper.file.expect("a file").depth, 1);
    }

    #[test]
    fn a_read_opens_a_file_that_could_not_be_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut keeper, jobs) = keeper(directory.path());
        let (parcels, mut sent) = mpsc::unbounded_channel();
        keeper.parcels = parcels;
        let row = Row::new(invocation("row"), Stage::Answered);
        let number = keeper.write(slice::from_ref(&row), Safety::Process).expect("written")[0].0;
        keeper.file = None;
        jobs.send(Job::Read(10)).expect("the keeper is there");
        let first = keeper.next().expect("a job");
        let group = keeper.gather(first);
        keeper.serve(group);
        let read = std::iter::from_fn(|| sent.try_recv().ok()).find_map(|parcel| match parcel {
            Parcel::Read(entries, all) => Some((entries[0].number, all)),
            _ => None,
        });
        assert_eq!(read, Some((number, true)));
    }

    #[test]
    fn the_log_is_worked_in_when_nobody_waits_and_not_too_late() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut keeper, jobs) = keeper(directory.path());
        let row = Row::new(invocation("row"), Stage::Answered);
        let fill = |keeper: &mut Keeper, longest: bool| {
            for _ in 0..10_000 {
                keeper.write(slice::from_ref(&row), Safety::Process).expect("written");
                if keeper.file.as_ref().expect("a file").wants_checkpoint(longest) {
                    return;
                }
            }
            panic!("the log does not grow");
        };
        let is_long =
            |keeper: &Keeper| keeper.file.as_ref().expect("a file").wants_checkpoint(false);
        let next = |keeper: &mut Keeper, waiting: usize| {
            keeper.places.forget_permits(usize::MAX);
            keeper.places.add_permits(10 - waiting);
            jobs.send(Job::Forget(Vec::new())).expect("the keeper is there");
            assert!(keeper.next().is_some());
        };
        fill(&mut keeper, false);
        next(&mut keeper, 1);
        assert!(is_long(&keeper), "not while a row waits");
        next(&mut keeper, 0);
        assert!(!is_long(&keeper));
        fill(&mut keeper, true);
        next(&mut keeper, 1);
        assert!(!is_long(&keeper), "it is too long to wait");
    }

    #[tokio::test]
    async fn who_waits_for_a_row_waits_for_no_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut keeper, jobs) = keeper(directory.path());
        let second = Row::new(invocation("row"), Stage::Completion);
        jobs.send(Job::Append(second, None)).expect("the keeper is there");
        let (job, outcome) = append();
        jobs.send(job).expect("the keeper is there");
        let depth = |keeper: &Keeper| keeper.file.as_ref().expect("a file").depth;
        let first = keeper.next().expect("a job");
        let group = keeper.gather(first);
        keeper.serve(group);
        assert_eq!(outcome.await, Ok(Ok(())));
        assert_eq!(depth(&keeper), 1);
        drop(jobs);
        assert!(keeper.next().is_none());
        assert_eq!(depth(&keeper), 2);
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
            assert_eq!(keeper.gather(first).rows.len(), rows);
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
            keeper.gather(first).rows.len()
        };
        // Alone, and alone again: no commit waits.
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
