//! The access log: a line for each request that failed or was slow, and for others by option.
//!
//! ```text
//! request ended ──> keep ──no───> counted, for refusals beyond their rate
//!                    │ yes
//!                    v
//!                  line ──> queue, bounded ──> writer, a thread of its own ──> stdout, a file
//!                    │          │ full: dropped and counted
//!                    v
//!                  ring: the latest failures and slow requests, for `portcullis why`
//! ```
//!
//! A request never waits for the log. A pipe that is not read or a disk that is full costs lines,
//! which are counted, and nothing else.

mod keep;
mod left_out;
mod line;
mod ring;
mod text;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use self::keep::Class;
use self::left_out::LeftOut;
pub use self::left_out::Refusals;
use self::ring::Ring;
use self::writer::{Message, Target, Writer};
use crate::config::access_log::{AccessLog as Config, Format, Output};
use crate::record::Query;
use crate::summary::Summary;
use crate::summary::values::Values;
use crate::time::Clock;

/// The most lines that wait for the thread.
const QUEUE: usize = 8192;

/// The access log's end that requests hold. The default one writes nothing.
#[derive(Default)]
pub struct AccessLog {
    sender: Option<SyncSender<Message>>,
    target: Arc<Target>,
    counts: Arc<Counts>,
    left_out: Arc<LeftOut>,
    ring: Ring,
}

/// What became of lines.
#[derive(Debug, Default)]
struct Counts {
    // Relaxed everywhere: no other data depends on the counts.
    written: AtomicU64,
    dropped: AtomicU64,
    left_out: AtomicU64,
}

/// How many lines there were, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// Written to the output.
    pub written: u64,
    /// Lost, because the queue was full or the output could not be written.
    pub dropped: u64,
    /// Left out, because there were more refusals than `keep.refusals`.
    pub left_out: u64,
}

/// What a request's summary does not have, because only its route knows it.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Those of the route, or those of requests without one.
    pub refusals: &'a Refusals,
    /// What may be kept of the query; `None` if it is not kept.
    pub query: Option<&'a Query>,
    /// What its policies hold; only asked for a request that failed.
    pub values: Option<&'a dyn Fn() -> Values>,
}

impl AccessLog {
    /// Starts the thread, which ends with the process.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(config: &Config) -> std::io::Result<Self> {
        let (sender, messages) = sync_channel(QUEUE);
        let log = AccessLog {
            sender: Some(sender),
            target: Arc::new(Target::new(config.to.clone(), config.format)),
            ..AccessLog::default()
        };
        let writer = Writer::new(
            messages,
            Arc::clone(&log.target),
            Arc::clone(&log.counts),
            Arc::clone(&log.left_out),
        );
        std::thread::Builder::new().name("access log".to_owned()).spawn(move || writer.run())?;
        Ok(log)
    }

    /// Writes a line about a request, if it is kept. Never waits.
    pub fn tell(&self, config: &Config, summary: &Summary<'_>, rules: Rules<'_>) {
        let class = keep::class(summary);
        let slow = keep::is_slow(&config.keep, summary);
        let wanted = config.to != Output::Off
            && match class {
                Class::Failure => true,
                Class::Success => slow || keep::is_drawn(config.keep.success),
                Class::Refusal => {
                    let (refusals, rate) = (rules.refusals, config.keep.refusals);
                    slow || self.left_out.admits(refusals, summary, rate, Clock::now()) || {
                        self.counts.left_out.fetch_add(1, Ordering::Relaxed);
                        false
                    }
                }
            };
        let remembered = slow || class == Class::Failure;
        if !wanted && !remembered {
            return;
        }
        let values = rules.values.filter(|_| !summary.ending.is_success()).map(|values| values());
        let values = values.as_ref();
        let json = (remembered || config.format == Format::Json)
            .then(|| Arc::from(line::json(config, summary, rules.query, values)));
        if let Some(json) = json.as_ref().filter(|_| remembered) {
            self.ring.push(Arc::clone(json));
        }
        if wanted {
            let coloured = self.target.is_terminal();
            self.submit(match (config.format, json) {
                (Format::Json, Some(json)) => json,
                (Format::Json | Format::Text, _) => {
                    text::text(config, summary, values, coloured).into()
                }
            });
        }
    }

    fn submit(&self, line: Arc<[u8]>) {
        let Some(sender) = &self.sender else { return };
        if sender.try_send(Message::Line(line)).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// From now on lines go where `config` says, which is opened anew.
    pub fn reopen(&self, config: &Config) {
        self.target.set(config.to.clone(), config.format);
        if let Some(sender) = &self.sender {
            // If the queue is full, the thread will look soon.
            let _ = sender.try_send(Message::Look);
        }
    }

    /// What became of lines so far.
    pub fn lines(&self) -> Lines {
        let [written, dropped, left_out] =
            [&self.counts.written, &self.counts.dropped, &self.counts.left_out]
                .map(|count| count.load(Ordering::Relaxed));
        Lines { written, dropped, left_out }
    }

    /// The lines about the latest requests that failed or were slow, the latest first.
    pub fn latest(&self) -> Vec<Arc<[u8]>> {
        self.ring.latest()
    }

    /// The line about the request with this id, if it is among the latest.
    pub fn of_request(&self, id: &str) -> Option<Arc<[u8]>> {
        self.ring.find(id)
    }

    /// Waits up to `limit` until all lines handed over are written, and counts of what was left out.
    pub fn flush(&self, limit: Duration) {
        let Some(sender) = &self.sender else { return };
        let (written, done) = sync_channel(0);
        if sender.try_send(Message::Flush(written)).is_ok() {
            // Returns when the thread drops the sender; nothing is ever sent.
            let _ = done.recv_timeout(limit);
        }
    }
}

#[cfg(test)]
mod tests;
