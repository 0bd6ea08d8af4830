//! Key sets over HTTP: one task per issuer fetches them, publishes them, and wakes waiting
//! requests.
//!
//! All fetches of an issuer happen in its task, so at most one is in flight, however many requests
//! wait. `policy::auth` decides what a key set means, how long it is trusted, and how often
//! unauthenticated requests may cause a fetch.

mod fetch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use self::fetch::{FetchError, client};
use crate::condition::Condition;
use crate::policy::auth::{Jwks as Config, Keyring, Published, Refetch, Wanted};
use crate::time::{Clock, Moment};

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// The keys of one issuer, kept fresh until this is dropped.
///
/// The first fetch starts at once; a failed one is retried after 1 s, 2 s … 30 s. Keys that cannot
/// be refreshed are trusted for the configured `max_stale` after the last success.
#[must_use = "dropping it stops the fetching"]
pub struct Jwks {
    fetcher: Arc<Fetcher>,
    task: JoinHandle<()>,
}

/// State of an issuer's fetches, for `/status` and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// How many keys tokens are checked with: zero once the last good ones are too old.
    pub keys: usize,
    /// When the issuer last confirmed them.
    pub last_success: Option<Moment>,
    /// Why the last fetch failed; `None` when it succeeded.
    pub last_error: Option<String>,
    /// Fetches that published keys, since the task began.
    pub succeeded: u64,
    /// Fetches that did not.
    pub failed: u64,
}

impl Jwks {
    /// Starts fetching for `auth.<authority>`. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// No HTTP client can be built, for example on a system without root certificates.
    pub fn spawn(
        authority: &str,
        config: &Config,
        keyring: Arc<Keyring>,
    ) -> Result<Self, reqwest::Error> {
        let fetcher = Arc::new(Fetcher {
            authority: authority.to_owned(),
            client: client(config)?,
            config: config.clone(),
            keyring,
            state: Mutex::new(State::new(config)),
            asked: Notify::new(),
            finished: watch::Sender::new(0),
        });
        let task = tokio::spawn(fetcher.clone().run());
        Ok(Jwks { fetcher, task })
    }

    /// For a request that was denied because a key is missing: waits for the fetch in flight, or
    /// for a new one if that is allowed now. Waits at most the configured `timeout`.
    ///
    /// Returns whether the request should be verified again.
    pub async fn refresh_for(&self, wanted: Wanted<'_>) -> bool {
        // Whether the wait succeeded or timed out, the keys decide.
        let _ = tokio::time::timeout(*self.fetcher.config.timeout, self.fetcher.wait(wanted)).await;
        self.fetcher.serves(wanted)
    }

    /// The state now; its keys are those that are not too old.
    pub fn status(&self) -> Status {
        let keyring = &self.fetcher.keyring;
        let keys = if keyring.is_usable(Clock::now()) { keyring.len() } else { 0 };
        Status { keys, ..self.fetcher.state().status.clone() }
    }
}

impl Drop for Jwks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Fetcher {
    authority: String,
    config: Config,
    client: reqwest::Client,
    keyring: Arc<Keyring>,
    /// A plain lock: held for a few loads and stores, never across an await, and taken only by
    /// requests whose key is missing.
    state: Mutex<State>,
    /// Wakes the task before its pause has ended.
    asked: Notify,
    /// The number of the last fetch that has ended.
    finished: watch::Sender<u64>,
}

struct State {
    /// The number of the last fetch that has begun.
    begun: u64,
    phase: Phase,
    refetch: Refetch,
    failures: u32,
    health: Health,
    /// Fetches fail.
    failing: Condition,
    status: Status,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting for the next refresh or retry.
    Pausing,
    /// A request has asked for a fetch, which has not begun yet.
    Asked,
    Fetching,
}

/// The state that was last logged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Unknown,
    Good,
    /// Fetches fail, but the current keys are still trusted.
    Failing,
    /// There are no keys, or they are too old.
    Refusing,
}

impl State {
    fn new(config: &Config) -> Self {
        State {
            begun: 0,
            // The task begins with a fetch, and requests that arrive earlier wait for it.
            phase: Phase::Asked,
            refetch: Refetch::new(*config.min_refetch),
            failures: 0,
            health: Health::Unknown,
            failing: Condition::default(),
            status: Status::default(),
        }
    }
}

impl Fetcher {
    async fn run(self: Arc<Self>) {
        loop {
            self.begin();
            let outcome = self.fetch().await;
            let pause = self.finish(outcome);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.asked.notified() => {}
            }
        }
    }

    fn begin(&self) {
        let mut state = self.state();
        state.begun += 1;
        state.phase = Phase::Fetching;
    }

    async fn fetch(&self) -> Result<Published, FetchError> {
        let document = fetch::document(&self.client, &self.config).await?;
        Ok(self.keyring.publish(&document, Clock::now(), *self.config.max_stale)?)
    }

    /// Records the outcome, wakes the waiting requests, and returns the pause before the next
    /// fetch.
    fn finish(&self, outcome: Result<Published, FetchError>) -> Duration {
        let mut state = self.state();
        let pause = match outcome {
            Ok(published) => self.note_success(&mut state, published),
            Err(error) => self.note_failure(&mut state, &error),
        };
        state.phase = Phase::Pausing;
        let number = state.begun;
        drop(state);
        self.finished.send_replace(number);
        pause
    }

    fn note_success(&self, state: &mut State, published: Published) -> Duration {
        let Published { usable, skipped, changed } = published;
        let over = state.failing.over(Clock::now());
        if changed || state.health != Health::Good {
            let (authority, url) = (&self.authority, &self.config.url);
            let again = over.map(|over| format!(", again {over}")).unwrap_or_default();
            log::info!(
                "auth.{authority}: {usable} keys from {url}, {skipped} others passed over{again}"
            );
        }
        if changed {
            state.refetch.answered(|kid| kid.is_empty() || self.keyring.contains(kid));
        }
        state.health = Health::Good;
        state.failures = 0;
        state.status.succeeded += 1;
        state.status.last_success = Some(Clock::now());
        state.status.last_error = None;
        jittered(*self.config.refresh)
    }

    /// Warns when fetches begin to fail and when the current keys are given up, not every time.
    fn note_failure(&self, state: &mut State, error: &FetchError) -> Duration {
        let why = error.chain();
        state.failing.met(Clock::now());
        let usable = self.keyring.is_usable(Clock::now());
        let health = if usable { Health::Failing } else { Health::Refusing };
        if health != state.health {
            let (authority, url, bound) =
                (&self.authority, &self.config.url, &self.config.max_stale);
            if usable {
                log::warn!(
                    "auth.{authority}: no keys from {url}: {why}; those at hand are believed for \
                     {bound} after they came"
                );
            } else {
                log::warn!(
                    "auth.{authority}: no keys from {url}: {why}; requests with its tokens are \
                     answered 503 until a fetch succeeds"
                );
            }
        }
        state.health = health;
        state.status.last_error = Some(why);
        state.status.failed += 1;
        state.refetch.forget();
        let doubled = FIRST_BACKOFF.saturating_mul(1 << state.failures.min(10));
        state.failures = state.failures.saturating_add(1);
        jittered(doubled.min(MAX_BACKOFF))
    }

    /// Waits, if a fetch is to happen, until one has ended that began after the call.
    async fn wait(&self, wanted: Wanted<'_>) {
        let mut finished = self.finished.subscribe();
        loop {
            let Some(awaited) = self.request(wanted, Clock::now()) else { return };
            if finished.wait_for(|number| *number >= awaited.number).await.is_err() {
                return;
            }
            // The issuer may have served a fetch that was already in flight before it made the key.
            // In that case a second fetch is worth it.
            if self.serves(wanted) || !awaited.was_in_flight {
                return;
            }
        }
    }

    /// The fetch to wait for; `None` if none is in flight and none may begin.
    fn request(&self, wanted: Wanted<'_>, now: Moment) -> Option<Awaited> {
        let mut guard = self.state();
        let state = &mut *guard;
        let next = Awaited { number: state.begun + 1, was_in_flight: false };
        match state.phase {
            Phase::Fetching => Some(Awaited { number: state.begun, was_in_flight: true }),
            Phase::Asked => Some(next),
            // The key may have arrived while this request was on its way here.
            Phase::Pausing if self.serves(wanted) => None,
            Phase::Pausing if !state.refetch.admit(name_of(wanted), now) => None,
            Phase::Pausing => {
                state.phase = Phase::Asked;
                self.asked.notify_one();
                Some(next)
            }
        }
    }

    /// Whether the current keys include the one that is wanted.
    fn serves(&self, wanted: Wanted<'_>) -> bool {
        let is_there = match wanted {
            Wanted::Any => true,
            Wanted::Named(kid) => self.keyring.contains(kid),
            Wanted::Other { generation, .. } => self.keyring.generation() != generation,
        };
        is_there && self.keyring.is_usable(Clock::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every write leaves the state consistent, even if a panic comes between two.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name under which fetches are limited: the key id, or the empty string if none is named.
fn name_of(wanted: Wanted<'_>) -> &str {
    match wanted {
        Wanted::Any => "",
        Wanted::Named(kid) => kid,
        Wanted::Other { kid, .. } => kid.unwrap_or_default(),
    }
}

/// The fetch that a request waits for.
struct Awaited {
    number: u64,
    was_in_flight: bool,
}

/// Up to a tenth shorter, so that replicas started together drift apart.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 - 0.1 * fastrand::f64())
}

#[cfg(test)]
mod tests;
