//! What a start and a reload say of the configuration: what there is, what is added, removed and
//! changed by name, and which state begins anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::snapshot::{Route, Snapshot};
use crate::config::Config;
use crate::record::Chosen;

/// The most names in a list.
const NAMES: usize = 10;

/// One line each of what was started with.
pub(super) fn started(file: &Path, snapshot: &Snapshot) -> Vec<String> {
    let config = &snapshot.config;
    let version = env!("CARGO_PKG_VERSION");
    let mut lines = vec![format!("portcullis {version}: {}", file.display())];
    for (name, listener) in &config.listeners {
        let tls = match &listener.tls {
            None => "without TLS".to_owned(),
            Some(tls) => {
                let files = tls.certificates.iter().map(|c| c.certificate.display().to_string());
                let clients = if tls.client_ca.is_some() { ", for clients with one" } else { "" };
                format!("TLS with {}{clients}", names(files))
            }
        };
        lines.push(format!("listeners.{name}: {}, {tls}", listener.address));
    }
    let store = match config.record.store.chosen() {
        None => "none".to_owned(),
        Some(Chosen::Postgres(..)) => "PostgreSQL".to_owned(),
        Some(Chosen::Sqlite(_, path)) => format!("SQLite at {}", path.display()),
    };
    let limits = match snapshot.limit_stores.is_empty() {
        true => "none".to_owned(),
        false => names(snapshot.limit_stores.keys().cloned()),
    };
    lines.push(format!(
        "routes: {}, upstreams: {}, authorities: {}; record store: {store}; rate limit stores: {limits}",
        snapshot.routes.len(),
        snapshot.upstreams.len(),
        snapshot.authorities.len(),
    ));
    lines
}

/// One line for each section that differs, and one for the state that begins anew.
pub(super) fn changes(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let mut lines = sections(&old.config, &new.config);
    let before = old.tls.load();
    for (name, tls) in new.tls.load().iter() {
        if before.get(name).is_some_and(|old| !old.is_same_identity(tls)) {
            lines.push(format!("listeners.{name}.tls: other certificates or authorities"));
        }
    }
    let anew = begin_anew(old, new);
    if !anew.is_empty() {
        lines.push(format!("state that begins anew: {}", names(anew.into_iter())));
    }
    if lines.is_empty() {
        lines.push("nothing has changed".to_owned());
    }
    lines
}

/// Lists every section by name, so that a new one does not compile until it is compared.
fn sections(old: &Config, new: &Config) -> Vec<String> {
    let Config {
        server,
        listeners,
        // A reload refuses to change these.
        otlp: _,
        traces: _,
        metrics: _,
        admin,
        client_address,
        identifiers,
        flood_guard,
        rate_limit_headers,
        rate_limit_stores,
        record,
        log,
        access_log,
        auth,
        retry_budgets,
        upstreams,
        descriptors,
        // Its routes have what it says.
        defaults: _,
        routes,
    } = new;
    let named = [
        ("listeners", difference(&old.listeners, listeners)),
        ("rate_limit_stores", difference(&old.rate_limit_stores, rate_limit_stores)),
        ("auth", difference(&old.auth, auth)),
        ("retry_budgets", difference(&old.retry_budgets, retry_budgets)),
        ("upstreams", difference(&old.upstreams, upstreams)),
        ("descriptors", difference(&old.descriptors, descriptors)),
        ("routes", difference(&old.routes, routes)),
    ];
    let plain = [
        ("server", old.server != *server),
        ("admin", old.admin != *admin),
        ("client_address", old.client_address != *client_address),
        ("identifiers", old.identifiers != *identifiers),
        ("flood_guard", old.flood_guard != *flood_guard),
        ("rate_limit_headers", old.rate_limit_headers != *rate_limit_headers),
        ("record.default", old.record.default != record.default),
        ("log", old.log != *log),
        ("access_log", old.access_log != *access_log),
    ];
    let plain = plain.into_iter().filter(|(_, differs)| *differs);
    let named =
        named.into_iter().filter_map(|(section, what)| Some(format!("{section}: {}", what?)));
    plain.map(|(section, _)| format!("{section}: changed")).chain(named).collect()
}

/// `added a, b; removed c; changed d`, or `None`.
fn difference<T: PartialEq>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
) -> Option<String> {
    let lacks = |map: &BTreeMap<String, T>, name: &str| !map.contains_key(name);
    let added = new.keys().filter(|name| lacks(old, name));
    let removed = old.keys().filter(|name| lacks(new, name));
    let changed = new.iter().filter(|(name, new)| old.get(*name).is_some_and(|old| old != *new));
    let parts = [
        ("added", added.cloned().collect::<Vec<_>>()),
        ("removed", removed.cloned().collect()),
        ("changed", changed.map(|(name, _)| name.clone()).collect()),
    ];
    let parts = parts.into_iter().filter(|(_, all)| !all.is_empty());
    let parts: Vec<_> =
        parts.map(|(what, all)| format!("{what} {}", names(all.into_iter()))).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The circuits, limits and budgets of what there was before that do not go on.
fn begin_anew(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let mut anew = Vec::new();
    for route in &new.routes {
        let Some(before) = old.route(&route.name).filter(|before| !Arc::ptr_eq(before, route))
        else {
            continue;
        };
        of_route(before, route, &mut anew);
    }
    for (name, upstream) in &new.upstreams {
        let before = old.upstreams.get(name).and_then(|before| before.upstream.breaker());
        let both = before.zip(upstream.upstream.breaker());
        if both.is_some_and(|(before, after)| !Arc::ptr_eq(before, after)) {
            anew.push(format!("the circuit of upstreams.{name}"));
        }
    }
    for (name, budget) in &new.budgets {
        if old.budgets.get(name).is_some_and(|before| !Arc::ptr_eq(before, budget)) {
            anew.push(format!("the retry budget {name}"));
        }
    }
    anew
}

fn of_route(before: &Route, after: &Route, anew: &mut Vec<String>) {
    let (old, new, name) = (&before.policies, &after.policies, &after.name);
    let circuits = old.route_breaker.as_ref().zip(new.route_breaker.as_ref());
    if circuits.is_some_and(|(old, new)| !Arc::ptr_eq(old, new)) {
        anew.push(format!("the circuit of routes.{name}"));
    }
    let is_kept = |limit| old.rate_limits.iter().any(|old| Arc::ptr_eq(old, limit));
    if !old.rate_limits.is_empty() && !new.rate_limits.iter().all(is_kept) {
        anew.push(format!("rate limits of routes.{name}"));
    }
}

/// `a, b, c`, and how many more.
fn names(mut all: impl Iterator<Item = String>) -> String {
    let mut text = all.by_ref().take(NAMES).collect::<Vec<_>>().join(", ");
    let more = all.count();
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, u8)]) -> BTreeMap<String, u8> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn what_is_added_removed_and_changed_is_told_by_name() {
        let (old, new) =
            (map(&[("a", 1), ("b", 1), ("c", 1)]), map(&[("b", 2), ("c", 1), ("d", 1)]));
        let told = difference(&old, &new);
        assert_eq!(told.as_deref(), Some("added d; removed a; changed b"));
        assert_eq!(difference(&new, &new), None);
    }

    #[test]
    fn ten_thousand_names_are_ten_and_a_number() {
        let text = names((0..10_000).map(|n| n.to_string()));
        assert_eq!(text, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 9990 more");
    }
}
