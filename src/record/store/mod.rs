//! What a store must be able to do, and the stores that do it.
//!
//! When to write, and what a lost store means for a request, is decided by the lanes above.

pub(crate) mod contract;
pub(crate) mod error;
pub(crate) mod file_limit;
pub(crate) mod link;
pub(crate) mod postgres;
pub(crate) mod retention;
pub(crate) mod safety;
mod sql;
pub(crate) mod sqlite;

use std::sync::Arc;

use self::postgres::Postgres;
use self::sqlite::{Limit, Sqlite};
use super::config::{Chosen, Stores};
use super::place;
use crate::record::store::contract::Store;
use crate::record::store::error::{Lost, StartError};

#[cfg(test)]
mod tests;
mod tls;

/// The configuration key of the embedded store's file.
const STORE: &str = "record.store.sqlite.path";

/// The configured store, shared by all parts that keep something in it.
#[derive(Clone)]
pub enum Database {
    /// Through a pool of connections.
    Postgres(Arc<Postgres>),
    /// On a thread of its own.
    Sqlite(Sqlite),
}

impl Database {
    /// Does not connect yet.
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

    /// Opens an embedded store, and brings its schema up to date. A server may become reachable
    /// later; a file that cannot be written will not.
    ///
    /// # Errors
    /// The store cannot be used: why, and what to do.
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

    /// Brings the schema up to date, for the record and everything else in the store.
    pub(crate) async fn migrate(&self) -> Result<(), Lost> {
        self.store().migrate().await
    }
}

/// One step of the schema. Existing steps never change.
#[derive(Debug)]
pub(crate) struct Migration {
    pub(crate) version: i32,
    pub(crate) sql: &'static str,
}

/// A count as the stores keep it: they have no unsigned integers.
pub(crate) fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
