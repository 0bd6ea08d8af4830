//! The record: one row for every request that got a response.
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
//! row     the list of columns, and the row's form in each place it is kept
//! read    rows and figures, for the command line
//! ```
//!
//! A row is written at most twice: *answered* when the response headers are about to leave, and
//! *completed* when the request has ended. Both carry the whole row to a store. The first never
//! overwrites, the second always does. So the two may arrive in any order, by any way and any
//! number of times, and the result is one row.
//!
//! `proxy` decides when these are called; `observe` renders metrics from [`Stats`].

mod bound;
mod capture;
mod config;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod invocation;
mod journal;
pub(crate) mod lane;
mod meters;
mod outcome;
mod patience;
mod place;
mod query;
pub mod read;
mod recorder;
mod row;
mod stats;
pub(crate) mod store;

#[cfg(test)]
#[path = "../../tests/support/postgres.rs"]
pub(crate) mod postgres_server;
#[cfg(test)]
mod tests;

pub use capture::captured::Captured;
pub use capture::source::{Source, Sources};
pub use capture::{Capture, Findings, Tap};
pub use config::{
    Batch, Chosen, Config, Journal, Mode, OnFailure, Policy, Postgres, PostgresUrl, Sqlite,
    StoreFull, Stores, WhenFull,
};
pub use invocation::{Bounded, Completion, Invocation, new_id};
pub use journal::{Expected, Left};
pub use meters::Meters;
pub use outcome::{Commit, Committed, Unavailable};
pub use patience::Patience;
pub use query::Query;
pub use recorder::Recorder;
pub use row::columns::names as column_names;
pub use stats::Stats;
pub use store::Database;
pub use store::error::StartError;
