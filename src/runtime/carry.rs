//! What survives a reload, item by item and by name: kept if its own configuration is unchanged,
//! resized where that is possible, otherwise made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use super::authority::Authority;
use super::descriptors::Descriptors;
use super::flood_guard::FloodGuard;
use super::snapshot::{Route, Snapshot, Target, UpstreamTarget};
use super::socket_check::socket_check;
use super::trust::Trust;
use crate::config::code::Code;
use crate::config::load::KeyPath;
use crate::config::{self, Config, Problem};
use crate::limits::{Store, Unusable};
use crate::observe::metrics::Metrics;
use crate::policy::auth::{self, Verifier};
use crate::policy::breaker::Breaker;
use crate::policy::bulkhead::Bulkhead;
use crate::policy::rate_limit::{self, Limiter};
use crate::policy::retry;
use crate::policy::retry::BudgetName;
use crate::policy::retry::budget::{Budget, OF_UPSTREAM};
use crate::policy::split::Split;
use crate::policy::split::config::Weighted;
use crate::time::Moment;
use crate::upstream::Upstream;

pub(super) fn flood_guard(config: &Config, before: Option<&Snapshot>) -> Option<Arc<FloodGuard>> {
    let wanted = config.flood_guard.as_ref()?;
    let old = before.and_then(|before| before.flood_guard.as_ref());
    let kept = old.filter(|guard| guard.config() == wanted).cloned();
    let kept = kept.or_else(|| Some(Arc::new(old?.continued(wanted)?)));
    Some(kept.unwrap_or_else(|| Arc::new(FloodGuard::new(wanted.clone()))))
}

/// Limits are identified by their configuration, wherever they stand in the list. Each old limiter
/// is reused at most once: of two equal limits, each keeps its own count. One that only begins or
/// ceases to be enforced goes on counting, unless the list has it as it was, too.
pub(super) fn limiters(config: &config::Route, old: Option<&Arc<Route>>) -> Vec<Arc<Limiter>> {
    let mut old = old.map(|old| old.policies.rate_limits.clone()).unwrap_or_default();
    let wanted = &config.rate_limit.0;
    let mut limiters: Vec<Option<Arc<Limiter>>> = wanted
        .iter()
        .map(|wanted| {
            let same = old.iter().position(|limiter| limiter.config() == wanted)?;
            Some(old.remove(same))
        })
        .collect();
    for (limiter, wanted) in limiters.iter_mut().zip(wanted) {
        if limiter.is_none() {
            let continued =
                |(place, old): (usize, &Arc<Limiter>)| Some((place, old.continued(wanted)?));
            if let Some((place, continued)) = old.iter().enumerate().find_map(continued) {
                old.remove(place);
                *limiter = Some(Arc::new(continued));
            }
        }
    }
    let new = |(limiter, wanted): (Option<Arc<Limiter>>, &rate_limit::Config)| {
        limiter.unwrap_or_else(|| Arc::new(Limiter::new(wanted.clone())))
    };
    limiters.into_iter().zip(wanted).map(new).collect()
}

pub(super) fn breaker(
    config: &config::Route,
    old: Option<&Arc<Route>>,
    now: Moment,
) -> Option<Arc<Breaker>> {
    let wanted = config.circuit_breaker.as_deref()?;
    let old = old.and_then(|old| old.policies.route_breaker.as_ref());
    let kept = old.and_then(|old| Breaker::continued(old, wanted));
    Some(kept.unwrap_or_else(|| Arc::new(Breaker::new(wanted.clone(), now))))
}

/// Requests in flight stay counted whatever the new limit is; [`resize`] applies the new limit.
pub(super) fn bulkhead(config: &config::Route, old: Option<&Arc<Route>>) -> Option<Arc<Bulkhead>> {
    let wanted = config.bulkhead.as_ref()?;
    let kept = old.and_then(|old| old.policies.bulkhead.clone());
    Some(kept.unwrap_or_else(|| Arc::new(Bulkhead::new(wanted))))
}

/// Orders and counts of the upstreams that stay in the list are kept.
pub(super) fn split(
    config: &config::Route,
    upstreams: &[Weighted],
    old: Option<&Arc<Route>>,
) -> Split {
    let before = old.and_then(|old| match &old.target {
        Target::Fork(fork) => fork.split(),
        Target::Upstream(_) | Target::Serve(_) => None,
    });
    let key = config.split.as_ref().and_then(|split| split.key.clone());
    Split::new(upstreams, key, before)
}

/// The name of an upstream's own budget among the others, none of which may have such a name.
pub(super) fn budget_of(upstream: &str) -> String {
    format!("{OF_UPSTREAM}{upstream}")
}

/// Those that are configured, and one for each upstream with a route whose `retry` names none.
pub(super) fn budgets(
    config: &Config,
    before: Option<&Snapshot>,
    now: Moment,
) -> BTreeMap<String, Arc<Budget>> {
    let keep = |name: &str, wanted: &retry::budget::Config| {
        let kept = before.and_then(|before| before.budgets.get(name)).cloned();
        let kept = kept.filter(|budget| budget.config() == wanted);
        kept.unwrap_or_else(|| Arc::new(Budget::new(wanted.clone(), now)))
    };
    let named = config.retry_budgets.iter().map(|(name, c)| (name.clone(), keep(name, c)));
    let mut budgets: BTreeMap<_, _> = named.collect();
    let of_upstream = retry::budget::Config::of_upstream();
    let mut done = BTreeSet::new();
    for route in config.routes.values() {
        let Some(retry) = &route.retry else { continue };
        if retry.budget != BudgetName::OfUpstream {
            continue;
        }
        for upstream in route.upstreams().filter(|upstream| done.insert(*upstream)) {
            let name = budget_of(upstream);
            let budget = keep(&name, &of_upstream);
            budgets.insert(name, budget);
        }
    }
    budgets
}

/// Opens the configured stores. An entry without a URL counts as no store, and is left out.
pub(super) fn limit_stores(
    config: &Config,
    before: Option<&Snapshot>,
    metrics: &Metrics,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Arc<Store>> {
    let mut stores = BTreeMap::new();
    for (name, wanted) in &config.rate_limit_stores {
        let kept = before.and_then(|before| before.limit_stores.get(name));
        if let Some(kept) = kept.filter(|store| store.is_as(&wanted.redis)) {
            stores.insert(name.clone(), kept.clone());
            continue;
        }
        match Store::try_new(name, &wanted.redis, metrics.limit_store(name)) {
            Ok(store) => stores.extend(store.map(|store| (name.clone(), Arc::new(store)))),
            Err(Unusable { key, message, remedy }) => {
                let store = KeyPath::root().key("rate_limit_stores").key(name.as_str());
                let path = store.key("redis").key(key);
                let problem = Problem::new(Code::LimitStoreUnusable, path, message);
                problems.push(problem.remedied(remedy));
            }
        }
    }
    stores
}

pub(super) fn upstreams(
    config: &Config,
    before: Option<&Snapshot>,
    metrics: &Metrics,
    now: Moment,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Arc<UpstreamTarget>> {
    let mut targets = BTreeMap::new();
    let descriptors = Descriptors::current();
    for (name, wanted) in &config.upstreams {
        let old = before.and_then(|before| before.upstreams.get(name));
        let upstream = match old {
            Some(old) => Upstream::reconfigured(&old.upstream, wanted, now),
            None => Arc::new(Upstream::new(name, wanted.clone(), now)),
        };
        let trust = match Trust::of(name, wanted) {
            Ok(trust) => trust,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let as_it_was = |old: &&Arc<UpstreamTarget>| {
            Arc::ptr_eq(&old.upstream, &upstream) && old.trust.load().pool_key == trust.pool_key
        };
        if let Some(old) = old.filter(as_it_was) {
            // The file may hold the same in other words.
            old.trust.store(Arc::new(trust));
            targets.insert(name.clone(), old.clone());
            continue;
        }
        let metrics = metrics.upstream(&upstream.name);
        let socket_check = socket_check(descriptors, metrics.clone());
        let target = UpstreamTarget {
            upstream,
            metrics,
            trust: ArcSwap::from_pointee(trust),
            socket_check,
            checks: OnceLock::new(),
            source: OnceLock::new(),
        };
        targets.insert(name.clone(), Arc::new(target));
    }
    targets
}

pub(super) fn authorities(
    config: &Config,
    before: Option<&Snapshot>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Arc<Authority>> {
    let mut authorities = BTreeMap::new();
    for (name, wanted) in &config.auth {
        let claims = keyed_claims(config, name);
        let unchanged = before.filter(|before| before.config.auth.get(name) == Some(wanted));
        if let Some(kept) = unchanged.and_then(|before| before.authorities.get(name)) {
            let kept = match kept.verifier.kept_claims() == &*claims {
                true => kept.clone(),
                false => Arc::new(kept.keeping(claims)),
            };
            authorities.insert(name.clone(), kept);
            continue;
        }
        match Verifier::try_new(name, wanted) {
            Ok(verifier) => {
                let authority = Authority::new(verifier.keeping(claims));
                authorities.insert(name.clone(), Arc::new(authority));
            }
            Err(error) => {
                let path = KeyPath::root().key("auth").key(name.as_str());
                let path = path.key(match wanted {
                    auth::Config::Jwt(_) => "jwt",
                    auth::Config::ApiKey(_) => "api_key",
                    auth::Config::Introspection(_) => "introspection",
                    auth::Config::Forward(_) => "forward",
                });
                problems.push(Problem::new(Code::AuthorityUnusable, path, error.to_string()));
            }
        }
    }
    authorities
}

/// The claims that key any limit which tokens of this authority can meet; sorted, without
/// repetitions.
fn keyed_claims(config: &Config, authority: &str) -> Arc<[Arc<str>]> {
    if let Some(auth::Config::ApiKey(_) | auth::Config::Forward(_)) = config.auth.get(authority) {
        return Arc::default();
    }
    let requires = |route: &&Arc<config::Route>| {
        route.auth.as_ref().is_some_and(|auth| auth.require.iter().any(|name| name == authority))
    };
    let limits = config.routes.values().filter(requires).flat_map(|route| &route.rate_limit.0);
    let claims: BTreeSet<&str> = limits.flat_map(|limit| limit.key.claims()).collect();
    claims.into_iter().map(Arc::from).collect()
}

/// Gives kept bulkheads the size that a generation wants. Called only once it is in force: until
/// then, compiling it may still fail.
pub(super) fn resize(snapshot: &Snapshot, now: Moment) {
    for route in &snapshot.routes {
        if let (Some(bulkhead), Some(wanted)) = (&route.policies.bulkhead, &route.config.bulkhead) {
            bulkhead.reconfigure(wanted, now);
        }
    }
}
