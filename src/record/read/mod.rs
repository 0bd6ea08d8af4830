//! Reads the record, also while a gateway writes it: rows by filter, and figures by route.
//!
//! `cli` decides how they are shown.

mod postgres;
mod sqlite;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::config::{Chosen, Config};
use super::invocation::{Invocation, first_id};
use crate::record::row::json;

/// Which rows are wanted; an absent field matches any row.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Requests that arrived then or later.
    pub since: Option<SystemTime>,
    /// Requests that arrived before.
    pub until: Option<SystemTime>,
    /// The route's name, exactly.
    pub route: Option<String>,
    /// The first and the last status, both included.
    pub status: Option<(u16, u16)>,
    /// The consumer's name, exactly.
    pub consumer: Option<String>,
    /// The id that the client got, exactly.
    pub request_id: Option<String>,
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    pub(in crate::record) invocation: Invocation,
    /// Whether the request had ended when this was written.
    pub completed: bool,
}

impl Stored {
    /// Sorts by the time of arrival (UUID version 7).
    pub fn id(&self) -> Uuid {
        self.invocation.id
    }

    /// When the request arrived.
    pub fn created_at(&self) -> SystemTime {
        self.invocation.created_at
    }

    /// One JSON object, named like the columns.
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(512);
        json::write(&self.invocation, self.completed, &mut text);
        text
    }
}

/// What became of the requests of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteFigures {
    /// Its name.
    pub route: String,
    /// Rows that match the filter.
    pub requests: u64,
    /// Those with `success`.
    pub succeeded: u64,
    /// When the first and the last of them arrived.
    pub first: SystemTime,
    /// As `first`.
    pub last: SystemTime,
    /// Quantiles of the duration: median, 95th and 99th percentile.
    pub quantiles: [Duration; 3],
}

const ROUTES: &str = "SELECT DISTINCT route FROM invocations";
const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];

/// A store, opened read-only.
pub struct Reader(Source);

enum Source {
    Sqlite(sqlite::Source),
    Postgres(postgres::Source),
}

impl Reader {
    /// Opens the store that `config` selects.
    ///
    /// # Errors
    /// No store is configured, or it cannot be opened; the message names it.
    pub fn open(config: &Config) -> Result<Self, String> {
        match config.store.chosen() {
            Some(Chosen::Sqlite(_, path)) => {
                sqlite::Source::open(path).map(|source| Reader(Source::Sqlite(source)))
            }
            Some(Chosen::Postgres(postgres, url)) => {
                let source = postgres::Source::new(postgres, url)?;
                Ok(Reader(Source::Postgres(source)))
            }
            None => Err("record.store: names no store; set postgres.url or sqlite.path".to_owned()),
        }
    }

    /// The latest rows that match, `at_most` of them, oldest first.
    ///
    /// # Errors
    /// The store does not respond.
    pub async fn latest(&self, filter: &Filter, at_most: u32) -> Result<Vec<Stored>, String> {
        let mut rows = match &self.0 {
            Source::Sqlite(source) => source.latest(filter, at_most)?,
            Source::Postgres(source) => source.latest(filter, at_most).await?,
        };
        rows.reverse();
        Ok(rows)
    }

    /// The routes that occur in rows.
    ///
    /// # Errors
    /// The store does not respond.
    pub async fn routes(&self) -> Result<BTreeSet<String>, String> {
        match &self.0 {
            Source::Sqlite(source) => source.routes(),
            Source::Postgres(source) => source.routes().await,
        }
    }

    /// Figures of the matching rows, by route.
    ///
    /// # Errors
    /// The store does not respond.
    pub async fn figures(&self, filter: &Filter) -> Result<Vec<RouteFigures>, String> {
        match &self.0 {
            Source::Sqlite(source) => source.figures(filter),
            Source::Postgres(source) => source.figures(filter).await,
        }
    }
}

/// A value that a condition compares a column with.
#[derive(Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    Id(Uuid),
    Number(i64),
}

impl Filter {
    /// The conditions that must all hold: column, comparison, value.
    fn conditions(&self) -> Vec<(&'static str, &'static str, Value)> {
        // An id begins with the time, and is indexed.
        let id = |at: SystemTime| Value::Id(first_id(at));
        let text = |text: &String| Value::Text(text.clone());
        let [from, to] = [self.status.map(|s| s.0), self.status.map(|s| s.1)]
            .map(|status| status.map(|status| Value::Number(status.into())));
        [
            ("id", ">=", self.since.map(id)),
            ("id", "<", self.until.map(id)),
            ("route", "=", self.route.as_ref().map(text)),
            ("status", ">=", from),
            ("status", "<=", to),
            ("consumer", "=", self.consumer.as_ref().map(text)),
            ("request_id", "=", self.request_id.as_ref().map(text)),
        ]
        .into_iter()
        .filter_map(|(column, comparison, value)| Some((column, comparison, value?)))
        .collect()
    }
}
