//! Portcullis, a resilience gateway on Pingora: it authenticates, limits, breaks circuits,
//! isolates, retries within a budget, and keeps a record of every invocation.
//!
//! # The house
//!
//! | module | what it is | may use |
//! |---|---|---|
//! | [`time`], [`units`] | monotonic time as a number; values with their unit | nothing |
//! | [`coding`] | gzip and deflate, within bounds | nothing |
//! | [`policy`] | pure decisions: auth, rate limit, idempotency, breaker, bulkhead, retry; `now` is an argument | `time`, `units` |
//! | [`routing`] | the canonical path, the host, the route | `units` |
//! | [`upstream`] | endpoints, whose turn it is, names resolved in the background | `policy` |
//! | [`record`] | the invocation, the recorder, SQLite and PostgreSQL | `coding`, `time`, `units` |
//! | [`idempotency`] | the keys that requests hold, in the record's database | `policy`, `record` |
//! | [`transcode`] | calls of RPC as plain HTTP with JSON, and back; no I/O | `coding`, `time`, `units` |
//! | [`config`] | what the operator wrote: types, loading, validation | all above |
//! | [`observe`] | metrics, traces, the process's log | `time`, `units`, `config` |
//! | [`limits`] | rate limits that replicas share, in Redis | `policy`, `observe`, `time`, `units` |
//! | [`runtime`] | the configuration compiled; reload, drain, status; assembly | all above, and `server` all below |
//! | [`proxy`] | the request path on Pingora | `runtime::{snapshot, shared, status, lifecycle}` |
//! | [`admin`], [`cli`] | the admin listener, the command line | everything |
//! | `fuzzing` | the list of fuzz targets; in tests and under cargo-fuzz only | everything |
//!
//! Imports point upward in this table, never downward; a test holds them to it.
//!
//! # Five questions, one file each
//!
//! - In which order are policies asked? [`policy::admit`]
//! - Which status does a client get? [`proxy::rejection`]
//! - What survives a reload? `runtime::carry`
//! - What can be graphed? [`observe::metrics`]
//! - What happens in which phase? [`proxy::gateway`]

pub mod admin;
pub mod cli;
pub mod coding;
pub mod config;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod idempotency;
pub mod limits;
pub mod observe;
pub mod policy;
pub mod proxy;
pub mod record;
pub mod routing;
pub mod runtime;
pub mod time;
pub mod transcode;
pub mod units;
pub mod upstream;

/// Install the one provider of cryptography for TLS and tokens. Once, before anything else.
///
/// # Errors
/// When one has been installed already, or signatures cannot be verified.
pub fn init_crypto() -> Result<(), String> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| "a TLS provider is installed already".to_owned())
}
