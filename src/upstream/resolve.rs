//! From URLs to addresses, in the background.
//!
//! Names are looked up through the operating system, again and again; a name that cannot
//! be resolved keeps the addresses it had. Nothing here runs in the path of a request.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::HeaderValue;

use super::config::{Config, Tls, Url};
use super::{Endpoint, Upstream};

/// Longest wait for one look-up. The system's resolver may try for much longer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// A name that could not be resolved is tried again this soon.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Resolve the names of `upstream` until it is dropped. Returns after the first look-up,
/// or after `wait`, whichever comes first; the rest goes on in the background.
pub async fn keep_resolved(upstream: &Arc<Upstream>, wait: Duration) {
    // Relaxed: the flag itself is all that is shared.
    let begun = upstream.resolving.swap(true, Ordering::Relaxed);
    if begun || upstream.config.endpoints.iter().all(is_address) {
        return;
    }
    let (first, done) = tokio::sync::oneshot::channel();
    tokio::spawn(refresh(Arc::downgrade(upstream), first));
    // Either way the background task goes on: a slow resolver only delays the start.
    let _ = tokio::time::timeout(wait, done).await;
}

async fn refresh(upstream: Weak<Upstream>, first: tokio::sync::oneshot::Sender<()>) {
    let mut last_good: HashMap<Url, Vec<SocketAddr>> = HashMap::new();
    let mut first = Some(first);
    let mut failing = false;
    loop {
        let Some(upstream) = upstream.upgrade() else {
            return;
        };
        let failed = resolve_all(&upstream, &mut last_good).await;
        report(&upstream, &failed, &mut failing);
        upstream.replace(endpoints(&upstream, &last_good));
        if let Some(first) = first.take() {
            // Nobody waits any more: the start was not held up.
            let _ = first.send(());
        }
        let every = *upstream.config.resolve_every;
        drop(upstream);
        tokio::time::sleep(if failing { every.min(RETRY_EVERY) } else { every }).await;
    }
}

/// Look every name up once, all at the same time, into `last_good`; the failures, in words.
async fn resolve_all(
    upstream: &Upstream,
    last_good: &mut HashMap<Url, Vec<SocketAddr>>,
) -> Vec<String> {
    let mut lookups = tokio::task::JoinSet::new();
    for url in upstream.config.endpoints.iter().filter(|url| !is_address(url)) {
        let url = url.clone();
        lookups.spawn(async move {
            let found = lookup(&url).await;
            (url, found)
        });
    }
    let mut failed = Vec::new();
    while let Some(done) = lookups.join_next().await {
        match done {
            Ok((url, Ok(addresses))) => {
                last_good.insert(url, addresses);
            }
            Ok((url, Err(reason))) => failed.push(format!("{}: {reason}", url.host)),
            Err(panic) => failed.push(panic.to_string()),
        }
    }
    failed.sort_unstable();
    failed
}

async fn lookup(url: &Url) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::time::timeout(
        LOOKUP_TIMEOUT,
        tokio::net::lookup_host((url.host.as_str(), url.port)),
    )
    .await
    .map_err(|_| format!("no answer within {}s", LOOKUP_TIMEOUT.as_secs()))?
    .map_err(|error| error.to_string())?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    // A name with addresses of both kinds is one server twice, often listening on one only
    // (`localhost`): two endpoints would make half of its attempts fail.
    if addresses.iter().any(SocketAddr::is_ipv4) {
        addresses.retain(SocketAddr::is_ipv4);
    }
    if addresses.is_empty() {
        return Err("the name has no address".to_owned());
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// One line when a name stops resolving, one when all do again.
fn report(upstream: &Upstream, failed: &[String], failing: &mut bool) {
    let name = &upstream.name;
    match (failed.is_empty(), *failing) {
        (false, false) => log::warn!(
            "upstreams.{name}: cannot resolve {}; keeping the addresses known so far",
            failed.join(", ")
        ),
        (true, true) => log::info!("upstreams.{name}: all names resolve again"),
        (true, false) | (false, true) => {}
    }
    *failing = !failed.is_empty();
}

/// The endpoints written as addresses.
pub(super) fn literal(config: &Config) -> Vec<Arc<Endpoint>> {
    let addresses = config.endpoints.iter().filter_map(|url| Some((url, url.host.parse().ok()?)));
    addresses.map(|(url, ip)| endpoint(config, url, SocketAddr::new(ip, url.port))).collect()
}

/// All endpoints, in the order of the file. A name that has not been resolved by this task
/// keeps those it has: it may have been resolved before a reload.
fn endpoints(upstream: &Upstream, resolved: &HashMap<Url, Vec<SocketAddr>>) -> Vec<Arc<Endpoint>> {
    let config = &upstream.config;
    let known = upstream.endpoints();
    let mut all = Vec::new();
    for url in &config.endpoints {
        match (url.host.parse::<IpAddr>(), resolved.get(url)) {
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

/// Tells pooled connections of one upstream's protocol and TLS settings from another's.
pub(super) fn fingerprint(name: &str, config: &Config) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    let Tls { server_name, verify, ca } = &config.tls;
    (name, config.protocol, server_name, verify, ca).hash(&mut hasher);
    hasher.finish()
}
