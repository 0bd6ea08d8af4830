//! Resolves URLs to addresses, in the background.
//!
//! Names are looked up through the operating system, periodically. A name that cannot be resolved
//! keeps its addresses, for `empty_after` if that is set. Nothing here runs in the path of a
//! request.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::HeaderValue;

use super::config::{Config, IpFamily, Url};
use super::{Endpoint, Upstream};
use crate::time::{Clock, Moment};

/// The longest wait for one lookup. The system's resolver may try for much longer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon a name that could not be resolved is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Resolves the names of `upstream` until it is dropped. Returns after the first round of lookups,
/// or after `wait`, whichever is first; the rest happens in the background.
pub async fn keep_resolved(upstream: &Arc<Upstream>, wait: Duration) {
    // Relaxed: no other memory depends on the flag.
    let begun = upstream.resolving.swap(true, Ordering::Relaxed);
    if begun || upstream.config.endpoints.iter().all(is_address) {
        return;
    }
    let (first, done) = tokio::sync::oneshot::channel();
    tokio::spawn(refresh(Arc::downgrade(upstream), first));
    // The background task continues either way: a slow resolver only delays the start.
    let _ = tokio::time::timeout(wait, done).await;
}

/// What is known about one name.
#[derive(Default)]
struct Name {
    /// The addresses found last; `None` before the first success.
    addresses: Option<Vec<SocketAddr>>,
    failing_since: Option<Moment>,
}

type Names = HashMap<Url, Name>;

async fn refresh(upstream: Weak<Upstream>, first: tokio::sync::oneshot::Sender<()>) {
    let mut names = Names::new();
    let mut first = Some(first);
    loop {
        let Some(upstream) = upstream.upgrade() else {
            return;
        };
        let found = resolve_all(&upstream).await;
        let now = Clock::now();
        let mut errors = Vec::new();
        for (url, found) in found {
            let name = names.entry(url.clone()).or_default();
            errors.extend(name.take_in(&upstream, &url, found, now));
        }
        errors.sort_unstable();
        let failing_since = names.values().filter_map(|name| name.failing_since).min();
        upstream.lookups.note(&errors, failing_since);
        let before = upstream.endpoints();
        upstream.replace(endpoints(&upstream, &names));
        if let Some(change) = change(&before, &upstream.endpoints()) {
            log::info!("upstreams.{}: {change}", upstream.name);
        }
        if let Some(first) = first.take() {
            // The start may have stopped waiting for this.
            let _ = first.send(());
        }
        let every = *upstream.config.resolve_every;
        drop(upstream);
        let failing = failing_since.is_some();
        tokio::time::sleep(if failing { every.min(RETRY_EVERY) } else { every }).await;
    }
}

/// Which endpoints have come and gone with the answers to look-ups, in words.
fn change(before: &[Arc<Endpoint>], after: &[Arc<Endpoint>]) -> Option<String> {
    let lacking = |from: &[Arc<Endpoint>], all: &[Arc<Endpoint>]| {
        let gone = all.iter().filter(|one| !from.iter().any(|other| other.is_same(one)));
        gone.map(|endpoint| &*endpoint.label).collect::<Vec<_>>().join(", ")
    };
    let (came, left) = (lacking(before, after), lacking(after, before));
    let came = (!came.is_empty()).then(|| format!("{came} came"));
    let left = (!left.is_empty()).then(|| format!("{left} left"));
    let words = came.into_iter().chain(left).collect::<Vec<_>>().join("; ");
    let count = after.len();
    (!words.is_empty()).then(|| format!("{words}, as its names resolve; endpoints now: {count}"))
}

/// Looks up all names once, at the same time.
async fn resolve_all(upstream: &Upstream) -> Vec<(Url, Result<Vec<SocketAddr>, String>)> {
    let mut lookups = tokio::task::JoinSet::new();
    let family = upstream.config.ip_family;
    for url in upstream.config.endpoints.iter().filter(|url| !is_address(url)) {
        let url = url.clone();
        lookups.spawn(async move {
            let found = lookup(&url, family).await;
            (url, found)
        });
    }
    lookups.join_all().await
}

impl Name {
    /// Records the result of a lookup, and returns its error in words if it failed. Logs one line
    /// when a name stops resolving, one when its addresses are given up, and one when it is back.
    fn take_in(
        &mut self,
        upstream: &Upstream,
        url: &Url,
        found: Result<Vec<SocketAddr>, String>,
        now: Moment,
    ) -> Option<String> {
        let (name, host) = (&upstream.name, &url.host);
        let error = match found {
            Ok(addresses) => {
                if let Some(since) = self.failing_since.take() {
                    let after = now.since(since).as_secs();
                    log::info!("upstreams.{name}: {host} is resolved again, after {after}s");
                }
                self.addresses = Some(addresses);
                return None;
            }
            Err(error) => error,
        };
        let since = *self.failing_since.get_or_insert_with(|| {
            log::warn!(
                "upstreams.{name}: cannot resolve {host}: {error}; keeping the addresses known so far"
            );
            now
        });
        let empty_after = *upstream.config.empty_after;
        let is_empty = self.addresses.as_ref().is_some_and(Vec::is_empty);
        if !empty_after.is_zero() && now.since(since) >= empty_after && !is_empty {
            log::warn!(
                "upstreams.{name}: {host} has not been resolved for {empty_after:?}; giving its \
                 addresses up"
            );
            self.addresses = Some(Vec::new());
        }
        Some(format!("{host}: {error}"))
    }
}

async fn lookup(url: &Url, family: IpFamily) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::time::timeout(
        LOOKUP_TIMEOUT,
        tokio::net::lookup_host((url.host.as_str(), url.port)),
    )
    .await
    .map_err(|_| format!("no answer within {}s", LOOKUP_TIMEOUT.as_secs()))?
    .map_err(|error| error.to_string())?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    let wanted = match family {
        IpFamily::PreferIpv4 => SocketAddr::is_ipv4,
        IpFamily::PreferIpv6 => SocketAddr::is_ipv6,
        IpFamily::Both => |_: &SocketAddr| true,
    };
    if addresses.iter().any(wanted) {
        addresses.retain(wanted);
    }
    if addresses.is_empty() {
        return Err("the name has no address".to_owned());
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// The endpoints that are given as addresses.
pub(super) fn literal(config: &Config) -> Vec<Arc<Endpoint>> {
    let addresses = config.endpoints.iter().filter_map(|url| Some((url, url.host.parse().ok()?)));
    addresses.map(|(url, ip)| endpoint(config, url, SocketAddr::new(ip, url.port))).collect()
}

/// All endpoints, in the order of the file. A name that this task has not resolved yet keeps the
/// addresses it has, possibly from before a reload.
fn endpoints(upstream: &Upstream, names: &Names) -> Vec<Arc<Endpoint>> {
    let config = &upstream.config;
    let known = upstream.endpoints();
    let mut all = Vec::new();
    for url in &config.endpoints {
        let resolved = names.get(url).and_then(|name| name.addresses.as_ref());
        match (url.host.parse::<IpAddr>(), resolved) {
            (Ok(ip), _) => all.push(endpoint(config, url, SocketAddr::new(ip, url.port))),
            (Err(_), Some(found)) => {
                all.extend(found.iter().map(|address| endpoint(config, url, *address)));
            }
            (Err(_), None) => all.extend(known.iter().filter(|e| e.is_of(url)).cloned()),
        }
    }
    all
}

fn endpoint(config: &Config, url: &Url, address: SocketAddr) -> Arc<Endpoint> {
    let server_name = config.tls.server_name.clone().unwrap_or_else(|| url.host.clone());
    Arc::new(Endpoint {
        address,
        tls: url.tls,
        server_name: if url.tls { server_name } else { String::new() },
        authority: HeaderValue::from_str(&url.authority)
            .unwrap_or_else(|_| HeaderValue::from_static("invalid")),
        base_path: url.base_path.clone(),
        label: address.to_string().into(),
        attempts: AtomicU64::new(0),
    })
}

fn is_address(url: &Url) -> bool {
    url.host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(config: &str, answers: &[(u64, bool)]) -> Vec<usize> {
        let config = format!("{{endpoints: ['http://a.test:1'], {config}}}");
        let config: Config = serde_yaml::from_str(&config).expect("valid");
        let url = config.endpoints[0].clone();
        let upstream = Upstream::new("u", config, Moment::ZERO);
        let mut names = Names::new();
        let mut counts = Vec::new();
        for (seconds, good) in answers {
            let found = match good {
                true => Ok(vec!["127.0.0.1:1".parse().expect("an address")]),
                false => Err("no such name".to_owned()),
            };
            let now = Moment::ZERO + Duration::from_secs(*seconds);
            let error = names.entry(url.clone()).or_default().take_in(&upstream, &url, found, now);
            assert_eq!(error.is_none(), *good);
            upstream.replace(endpoints(&upstream, &names));
            counts.push(upstream.endpoints().len());
        }
        counts
    }

    #[test]
    fn endpoints_that_come_and_go_are_told_by_address() {
        let config: Config = serde_yaml::from_str("endpoints: ['http://a.test:1']").expect("valid");
        let of = |port: u16| {
            endpoint(&config, &config.endpoints[0], SocketAddr::from(([127, 0, 0, 1], port)))
        };
        let told = change(&[of(1), of(2)], &[of(2), of(3)]);
        let expected = "127.0.0.1:3 came; 127.0.0.1:1 left, as its names resolve; endpoints now: 2";
        assert_eq!(told.as_deref(), Some(expected));
        assert_eq!(change(&[of(1)], &[of(1)]), None);
    }

    #[test]
    fn a_name_that_is_not_resolved_any_more_keeps_its_addresses() {
        let answers = [(0, true), (10, false), (100_000, false), (100_010, true)];
        assert_eq!(known("", &answers), [1, 1, 1, 1]);
    }

    #[test]
    fn a_name_loses_its_addresses_after_so_long_if_that_is_configured() {
        let answers = [(0, true), (10, false), (69, false), (70, false), (71, false), (80, true)];
        assert_eq!(known("empty_after: 60s", &answers), [1, 1, 1, 0, 0, 1]);
        let short = [(0, true), (10, false), (20, true), (75, false), (80, false)];
        assert_eq!(known("empty_after: 60s", &short), [1, 1, 1, 1, 1], "counted anew each time");
    }
}
