//! What one generation hands to the next unchanged, instead of making it again.
//!
//! A reload usually changes a few of ten thousand routes. Compiling the others again is wasted
//! work. It would also take their memory twice while both generations exist, and fragment it: each
//! generation would fill the gaps between parts of the one before, which is then freed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::authority::Authority;
use super::snapshot::{Route, Snapshot, UpstreamTarget};
use crate::config::code::Code;
use crate::config::load::KeyPath;
use crate::config::{self, Config, Problem};
use crate::limits::Store;
use crate::policy::retry::budget::Budget;
use crate::record;
use crate::routing::{Conflict, Router};
use crate::transcode::Descriptors;
use std::time::Duration;

/// What a route is compiled from, besides its own configuration.
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
    pub(super) metrics: &'a config::metrics::Metrics,
}

/// The previous generation, as the source of routes to keep.
pub(super) struct Kept<'a> {
    before: Option<&'a Snapshot>,
    /// Everything that a route is compiled from, besides its own configuration, is unchanged.
    same_parts: bool,
}

impl<'a> Kept<'a> {
    pub(super) fn new(before: Option<&'a Snapshot>, parts: &Parts<'_>) -> Self {
        Kept { before, same_parts: before.is_some_and(|before| same_parts(before, parts)) }
    }

    /// The route under `name`, if compiling it again would give an equal one. An unchanged
    /// configuration is replaced by the previous generation's in any case.
    pub(super) fn route(&self, name: &str, wanted: &mut Arc<config::Route>) -> Option<Arc<Route>> {
        let old = self.before?.route(name)?;
        if *old.config != **wanted {
            return None;
        }
        wanted.clone_from(&old.config);
        // Descriptors are read again, because their file may have changed.
        (self.same_parts && wanted.transcode.is_none()).then(|| old.clone())
    }
}

/// Lists every field of [`Parts`] by name, so that a new field does not compile until it is
/// compared.
fn same_parts(before: &Snapshot, parts: &Parts<'_>) -> bool {
    let Parts {
        upstreams,
        budgets,
        authorities,
        descriptors: _,
        jitter_seed,
        limit_stores,
        record,
        commit_timeout,
        metrics,
    } = parts;
    let old = &before.config;
    // Routes refer only to existing parts. The exception are stores, which do not exist while they
    // have no URL.
    all_stay(&before.upstreams, upstreams)
        && all_stay(&before.budgets, budgets)
        && all_stay(&before.authorities, authorities)
        && all_stay(&before.limit_stores, limit_stores)
        && before.limit_stores.len() == limit_stores.len()
        && old.server.retry_jitter_seed == *jitter_seed
        && old.record.default == **record
        && *old.record.commit_timeout == *commit_timeout
        && old.metrics.status == metrics.status
}

fn all_stay<T>(old: &BTreeMap<String, Arc<T>>, new: &BTreeMap<String, Arc<T>>) -> bool {
    old.iter().all(|(name, old)| new.get(name).is_some_and(|new| Arc::ptr_eq(old, new)))
}

/// The router for the routes of `config`: that of `before`, if it finds the same routes.
///
/// # Errors
/// The routes conflict.
pub(super) fn router(
    config: &Config,
    before: Option<&Snapshot>,
) -> Result<Arc<Router>, Vec<Problem>> {
    let found_alike = |before: &&Snapshot| {
        let (old, new) = (&before.config.routes, &config.routes);
        old.len() == new.len()
            && old.iter().zip(new).all(|((old_name, old), (name, new))| {
                old_name == name && (Arc::ptr_eq(old, new) || old.matches == new.matches)
            })
    };
    if let Some(before) = before.filter(found_alike) {
        return Ok(before.router.clone());
    }
    let routes = config.routes.iter().enumerate();
    let routes = routes.map(|(index, (name, route))| (index, name.as_str(), &route.matches));
    let router = Router::try_new(routes).map(Arc::new);
    router.map_err(|conflicts| conflicts.iter().map(|one| problem(config, one)).collect())
}

fn problem(config: &Config, conflict: &Conflict) -> Problem {
    let path = |name: &str| KeyPath::root().key("routes").key(name).key("match");
    let written = config.routes.get(&conflict.second.1).and_then(|r| r.matches.path.values());
    let second = match written {
        None => path(&conflict.second.1),
        Some([_]) => path(&conflict.second.1).key("path"),
        Some(several) => {
            let index = several.iter().rposition(|pattern| *pattern == conflict.pattern);
            path(&conflict.second.1).key("path").index(index.unwrap_or_default())
        }
    };
    let problem = Problem::new(Code::RouteConflict, second, conflict.to_string());
    let problem = match conflict.is_conditional() {
        true => problem.remedied(
            "let their conditions exclude each other, or give one route more of them, so that it goes first",
        ),
        false => problem,
    };
    match conflict.first.0 == conflict.second.0 {
        true => problem,
        false => problem.beside(path(&conflict.first.1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;
    use crate::observe::metrics::Metrics;
    use crate::time::Moment;

    const BASE: &str = "
listeners: {public: {address: '127.0.0.1:8080'}}
admin: {address: '127.0.0.1:8081'}
upstreams: {users: {endpoints: ['http://127.0.0.1:1']}}
auth: {partners: {api_key: {header: X-Api-Key, keys: {acme: acme-key-0123456789}}}}
retry_budgets: {few: {token_bucket: {capacity: 20, refill_per_second: 10}}}
rate_limit_stores: {shared: {redis: {url: ''}}}
record: {default: {mode: off}}
routes:
  a: {match: {path: /a}, upstream: users, auth: {require: partners}}
  b: {match: {path: /b}, upstream: users, retry: {budget: few}, max_body: 1MiB}
  c: {match: {path: /c}, upstream: users, rate_limit: {fixed_window: {requests: 1, per: 1s}, shared: {store: shared}}}
";

    fn compile(yaml: &str, before: Option<&Snapshot>, metrics: &Metrics) -> Snapshot {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("c.yaml");
        std::fs::write(&file, yaml).expect("written");
        let (config, _) = Config::load(&file, &Environment::process()).expect("loads");
        Snapshot::compile(config, before, metrics, Moment::ZERO).expect("compiles")
    }

    /// The routes kept after `from` has become `to`, and whether the router was kept.
    fn kept(from: &str, to: &str) -> (String, bool) {
        assert!(BASE.contains(from), "{from}");
        let metrics = Metrics::new().expect("metrics");
        let before = compile(BASE, None, &metrics);
        let after = compile(&BASE.replacen(from, to, 1), Some(&before), &metrics);
        let same = |route: &&Arc<Route>| {
            before.route(&route.name).is_some_and(|old| Arc::ptr_eq(old, route))
        };
        let names = after.routes.iter().filter(same).map(|route| &*route.name).collect();
        (names, Arc::ptr_eq(&before.router, &after.router))
    }

    #[test]
    fn a_route_stays_the_same_one_if_only_others_change() {
        assert_eq!(kept("", ""), ("abc".to_owned(), true));
        assert_eq!(kept("1MiB", "2MiB"), ("ac".to_owned(), true));
        assert_eq!(kept("/b", "/d"), ("ac".to_owned(), false));
        assert_eq!(kept("  b:", "  d:"), ("ac".to_owned(), false));
        assert_eq!(
            kept("{users:", "{new: {endpoints: ['http://h:1']}, users:"),
            ("abc".to_owned(), true)
        );
    }

    #[test]
    fn a_route_is_made_again_if_anything_changes_that_it_may_be_made_of() {
        for (from, to) in [
            ("127.0.0.1:1'", "127.0.0.1:2'"),
            ("acme-key", "umbra-key"),
            ("capacity: 20", "capacity: 30"),
            ("url: ''", "url: 'redis://127.0.0.1:1'"),
            ("mode: off}", "mode: off, query: true}"),
            ("record: {", "record: {commit_timeout: 4s, "),
        ] {
            assert_eq!(kept(from, to), (String::new(), true), "{to}");
        }
    }
}
