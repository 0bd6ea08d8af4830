//! What `/status` reports about the keys that tokens are checked with.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::observe::metrics::StateMetrics;
use crate::runtime::jwks::Jwks;
use crate::runtime::snapshot::Snapshot;
use crate::time::Moment;

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

/// Key sets by authority. Authorities with keys in the configuration are left out.
pub(super) fn of(snapshot: &Snapshot, now: Moment) -> BTreeMap<String, KeysStatus> {
    let authorities = snapshot.authorities.iter();
    let fetched = authorities.filter_map(|(name, authority)| {
        let status = authority.jwks().map(Jwks::status)?;
        let confirmed = status.last_success.map(|at| now.since(at).as_secs_f64());
        let (keys, error) = (status.keys, status.last_error);
        Some((name.clone(), KeysStatus { keys, confirmed_seconds_ago: confirmed, error }))
    });
    fetched.collect()
}

/// Copies the state of key sets into the metrics.
pub(super) fn publish(state: &StateMetrics, snapshot: &Snapshot) {
    for (name, authority) in &snapshot.authorities {
        let Some(status) = authority.jwks().map(Jwks::status) else { continue };
        let keys = i64::try_from(status.keys).unwrap_or(i64::MAX);
        state.jwks_keys.with_label_values(&[name]).set(keys);
        for (result, fetches) in [("ok", status.succeeded), ("failed", status.failed)] {
            state.jwks_fetches.with_label_values(&[name, result]).inc_by(fetches);
        }
    }
}
