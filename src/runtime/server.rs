//! Puts the process together, in the order in which things need each other.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server, ShutdownWatch};
use pingora_core::services::background::{BackgroundService, background_service};
use pingora_proxy::http_proxy;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::descriptors::Descriptors;
use super::drain::{Drain, GRACE_SECONDS};
use super::follow::Follower;
use super::health::Checker;
use super::notify::Notify;
use super::shared::Shared;
use super::snapshot::Snapshot;
use super::sockets::Sockets;
use super::{authorities, changes, lasting, memory, orders, reload, signals, status};
use crate::admin;
use crate::admin::socket::Claim;
use crate::config::access_log;
use crate::config::load::apart;
use crate::config::otlp::telemetry::Telemetry;
use crate::config::{Config, Diagnostic, Location};
use crate::idempotency::Keys;
use crate::observe::access_log::AccessLog;
use crate::observe::events::EventLog;
use crate::observe::logs::Logs;
use crate::observe::metrics::Metrics;
use crate::observe::otlp::Exporting;
use crate::observe::otlp::push::Push;
use crate::observe::trace::Tracer;
use crate::proxy::acceptor::Acceptors;
use crate::proxy::gateway::Gateway;
use crate::proxy::listener::Listeners;
use crate::record::{Database, Recorder};

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Every mistake, in the order of the files.
    #[error("the configuration has errors")]
    Config(Vec<Diagnostic>),
    /// An address cannot be bound.
    #[error("{name}: cannot listen on {address}: {source}")]
    Listen {
        /// The key with the address, such as `listeners.public.address`.
        name: String,
        /// As configured.
        address: String,
        /// What the system said, such as that the address is in use.
        source: std::io::Error,
    },
    /// One line that names what is missing: a store, a thread, a signal.
    #[error("{0}")]
    Other(String),
}

/// Runs the gateway with the configuration at `location`. Returns only if the gateway could not start:
/// after a drain the process exits.
///
/// # Errors
/// Why the gateway could not start.
pub fn run(location: &Location, logs: &Logs) -> Result<(), StartError> {
    // Called before much memory is in use, because pages that exist already keep their kind.
    memory::allow_huge_pages(false);
    // The record has its own runtime, so that a busy proxy does not delay its writes and the record
    // outlives the proxy's runtimes in the drain.
    let runtime = record_runtime()?;
    // As early as possible: without a handler, SIGHUP ends the process.
    let hangups = hangups(&runtime)?;
    signals::take_others(&runtime);
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
    check_addresses(config, &sockets)?;
    authorities::check().map_err(StartError::Other)?;
    for line in changes::started(&location.file, &snapshot) {
        log::info!("{line}");
    }
    let socket = admin_socket(config, &runtime)?;
    let (socket, socket_file) = socket.map(Claim::parts).unzip();
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
    let (exporting, interval) = export(config, location)?;
    let tracer = Tracer::start(exporting.traces.as_ref(), config.traces.sample, &metrics);
    let access_log = start_access_log(&config.access_log)?;
    let mut shared =
        Shared::new(snapshot, metrics, descriptors, recorder, keys, tracer, access_log);
    shared.logs = Some(logs.clone());
    shared.sockets = sockets;
    shared.manager = Notify::from_environment();
    let digest = shared.snapshot.load().digest;
    shared.metrics.config.started(digest, SystemTime::now());
    let shared = Arc::new(shared);
    signals::reopen_on_request(&runtime, shared.clone());
    let push = exporting.metrics.as_ref().map(|channel| {
        let (exports, shared) = (shared.metrics.metric_exports.clone(), shared.clone());
        Push::start(channel.clone(), interval, exports, move || status::gather(&shared))
    });

    let started = shared.snapshot.load_full();
    let config = &started.config;
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
        },
    ));
    let proxy = server.add_service(proxy);
    proxy.add_dependency(&background);
    let admin = admin::Admin::new(shared.clone(), config.admin.address, socket);
    server.add_service(background_service("admin", admin));
    let drain = Drain::new(shared, push, socket_file);
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
        let (config, sources) = Config::at(location)?;
        reload::compile(config, &sources, None, metrics)
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

/// The connections to the collectors, and the time between two exports of metrics.
fn export(config: &Config, location: &Location) -> Result<(Exporting, Duration), StartError> {
    let environment = location.environment().map_err(StartError::Config)?;
    let telemetry = Telemetry::resolve(config, &environment);
    for warning in &telemetry.warnings {
        log::warn!("{warning}");
    }
    let exporting = Exporting::start(&telemetry)
        .map_err(|error| StartError::Other(format!("otlp: {error}")))?;
    if let Some(to) = &telemetry.traces {
        log::info!("traces to {to}");
    }
    if let Some(to) = &telemetry.metrics {
        log::info!("metrics to {to} every {}", telemetry.interval);
    }
    Ok((exporting, *telemetry.interval))
}

fn hangups(runtime: &tokio::runtime::Runtime) -> Result<Signal, StartError> {
    let _inside = runtime.enter();
    signal(SignalKind::hangup())
        .map_err(|error| StartError::Other(format!("SIGHUP cannot be received: {error}")))
}

/// Checks that all addresses are free, before any is taken.
fn check_addresses(config: &Config, sockets: &Sockets) -> Result<(), StartError> {
    let listeners = config.listeners.iter();
    let named = listeners.map(|(name, l)| (format!("listeners.{name}.address"), l.address));
    let admin = config.admin.address.map(|address| ("admin.address".to_owned(), address));
    for (name, address) in named.chain(admin) {
        sockets.check_free(address).map_err(|source| {
            let address = address.to_string();
            StartError::Listen { name, address, source }
        })?;
    }
    Ok(())
}

/// Takes the admin listener's socket, if it has one: from now on, clients that come wait there.
fn admin_socket(
    config: &Config,
    runtime: &tokio::runtime::Runtime,
) -> Result<Option<Claim>, StartError> {
    let Some(path) = &config.admin.socket else { return Ok(None) };
    let _inside = runtime.enter();
    let claim = Claim::take(path).map_err(|source| {
        let (name, address) = ("admin.socket".to_owned(), path.display().to_string());
        StartError::Listen { name, address, source }
    })?;
    Ok(Some(claim))
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
}

#[async_trait]
impl BackgroundService for Background {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let snapshot = self.shared.snapshot.load_full();
        reload::start_background(&snapshot, None, &self.checker).await;
        self.shared.expect(&snapshot);
        let listeners = snapshot.config.listeners.len();
        drop(snapshot);
        let ready = async {
            self.shared.lifecycle.until_listening(listeners).await;
            self.shared.lifecycle.set_ready();
            log::info!("ready");
            self.shared.manager.ready(self.shared.snapshot.load().generation);
        };
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
