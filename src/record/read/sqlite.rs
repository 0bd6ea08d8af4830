//! Rows out of the embedded store's file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, ToSql};

use super::{Filter, QUANTILES, ROUTES, RouteFigures, Stored, Value};
use crate::record::row::value::time;
use crate::record::store::error::chain;
use crate::record::store::sqlite::row;

/// How long to wait while a writer holds the file.
const BUSY: Duration = Duration::from_secs(5);

pub(super) struct Source {
    path: PathBuf,
    connection: Connection,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let open = || {
            let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            connection.busy_timeout(BUSY)?;
            Ok(connection)
        };
        let connection = open().map_err(|error| describe(path, &error))?;
        Ok(Source { path: path.to_owned(), connection })
    }

    /// Latest first.
    pub(super) fn latest(&self, filter: &Filter, at_most: u32) -> Result<Vec<Stored>, String> {
        let (wanted, values) = wanted(filter);
        // All, because the file may be of an older build, or of a newer one.
        let sql = format!("SELECT * FROM invocations {wanted} ORDER BY id DESC LIMIT {at_most}");
        let read = || {
            let mut query = self.connection.prepare_cached(&sql)?;
            let rows = query.query_map(rusqlite::params_from_iter(&values), |found| {
                let (invocation, completed) = row::read(found)?;
                Ok(Stored { invocation, completed })
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| describe(&self.path, &error))
    }

    pub(super) fn routes(&self) -> Result<BTreeSet<String>, String> {
        let read = || {
            let mut query = self.connection.prepare(ROUTES)?;
            query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| describe(&self.path, &error))
    }

    pub(super) fn figures(&self, filter: &Filter) -> Result<Vec<RouteFigures>, String> {
        let (wanted, values) = wanted(filter);
        let sql =
            format!("SELECT route, created_at, success, duration_us FROM invocations {wanted}");
        let read = || -> rusqlite::Result<_> {
            let mut routes = BTreeMap::<String, Route>::new();
            let mut query = self.connection.prepare(&sql)?;
            let mut rows = query.query(rusqlite::params_from_iter(&values))?;
            while let Some(row) = rows.next()? {
                let route = routes.entry(row.get(0)?).or_default();
                route.add(row.get(1)?, row.get(2)?, row.get(3)?);
            }
            Ok(routes)
        };
        let routes = read().map_err(|error| describe(&self.path, &error))?;
        Ok(routes.into_iter().filter_map(|(name, route)| route.figures(name)).collect())
    }
}

#[derive(Default)]
struct Route {
    first: Option<String>,
    last: String,
    succeeded: u64,
    durations: Vec<i64>,
}

impl Route {
    fn add(&mut self, at: String, success: bool, duration: i64) {
        if self.first.as_ref().is_none_or(|first| at < *first) {
            self.first = Some(at.clone());
        }
        if at > self.last {
            self.last = at;
        }
        self.succeeded += u64::from(success);
        self.durations.push(duration);
    }

    fn figures(mut self, route: String) -> Option<RouteFigures> {
        self.durations.sort_unstable();
        let requests = self.durations.len();
        // As `percentile_disc` does: the smallest value that at least this share does not exceed.
        let quantiles = QUANTILES.map(|share| {
            let place = (share * requests as f64).ceil() as usize;
            let micros = self.durations.get(place.saturating_sub(1)).copied().unwrap_or(0);
            Duration::from_micros(u64::try_from(micros).unwrap_or(0))
        });
        Some(RouteFigures {
            route,
            requests: requests as u64,
            succeeded: self.succeeded,
            first: time(&self.first?)?,
            last: time(&self.last)?,
            quantiles,
        })
    }
}

/// The `WHERE` clause, and the values of its parameters.
fn wanted(filter: &Filter) -> (String, Vec<Box<dyn ToSql>>) {
    let conditions = filter.conditions();
    let clauses: Vec<String> = conditions
        .iter()
        .map(|(column, comparison, _)| format!("{column} {comparison} ?"))
        .collect();
    let values = conditions.into_iter().map(|(_, _, value)| -> Box<dyn ToSql> {
        match value {
            Value::Text(text) => Box::new(text),
            Value::Id(id) => Box::new(id.to_string()),
            Value::Number(number) => Box::new(number),
        }
    });
    let clause =
        if clauses.is_empty() { String::new() } else { format!("WHERE {}", clauses.join(" AND ")) };
    (clause, values.collect())
}

fn describe(path: &Path, error: &rusqlite::Error) -> String {
    format!("{}: {}", path.display(), chain(error))
}
