//! The record: one row for every request that was answered.
//!
//! ```text
//! request ──> capture      fields of the bodies that the row shall hold
//!         ──> Invocation   the row
//!         ──> Recorder     enqueue (async), commit (durable, sync), complete (their second write)
//!               ├─ writer      the queue in memory, batched, after the response
//!               ├─ committer   group commit in the store, before the response
//!               ├─ journal     group commit on the local disk, shipped to the store afterwards
//!               ├─ link        is the store there? migrates it, probes it, says so once
//!               └─ retention   deletes what is old enough
//!                    └─> store (SQLite, PostgreSQL)
//! read    rows and figures, for the command line
//! ```
//!
//! A row is written at most twice: *answered* when the response headers are about to leave, and
//! *completed* when the request has ended. Both carry the whole row to a store. The first never
//! overwrites, the second always does, so the two may arrive in any order, over any way, any number of times, and
//! one row comes out.
//!
//! Who calls when is left to `proxy`; metrics are rendered from [`Stats`] by `observe`.

mod answer;
mod binary;
mod capture;
mod captured;
mod committer;
mod config;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod invocation;
mod journal;
mod json;
mod link;
mod meters;
mod patience;
mod place;
mod query;
pub mod read;
mod recorder;
mod retention;
mod source;
mod stats;
pub(crate) mod store;
mod writer;

#[cfg(test)]
#[path = "../../tests/support/postgres.rs"]
pub(crate) mod postgres_server;
#[cfg(test)]
mod tests;

pub use capture::{Capture, Findings, Tap};
pub use captured::Captured;
pub use config::{
    Batch, Chosen, Config, Journal, Mode, OnFailure, Policy, Postgres, PostgresUrl, Sqlite,
    StoreFull, Stores, WhenFull,
};
pub use invocation::{Bounded, Ending, Invocation, new_id};
pub use journal::Expected;
pub use meters::Meters;
pub use patience::Patience;
pub use query::Query;
pub use recorder::{Commit, Committed, Recorder, StartError, Unavailable};
pub use source::{Source, Sources};
pub use stats::Stats;
pub use store::{COLUMNS, Database};
