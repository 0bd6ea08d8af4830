//! What a route does, as far as its metrics have to know.

use std::sync::Arc;

use crate::config;
use crate::config::metrics::Status;
use crate::config::route::Dialect;
use crate::observe::metrics::words::{Facet, Facets};
use crate::policy::breaker::Breaker;
use crate::record;
use crate::record::Mode;

/// Those of a route, by its configuration and the circuits of its upstreams.
pub(super) fn of(
    route: &config::Route,
    record: &record::Policy,
    metrics: &config::metrics::Metrics,
    upstream_breakers: &[&Arc<Breaker>],
) -> Facets {
    let limits = &route.rate_limit.0;
    let is_limited = |dry: bool| limits.iter().any(|limit| limit.enforce.is_dry() == dry);
    let has_upstream = route.upstream.is_some();
    let reads = route.json.is_some()
        || route.transcode.is_some()
        || route.respond.is_some()
        || route.redirect.is_some()
        || matches!(route.errors, Dialect::Connect);
    let commits = match record.mode {
        Mode::Off | Mode::Async => false,
        Mode::Durable | Mode::Sync => true,
    };
    let body = route.max_body;
    let mut facets = Facets::default()
        .with(Facet::Route, true)
        .with(Facet::Upstream, has_upstream)
        .with(Facet::Messages, reads)
        .with(Facet::RateLimit, is_limited(false))
        .dry(Facet::RateLimit, is_limited(true))
        .with(Facet::SharedLimit, limits.iter().any(|limit| limit.shared.is_some()))
        .with(Facet::Idempotency, route.idempotency.is_some())
        .with(Facet::BodySize, body.enforced().0 != 0)
        .dry(Facet::BodySize, body.dry().is_some())
        .with(Facet::Commit, commits)
        .with(Facet::Retry, route.retry.is_some())
        .with(Facet::ExactStatus, metrics.status == Status::Exact);
    if let Some(fallback) = &route.fallback {
        facets = facets
            .with(Facet::FallbackBody, fallback.answer.is_some())
            .with(Facet::FallbackUpstream, fallback.upstream.is_some());
    }
    let own = [
        (Facet::Networks, route.networks.as_ref().map(|networks| networks.enforce)),
        (Facet::Credentials, route.auth.as_ref().map(|auth| auth.enforce)),
        (Facet::Bulkhead, route.bulkhead.as_ref().map(|bulkhead| bulkhead.enforce)),
        (Facet::Circuit, route.circuit_breaker.as_ref().map(|breaker| breaker.enforce)),
    ];
    let of_upstreams = upstream_breakers.iter().map(|breaker| Some(breaker.config().enforce));
    for (facet, enforce) in own.into_iter().chain(of_upstreams.map(|of| (Facet::Circuit, of))) {
        let Some(enforce) = enforce else { continue };
        facets = facets.with(facet, !enforce.is_dry()).dry(facet, enforce.is_dry());
    }
    facets
}

/// Those of what stands for requests that reached no route.
pub(super) fn unrouted(metrics: &config::metrics::Metrics) -> Facets {
    let exact = metrics.status == Status::Exact;
    Facets::default().with(Facet::None, true).with(Facet::ExactStatus, exact)
}
