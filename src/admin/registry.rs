//! The register of instances: upstreams with `discover: {registry: …}`.
//!
//! `PUT /upstreams/NAME/endpoints/ID` registers an instance or renews its lease, `DELETE` ends it, and
//! `GET /upstreams/NAME/endpoints` lists them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::access::refusal;
use crate::runtime::shared::Shared;
use crate::time::{Clock, Moment};
use crate::units::Timespan;
use crate::upstream::Upstream;
use crate::upstream::discovery::config::LEASES;
use crate::upstream::discovery::registry::{Bounds, Entry, Instance, News, Put, Refused};

/// What an instance sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    address: SocketAddr,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    backup: bool,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    lease: Option<Timespan>,
}

fn one() -> u32 {
    1
}

/// What is registered.
#[derive(Serialize)]
struct Registered<'a> {
    id: &'a str,
    address: SocketAddr,
    weight: u32,
    backup: bool,
    metadata: &'a BTreeMap<String, String>,
    lease_ends_in_seconds: f64,
}

impl<'a> Registered<'a> {
    fn new(id: &'a str, entry: &'a Entry, now: Moment) -> Self {
        let Instance { address, weight, backup, metadata } = &entry.instance;
        let lease_ends_in_seconds = entry.until.since(now).as_secs_f64();
        let (address, weight, backup) = (*address, *weight, *backup);
        Registered { id, address, weight, backup, metadata, lease_ends_in_seconds }
    }
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    let Some(upstream) = path.ok().and_then(|Path(name)| upstream(&shared, &name)) else {
        return unknown_upstream();
    };
    let now = Clock::now();
    let body = upstream.register(now, |registry, _| {
        let all = registry.entries().map(|(id, entry)| Registered::new(id, entry, now));
        (serde_json::json!({ "instances": all.collect::<Vec<_>>() }), News::None)
    });
    body.map_or_else(no_registry, |body| axum::Json(body).into_response())
}

pub(super) async fn register(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Bytes,
) -> Response {
    let Some((upstream, id)) = named(&shared, path) else { return unknown_upstream() };
    let sent = match serde_json::from_slice::<Registration>(&body) {
        Ok(sent) => sent,
        Err(error) => {
            let detail = format!(
                "{error}; expected JSON such as {{\"address\": \"10.0.0.7:8080\", \"weight\": 2, \
                 \"lease\": \"30s\", \"metadata\": {{\"version\": \"1.4\"}}}}"
            );
            return refusal(StatusCode::BAD_REQUEST, "invalid_registration", &detail);
        }
    };
    let Registration { address, weight, backup, metadata, lease } = sent;
    if lease.is_some_and(|lease| !(LEASES.0..=LEASES.1).contains(&lease)) {
        let detail = format!("lease: must be from {} to {}", LEASES.0, LEASES.1);
        return refusal(StatusCode::BAD_REQUEST, "invalid_registration", &detail);
    }
    let instance = Instance { address, weight, backup, metadata };
    let (now, most) = (Clock::now(), upstream.config().max_endpoints);
    let put = upstream.register(now, |registry, rules| {
        let lease = lease.unwrap_or(rules.lease);
        let bounds = Bounds { allow: &rules.allow, most };
        let put = registry.put(&id, instance, *lease, bounds, now);
        let entry = registry.get(&id).map(|entry| Registered::new(&id, entry, now));
        let body = entry.and_then(|entry| serde_json::to_value(entry).ok()).unwrap_or_default();
        (put.map(|put| (put, body)), News::None)
    });
    let name = &upstream.name;
    match put {
        None => no_registry(),
        Some(Ok((put, body))) => {
            match put {
                Put::Added => {
                    log::info!("upstreams.{name}: the instance {id} at {address} registered")
                }
                Put::Changed => {
                    log::info!("upstreams.{name}: the instance {id} at {address} changed")
                }
                Put::Renewed => {}
            }
            let status = if put == Put::Added { StatusCode::CREATED } else { StatusCode::OK };
            (status, axum::Json(body)).into_response()
        }
        Some(Err(refused)) => {
            let (status, code, detail) = words(refused, address, most);
            log::debug!("upstreams.{name}: instance {id:?} at {address} not registered: {detail}");
            refusal(status, code, &detail)
        }
    }
}

pub(super) async fn deregister(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Response {
    let Some((upstream, id)) = named(&shared, path) else { return unknown_upstream() };
    let removed = upstream.register(Clock::now(), |registry, _| {
        let removed = registry.remove(&id);
        (removed, if removed { News::Left } else { News::None })
    });
    match removed {
        None => no_registry(),
        Some(true) => {
            log::info!("upstreams.{}: the instance {id} deregistered", upstream.name);
            StatusCode::NO_CONTENT.into_response()
        }
        Some(false) => refusal(
            StatusCode::NOT_FOUND,
            "unknown_instance",
            "no instance is registered under this id: its lease may be over",
        ),
    }
}

fn words(refused: Refused, address: SocketAddr, most: u32) -> (StatusCode, &'static str, String) {
    match refused {
        Refused::Invalid(detail) => (StatusCode::BAD_REQUEST, "invalid_registration", detail),
        Refused::Outside => (
            StatusCode::FORBIDDEN,
            "address_not_allowed",
            format!("{} is outside the networks in `discover.registry.allow`", address.ip()),
        ),
        Refused::Full => (
            StatusCode::CONFLICT,
            "registry_full",
            format!("there are {most} instances already, which is what `max_endpoints` allows"),
        ),
    }
}

fn named(
    shared: &Shared,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Option<(Arc<Upstream>, String)> {
    let Path((name, id)) = path.ok()?;
    Some((upstream(shared, &name)?, id))
}

fn upstream(shared: &Shared, name: &str) -> Option<Arc<Upstream>> {
    shared.snapshot.load().upstreams.get(name).map(|target| target.upstream.clone())
}

fn unknown_upstream() -> Response {
    refusal(StatusCode::NOT_FOUND, "unknown_upstream", "no upstream has this name")
}

fn no_registry() -> Response {
    let detail = "the upstream has no registry: its `discover` says where its endpoints are from";
    refusal(StatusCode::NOT_FOUND, "no_registry", detail)
}
