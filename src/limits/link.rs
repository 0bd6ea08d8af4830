//! Whether the server is there, and getting it back.
//!
//! Requests use a connection that is known to be good, or none. The first that fails takes it
//! down for all; a single task then probes, with growing pauses, until the server answers the
//! script as fast as a request would need it. Changes are logged, repetitions are not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use log::{info, warn};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::limits::call::Call;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A server that nobody asks is probed this often; one that has answered for as long is believed
/// to be well.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The runtime's timers are late by up to this much.
const TIMER_STEP: Duration = Duration::from_millis(1);
/// Requests that wait for their turn to be sent. Beyond it they wait for a place, within their time.
const PIPELINE: usize = 1024;

/// A server, and what is known about its state.
pub(super) struct Link {
    /// As the log calls it.
    name: String,
    client: Client,
    script: Script,
    probe: Call,
    limit: Duration,
    /// What requests use; absent while the server is away.
    line: ArcSwapOption<MultiplexedConnection>,
    lost: Notify,
    /// Taken when the state changes; never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Since it was last well.
    failures: u32,
    /// It has failed, which was logged, and has not been well since.
    ailing: bool,
    reached: bool,
}

impl Link {
    /// Down until [`Link::supervise`] has reached the server.
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

    /// The answer to `call`; `None` if there is none in time.
    pub(super) async fn ask(&self, call: &Call, at_most: Duration) -> Option<Vec<u64>> {
        let line = self.line.load_full()?;
        match self.run(call, &mut (*line).clone(), at_most).await {
            Ok(numbers) => Some(numbers),
            // The request's own time was up, which says nothing about the server.
            Err(Lost::Silent) if at_most < self.limit => None,
            Err(lost) => {
                self.take_down(&line, &lost);
                None
            }
        }
    }

    /// Brings the server up, and up again whenever it was lost. Never returns.
    pub(super) async fn supervise(self: Arc<Self>) {
        // Worth another try: many a failure is a moment's.
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

    /// Until `line` is lost.
    async fn watch(&self, line: &Arc<MultiplexedConnection>) {
        loop {
            tokio::select! {
                () = self.lost.notified() => return,
                () = sleep(HEARTBEAT) => {}
            }
            match self.run(&self.probe, &mut (**line).clone(), self.limit).await {
                Ok(_) => self.well(),
                // Whoever comes first tells; the notice is there in any case.
                Err(lost) => self.take_down(line, &lost),
            }
        }
    }

    /// A connection whose server runs the script in time.
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
            // Time is kept here.
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

    /// Takes `line` down, if another has not done so already.
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
        if !state.ailing {
            warn!("{}: cannot be asked, limits do as their on_failure says: {lost}", self.name);
            state.ailing = true;
        }
    }

    fn reached(&self) {
        let mut state = self.state();
        if !state.reached {
            info!("{}: reached", self.name);
            (state.reached, state.ailing) = (true, false);
        }
    }

    /// It has been up for a while.
    fn well(&self) {
        let mut state = self.state();
        state.failures = 0;
        if state.ailing {
            info!("{}: answers again", self.name);
            state.ailing = false;
        }
    }

    /// None after the first failure, then doubled.
    fn pause(&self) -> Duration {
        let failures = self.state().failures;
        let Some(doublings) = failures.checked_sub(2) else { return Duration::ZERO };
        let doubled = FIRST_PAUSE.saturating_mul(1 << doublings.min(10)).min(LONGEST_PAUSE);
        // Replicas that lost the same server do not come back at the same moment.
        doubled.mul_f64(0.75 + 0.25 * fastrand::f64())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a server cannot be asked.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("no answer in time")]
    Silent,
    #[error("no connection within 1 s")]
    Unreached,
    #[error(transparent)]
    Failed(#[from] RedisError),
}
