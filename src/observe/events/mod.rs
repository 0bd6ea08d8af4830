//! Log lines about failed requests and circuits, written by a thread of their own.
//!
//! Requests hand over what they know and go on, without formatting or waiting. Events that find the
//! queue full are counted. Of each upstream and cause, `spells` lets the first failure have a line, and
//! counts the others until there are no more.

mod line;
mod spells;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use http::HeaderValue;

use self::spells::Spells;
use crate::condition::{Condition, QUIET};
use crate::policy::breaker::Change;
use crate::policy::dry_run::Enforce;
use crate::summary::attempt::Failure;
use crate::time::{Clock, Moment};
use crate::upstream::news;

/// The most events that wait for the thread.
const QUEUE: usize = 1024;
/// How often the thread checks for spells that are over.
const TICK: Duration = Duration::from_secs(1);

/// A request that an upstream failed.
#[derive(Debug)]
pub struct FailedRequest {
    /// How the upstream failed it.
    pub failure: Arc<Failure>,
    /// Its name.
    pub route: Arc<str>,
    /// As the client gets it.
    pub request_id: HeaderValue,
    /// From 1; 0 if none began.
    pub attempts: u32,
    /// Why there was no further attempt.
    pub no_retry: Option<&'static str>,
}

/// A change of a circuit's state that no operator ordered.
#[derive(Debug)]
pub struct CircuitChange {
    /// `route` or `upstream`.
    pub scope: &'static str,
    /// Of the route or upstream.
    pub name: Arc<str>,
    /// Whether the circuit refuses calls.
    pub enforce: Enforce,
    /// That it opened or closed, with the counts.
    pub change: Change,
}

enum Event {
    Failure(Box<FailedRequest>),
    Circuit(CircuitChange),
    Endpoints(Arc<str>, news::Change),
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
        let (spells, losing) = (Spells::default(), Condition::default());
        let writer = Writer { events, lost: lost.clone(), spells, losing };
        std::thread::Builder::new().name("events".to_owned()).spawn(move || writer.run())?;
        Ok(EventLog(Some(Queue { sender, lost })))
    }

    /// Logs a failed request. Never waits.
    pub fn failed(&self, request: Box<FailedRequest>) {
        self.submit(Event::Failure(request));
    }

    /// Logs a change of a circuit. Never waits.
    pub fn circuit(&self, change: CircuitChange) {
        self.submit(Event::Circuit(change));
    }

    /// Logs a change of what is used of an upstream. Never waits.
    pub fn endpoints(&self, upstream: Arc<str>, change: news::Change) {
        self.submit(Event::Endpoints(upstream, change));
    }

    fn submit(&self, event: Event) {
        let Some(queue) = &self.0 else { return };
        if queue.sender.try_send(event).is_err() {
            // Relaxed: a count.
            queue.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits up to `limit` until all events handed over are written, and those without a line counted.
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
    losing: Condition,
}

impl Writer {
    fn run(mut self) {
        let mut looked = Clock::now();
        loop {
            let event = match self.spells.is_quiet() && !self.losing.is_met() {
                true => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => self.events.recv_timeout(TICK),
            };
            match event {
                Ok(Event::Failure(failure)) => self.failed(&failure),
                Ok(Event::Circuit(change)) => line::circuit(&change),
                Ok(Event::Endpoints(upstream, change)) => change.log(&upstream),
                Ok(Event::Flush(_written)) => {
                    self.spells.all().iter().for_each(line::ended);
                    self.count_lost(Clock::now());
                    if let Some(over) = self.losing.stop() {
                        line::lost(over);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Clock::now();
            if now.since(looked) >= TICK {
                looked = now;
                self.spells.over(now).iter().for_each(line::ended);
                self.count_lost(now);
            }
        }
    }

    fn count_lost(&mut self, now: Moment) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 && self.losing.met_times(lost, now) {
            line::losing();
        }
        if let Some(over) = self.losing.over_after(QUIET, now) {
            line::lost(over);
        }
    }

    fn failed(&mut self, request: &FailedRequest) {
        let Failure { upstream, cause, .. } = &*request.failure;
        if self.spells.admit((upstream.clone(), cause.as_str()), Clock::now()) {
            line::failure(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed() -> CircuitChange {
        let change = Change::Closed { after: Duration::from_secs(1), failed_trials: 0 };
        CircuitChange { scope: "route", name: "a".into(), enforce: Enforce::Yes, change }
    }

    #[test]
    fn events_that_find_the_queue_full_are_counted_and_nothing_waits() {
        let (sender, events) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let log = EventLog(Some(Queue { sender, lost: lost.clone() }));
        // The thread does not run yet.
        (0..QUEUE + 7).for_each(|_| log.circuit(closed()));
        assert_eq!(lost.load(Ordering::Relaxed), 7);
        let (spells, losing) = (Spells::default(), Condition::default());
        let writer = Writer { events, lost: lost.clone(), spells, losing };
        let thread = std::thread::spawn(move || writer.run());
        while lost.load(Ordering::Relaxed) > 0 {
            log.flush(Duration::from_millis(10));
        }
        drop(log);
        thread.join().expect("the thread ends with the last handle");
    }
}
