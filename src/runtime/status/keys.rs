//! What `/status` reports about the keys that tokens are checked with, and the services that are asked.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::observe::metrics::StateMetrics;
use crate::runtime::inquiry::{self, Service};
use crate::runtime::jwks::Jwks;
use crate::runtime::snapshot::Snapshot;
use crate::time::Moment;

/// What an authority needs from others.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum AuthorityStatus {
    Keys(KeysStatus),
    Service(ServiceStatus),
}

/// The service of one authority.
#[derive(Serialize)]
pub(super) struct ServiceStatus {
    /// Questions that let a request pass.
    passed: u64,
    refused: u64,
    /// Questions without an answer that makes sense.
    failed: u64,
    /// Requests that needed no question.
    remembered: u64,
    in_flight: usize,
    /// Why the last question failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The key set of one authority.
#[derive(Serialize)]
pub(super) struct KeysStatus {
    /// If zero, the gateway responds 503 to requests with tokens of this authority.
    keys: usize,
    /// Seconds since the issuer last confirmed them.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed_seconds_ago: Option<f64>,
    /// Why the last fetch failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// By authority. Those that need nothing from others are left out.
pub(super) fn of(snapshot: &Snapshot, now: Moment) -> BTreeMap<String, AuthorityStatus> {
    let authorities = snapshot.authorities.iter();
    let needing = authorities.filter_map(|(name, authority)| {
        let keys = authority.jwks().map(|jwks| AuthorityStatus::Keys(keys(jwks, now)));
        let status = keys.or_else(|| Some(AuthorityStatus::Service(service(authority.service()?))));
        Some((name.clone(), status?))
    });
    needing.collect()
}

fn keys(jwks: &Jwks, now: Moment) -> KeysStatus {
    let status = jwks.status();
    let confirmed = status.last_success.map(|at| now.since(at).as_secs_f64());
    KeysStatus { keys: status.keys, confirmed_seconds_ago: confirmed, error: status.last_error }
}

fn service(service: &Service) -> ServiceStatus {
    let inquiry::Status { passed, refused, failed, remembered, in_flight, last_error } =
        service.status();
    let error = last_error.map(|why| why.as_ref().to_owned());
    ServiceStatus { passed, refused, failed, remembered, in_flight, error }
}

/// Copies the state of key sets and services into the metrics.
pub(super) fn publish(state: &StateMetrics, snapshot: &Snapshot) {
    for (name, authority) in &snapshot.authorities {
        if let Some(status) = authority.jwks().map(Jwks::status) {
            let keys = i64::try_from(status.keys).unwrap_or(i64::MAX);
            state.jwks_keys.with_label_values(&[name]).set(keys);
            for (result, fetches) in [("ok", status.succeeded), ("failed", status.failed)] {
                state.jwks_fetches.with_label_values(&[name, result]).inc_by(fetches);
            }
        }
        if let Some(status) = authority.service().map(Service::status) {
            let in_flight = i64::try_from(status.in_flight).unwrap_or(i64::MAX);
            state.auth_questions_in_flight.with_label_values(&[name]).set(in_flight);
            for (result, questions) in [
                ("passed", status.passed),
                ("refused", status.refused),
                ("failed", status.failed),
                ("remembered", status.remembered),
            ] {
                state.auth_questions.with_label_values(&[name, result]).inc_by(questions);
            }
        }
    }
}
