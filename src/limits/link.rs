//! Whether the server can be reached, and reconnecting to it.
//!
//! Requests only use a connection that is known to be good. The first that fails takes it down for
//! all; a single task then probes with growing pauses, until the server runs the script as fast as
//! a request would need it. Changes are logged, repetitions are not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use log::{info, warn};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::condition::Condition;
use crate::limits::call::Call;
use crate::time::Clock;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often a server is probed. One that has stayed up for as long counts as healthy.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The runtime's timers may be late by this much.
const TIMER_STEP: Duration = Duration::from_millis(1);
/// Requests that may wait to be sent. Further ones wait for a place, within their time limit.
const PIPELINE: usize = 1024;

/// A server, and what is known about its state.
pub(super) struct Link {
    /// The server's name in the log.
    name: String,
    client: Client,
    script: Script,
    probe: Call,
    limit: Duration,
    /// The connection that requests use; absent while the server is down.
    line: ArcSwapOption<MultiplexedConnection>,
    lost: Notify,
    /// Locked when the state changes; never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Failures since the server was last healthy.
    failures: u32,
    /// What the last of them was; kept when it is healthy again.
    last_error: Option<String>,
    /// The server has failed, which was logged, and has not been healthy since.
    ailing: Condition,
    reached: bool,
}

impl Link {
    /// Starts as down, until [`Link::supervise`] has reached the server.
    pub(super) fn new(name: String, client: Client, limit: Duration, probe: Call) -> Self {
        Link {
            name,
            client,
            script: Script::new(include_str!("count.lua")),
            probe,
            limit,
            line: ArcSwapOption::empty(),
            lost: Notify::new(),
            state: Mutex::default(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.line.load().is_some()
    }

    /// Why it is down; `None` if it is up, or nothing is known yet.
    pub(super) fn error(&self) -> Option<String> {
        if self.is_up() { None } else { self.state().last_error.clone() }
    }

    /// The script's reply to `call`; `None` if it does not arrive in time.
    pub(super) async fn ask(&self, call: &Call, at_most: Duration) -> Option<Vec<u64>> {
        let line = self.line.load_full()?;
        match self.run(call, &mut (*line).clone(), at_most).await {
            Ok(numbers) => Some(numbers),
            // Only the request's own time limit was exceeded, which says nothing about the server.
            Err(Lost::Silent) if at_most < self.limit => None,
            Err(lost) => {
                self.take_down(&line, &lost);
                None
            }
        }
    }

    /// Connects to the server, and again whenever it is lost. Never returns.
    pub(super) async fn supervise(self: Arc<Self>) {
        // The last connection is tried again first, because many failures are momentary.
        let mut last = None;
        loop {
            match self.reach(last.take()).await {
                Ok(connection) => {
                    let line = Arc::new(connection.clone());
                    self.reached();
                    self.line.store(Some(line.clone()));
                    self.watch(&line).await;
                    last = Some(connection);
                }
                Err(lost) => self.failed(&lost),
            }
            sleep(self.pause()).await;
        }
    }

    /// Probes until `line` is lost.
    async fn watch(&self, line: &Arc<MultiplexedConnection>) {
        loop {
            tokio::select! {
                () = self.lost.notified() => return,
                () = sleep(HEARTBEAT) => {}
            }
            match self.run(&self.probe, &mut (**line).clone(), self.limit).await {
                Ok(_) => self.well(),
                // A request may have found out first; `lost` is notified either way.
                Err(lost) => self.take_down(line, &lost),
            }
        }
    }

    /// A connection on which the server runs the script in time.
    async fn reach(
        &self,
        last: Option<MultiplexedConnection>,
    ) -> Result<MultiplexedConnection, Lost> {
        let mut connection = match last {
            Some(last) => last,
            None => {
                timeout(CONNECT_TIMEOUT, self.connect()).await.map_err(|_| Lost::Unreached)??
            }
        };
        self.run(&self.probe, &mut connection, self.limit).await?;
        Ok(connection)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            // Time limits are kept here.
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE);
        let mut connection =
            self.client.get_multiplexed_async_connection_with_config(&config).await?;
        self.script.load_async(&mut connection).await?;
        Ok(connection)
    }

    async fn run(
        &self,
        call: &Call,
        connection: &mut MultiplexedConnection,
        at_most: Duration,
    ) -> Result<Vec<u64>, Lost> {
        let limit = self.limit.min(at_most);
        let patience = limit.saturating_sub(TIMER_STEP).max(limit / 2);
        match timeout(patience, call.run(&self.script, connection)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Lost::Silent),
        }
    }

    /// Takes `line` down, unless it is down already.
    fn take_down(&self, line: &Arc<MultiplexedConnection>, lost: &Lost) {
        let before = self.line.compare_and_swap(line, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, line)) {
            self.failed(lost);
            self.lost.notify_one();
        }
    }

    fn failed(&self, lost: &Lost) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        state.last_error = Some(lost.to_string());
        if state.ailing.met(Clock::now()) {
            warn!("{}: cannot be asked, limits do as their on_failure says: {lost}", self.name);
        }
    }

    fn reached(&self) {
        let mut state = self.state();
        if !state.reached {
            state.reached = true;
            match state.ailing.over(Clock::now()) {
                Some(over) => info!("{}: reached {over}", self.name),
                None => info!("{}: reached", self.name),
            }
        }
    }

    /// The server has been up for a while.
    fn well(&self) {
        let mut state = self.state();
        state.failures = 0;
        if let Some(over) = state.ailing.over(Clock::now()) {
            info!("{}: answers again {over}", self.name);
        }
    }

    /// No pause after the first failure, then doubled each time.
    fn pause(&self) -> Duration {
        let failures = self.state().failures;
        let Some(doublings) = failures.checked_sub(2) else { return Duration::ZERO };
        let doubled = FIRST_PAUSE.saturating_mul(1 << doublings.min(10)).min(LONGEST_PAUSE);
        // So that replicas that lost the same server do not all come back at once.
        doubled.mul_f64(0.75 + 0.25 * fastrand::f64())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state consistent, so a panic elsewhere does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("no answer in time")]
    Silent,
    #[error("no connection within 1 s")]
    Unreached,
    #[error(transparent)]
    Failed(#[from] RedisError),
}
