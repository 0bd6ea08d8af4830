//! A configuration, compiled: immutable, swapped whole.
//!
//! State hangs in it as `Arc`s; what of it survives a reload is decided in `super::carry`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use http::HeaderName;
use pingora_core::utils::tls::WrappedX509;

use super::flood_guard::FloodGuard;
use super::jwks::Jwks;
use super::socket_check::SocketCheck;
use super::tls;
use crate::config;
use crate::config::Config;
use crate::config::route::Serve;
use crate::limits::SharedLimits;
use crate::limits::Store;
use crate::observe::events::EventLog;
use crate::observe::metrics::RouteMetrics;
use crate::observe::metrics::UpstreamMetrics;
use crate::policy::Policies;
use crate::policy::auth::Guard;
use crate::policy::auth::Verifier;
use crate::policy::idempotency;
use crate::policy::rate_limit;
use crate::policy::retry;
use crate::policy::retry::budget::Budget;
use crate::record;
use crate::record::Capture;
use crate::record::Query;
use crate::routing::Router;
use crate::transcode;
use crate::transcode::Transcoder;
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

impl Route {
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
