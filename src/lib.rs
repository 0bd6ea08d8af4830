//! Portcullis, a resilience gateway on Pingora: one binary and one YAML file, put in front of services.
//!
//! It authenticates, limits, breaks circuits, isolates, retries within a budget, writes errors in the
//! caller's protocol, and keeps a record of every invocation. It is a data plane without a control plane:
//! what replicas share lies in PostgreSQL and Redis, and alone it needs neither.
//!
//! # The way of a request
//!
//! 1. [`proxy::acceptor`] gives a client's connection its place; [`proxy::listener`] and
//!    [`proxy::downstream`] read the head before Pingora does. The request takes the configuration in
//!    force ([`runtime::snapshot`]) and keeps it to its end.
//! 2. [`proxy::request`] finds the route and takes the request through every step of [`policy::order`]. The first
//!    step that refuses ends it: [`proxy::reply`] answers, with the status from [`proxy::rejection`], in the
//!    [dialect](proxy::dialect) of the caller.
//! 3. [`proxy::attempt`] calls an endpoint, learns how that ended, and makes the one decision on a retry.
//! 4. [`proxy::response`] judges the upstream's head and passes the response on. A `durable` or `sync` row
//!    is committed by the [`record`] before the head leaves.
//! 5. [`proxy::report`] tells circuits, record, trace and metrics how it ended. What the request held is
//!    given back when its context is dropped.
//!
//! # Where to start reading
//!
//! [`proxy::gateway`] has the phases, [`policy::order`] the order, `proxy::request::admission` walks it.
//! Then one policy as a whole, such as [`policy::breaker`]. `docs/architecture.md` in the repository tells the lives of a
//! request, a row and a reload, and how to add a policy, a metric, a column, a dialect or a key;
//! `CONTRIBUTING.md` which tests a change needs.
//!
//! # The house
//!
//! A test reads this table and holds every file to it: a module may import what its row names, and
//! nothing else of this crate. No two files import each other, not even indirectly; only a module and
//! the files that lie in it may.
//!
//! | module | what it is | may import |
//! |---|---|---|
//! | [`time`] | monotonic time as a number | nothing |
//! | [`condition`] | what lasts is logged when it begins and when it ends | `time` |
//! | [`units`] | values with their unit, text with placeholders, the words of system errors | nothing |
//! | [`fields`] | a cookie, a parameter of the query | nothing |
//! | [`coding`] | gzip and deflate, within bounds | nothing |
//! | [`files`] | what the files that an operator names hold: text, certificates and keys | nothing |
//! | [`identity`] | whom a client's certificate names, patterns of such names, and the header that tells of them | `units` |
//! | [`policy`] | pure decisions: authentication, rate limits, idempotency, circuits, bulkheads, retries; `now` is an argument | `fields`, `identity`, `routing`, `time`, `units` |
//! | [`routing`] | the canonical path, the host, the route | `fields`, `identity`, `units` |
//! | [`transcode`] | calls of RPC as plain HTTP with JSON, and back; no I/O | `coding`, `condition`, `units` |
//! | [`summary`] | a request as it began and as it ended, from which everything is told | `policy` |
//! | [`record`] | the row of each request, the recorder, SQLite and PostgreSQL | `coding`, `condition`, `files`, `time`, `units` |
//! | [`idempotency`] | the keys that requests hold, in the record's database | `condition`, `policy`, `record`, `time` |
//! | [`upstream`] | endpoints, whose turn it is, what health checks and attempts say of them, what names resolve to and sources know | `config`, `fields`, `policy`, `time`, `units` |
//! | [`config`] | what the operator wrote: types, loading, validation | `files`, `policy`, `record`, `routing`, `transcode`, `units`, `upstream` |
//! | [`observe`] | metrics, traces, the process's log | `condition`, `config`, `files`, `policy`, `record`, `summary`, `time`, `units`, `upstream` |
//! | [`limits`] | rate limits that replicas share, in Redis | `condition`, `files`, `observe`, `policy`, `time`, `units` |
//! | [`runtime`] | the configuration compiled; reload, drain, status; assembly | `admin`, `condition`, `config`, `files`, `idempotency`, `identity`, `limits`, `observe`, `policy`, `proxy`, `record`, `routing`, `time`, `transcode`, `units`, `upstream` |
//! | [`proxy`] | the request path on Pingora | `coding`, `condition`, `config`, `idempotency`, `identity`, `observe`, `policy`, `record`, `routing`, `runtime`, `summary`, `time`, `transcode`, `units`, `upstream` |
//! | [`admin`] | the admin listener | everything |
//! | [`cli`] | the command line | everything |
//! | `fuzzing` | the list of fuzz targets; in tests and under cargo-fuzz only | everything |
//!
//! Rooms that are to come have their place: kept responses in `cache` between the two lists of
//! [`policy::order`], and `explain` in `cli`, which walks those lists.
//!
//! # Five questions, one file each
//!
//! - In which order do the steps apply? [`policy::order`]
//! - Which status does a client get? [`proxy::rejection`]
//! - What survives a reload? `runtime::carry`
//! - What can be graphed? [`observe::metrics`]
//! - What happens in which phase? [`proxy::gateway`]

// Tests and fuzz targets share files with others, for which their items are public.
#![cfg_attr(not(any(test, fuzzing)), deny(unreachable_pub))]
#![deny(missing_docs)]

pub mod admin;
pub mod cli;
pub mod coding;
pub mod condition;
pub mod config;
pub mod fields;
pub mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod idempotency;
pub mod identity;
pub mod limits;
pub mod observe;
pub mod policy;
pub mod proxy;
pub mod record;
pub mod routing;
pub mod runtime;
pub mod summary;
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
