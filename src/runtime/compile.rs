//! Compiles a configuration into a generation: every part is looked up, compiled, or taken over.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::carry;
use super::facets;
use super::kept;
use super::kept::{Kept, Parts};
use super::snapshot::Branch;
use super::snapshot::Choice;
use super::snapshot::Fork;
use super::snapshot::Idempotency;
use super::snapshot::Retry;
use super::snapshot::Route;
use super::snapshot::Served;
use super::snapshot::Snapshot;
use super::snapshot::Target;
use super::tls;
use super::transcoders;
use crate::config;
use crate::config::Config;
use crate::config::Problem;
use crate::config::code::Code;
use crate::config::load::KeyPath;
use crate::limits::SharedLimits;
use crate::observe::metrics::Metrics;
use crate::policy::Policies;
use crate::policy::auth::Guard;
use crate::policy::networks::Networks;
use crate::policy::rate_limit;
use crate::policy::retry;
use crate::policy::retry::BudgetName;
use crate::policy::split::Destination;
use crate::policy::split::named::Locator;
use crate::record::Capture;
use crate::record::Query;
use crate::time::Moment;

impl Snapshot {
    /// Compiles `config`; state is taken over from `before`.
    ///
    /// # Errors
    /// What only compiling can find out: invalid keys, conflicting routes.
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
            let before = before.and_then(|before| before.tls.load().get(name).cloned());
            let before = before.as_deref();
            let compiled = listener.tls.as_ref().map(|wanted| tls::compile(name, wanted, before));
            match compiled.transpose() {
                Ok(compiled) => {
                    tls.extend(compiled.map(|compiled| (name.clone(), Arc::new(compiled))))
                }
                Err(unusable) => problems.extend(unusable),
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
            metrics: &config.metrics,
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
                // Names have been checked: what is missing now has failed itself, and is reported.
                Err(problem) if problem.code == Code::UnknownName && !problems.is_empty() => {}
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
            digest: 0,
            router,
            routes,
            upstreams,
            budgets,
            authorities,
            limit_stores,
            tls: ArcSwap::from_pointee(tls),
            events: before.map(|before| before.events.clone()).unwrap_or_default(),
        })
    }
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
        let problem = |code, key: &str, message: String| {
            let path = KeyPath::root().key("routes").key(name).key(key);
            Problem::new(code, path, message)
        };
        let find_upstream = |upstream: &str| {
            parts.upstreams.get(upstream).cloned().ok_or_else(|| {
                let message = format!("no upstream is named `{upstream}`");
                problem(Code::UnknownName, "upstream", message)
            })
        };
        let guard = config
            .auth
            .as_ref()
            .map(|auth| {
                let find = |name: &str| parts.authorities.get(name).map(|a| a.verifier.clone());
                let guard = Guard::try_new(auth, find);
                guard.map(Box::new).map_err(|e| problem(Code::UnknownName, "auth", e.to_string()))
            })
            .transpose()?;
        let retry = config.retry.as_ref().map(|retry| {
            let of_upstream;
            let budget = match &retry.budget {
                BudgetName::Unlimited => None,
                BudgetName::Named(name) => Some(name),
                BudgetName::OfUpstream => {
                    let only = config.upstream.as_ref().and_then(Destination::only);
                    of_upstream = only.map(carry::budget_of);
                    of_upstream.as_ref()
                }
            };
            let budget = budget.and_then(|name| parts.budgets.get(name));
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
        let mut policies = Policies {
            rate_limits: carry::limiters(config, old),
            route_breaker: carry::breaker(config, old, now),
            upstream_breaker: None,
            bulkhead: carry::bulkhead(config, old),
            bulkhead_status: config.bulkhead.as_ref().map(|b| b.status).unwrap_or_default(),
            bulkhead_enforce: config.bulkhead.as_ref().map(|b| b.enforce).unwrap_or_default(),
        };
        let branch = |upstream: &str| {
            let target = find_upstream(upstream)?;
            let upstream_breaker = target.upstream.breaker().cloned();
            let policies = Policies { upstream_breaker, ..policies.clone() };
            let budget = config.retry.as_ref().and_then(|retry| match retry.budget {
                BudgetName::OfUpstream => parts.budgets.get(&carry::budget_of(upstream)).cloned(),
                BudgetName::Named(_) | BudgetName::Unlimited => None,
            });
            Ok(Branch { target, policies, budget })
        };
        let page = config.serve.map(Served::Page);
        let served = page
            .or_else(|| config.respond.clone().map(Served::Respond))
            .or_else(|| config.redirect.clone().map(Served::Redirect));
        let target = match (&config.upstream, served) {
            (_, Some(served)) => Target::Serve(served),
            (Some(Destination::Split(upstreams)), None) => {
                let names = upstreams.iter().map(|upstream| upstream.name.as_str());
                Target::Fork(Box::new(Fork {
                    choice: Choice::Drawn(carry::split(config, upstreams, old)),
                    branches: names.map(branch).collect::<Result<_, Problem>>()?,
                }))
            }
            (Some(Destination::Named(named)), None) => {
                let names = named.among.iter().map(String::as_str);
                Target::Fork(Box::new(Fork {
                    choice: Choice::Named(Locator::new(named.clone())),
                    branches: names.map(branch).collect::<Result<_, Problem>>()?,
                }))
            }
            (upstream, None) => {
                let only = upstream.as_ref().and_then(Destination::only);
                let target = find_upstream(only.unwrap_or_default())?;
                policies.upstream_breaker = target.upstream.breaker().cloned();
                Target::Upstream(target)
            }
        };
        let circuits: Vec<_> = match &target {
            Target::Upstream(target) => target.upstream.breaker().into_iter().collect(),
            Target::Fork(fork) => {
                fork.branches.iter().filter_map(|branch| branch.target.upstream.breaker()).collect()
            }
            Target::Serve(_) => Vec::new(),
        };
        let facets = facets::of(config, record, parts.metrics, &circuits);
        let name: Arc<str> = name.into();
        Ok(Route {
            metrics: metrics.route(&name, facets),
            pattern: match config.matches.path.values() {
                Some([only]) => Some(only.text().clone()),
                Some(_) | None => None,
            },
            policies,
            shared_limits,
            limit_fields: rate_limit::Fields::new(&name, &config.rate_limit),
            target,
            networks: config.networks.as_deref().map(|lists| Box::new(Networks::new(lists))),
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
}
