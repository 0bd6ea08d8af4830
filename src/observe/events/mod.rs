//! Log lines about failed requests and circuits, written by a thread of their own.
//!
//! Requests hand over what they know and go on, without formatting or waiting. Events that find the
//! queue full are counted. `spells` limits the lines for each upstream and cause.

mod line;
mod spells;

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use http::HeaderValue;

use self::spells::Spells;
use crate::policy::breaker::Change;
use crate::policy::failure::Cause;
use crate::time::Clock;

/// The most events that wait for the thread.
const QUEUE: usize = 1024;
/// How often the thread checks for counts of omitted lines to log.
const TICK: Duration = Duration::from_secs(1);

/// A request that an upstream failed.
#[derive(Debug)]
pub struct Failure {
    /// Its name.
    pub upstream: Arc<str>,
    /// Why the last attempt failed.
    pub cause: Cause,
    /// The endpoint of the last attempt.
    pub endpoint: Option<Arc<str>>,
    /// What the engine or the system said.
    pub words: Words,
    /// Its name.
    pub route: Arc<str>,
    /// As the client gets it.
    pub request_id: HeaderValue,
    /// From 1; 0 if none began.
    pub attempts: u32,
    /// Why there was no further attempt.
    pub no_retry: Option<&'static str>,
}

/// An error's description, not formatted yet.
#[derive(Debug)]
pub enum Words {
    /// The cause says it all.
    None,
    /// Shown as it is, in one line and cut at a limit.
    Text(Cow<'static, str>),
    /// The same, such as the error of a look-up.
    Shared(Arc<str>),
    /// The innermost source is shown.
    Error(Box<dyn Error + Send + Sync>),
}

/// A change of a circuit's state that no operator ordered.
#[derive(Debug)]
pub struct CircuitChange {
    /// `route` or `upstream`.
    pub scope: &'static str,
    /// Of the route or upstream.
    pub name: Arc<str>,
    /// That it opened or closed, with the counts.
    pub change: Change,
}

enum Event {
    Failure(Box<Failure>),
    Circuit(CircuitChange),
    /// Its sender is dropped once all earlier events are written.
    Flush(#[allow(dead_code, reason = "dropping it is the answer")] SyncSender<()>),
}

/// The queue's sending end, held by requests. The default one discards events, so that a
/// configuration which is only checked needs no thread.
#[derive(Clone, Default)]
pub struct EventLog(Option<Queue>);

#[derive(Clone)]
struct Queue {
    sender: SyncSender<Event>,
    lost: Arc<AtomicU64>,
}

impl EventLog {
    /// Starts the thread, which ends with the last handle.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> std::io::Result<Self> {
        let (sender, events) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { events, lost: lost.clone(), spells: Spells::default() };
        std::thread::Builder::new().name("events".to_owned()).spawn(move || writer.run())?;
        Ok(EventLog(Some(Queue { sender, lost })))
    }

    /// Logs a failed request. Never waits.
    pub fn failed(&self, failure: Box<Failure>) {
        self.submit(Event::Failure(failure));
    }

    /// Logs a change of a circuit. Never waits.
    pub fn circuit(&self, change: CircuitChange) {
        self.submit(Event::Circuit(change));
    }

    fn submit(&self, event: Event) {
        let Some(queue) = &self.0 else { return };
        if queue.sender.try_send(event).is_err() {
            // Relaxed: a count.
            queue.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits up to `limit` until all events handed over are written, and omitted lines are counted.
    pub fn flush(&self, limit: Duration) {
        let Some(queue) = &self.0 else { return };
        let (written, done) = sync_channel(0);
        if queue.sender.try_send(Event::Flush(written)).is_ok() {
            // Returns when the thread drops the sender; nothing is ever sent.
            let _ = done.recv_timeout(limit);
        }
    }
}

/// The queue's receiving end, held by the thread.
struct Writer {
    events: Receiver<Event>,
    lost: Arc<AtomicU64>,
    spells: Spells,
}

impl Writer {
    fn run(mut self) {
        let mut looked = Clock::now();
        loop {
            let event = match self.spells.is_quiet() {
                true => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => self.events.recv_timeout(TICK),
            };
            match event {
                Ok(Event::Failure(failure)) => self.failed(&failure),
                Ok(Event::Circuit(change)) => line::circuit(&change),
                Ok(Event::Flush(_written)) => self.spells.all_due().iter().for_each(line::left_out),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Clock::now();
            if now.since(looked) >= TICK {
                looked = now;
                self.spells.due(now).iter().for_each(line::left_out);
                line::lost(self.lost.swap(0, Ordering::Relaxed));
            }
        }
    }

    fn failed(&mut self, failure: &Failure) {
        let key = (failure.upstream.clone(), failure.cause.as_str());
        if self.spells.admit(key, Clock::now()) {
            line::failure(failure);
        }
    }
}
