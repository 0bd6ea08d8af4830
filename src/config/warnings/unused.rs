//! Named things that no route refers to.

use std::collections::BTreeSet;

use super::super::{Config, Problem};
use crate::config::code::Code;
use crate::config::load::KeyPath;

pub(super) fn warnings(config: &Config) -> Vec<Problem> {
    let routes = || config.routes.values();
    let upstreams: BTreeSet<&str> = routes()
        .flat_map(|route| {
            let fallback = route.fallback.as_ref().and_then(|f| f.upstream.as_deref());
            route.upstreams().chain(fallback)
        })
        .collect();
    let authorities: BTreeSet<&str> =
        routes().flat_map(|route| &route.auth).flat_map(|auth| auth.require.iter()).collect();
    let budgets: BTreeSet<&str> = routes()
        .filter_map(|route| route.retry.as_ref())
        .filter_map(|retry| retry.budget.name())
        .collect();
    let stores: BTreeSet<&str> = routes()
        .flat_map(|route| &route.rate_limit.0)
        .filter_map(|limit| limit.shared.as_ref())
        .map(|shared| shared.store.as_str())
        .collect();
    let descriptors: BTreeSet<&str> = routes()
        .filter_map(|route| route.transcode.as_ref())
        .map(|transcode| transcode.descriptors.as_str())
        .collect();
    let sections = [
        (Code::UnusedUpstream, "upstreams", names(&config.upstreams), upstreams),
        (Code::UnusedAuthority, "auth", names(&config.auth), authorities),
        (Code::UnusedRetryBudget, "retry_budgets", names(&config.retry_budgets), budgets),
        (Code::UnusedLimitStore, "rate_limit_stores", names(&config.rate_limit_stores), stores),
        (Code::UnusedDescriptors, "descriptors", names(&config.descriptors), descriptors),
    ];
    let mut warnings = Vec::new();
    for (code, section, defined, used) in sections {
        for name in defined.difference(&used) {
            let path = KeyPath::root().key(section).key(*name);
            warnings.push(Problem::new(code, path, format!("no route uses `{name}`")));
        }
    }
    warnings
}

fn names<T>(section: &std::collections::BTreeMap<String, T>) -> BTreeSet<&str> {
    section.keys().map(String::as_str).collect()
}
