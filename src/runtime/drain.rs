//! The shutdown: report not ready, stop accepting connections, wait for the requests in flight,
//! write what is left to write, exit.

use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::time::Instant;

use super::lifecycle::Successor;
use super::shared::Shared;
use super::signals;
use super::socket_file::SocketFile;
use crate::config::Config;
use crate::config::otlp::environment::Signal;
use crate::record::{Left, Recorder};

/// How often the drain checks whether the last request has ended.
const POLL: Duration = Duration::from_millis(10);
/// Limit on sending the last spans and metrics, while the rest of the record is written.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// How long idle connections of HTTP/1 stay open once another process has taken over: a client that sends a
/// request while its connection is being closed would see it fail. What comes over them is served, and is
/// the connection's last.
const SPARE_IDLE: Duration = Duration::from_secs(5);

/// How long a process that is told to end waits for one that has been told to serve. That takes milliseconds.
const HANDOVER_LIMIT: Duration = Duration::from_secs(1);

/// Limit on the end of requests that are cut off.
const CUT_LIMIT: Duration = Duration::from_millis(500);

/// Limit on writing the last log lines about requests.
const LOG_LIMIT: Duration = Duration::from_secs(1);

/// How long Pingora sleeps once it has stopped listening. Longer than any drain: the process exits
/// first.
pub const GRACE_SECONDS: u64 = 100 * 365 * 24 * 60 * 60;

/// Tells Pingora when to stop listening. Ends the process as soon as it is idle, which Pingora does
/// not do.
pub struct Drain {
    shared: Arc<Shared>,
    /// Those of Unix sockets, removed at the end. Taken by the shutdown, of which there is only one.
    files: Mutex<Vec<SocketFile>>,
}

impl Drain {
    /// `files` are those of the Unix sockets.
    pub fn new(shared: Arc<Shared>, files: Vec<SocketFile>) -> Self {
        Drain { shared, files: Mutex::new(files) }
    }

    /// The longest time from the signal to the end of the process. What supervises the gateway must wait
    /// longer before it kills it.
    pub fn longest(config: &Config) -> Duration {
        let (server, logs) = (&config.server, 3 * LOG_LIMIT);
        let record = match config.record.store.chosen() {
            Some(_) => *config.record.drain_timeout + Recorder::LEAVE,
            None => Duration::ZERO,
        };
        *server.shutdown_delay + *server.drain_timeout + CUT_LIMIT + FLUSH_LIMIT.max(record) + logs
    }
}

#[async_trait]
impl ShutdownSignalWatch for Drain {
    async fn recv(&self) -> ShutdownSignal {
        let lifecycle = &self.shared.lifecycle;
        let successor = tokio::select! {
            which = signals::ending() => {
                if lifecycle.is_held() {
                    self.give_up(which);
                }
                // Files of sockets belong to a process that has been told to serve, as soon as it does.
                let decided = lifecycle.until_handed_over();
                let successor = tokio::time::timeout(HANDOVER_LIMIT, decided).await.ok().flatten();
                log::info!("{which}: draining, {} in flight", lifecycle.in_flight());
                successor
            }
            successor = lifecycle.until_succeeded() => {
                let (process, in_flight) = (successor.process, lifecycle.in_flight());
                log::info!("process {process} has taken over: draining, {in_flight} in flight");
                Some(successor)
            }
        };
        lifecycle.set_draining();
        // As they are in force now: that is what the service manager is told.
        let snapshot = self.shared.snapshot.load_full();
        let server = &snapshot.config.server;
        let mut limits = Limits {
            requests: *server.drain_timeout,
            record: *snapshot.config.record.drain_timeout,
        };
        let mut files =
            std::mem::take(&mut *self.files.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(successor) = &successor {
            // The new process is what the service manager and the load balancer look at.
            lifecycle.spare_idle();
            files = not_of(successor, files);
            // Otherwise the next process would find addresses in use.
            self.shared.sockets.close_all();
        } else {
            // From now on a new process begins as if this one were not there.
            self.withdraw(&mut files, server.upgrade_socket.as_deref());
            self.shared.manager.stopping(Self::longest(&snapshot.config));
            tokio::select! {
                () = tokio::time::sleep(*server.shutdown_delay) => {}
                which = signals::ordered_again() => {
                    log::warn!("{which} again: not waiting any longer");
                    limits.requests = Duration::ZERO;
                }
            }
        }
        let shared = self.shared.clone();
        // Needs its own thread: Pingora stops the runtime this future runs on.
        std::thread::spawn(move || {
            let code = finish(&shared, limits);
            // The admin listener responds until now.
            drop(files);
            std::process::exit(code);
        });
        ShutdownSignal::GracefulTerminate
    }
}

impl Drain {
    /// Ends a process that has not served yet. The one that serves keeps the sockets and their files, and the
    /// service manager has nothing to learn.
    fn give_up(&self, which: &str) -> ! {
        log::warn!(
            "upgrade: {which} before this process has taken over: it ends, and the other one goes on"
        );
        if let Some(logs) = &self.shared.logs {
            logs.flush(LOG_LIMIT);
        }
        std::process::exit(1)
    }

    /// Removes the upgrade socket.
    fn withdraw(&self, files: &mut Vec<SocketFile>, upgrade_socket: Option<&Path>) {
        if let Some(path) = upgrade_socket {
            files.retain(|file| file.path() != path);
            self.shared.sockets.close_at(path);
        }
    }
}

/// The files that the other process does not use.
fn not_of(successor: &Successor, files: Vec<SocketFile>) -> Vec<SocketFile> {
    let (theirs, ours): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| successor.files.iter().any(|path| path == file.path()));
    theirs.into_iter().for_each(SocketFile::leave);
    ours
}

/// How long what is under way is waited for.
struct Limits {
    /// For the requests in flight.
    requests: Duration,
    /// For the store, which rows are left for.
    record: Duration,
}

/// Waits for the requests in flight and writes the record. Returns the exit code.
fn finish(shared: &Shared, limits: Limits) -> i32 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            let cut = tokio::select! {
                cut = ended(shared, limits.requests) => cut,
                which = hurried(shared) => {
                    log::warn!("{which} again: not waiting any longer");
                    shared.lifecycle.in_flight()
                }
            };
            if cut > 0 {
                log::warn!("{cut} requests cut off");
                shared.lifecycle.cut_off(limits.requests);
                // Each is reported as it ends, which the record must not miss.
                idle(shared, CUT_LIMIT).await;
            }
            let record = close_record(shared, limits.record);
            tokio::join!(record, close_traces(shared), close_metrics(shared));
            shared.snapshot.load().events.flush(LOG_LIMIT);
            shared.access_log.flush(LOG_LIMIT);
            log::info!("stopped");
            if let Some(logs) = &shared.logs {
                logs.flush(LOG_LIMIT);
            }
            0
        }),
        Err(error) => {
            log::error!("cannot drain: {error}");
            1
        }
    }
}

/// Waits for another order to end; returns its name.
async fn hurried(shared: &Shared) -> &'static str {
    if shared.lifecycle.has_successor() {
        // It drains without having been told to: this is its first order, and changes nothing.
        let which = signals::ordered_again().await;
        log::info!("{which}: draining already");
    }
    signals::ordered_again().await
}

/// Writes what is left of the record, and says what stays in the journal.
async fn close_record(shared: &Shared, limit: Duration) {
    let Some(recorder) = &shared.recorder else { return };
    let mut closed = pin!(recorder.close(limit));
    let stats = tokio::select! {
        stats = &mut closed => stats,
        which = hurried(shared) => {
            log::warn!("{which} again: not waiting for the record's store any longer");
            recorder.hurry();
            closed.await
        }
    };
    let (written, dropped) = (stats.written + stats.committed + stats.shipped, stats.dropped);
    let done = format!("record closed: {written} rows written, {dropped} dropped");
    if stats.journal_depth == 0 {
        log::info!("{done}, none left in the journal");
        return;
    }
    match recorder.left().await {
        Some(Left { rows: 0, .. }) => log::info!("{done}, none left in the journal"),
        Some(Left { rows, all, path }) => {
            let rows = if all { rows.to_string() } else { format!("more than {rows}") };
            log::warn!(
                "{done}, {rows} left in {}: the next start with this file ships them",
                path.display()
            );
        }
        None => log::warn!(
            "{done}, some left in the journal ({} writes): the next start with its file ships them",
            stats.journal_depth
        ),
    }
}

async fn close_traces(shared: &Shared) {
    if !shared.exporting.close(Signal::Traces, FLUSH_LIMIT).await {
        log::warn!("traces: not all spans were sent in time");
    }
}

async fn close_metrics(shared: &Shared) {
    if !shared.exporting.close(Signal::Metrics, FLUSH_LIMIT).await {
        log::warn!("metrics: the last ones were not sent in time");
    }
}

/// Waits until no request is in flight and no idle connection is spared, or for `limit`. Returns how many
/// requests are left.
async fn ended(shared: &Shared, limit: Duration) -> usize {
    let begun = Instant::now();
    // What is accepted until then has come before the end.
    let _ = tokio::time::timeout(limit, shared.lifecycle.until_closed()).await;
    if shared.lifecycle.has_successor() {
        while shared.metrics.connections.get() > 0 && begun.elapsed() < SPARE_IDLE.min(limit) {
            tokio::time::sleep(POLL).await;
        }
        shared.lifecycle.close_idle();
    }
    idle(shared, limit.saturating_sub(begun.elapsed())).await
}

/// Waits until no request is in flight, or for `limit`. Returns how many are left.
async fn idle(shared: &Shared, limit: Duration) -> usize {
    let until = Instant::now() + limit;
    // A request that is still being read when the listeners close is served too: it is counted
    // within a poll or two.
    let mut quiet = 0;
    while Instant::now() < until {
        tokio::time::sleep(POLL).await;
        quiet = if shared.lifecycle.in_flight() == 0 { quiet + 1 } else { 0 };
        if quiet >= 3 {
            return 0;
        }
    }
    shared.lifecycle.in_flight()
}
