//! What `/status` says of the keys that tokens are checked with.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::runtime::jwks::Jwks;
use crate::runtime::snapshot::Snapshot;
use crate::time::Moment;

/// The key set of one authority.
#[derive(Serialize)]
pub(super) struct KeysStatus {
    /// Without any, requests with tokens of this authority are answered 503.
    keys: usize,
    /// Since the issuer last confirmed them.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed_seconds_ago: Option<f64>,
    /// Why the last fetch failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// By authority; those whose keys are in the file have nothing to say.
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
