//! Puts the process together, in the order in which things need each other.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server, ShutdownWatch};
use pingora_core::services::background::{BackgroundService, background_service};
use pingora_proxy::http_proxy;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::claims::Claims;
use super::descriptors::Descriptors;
use super::drain::{Drain, GRACE_SECONDS};
use super::follow::Follower;
use super::health::Checker;
use super::notify::Notify;
use super::shared::Shared;
use super::snapshot::Snapshot;
use super::sockets::Sockets;
use super::start_error::StartError;
use super::upgrade::activation::Activated;
use super::upgrade::begin;
use super::upgrade::launch::Launcher;
use super::upgrade::offer::offer;
use super::upgrade::takeover::Takeover;
use super::{authorities, changes, lasting, memory, orders, reload, signals};
use crate::admin;
use crate::config::access_log;
use crate::config::load::apart;
use crate::config::{Config, Diagnostic, Location};
use crate::idempotency::Keys;
use crate::observe::access_log::AccessLog;
use crate::observe::events::EventLog;
use crate::observe::logs::Logs;
use crate::observe::metrics::Metrics;
use crate::proxy::acceptor::Acceptors;
use crate::proxy::gateway::Gateway;
use crate::proxy::listener::Listeners;
use crate::record::{Database, Recorder};

/// Runs the gateway with the configuration at `location`, and the sockets it was started with. Returns only if the gateway could not start:
/// after a drain the process exits.
///
/// # Errors
/// Why the gateway could not start.
pub fn run(location: &Location, logs: &Logs, activated: Activated) -> Result<(), StartError> {
    // Called before much memory is in use, because pages that exist already keep their kind.
    memory::allow_huge_pages(false);
    // The record has its own runtime, so that a busy proxy does not delay its writes and the record
    // outlives the proxy's runtimes in the drain.
    let runtime = record_runtime()?;
    // As early as possible: without a handler, SIGHUP ends the process.
    let hangups = hangups(&runtime)?;
    signals::take_others(&runtime);
    let launcher = Launcher::of_this_process();
    let descriptors = Descriptors::raise();
    let metrics = Arc::new(Metrics::new().map_err(|e| StartError::Other(e.to_string()))?);
    // Before the files are read: a change of theirs meanwhile is noticed later.
    let follower = Follower::begin(location);
    let (mut snapshot, warnings) = load(location, &metrics).map_err(StartError::Config)?;
    snapshot.events = EventLog::start()
        .map_err(|error| StartError::Other(format!("no thread for the log: {error}")))?;
    let config = &snapshot.config;
    logs.apply(&config.log);
    reload::log_warnings(&warnings);
    let sockets = Sockets::default();
    let mut claims = Claims::take(config, activated, &sockets, &runtime)?;
    authorities::check().map_err(StartError::Other)?;
    for line in changes::started(&location.file, &snapshot) {
        log::info!("{line}");
    }
    descriptors.report(&config.server);
    if config.server.huge_pages {
        memory::allow_huge_pages(true);
    }

    let database = config.record.store.chosen().map(|_| Database::open(&config.record.store));
    let database = database.transpose().map_err(|error| StartError::Other(error.to_string()))?;
    if let Some(database) = &database {
        check_files(database, &snapshot, &runtime)?;
    }
    let meters = &metrics.record.meters;
    let recorder = database
        .as_ref()
        .map(|d| Recorder::start(d, &config.record, runtime.handle(), meters.clone()));
    let keys = database.as_ref().map(|database| Keys::start(database, runtime.handle()));
    let access_log = start_access_log(&config.access_log)?;
    let mut shared = Shared::new(snapshot, metrics, descriptors, recorder, keys, access_log);
    shared.logs = Some(logs.clone());
    shared.sockets = sockets;
    shared.manager = Notify::from_environment();
    let digest = shared.snapshot.load().digest;
    shared.metrics.config.started(digest, SystemTime::now());
    let shared = Arc::new(shared);
    signals::reopen_on_request(&runtime, shared.clone());
    let takeover = claims.takeover.take().map(|takeover| (takeover, claims.paths()));
    if takeover.is_some() {
        shared.lifecycle.hold();
    }
    let started = shared.snapshot.load_full();
    let no_thread = |error| StartError::Other(format!("otlp: no thread to export from: {error}"));
    started.exports.prepare(&shared.exporting).map_err(no_thread)?;
    reload::begin_exports(&shared, &started, None);
    let config = &started.config;
    launcher.start_on_request(&runtime, shared.clone(), claims.upgrade.is_some());
    if let Some(socket) = claims.upgrade {
        offer(&runtime, shared.clone(), socket)
            .map_err(|error| StartError::Other(format!("server.upgrade_socket: {error}")))?;
    }
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config, descriptors));
    server.bootstrap();
    let proxy = proxy(&server.configuration, &shared);
    let background = server.add_service(background_service(
        "background",
        Background {
            shared: shared.clone(),
            location: location.clone(),
            checker: Arc::new(Checker::new(descriptors)),
            triggers: Mutex::new(Some((hangups, follower))),
            takeover: Mutex::new(takeover),
        },
    ));
    let proxy = server.add_service(proxy);
    proxy.add_dependency(&background);
    let admin = admin::Admin::new(shared.clone(), claims.admin_address, claims.admin_socket);
    server.add_service(background_service("admin", admin));
    let drain = Drain::new(shared, claims.files);
    // Otherwise the first generation would never be freed.
    drop(started);
    server.run(RunArgs { shutdown_signal: Box::new(drain) });
    Ok(())
}

/// The service that clients connect to, without the background work.
pub fn proxy(conf: &Arc<ServerConf>, shared: &Arc<Shared>) -> Acceptors {
    let proxy = http_proxy(conf, Gateway::new(shared.clone()));
    Acceptors::new(Listeners::new(proxy, shared.clone()))
}

/// Loads the first generation with its warnings, and frees the text of its files afterwards.
fn load(
    location: &Location,
    metrics: &Metrics,
) -> Result<(Snapshot, Vec<Diagnostic>), Vec<Diagnostic>> {
    apart(|| {
        let environment = location.environment()?;
        let (config, sources) = Config::load(&location.file, &environment)?;
        reload::compile(config, &sources, &environment, None, metrics)
    })
}

/// Finds out now, and not at the first request, whether the record can be written.
fn check_files(
    database: &Database,
    snapshot: &Snapshot,
    runtime: &tokio::runtime::Runtime,
) -> Result<(), StartError> {
    let config = &snapshot.config;
    let opened = runtime.block_on(database.require(&config.record.store));
    opened.map_err(|error| StartError::Other(error.to_string()))?;
    if snapshot.routes.iter().any(|route| config.record.needs_journal(&route.record)) {
        config.record.check_journal().map_err(StartError::Other)?;
    }
    Ok(())
}

/// The access log, which must be writable at the start; later, lines are dropped while it is not.
fn start_access_log(config: &access_log::AccessLog) -> Result<AccessLog, StartError> {
    // To open a pipe could take for ever.
    let is_special = |path: &Path| path.metadata().is_ok_and(|data| !data.is_file());
    if let access_log::Output::File(path) = &config.to
        && !is_special(path)
    {
        let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
        opened.map_err(|error| {
            let path = path.display();
            StartError::Other(format!(
                "access_log.to.file: {path} cannot be opened: {error}; give the gateway's user the \
                 right to write it, or set another path"
            ))
        })?;
    }
    AccessLog::start(config)
        .map_err(|error| StartError::Other(format!("no thread for the access log: {error}")))
}

fn record_runtime() -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("record")
        .enable_all()
        .build()
        .map_err(|error| StartError::Other(format!("no runtime for the record: {error}")))
}

fn hangups(runtime: &tokio::runtime::Runtime) -> Result<Signal, StartError> {
    let _inside = runtime.enter();
    signal(SignalKind::hangup())
        .map_err(|error| StartError::Other(format!("SIGHUP cannot be received: {error}")))
}

fn server_conf(config: &Config, descriptors: Descriptors) -> ServerConf {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if config.server.threads == 0 { cores } else { config.server.threads };
    ServerConf {
        threads,
        // Pingora's limit on attempts. The retry policy sets the real one; this must only be
        // higher.
        max_retries: 64,
        // A single thread cannot steal work, so it needs no scheduler that supports stealing.
        work_stealing: threads > 1,
        // Pingora's size is per thread, and covers the connections to all upstreams.
        upstream_keepalive_pool_size: descriptors.upstream_pool(&config.server).div_ceil(threads),
        grace_period_seconds: Some(GRACE_SECONDS),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

/// The background work: name resolution, health checks, key sets, reloads.
struct Background {
    shared: Arc<Shared>,
    location: Location,
    checker: Arc<Checker>,
    /// What makes it reload: signals, and files that change if they are watched. Taken by the start,
    /// of which there is only one.
    triggers: Mutex<Option<(Signal, Follower)>>,
    /// The process to take over from, and the files of sockets that are this one's then. Taken as
    /// `triggers` is.
    takeover: Mutex<Option<(Takeover, Vec<PathBuf>)>>,
}

#[async_trait]
impl BackgroundService for Background {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let takeover = self.takeover.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (takeover, files) = takeover.unzip();
        let snapshot = self.shared.snapshot.load_full();
        let listeners = snapshot.config.listeners.len();
        begin::prepare(&self.shared, takeover.as_ref(), async {
            reload::start_background(&snapshot, None, &self.checker).await;
            self.shared.expect(&snapshot);
            drop(snapshot);
            self.shared.lifecycle.until_listening(listeners).await;
        })
        .await;
        let ready = begin::begin(&self.shared, takeover, files.unwrap_or_default());
        let lasting = lasting::watch(self.shared.clone());
        let orders = orders::keep(self.shared.clone());
        let triggers = self.triggers.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((hangups, follower)) = triggers else { return };
        let (shared, location) = (self.shared.clone(), self.location.clone());
        let checker = self.checker.clone();
        let reloads = reload::keep_current(shared, location, checker, hangups, follower);
        tokio::select! {
            ((), (), (), ()) = async { tokio::join!(ready, reloads, lasting, orders) } => {}
            _ = shutdown.changed() => {}
        }
    }
}
