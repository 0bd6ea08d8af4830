//! Reload on SIGHUP, or when the files have changed: load, validate, compile and swap the
//! configuration. If it is invalid, keep the current one, and log why.
//!
//! ```text
//! generation n in force
//!       │ SIGHUP, or `super::follow`
//!       v
//!    load ───────> compare ────────> compile ───────> bind ───────> start ─────────> resize ────> swap ──> n + 1 in force
//!  files, checks  `unchangeable`   `carry`, `kept`   addresses    names, keys,     bulkheads       │
//!       │              │                 │            of new      stores, checks             listeners: as n + 1 has them
//!       │              │                 │           listeners                                     v
//!       └── mistakes ──┴─────────────────┴───────────────┘                               n retires: dropped when
//!                 v                                                                      its last request ends
//!       logged, counted; n goes on
//! ```
//!
//! Up to `resize` nothing that n uses has changed, but that health checks tell n + 1 what they find. Clients of a
//! new address wait in its queue until n + 1 is in force. One reload runs at a time; signals that come meanwhile
//! are one more reload.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::signal::unix::Signal;
use tokio::time::MissedTickBehavior;

use super::added::{Opened, bind};
use super::carry;
use super::changes;
use super::descriptors::Descriptors;
use super::discovery;
use super::exports::Exports;
use super::follow::{self, Follower, Scope};
use super::health;
use super::health::Checker;
use super::listening::Draining;
use super::rotate::Rotator;
use super::shared::Shared;
use super::snapshot::Snapshot;
use super::status;
use super::warnings;
use crate::config::code::Code;
use crate::config::load::apart;
use crate::config::otlp::telemetry::Telemetry;
use crate::config::server::Server;
use crate::config::{Config, Diagnostic, Environment, Location, Problem, Sources};
use crate::observe::metrics::Metrics;
use crate::time::Clock;
use crate::upstream::resolve;

/// How long name resolution may delay a start or a reload.
pub const RESOLVE_WAIT: Duration = Duration::from_secs(2);

/// How often the gateway checks whether a replaced generation is still in use.
const RETIRE_POLL: Duration = Duration::from_millis(100);

/// Reloads at each signal, and when the files change if the configuration in force has them watched,
/// for ever.
pub(super) async fn keep_current(
    shared: Arc<Shared>,
    location: Location,
    checker: Arc<Checker>,
    mut hangups: Signal,
    mut follower: Follower,
) {
    let mut rotator = Rotator::new();
    let mut looks = tokio::time::interval(follow::EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let every = shared.snapshot.load().config.server.watch_certificates;
        let signalled = tokio::select! {
            signal = hangups.recv() => match signal {
                Some(()) => true,
                None => return,
            },
            _ = looks.tick() => false,
            () = rotator.due(every) => {
                rotator.look(&shared).await;
                continue;
            }
        };
        let scope = scope(&shared.snapshot.load().config.server);
        if !signalled && !follower.is_due(scope) {
            continue;
        }
        // Also if they are not watched, since this reload may have them watched.
        let seen = follower.look().await;
        let generation = shared.snapshot.load().generation;
        if signalled || seen.as_ref().is_some_and(|seen| follower.judge(seen, scope, generation)) {
            let taken = reload(&shared, &location, &checker).await;
            if let Some(seen) = seen {
                follower.reloaded(seen, taken);
            }
        }
    }
}

/// Of which files a change is to be taken without a signal.
fn scope(server: &Server) -> Scope {
    match server.watch {
        true => Scope::All,
        false => Scope::Secrets(*server.watch_secrets),
    }
}

/// Whether the configuration was taken.
async fn reload(shared: &Arc<Shared>, location: &Location, checker: &Arc<Checker>) -> bool {
    let path = &location.file;
    shared.manager.reloading();
    match load(shared, location).await {
        Ok((next, sockets)) => {
            // The shutdown may end this at any await.
            let opened = Opened::new(shared, &sockets);
            let (generation, digest) = (next.generation, next.digest);
            start_background(&next, Some(&shared.snapshot.load_full()), checker).await;
            carry::resize(&next, Clock::now());
            shared.expect(&next);
            let next = Arc::new(next);
            shared.access_log.reopen(&next.config.access_log);
            if let Some(logs) = &shared.logs {
                logs.apply(&next.config.log);
            }
            let before = shared.snapshot.swap(next.clone());
            in_force(shared, &next);
            begin_exports(shared, &next, Some(&before));
            for change in changes::changes(&before, &next) {
                log::info!("reload: {change}");
            }
            // Otherwise this would hold the generation when the next one replaces it.
            drop(next);
            listen(shared, sockets, opened).await;
            retire(before).await;
            shared.metrics.config.reloaded(digest, SystemTime::now());
            log::info!("{}: reloaded, generation {generation}", path.display());
            shared.manager.reloaded(generation);
            true
        }
        Err(diagnostics) => {
            shared.metrics.config.refused();
            let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
            for diagnostic in errors.clone() {
                log::error!("{diagnostic}");
            }
            log::error!(
                "{}: not reloaded, {} in the file; generation {} goes on",
                path.display(),
                count(errors.count(), "error"),
                shared.snapshot.load().generation,
            );
            shared.manager.refused(shared.snapshot.load().generation);
            false
        }
    }
}

/// What the metrics have to know of a generation that is in force.
fn in_force(shared: &Shared, snapshot: &Snapshot) {
    snapshot.routes.iter().for_each(|route| route.metrics.in_force());
    shared.unrouted(&snapshot.config.metrics).in_force();
}

/// Sends spans and metrics as `snapshot` says, which is in force, and no longer as `before` did.
pub(super) fn begin_exports(shared: &Arc<Shared>, snapshot: &Snapshot, before: Option<&Snapshot>) {
    let before = before.map(|before| &before.exports);
    let gathered = shared.clone();
    let gather = move || status::gather(&gathered);
    snapshot.exports.begin(before, &shared.exporting, &shared.metrics, gather);
}

/// Has the acceptors take over the listeners in force, and logs which connections drain for that.
async fn listen(shared: &Shared, sockets: BTreeMap<SocketAddr, TcpListener>, opened: Opened<'_>) {
    // Otherwise the process ends.
    let Some(draining) = shared.listening.change(sockets).await else { return };
    opened.are_accepted_from();
    for Draining { listener, connections } in draining {
        log::info!("reload: listeners.{listener}: {} drain", count(connections, "connection"));
    }
}

/// Drops a generation when its last request has ended, on a thread where that delays no request:
/// freeing ten thousand routes takes milliseconds. If no request holds it, it is gone when this
/// returns, so that the next generation can reuse its memory.
async fn retire(generation: Arc<Snapshot>) {
    // The runtime logs a panic in it.
    let let_go = |generation| async {
        let _ = tokio::task::spawn_blocking(move || drop(generation)).await;
    };
    if Arc::strong_count(&generation) == 1 {
        return let_go(generation).await;
    }
    tokio::spawn(async move {
        while Arc::strong_count(&generation) > 1 {
            tokio::time::sleep(RETIRE_POLL).await;
        }
        let_go(generation).await;
    });
}

/// The next generation, and the sockets of addresses that the one before does not have.
async fn load(
    shared: &Arc<Shared>,
    location: &Location,
) -> Result<(Snapshot, BTreeMap<SocketAddr, TcpListener>), Vec<Diagnostic>> {
    // Reading files and compiling keys is blocking work.
    let (shared, from, file) = (shared.clone(), location.clone(), location.file.clone());
    let runtime = Handle::current();
    let load = move || {
        let environment = from.environment()?;
        let (config, sources) = Config::load(&from.file, &environment)?;
        let before = shared.snapshot.load();
        let fixed = unchangeable(&before.config, &config);
        if !fixed.is_empty() {
            return Err(sources.diagnose(fixed));
        }
        let (snapshot, warnings) =
            compile(config, &sources, &environment, Some(&before), &shared.metrics)?;
        snapshot.exports.prepare(&shared.exporting).map_err(|error| {
            let message = format!("there is no thread to export from: {error}");
            sources.diagnose(vec![Problem::new(Code::CollectorUnusable, "otlp", message)])
        })?;
        let _inside = runtime.enter();
        // Last: nothing fails once they are bound.
        let sockets = bind(&shared.sockets, &before.config, &snapshot.config)
            .map_err(|unusable| sources.diagnose(unusable))?;
        log_warnings(&warnings);
        Ok((snapshot, sockets))
    };
    let task = tokio::task::spawn_blocking(move || apart(load));
    match task.await {
        Ok(result) => result,
        Err(panic) => Err(vec![Diagnostic::of_file(Code::Internal, &file, panic.to_string())]),
    }
}

/// The settings that cannot change while the process runs.
fn unchangeable(old: &Config, new: &Config) -> Vec<Problem> {
    let Server {
        threads,
        upstream_pool,
        huge_pages,
        upgrade_socket,
        // Those in force count.
        drain_timeout: _,
        shutdown_delay: _,
        max_connections: _,
        watch: _,
        watch_secrets: _,
        watch_certificates: _,
        via: _,
        retry_jitter_seed: _,
        upgrade_timeout: _,
    } = &new.server;
    let fixed = [
        ("server.threads", old.server.threads != *threads),
        ("server.upstream_pool", old.server.upstream_pool != *upstream_pool),
        ("server.huge_pages", old.server.huge_pages != *huge_pages),
        ("server.upgrade_socket", old.server.upgrade_socket != *upgrade_socket),
        ("admin.address", old.admin.address != new.admin.address),
        ("admin.socket", old.admin.socket != new.admin.socket),
        ("record", old.record.of_process() != new.record.of_process()),
    ];
    fixed
        .into_iter()
        .filter(|(_, changed)| *changed)
        .map(|(key, _)| {
            Problem::new(Code::RestartNeeded, key, "cannot change in a running process")
        })
        .collect()
}

/// Starts the background work that a new generation needs, and ends health checks and questions to
/// sources of the one before that it does not.
pub(super) async fn start_background(
    snapshot: &Snapshot,
    before: Option<&Snapshot>,
    checker: &Arc<Checker>,
) {
    // First: what a source knows may be a name.
    discovery::begin(snapshot, before).await;
    let names = snapshot.upstreams.values().map(|target| {
        let upstream = target.upstream.clone();
        tokio::spawn(async move { resolve::keep_resolved(&upstream, RESOLVE_WAIT).await })
    });
    let names: Vec<_> = names.collect();
    for authority in snapshot.authorities.values() {
        authority.start();
    }
    for store in snapshot.limit_stores.values() {
        store.start();
    }
    for name in names {
        // The runtime logs a panic in it; the upstream then just has no addresses yet.
        let _ = name.await;
    }
    health::begin(checker, snapshot, before).await;
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Compiles a generation, and locates its problems and warnings: for `check`, for the start and for a
/// reload.
///
/// # Errors
/// All problems found while compiling, with the warnings.
pub fn compile(
    config: Config,
    sources: &Sources,
    environment: &Environment,
    before: Option<&Snapshot>,
    metrics: &Metrics,
) -> Result<(Snapshot, Vec<Diagnostic>), Vec<Diagnostic>> {
    let warnings = warnings::of(&config, sources, Descriptors::current(), SystemTime::now());
    let telemetry = Telemetry::resolve(&config, environment);
    let exports_before = before.map(|before| &before.exports);
    let exports = Exports::compile(&config, telemetry, exports_before, metrics);
    match (Snapshot::compile(config, before, metrics, Clock::now()), exports) {
        (Ok(mut snapshot), Ok(exports)) => {
            snapshot.digest = sources.digest();
            snapshot.exports = exports;
            Ok((snapshot, sources.diagnose(warnings)))
        }
        (compiled, exports) => {
            let problems = [compiled.err(), exports.err()].into_iter().flatten().flatten();
            // Errors come first, because only so many are shown.
            Err(sources.diagnose(problems.chain(warnings).collect()))
        }
    }
}

/// Logs what is valid but probably not meant.
pub fn log_warnings(warnings: &[Diagnostic]) {
    for warning in warnings {
        log::warn!("{warning}");
    }
}
