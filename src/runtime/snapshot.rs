//! A configuration, compiled: immutable, swapped whole.
//!
//! State hangs in it as `Arc`s; what of it survives a reload is decided in `super::carry`.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderName;
use pingora_core::utils::tls::WrappedX509;

use super::flood_guard::FloodGuard;
use super::jwks::Jwks;
use super::kept::Kept;
use super::{carry, kept, tls, transcoders};
use crate::config::Problem;
use crate::config::route::Serve;
use crate::config::{self, Config};
use crate::limits::{SharedLimits, Store};
use crate::observe::events::EventLog;
use crate::observe::metrics::{Metrics, RouteMetrics, UpstreamMetrics};
use crate::policy::auth::{Guard, Verifier};
use crate::policy::retry::budget::Budget;
use crate::policy::{Policies, idempotency, rate_limit, retry};
use crate::proxy::peer::SocketCheck;
use crate::record::{self, Capture, Query};
use crate::routing::Router;
use crate::time::Moment;
use crate::transcode::{self, Descriptors, Transcoder};
use crate::upstream::Upstream;

/// The authorities an upstream's certificates may come from.
pub type Authorities = Arc<[WrappedX509]>;

/// One generation of the configuration.
pub struct Snapshot {
    /// 1 at start, one more with every reload.
    pub generation: u64,
    pub config: Config,
    pub router: Arc<Router>,
    /// In the order of their names, which is the order of the router's indices.
    pub routes: Vec<Arc<Route>>,
    pub upstreams: BTreeMap<String, Arc<UpstreamTarget>>,
    pub flood_guard: Option<Arc<FloodGuard>>,
    pub budgets: BTreeMap<String, Arc<Budget>>,
    pub authorities: BTreeMap<String, Arc<Authority>>,
    /// Those that have a URL.
    pub limit_stores: BTreeMap<String, Arc<Store>>,
    /// Of the listeners that have it, by name.
    pub tls: BTreeMap<String, tls::Handshakes>,
    /// Where requests that fail are told of; goes nowhere until the process runs.
    pub events: EventLog,
}

/// An entry of `auth`, with whatever keeps its keys fresh.
pub struct Authority {
    pub verifier: Arc<Verifier>,
    /// Set once the generation is in force: a configuration that is only checked fetches nothing.
    jwks: Arc<OnceLock<Jwks>>,
}

impl Authority {
    pub(super) fn new(verifier: Verifier) -> Self {
        Authority { verifier: Arc::new(verifier), jwks: Arc::default() }
    }

    /// The same, keys and whatever keeps them fresh included, with other claims kept.
    pub(super) fn keeping(&self, claims: Arc<[Arc<str>]>) -> Self {
        let verifier = Arc::new(self.verifier.keeping(claims));
        Authority { verifier, jwks: self.jwks.clone() }
    }

    /// Begin to fetch keys, if this is an authority that does and it has not begun.
    pub fn start(&self) {
        let Some((config, keyring)) = self.verifier.remote_keys() else { return };
        if self.jwks.get().is_some() {
            return;
        }
        let name = self.verifier.authority();
        match Jwks::spawn(name, config, keyring.clone()) {
            // Only one generation is started at a time.
            Ok(jwks) => drop(self.jwks.set(jwks)),
            Err(error) => log::error!("auth.{name}: keys cannot be fetched: {error}"),
        }
    }

    pub fn jwks(&self) -> Option<&Jwks> {
        self.jwks.get()
    }
}

/// A route's `retry`, with its budget.
pub struct Retry {
    pub config: retry::Config,
    pub budget: Option<Arc<Budget>>,
    /// Of its waits; begins again where the route is compiled anew.
    pub jitter: retry::Jitter,
}

/// A route's `idempotency`, with what follows from its other limits.
pub struct Idempotency {
    pub config: idempotency::Config,
    /// How long a request holds its key at most.
    pub lease: Duration,
}

/// One route, ready to serve; what few routes have is in a box.
pub struct Route {
    pub name: Arc<str>,
    /// The pattern of its path, where it has exactly one: how its spans are named.
    pub pattern: Option<Arc<str>>,
    pub config: Arc<config::Route>,
    pub target: Target,
    pub guard: Option<Box<Guard>>,
    pub policies: Policies,
    /// Those of `policies.rate_limits` that replicas count together, if there is where.
    pub shared_limits: Option<SharedLimits>,
    /// How clients are told of `policies.rate_limits`.
    pub limit_fields: rate_limit::Fields,
    pub retry: Option<Box<Retry>>,
    /// Its own, or the default.
    pub record: record::Policy,
    pub idempotency: Option<Box<Idempotency>>,
    /// Where a request goes whose own upstream cannot answer it.
    pub fallback: Option<Arc<UpstreamTarget>>,
    pub capture: Option<Capture>,
    pub transcoder: Option<Transcoder>,
    /// What of queries its rows hold.
    pub recorded_query: Option<Query>,
    pub metrics: RouteMetrics,
}

pub enum Target {
    Upstream(Arc<UpstreamTarget>),
    Serve(Serve),
}

/// An upstream as routes use it.
pub struct UpstreamTarget {
    pub upstream: Arc<Upstream>,
    pub metrics: UpstreamMetrics,
    pub authorities: Option<Authorities>,
    /// Connections are only used again by attempts with the same one: see `carry::pool_key`.
    pub pool_key: u64,
    /// Asked before a connection to it is made.
    pub socket_check: SocketCheck,
}

impl Snapshot {
    /// Compile `config`; state is taken over from `before`.
    ///
    /// # Errors
    /// What could only be found out by compiling: invalid keys, routes that conflict.
    pub fn compile(
        mut config: Config,
        before: Option<&Snapshot>,
        metrics: &Metrics,
        now: Moment,
    ) -> Result<Snapshot, Vec<Problem>> {
        let mut problems = Vec::new();
        let budgets = carry::budgets(&config, before, now);
        let upstreams = carry::upstreams(&config, before, metrics, now, &mut problems);
        let authorities = carry::authorities(&config, before, &mut problems);
        let limit_stores = carry::limit_stores(&config, before, metrics, &mut problems);
        let mut tls = BTreeMap::new();
        for (name, listener) in &config.listeners {
            let before = before.and_then(|before| before.tls.get(name));
            let compiled = listener.tls.as_ref().map(|wanted| tls::compile(name, wanted, before));
            match compiled.transpose() {
                Ok(compiled) => tls.extend(compiled.map(|compiled| (name.clone(), compiled))),
                Err(problem) => problems.push(problem),
            }
        }
        let descriptors = transcoders::descriptors(&config, &mut problems);
        let parts = Parts {
            upstreams: &upstreams,
            budgets: &budgets,
            authorities: &authorities,
            descriptors: &descriptors,
            jitter_seed: config.server.retry_jitter_seed,
            limit_stores: &limit_stores,
            record: &config.record.default,
            commit_timeout: *config.record.commit_timeout,
        };
        let kept = Kept::new(before, &parts);
        let mut routes = Vec::with_capacity(config.routes.len());
        for (name, route) in &mut config.routes {
            if let Some(same) = kept.route(name, route) {
                routes.push(same);
                continue;
            }
            let old = before.and_then(|before| before.route(name));
            match Route::compile(name, route, parts, old, metrics, now) {
                Ok(route) => routes.push(Arc::new(route)),
                Err(problem) => problems.push(problem),
            }
        }
        let router = kept::router(&config, before).unwrap_or_else(|conflicts| {
            problems.extend(conflicts);
            Arc::default()
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Snapshot {
            generation: before.map_or(1, |before| before.generation + 1),
            flood_guard: carry::flood_guard(&config, before),
            config,
            router,
            routes,
            upstreams,
            budgets,
            authorities,
            limit_stores,
            tls,
            events: before.map(|before| before.events.clone()).unwrap_or_default(),
        })
    }

    /// The keys of an entry of `auth`, if it fetches them.
    pub fn jwks(&self, authority: &str) -> Option<&Jwks> {
        self.authorities.get(authority)?.jwks()
    }

    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        // In order; a reload looks for each of its routes.
        let place = self.routes.binary_search_by(|route| (*route.name).cmp(name)).ok()?;
        self.routes.get(place)
    }
}

/// What a route is compiled from besides its own configuration.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) upstreams: &'a BTreeMap<String, Arc<UpstreamTarget>>,
    pub(super) budgets: &'a BTreeMap<String, Arc<Budget>>,
    pub(super) authorities: &'a BTreeMap<String, Arc<Authority>>,
    pub(super) descriptors: &'a BTreeMap<String, Descriptors>,
    pub(super) jitter_seed: Option<u64>,
    pub(super) limit_stores: &'a BTreeMap<String, Arc<Store>>,
    pub(super) record: &'a record::Policy,
    pub(super) commit_timeout: Duration,
}

impl Route {
    fn compile(
        name: &str,
        config: &Arc<config::Route>,
        parts: Parts<'_>,
        old: Option<&Arc<Route>>,
        metrics: &Metrics,
        now: Moment,
    ) -> Result<Route, Problem> {
        let problem =
            |key: &str, message: String| Problem::new(format!("routes.{name}.{key}"), message);
        let target = match (&config.upstream, config.serve) {
            (_, Some(serve)) => Target::Serve(serve),
            (upstream, None) => {
                let upstream = upstream.as_deref().unwrap_or_default();
                let found = parts.upstreams.get(upstream).cloned();
                Target::Upstream(found.ok_or_else(|| {
                    problem("upstream", format!("no upstream is named `{upstream}`"))
                })?)
            }
        };
        let guard = config
            .auth
            .as_ref()
            .map(|auth| {
                let find = |name: &str| parts.authorities.get(name).map(|a| a.verifier.clone());
                let guard = Guard::try_new(auth, find);
                guard.map(Box::new).map_err(|e| problem("auth", e.to_string()))
            })
            .transpose()?;
        let retry = config.retry.as_ref().map(|retry| {
            let budget = retry.budget.as_ref().and_then(|name| parts.budgets.get(name));
            let jitter = retry::Jitter::new(parts.jitter_seed);
            Box::new(Retry { config: (**retry).clone(), budget: budget.cloned(), jitter })
        });
        let shared = config.rate_limit.0.iter().find_map(|limit| limit.shared.as_ref());
        let store = shared.and_then(|shared| parts.limit_stores.get(&shared.store));
        let shared_limits =
            store.and_then(|store| SharedLimits::compile(name, &config.rate_limit, store.clone()));
        let record = config.record.as_ref().unwrap_or(parts.record);
        let idempotency = config.idempotency.as_deref().map(|idempotency| {
            let lease = idempotency.lease_of(*config.timeout.request, parts.commit_timeout);
            Box::new(Idempotency { config: idempotency.clone(), lease })
        });
        let upstream_breaker = match &target {
            Target::Upstream(target) => target.upstream.breaker().cloned(),
            Target::Serve(_) => None,
        };
        let name: Arc<str> = name.into();
        Ok(Route {
            metrics: metrics.route(&name),
            pattern: match config.matches.path.values() {
                Some([only]) => Some(only.text().clone()),
                Some(_) | None => None,
            },
            policies: Policies {
                rate_limits: carry::limiters(config, old),
                route_breaker: carry::breaker(config, old, now),
                upstream_breaker,
                bulkhead: carry::bulkhead(config, old),
                bulkhead_status: config.bulkhead.as_ref().map(|b| b.status).unwrap_or_default(),
            },
            shared_limits,
            limit_fields: rate_limit::Fields::new(&name, &config.rate_limit),
            target,
            guard,
            retry,
            fallback: config
                .fallback
                .as_ref()
                .and_then(|fallback| fallback.upstream.as_ref())
                .and_then(|name| parts.upstreams.get(name))
                .cloned(),
            idempotency,
            capture: Capture::compile(record),
            transcoder: transcoders::of_route(&name, config, parts.descriptors)?,
            recorded_query: Query::compile(record),
            record: record.clone(),
            config: config.clone(),
            name,
        })
    }

    pub fn upstream(&self) -> Option<&Arc<UpstreamTarget>> {
        match &self.target {
            Target::Upstream(target) => Some(target),
            Target::Serve(_) => None,
        }
    }

    /// Whether it makes messages of RPC of its upstream's JSON.
    pub fn makes_messages(&self) -> bool {
        self.transcoder.as_ref().is_some_and(|t| t.upstream() == transcode::config::Upstream::Http)
    }

    /// The limit on a whole request, if there is one.
    pub fn timeout(&self) -> Option<Duration> {
        let request = *self.config.timeout.request;
        (!request.is_zero()).then_some(request)
    }

    /// Request headers that hold credentials the upstream must not see.
    pub fn credential_headers(&self) -> &[HeaderName] {
        self.guard.as_ref().map_or(&[], |guard| guard.credential_headers())
    }
}
