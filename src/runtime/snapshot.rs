//! A compiled configuration: immutable, and replaced as a whole.
//!
//! Its state is held in `Arc`s; `super::carry` decides which of it survives a reload.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderName;

use super::authority::Authority;
use super::exports::Exports;
use super::flood_guard::FloodGuard;
use super::inquiry::Service;
use super::jwks::Jwks;
use super::socket_check::SocketCheck;
use super::task::Task;
use super::tls;
use super::trust::Trust;
use crate::config;
use crate::config::Config;
use crate::config::respond::Respond;
use crate::config::route::Serve;
use crate::limits::{SharedLimits, Store};
use crate::observe::events::EventLog;
use crate::observe::metrics::{RouteMetrics, UpstreamMetrics};
use crate::policy::Policies;
use crate::policy::auth::Guard;
use crate::policy::idempotency;
use crate::policy::networks::Networks;
use crate::policy::rate_limit::{self, Requester};
use crate::policy::retry;
use crate::policy::retry::budget::Budget;
use crate::policy::split::Split;
use crate::policy::split::named::Locator;
use crate::record;
use crate::record::Capture;
use crate::record::Query;
use crate::routing::{Redirect, Router};
use crate::transcode;
use crate::transcode::Transcoder;
use crate::upstream::Upstream;

/// One generation of the configuration.
pub struct Snapshot {
    /// 1 at start, one more with every reload.
    pub generation: u64,
    /// What the rest was compiled from.
    pub config: Config,
    /// A hash of the files; 0 if it was not read from any.
    pub digest: u64,
    /// Maps requests to indices of `routes`.
    pub router: Arc<Router>,
    /// Sorted by name, which is the order of the router's indices.
    pub routes: Vec<Arc<Route>>,
    /// By name. An upstream whose configuration a reload leaves unchanged is the same one.
    pub upstreams: BTreeMap<String, Arc<UpstreamTarget>>,
    /// `None` if it is not configured.
    pub flood_guard: Option<Arc<FloodGuard>>,
    /// The retry budgets by name.
    pub budgets: BTreeMap<String, Arc<Budget>>,
    /// The entries of `auth` by name.
    pub authorities: BTreeMap<String, Arc<Authority>>,
    /// The stores that have a URL.
    pub limit_stores: BTreeMap<String, Arc<Store>>,
    /// For the listeners with TLS, by name. `rotate` exchanges it, and each upstream's `trust`; nothing else changes.
    pub tls: ArcSwap<BTreeMap<String, Arc<tls::Handshakes>>>,
    /// Where its spans and the metrics are sent; nowhere, unless the environment was asked too.
    pub exports: Exports,
    /// Where failed requests are reported; discards the reports until the process runs.
    pub events: EventLog,
}

/// A route's `retry`, with its budget.
pub struct Retry {
    /// As configured.
    pub config: retry::Config,
    /// `None` if only `max_retries` limits retries, and where each [`Branch`] has its own.
    pub budget: Option<Arc<Budget>>,
    /// Jitter for the waits; it starts anew when the route is compiled again.
    pub jitter: retry::Jitter,
}

/// A route's `idempotency`, with the limits that follow from the rest of the route.
pub struct Idempotency {
    /// As configured.
    pub config: idempotency::Config,
    /// The longest time a request may hold its key.
    pub lease: Duration,
}

/// One compiled route. Parts that few routes have are boxed.
pub struct Route {
    /// The key under `routes`; label in metrics, log and record.
    pub name: Arc<str>,
    /// The pattern of its path, if it has exactly one; it names the route's spans.
    pub pattern: Option<Arc<str>>,
    /// As configured, for what needs no compiling.
    pub config: Arc<config::Route>,
    /// Where its requests go.
    pub target: Target,
    /// `None` if the route is for every address.
    pub networks: Option<Box<Networks>>,
    /// `None` if the route needs no credentials.
    pub guard: Option<Box<Guard>>,
    /// With the state that survives reloads.
    pub policies: Policies,
    /// The limits in `policies.rate_limits` that replicas count together, if their store has a URL.
    pub shared_limits: Option<SharedLimits>,
    /// Values of the headers that tell clients about `policies.rate_limits`.
    pub limit_fields: rate_limit::Fields,
    /// `None` if no attempt is followed by another.
    pub retry: Option<Box<Retry>>,
    /// The route's own, or the default.
    pub record: record::Policy,
    /// `None` if an `Idempotency-Key` is an ordinary header.
    pub idempotency: Option<Box<Idempotency>>,
    /// The upstream that requests fall back to if the route's own upstream fails.
    pub fallback: Option<Arc<UpstreamTarget>>,
    /// `None` if nothing is captured, or recorded.
    pub capture: Option<Capture>,
    /// `None` if messages are not converted.
    pub transcoder: Option<Transcoder>,
    /// Which parts of the query its rows contain.
    pub recorded_query: Option<Query>,
    /// Those under the route's name; a reload continues them.
    pub metrics: RouteMetrics,
}

/// What answers a route's requests.
pub enum Target {
    /// An entry of `upstreams`.
    Upstream(Arc<UpstreamTarget>),
    /// Several entries of `upstreams`, of which a request goes to one.
    Fork(Box<Fork>),
    /// The gateway itself.
    Serve(Served),
}

/// What the gateway answers by itself.
pub enum Served {
    /// What it reports about itself.
    Page(Serve),
    /// Always the same.
    Respond(Box<Respond>),
    /// The URL that the client is sent to.
    Redirect(Box<Redirect>),
}

/// Several upstreams, and how one of them is chosen.
pub struct Fork {
    /// How a request's branch is found.
    pub choice: Choice,
    /// In the order of `choice`.
    pub branches: Box<[Branch]>,
}

/// How one upstream of several is chosen for a request.
pub enum Choice {
    /// It is drawn, by weight; a reload hands on what has been ordered and counted.
    Drawn(Split),
    /// The path names it.
    Named(Locator),
}

/// One upstream of several, with what depends on it.
pub struct Branch {
    /// The upstream.
    pub target: Arc<UpstreamTarget>,
    /// The route's policies, with this upstream's circuit.
    pub policies: Policies,
    /// The upstream's own, if the route's retries are paid from it.
    pub budget: Option<Arc<Budget>>,
}

/// An upstream as routes refer to it.
pub struct UpstreamTarget {
    /// Its endpoints and their names.
    pub upstream: Arc<Upstream>,
    /// Those under the upstream's name; a reload continues them.
    pub metrics: UpstreamMetrics,
    /// What its connections are verified by.
    pub trust: ArcSwap<Trust>,
    /// Called before a connection to the upstream is opened.
    pub socket_check: SocketCheck,
    /// Checks the endpoints. Set once the generation is in force: a configuration that is only
    /// compared checks nothing.
    pub checks: OnceLock<Task>,
    /// Asks the source that knows the endpoints. Set as `checks` is.
    pub source: OnceLock<Task>,
}

impl Fork {
    /// What draws, unless the path names the upstream.
    pub fn split(&self) -> Option<&Split> {
        match &self.choice {
            Choice::Drawn(split) => Some(split),
            Choice::Named(_) => None,
        }
    }

    fn branch(&self, drawn: Option<usize>) -> Option<&Branch> {
        self.branches.get(drawn?)
    }
}

impl Snapshot {
    /// The service that an entry of `auth` asks; `None` if it asks none.
    pub fn service(&self, authority: &str) -> Option<&Service> {
        self.authorities.get(authority)?.service()
    }

    /// The fetched keys of an entry of `auth`; `None` if it fetches none.
    pub fn jwks(&self, authority: &str) -> Option<&Jwks> {
        self.authorities.get(authority)?.jwks()
    }

    /// The route with this name.
    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        // The routes are sorted; a reload looks up each one.
        let place = self.routes.binary_search_by(|route| (*route.name).cmp(name)).ok()?;
        self.routes.get(place)
    }
}

impl Route {
    /// The upstream of a request, where `drawn` is the place of its branch. `None` for a route that the
    /// gateway serves itself, and if there are several upstreams and none has been drawn.
    pub fn upstream(&self, drawn: Option<usize>) -> Option<&Arc<UpstreamTarget>> {
        match &self.target {
            Target::Upstream(target) => Some(target),
            Target::Fork(fork) => Some(&fork.branch(drawn)?.target),
            Target::Serve(_) => None,
        }
    }

    /// By which parameter of its path a request names its upstream, if it does.
    pub fn named(&self) -> Option<&Locator> {
        match &self.target {
            Target::Fork(fork) => match &fork.choice {
                Choice::Named(named) => Some(named),
                Choice::Drawn(_) => None,
            },
            Target::Upstream(_) | Target::Serve(_) => None,
        }
    }

    /// The path parameter by which the upstream chooses an endpoint: the one at the place `named`, or the
    /// first of several that has one.
    pub fn hash_parameter(&self, named: Option<usize>) -> Option<&str> {
        match &self.target {
            Target::Fork(fork) if named.is_some() => {
                let branch = fork.branch(named)?;
                branch.target.upstream.config().balance.parameter()
            }
            Target::Upstream(target) => target.upstream.config().balance.parameter(),
            Target::Fork(fork) => {
                let mut branches = fork.branches.iter();
                branches.find_map(|branch| branch.target.upstream.config().balance.parameter())
            }
            Target::Serve(_) => None,
        }
    }

    /// The policies of a request, with the circuit of its upstream.
    pub fn policies(&self, drawn: Option<usize>) -> &Policies {
        match &self.target {
            Target::Fork(fork) => fork.branch(drawn).map_or(&self.policies, |b| &b.policies),
            Target::Upstream(_) | Target::Serve(_) => &self.policies,
        }
    }

    /// The budget that a request's retries are paid from.
    pub fn budget(&self, drawn: Option<usize>) -> Option<&Arc<Budget>> {
        let retry = self.retry.as_ref()?;
        let of_branch = match &self.target {
            Target::Fork(fork) => fork.branch(drawn).and_then(|branch| branch.budget.as_ref()),
            Target::Upstream(_) | Target::Serve(_) => None,
        };
        of_branch.or(retry.budget.as_ref())
    }

    /// The requester as the route's limits count it: by name alone where one authority has named it.
    pub fn counted<'a>(&self, requester: Requester<'a>) -> Requester<'a> {
        let accepted = self.guard.as_ref().map_or(0, |guard| guard.verifiers().len());
        if accepted > 1 { requester } else { requester.of_one_authority() }
    }

    /// Whether a request that finds no free slot may wait for one. In a dry run it passes.
    pub fn has_queue(&self) -> bool {
        let bulkhead = self.config.bulkhead.as_ref();
        bulkhead.is_some_and(|bulkhead| bulkhead.queue.is_some() && !bulkhead.enforce.is_dry())
    }

    /// Whether requests would wait if its bulkhead were enforced.
    pub fn rehearses_queue(&self) -> bool {
        let bulkhead = self.config.bulkhead.as_ref();
        bulkhead.is_some_and(|bulkhead| bulkhead.queue.is_some() && bulkhead.enforce.is_dry())
    }

    /// Whether the route makes RPC messages from its upstream's JSON.
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
