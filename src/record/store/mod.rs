//! What a store must be able to do, and the columns both stores share.
//!
//! When to write, and what a lost store means for a request, is left to the lanes above.

pub(crate) mod postgres;
pub(crate) mod sqlite;
#[cfg(test)]
mod tests;
mod tls;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use self::postgres::Postgres;
use self::sqlite::{Limit, Sqlite};
use super::config::{Chosen, Stores};
use super::invocation::Row;
use super::place;
use super::recorder::StartError;

/// The key of the embedded store's file.
const STORE: &str = "record.store.sqlite.path";

/// The store that is configured, shared by all who keep something in it.
#[derive(Clone)]
pub enum Database {
    Postgres(Arc<Postgres>),
    Sqlite(Sqlite),
}

impl Database {
    /// Connects nothing yet.
    ///
    /// # Errors
    /// No store is configured, or its certificate authorities cannot be read.
    pub fn open(stores: &Stores) -> Result<Self, StartError> {
        match stores.chosen() {
            Some(Chosen::Postgres(postgres, url)) => {
                let postgres = Postgres::new(postgres, url).map_err(StartError::Postgres)?;
                Ok(Database::Postgres(Arc::new(postgres)))
            }
            Some(Chosen::Sqlite(sqlite, path)) => {
                let limit = Limit { size: sqlite.max_size.0, when_full: sqlite.when_full };
                Ok(Database::Sqlite(Sqlite::start(path, limit).map_err(StartError::Thread)?))
            }
            None => Err(StartError::NoStore),
        }
    }

    /// Opens an embedded store, and brings its schema up to date. A server may come later; a file that
    /// cannot be written will not.
    ///
    /// # Errors
    /// It cannot be used: why, and what to do.
    pub async fn require(&self, stores: &Stores) -> Result<(), StartError> {
        match (self, stores.chosen()) {
            (Database::Sqlite(sqlite), Some(Chosen::Sqlite(_, path))) => {
                let migrated = sqlite.require().await;
                migrated
                    .map_err(|Lost(why)| StartError::Unusable(place::unusable(STORE, path, &why)))
            }
            (Database::Sqlite(_) | Database::Postgres(_), _) => Ok(()),
        }
    }

    pub(super) fn store(&self) -> Arc<dyn Store> {
        match self {
            Database::Postgres(postgres) => Arc::<Postgres>::clone(postgres),
            Database::Sqlite(sqlite) => Arc::new(sqlite.clone()),
        }
    }

    /// Brings the schema up to date, of the record and of everything else.
    pub(crate) async fn migrate(&self) -> Result<(), Lost> {
        self.store().migrate().await
    }
}

/// A place that keeps rows. Every method may be called again after a failure.
#[async_trait]
pub(crate) trait Store: Send + Sync {
    /// Connects if need be and brings the schema up to date. Fails on a store that can only be read.
    async fn migrate(&self) -> Result<(), Lost>;

    /// Commits `rows`, but for those the store will never take: they are set aside in
    /// `invocations_dead`.
    ///
    /// After `Lost` it is unknown which of them were committed; writing them again is harmless.
    async fn write(&self, rows: &Arc<Vec<Row>>, safety: Safety) -> Result<Vec<Refusal>, Lost>;

    /// Whether the store answers and could be written to.
    async fn ping(&self) -> Result<(), Lost>;

    /// Does ahead of time what writing will need.
    async fn prepare(&self) -> Result<(), Lost> {
        Ok(())
    }

    /// Deletes up to `at_most` rows created before `before`, and says how many; more
    /// where they go together.
    async fn expire(&self, before: SystemTime, at_most: u32) -> Result<u64, Lost>;
}

/// What a commit has to survive. PostgreSQL is asked for `Power` always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Safety {
    /// The end of the process, by `kill -9` too.
    Process,
    /// The end of the machine as well.
    Power,
}

/// A row the store will never take: the value is wrong, not the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The row's place in the batch.
    pub(crate) index: usize,
    pub(crate) reason: String,
}

/// The store did not do it, and may do so another time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub(crate) String);

impl Lost {
    /// Keeps the whole chain of causes: the outermost error alone hides them.
    pub(crate) fn because(error: &dyn Error) -> Self {
        Lost(chain(error))
    }
}

pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some errors print their source themselves.
        let this = error.to_string();
        if !text.contains(&this) {
            text.push_str(": ");
            text.push_str(&this);
        }
        cause = error.source();
    }
    one_line(&text)
}

/// Servers may say more than a line; the log may not.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// One step of the schema. Steps are only ever added.
#[derive(Debug)]
pub(crate) struct Migration {
    pub(crate) version: i32,
    pub(crate) sql: &'static str,
}

/// The columns of `invocations`, in the order both stores bind them.
pub const COLUMNS: [&str; 27] = [
    "id",
    "created_at",
    "request_id",
    "route",
    "upstream",
    "endpoint",
    "consumer",
    "client_address",
    "method",
    "path",
    "status",
    "upstream_status",
    "success",
    "attempts",
    "rejection",
    "duration_us",
    "upstream_duration_us",
    "bytes_in",
    "bytes_out",
    "protocol",
    "name",
    "result_message",
    "captured",
    "completed",
    "trace_id",
    "query",
    "cause",
];

/// Those of [`COLUMNS`] that may say something else once the request has ended.
pub(crate) const AT_THE_END: [&str; 16] = [
    "upstream",
    "endpoint",
    "status",
    "upstream_status",
    "success",
    "attempts",
    "rejection",
    "duration_us",
    "upstream_duration_us",
    "bytes_in",
    "bytes_out",
    "name",
    "result_message",
    "captured",
    "completed",
    "cause",
];

/// What an insert does about a row that is there already.
pub(crate) fn on_conflict(overwrite: bool) -> String {
    if !overwrite {
        return "ON CONFLICT (id) DO NOTHING".to_owned();
    }
    let set: Vec<String> = COLUMNS
        .iter()
        .filter(|column| !matches!(**column, "id" | "created_at"))
        .map(|column| format!("{column} = excluded.{column}"))
        .collect();
    format!("ON CONFLICT (id) DO UPDATE SET {}", set.join(", "))
}

/// Microseconds as the stores keep them.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A count as the stores keep it: they have no unsigned numbers.
pub(crate) fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
