//! The thread that writes lines.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::left_out::{self, Count, LeftOut};
use super::{Counts, line, text};
use crate::condition::Condition;
use crate::config::access_log::{Format, Output};
use crate::observe::colour;
use crate::time::{Clock, Moment};

/// Lines are written together up to this many bytes.
const BATCH: usize = 64 * 1024;
/// The time in which lines gather before they are written. A request that finds the thread asleep has to
/// wake it, which takes longer than making the line; so it is asleep only where lines are rare. The queue
/// holds the lines of 400,000 requests a second for that long.
const GATHER: Duration = Duration::from_millis(20);
/// How often counts of what was left out and dropped are written.
const TELL: Duration = Duration::from_secs(10);
/// The pause before a pipe that takes nothing more is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// What the thread is handed.
pub(super) enum Message {
    Line(Arc<[u8]>),
    /// The target may have changed.
    Look,
    /// Its sender is dropped once everything handed over before is written.
    Flush(#[allow(dead_code, reason = "dropping it is the answer")] SyncSender<()>),
}

/// Where lines go, as a reload may change it.
#[derive(Debug, Default)]
pub(super) struct Target {
    wanted: Mutex<(Output, Format)>,
    /// Set when `wanted` is to be opened anew.
    changed: AtomicBool,
    terminal: AtomicBool,
}

impl Target {
    pub(super) fn new(output: Output, format: Format) -> Self {
        let target = Target::default();
        target.set(output, format);
        target
    }

    pub(super) fn set(&self, output: Output, format: Format) {
        let is_terminal = match output {
            Output::Stdout => colour::is_wanted(&io::stdout()),
            Output::Stderr => colour::is_wanted(&io::stderr()),
            Output::Off | Output::File(_) => false,
        };
        // Relaxed: colours only.
        self.terminal.store(is_terminal, Ordering::Relaxed);
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = (output, format);
        self.changed.store(true, Ordering::Release);
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal.load(Ordering::Relaxed)
    }
}

/// The thread's side.
pub(super) struct Writer {
    messages: Receiver<Message>,
    target: Arc<Target>,
    counts: Arc<Counts>,
    left_out: Arc<LeftOut>,
    format: Format,
    /// `None` while lines go nowhere, or the output cannot be opened.
    output: Option<File>,
    /// A file, whose end can be taken back.
    is_file: bool,
    /// Lines cannot be written.
    trouble: Condition,
    /// Counts of what was left out that could not be written yet.
    untold: Vec<Count>,
    /// Lines dropped that have been told of.
    told_dropped: u64,
    told: Moment,
}

impl Writer {
    pub(super) fn new(
        messages: Receiver<Message>,
        target: Arc<Target>,
        counts: Arc<Counts>,
        left_out: Arc<LeftOut>,
    ) -> Self {
        Writer {
            messages,
            target,
            counts,
            left_out,
            format: Format::default(),
            output: None,
            is_file: false,
            trouble: Condition::default(),
            untold: Vec::new(),
            told_dropped: 0,
            told: Clock::now(),
        }
    }

    pub(super) fn run(mut self) {
        // Nothing is left in the queue.
        let mut idle = true;
        loop {
            let mut next = match self.messages.recv_timeout(TELL) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if idle && let Some(Message::Line(_)) = next {
                std::thread::sleep(GATHER);
            }
            let (mut batch, mut lines, mut flushes) = (Vec::new(), 0, Vec::new());
            while let Some(message) = next.take() {
                match message {
                    Message::Line(line) => {
                        batch.extend_from_slice(&line);
                        lines += 1;
                    }
                    Message::Look => {}
                    Message::Flush(written) => flushes.push(written),
                }
                if batch.len() < BATCH {
                    next = self.messages.try_recv().ok();
                }
            }
            idle = batch.len() < BATCH;
            if self.target.changed.swap(false, Ordering::Acquire) {
                self.open();
            }
            self.put(&batch, lines);
            let now = Clock::now();
            if !flushes.is_empty() || now.since(self.told) >= TELL {
                self.told = now;
                self.tell();
            }
        }
    }

    /// Opens what lines shall go to. A file is opened before the one in use is closed, and every
    /// line before this moment has been written to that one.
    fn open(&mut self) {
        let wanted = self.target.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (output, format) = wanted;
        self.format = format;
        self.is_file = matches!(output, Output::File(_));
        let opened = match &output {
            Output::Off => Ok(None),
            Output::Stdout => of_process(io::stdout().as_fd().try_clone_to_owned()),
            Output::Stderr => of_process(io::stderr().as_fd().try_clone_to_owned()),
            Output::File(path) => {
                let opened = OpenOptions::new().append(true).create(true).open(path);
                opened.map(Some).map_err(|error| {
                    let path = path.display();
                    io::Error::new(error.kind(), format!("{path} cannot be opened: {error}"))
                })
            }
        };
        match opened {
            Ok(opened) => {
                self.output = opened;
                self.recovered();
            }
            Err(error) => {
                self.output = None;
                self.failed(&error);
            }
        }
    }

    /// Writes `lines` lines: as many of them as the output takes, each whole or not at all.
    fn put(&mut self, batch: &[u8], lines: u64) {
        if lines == 0 {
            return;
        }
        let mut written = self.write(batch);
        let mut count = if written.is_ok() { lines } else { 0 };
        if written.is_err() && self.is_file && lines > 1 {
            // The file may have room for some of them.
            for line in batch.split_inclusive(|byte| *byte == b'\n') {
                written = self.write(line);
                if written.is_err() {
                    break;
                }
                count += 1;
            }
        }
        self.counts.written.fetch_add(count, Ordering::Relaxed);
        self.counts.dropped.fetch_add(lines - count, Ordering::Relaxed);
        match written {
            Ok(()) => self.recovered(),
            Err(error) => self.failed(&error),
        }
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        if self.output.is_none() && self.trouble.is_met() {
            // The file could not be opened; perhaps it can now.
            self.open();
        }
        let Some(output) = &mut self.output else {
            return Err(ErrorKind::NotConnected.into());
        };
        let before =
            if self.is_file { output.metadata().ok().map(|data| data.len()) } else { None };
        let written = write_all(output, batch);
        if written.is_err()
            && let Some(before) = before
        {
            // Half a line would make the next one unreadable.
            let _ = output.set_len(before);
        }
        written
    }

    /// Counts of lines that are not there.
    fn tell(&mut self) {
        let now = SystemTime::now();
        left_out::add(&mut self.untold, self.left_out.take());
        let counts = self.untold.iter().map(|count| match self.format {
            Format::Json => line::left_out(count, now),
            Format::Text => text::left_out(count),
        });
        let mut lines: Vec<Vec<u8>> = counts.collect();
        let dropped = self.counts.dropped.load(Ordering::Relaxed);
        let since = dropped - self.told_dropped;
        if since > 0 {
            lines.push(match self.format {
                Format::Json => line::dropped(since, now),
                Format::Text => text::dropped(since),
            });
        }
        if lines.is_empty() {
            return;
        }
        // Otherwise they are told once lines can be written again.
        if self.write(&lines.concat()).is_ok() {
            self.untold.clear();
            self.told_dropped = dropped;
            self.recovered();
        }
    }

    /// One line in the process's log when lines begin to be lost.
    fn failed(&mut self, error: &io::Error) {
        if self.trouble.met(Clock::now()) {
            log::warn!("access log: {error}; lines are dropped, and counted");
        }
    }

    /// And one when they are written again.
    fn recovered(&mut self) {
        if let Some(over) = self.trouble.over(Clock::now()) {
            let (dropped, after) =
                (self.counts.dropped.load(Ordering::Relaxed), over.lasted.as_secs_f64());
            log::info!(
                "access log: lines are written again after {after:.1} s; {dropped} have been dropped \
                 so far"
            );
        }
    }
}

fn of_process(fd: io::Result<std::os::fd::OwnedFd>) -> io::Result<Option<File>> {
    fd.map(|fd| Some(File::from(fd)))
}

/// Writes all of `batch`, however long that takes: the thread has nothing else to do.
fn write_all(output: &mut File, mut batch: &[u8]) -> io::Result<()> {
    while !batch.is_empty() {
        match output.write(batch) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => batch = &batch[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The pipe is another process's too, which has made it so.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::super::tests::{REFUSAL, summary};
    use super::*;
    use crate::config::access_log::PerSecond;
    use crate::observe::access_log::Refusals;
    use crate::summary::ending::Ending;

    #[test]
    fn counts_of_what_was_left_out_wait_for_an_output_that_can_be_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("logs/access.log");
        let target = Target::new(Output::File(file.clone()), Format::Json);
        let (_sender, messages) = sync_channel(1);
        let (left_out, refusals) = (Arc::new(LeftOut::default()), Refusals::default());
        let mut writer = Writer::new(messages, Arc::new(target), Arc::default(), left_out.clone());
        let refuse = || {
            let refused = summary(Ending::Refused(REFUSAL), None);
            assert!(!left_out.admits(&refusals, &refused, PerSecond(0), Moment::ZERO));
        };
        writer.open();
        assert!(writer.trouble.is_met(), "its folder is not there");
        for _ in 0..3 {
            refuse();
            writer.tell();
        }
        std::fs::create_dir(directory.path().join("logs")).expect("a folder");
        refuse();
        writer.tell();
        writer.tell();
        let text = std::fs::read_to_string(&file).expect("the log");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("\"portcullis.lines\":4"), "{text}");
        assert!(!writer.trouble.is_met());
    }
}
