//! Rows out of PostgreSQL.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use deadpool_postgres::Object;
use tokio_postgres::Error;
use tokio_postgres::types::ToSql;

use super::{Filter, QUANTILES, ROUTES, RouteFigures, Stored, Value};
use crate::record::config::{Postgres as Config, PostgresUrl};
use crate::record::row::columns::{COLUMNS, Column};
use crate::record::row::json;
use crate::record::row::value::Kind;
use crate::record::store::postgres::Postgres;
use crate::units::Timespan;

/// The time limit of a query: reading many rows may take longer than writing a few.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Source(Postgres);

impl Source {
    pub(super) fn new(config: &Config, url: &PostgresUrl) -> Result<Self, String> {
        let config = Config { statement_timeout: Timespan(LIMIT), ..config.clone() };
        Postgres::new(&config, url)
            .map(Source)
            .map_err(|error| format!("record.store.postgres: {error}"))
    }

    /// Latest first.
    pub(super) async fn latest(
        &self,
        filter: &Filter,
        at_most: u32,
    ) -> Result<Vec<Stored>, String> {
        let (wanted, values) = wanted(filter);
        let texts: Vec<String> = self
            .0
            .with_client(LIMIT, async |client| {
                let columns = columns(client).await?;
                let sql = format!(
                    "SELECT row_to_json(found)::text FROM (SELECT {columns} FROM invocations {wanted} \
                     ORDER BY id DESC LIMIT {at_most}) AS found"
                );
                let rows = client.query(&sql, &parameters(&values)).await?;
                rows.iter().map(|row| row.try_get(0)).collect()
            })
            .await
            .map_err(|lost| lost.to_string())?;
        let stored = |text: &String| {
            let read = json::read(text.as_bytes());
            let (invocation, completed) =
                read.ok_or("a row that cannot be read: a column is missing or invalid")?;
            Ok(Stored { invocation, completed })
        };
        texts.iter().map(stored).collect()
    }

    pub(super) async fn routes(&self) -> Result<BTreeSet<String>, String> {
        self.0
            .with_client(LIMIT, async |client| {
                client.query(ROUTES, &[]).await?.iter().map(|row| row.try_get(0)).collect()
            })
            .await
            .map_err(|lost| lost.to_string())
    }

    pub(super) async fn figures(&self, filter: &Filter) -> Result<Vec<RouteFigures>, String> {
        let (wanted, values) = wanted(filter);
        let sql = format!(
            "SELECT route, count(*), count(*) FILTER (WHERE success), min(created_at), max(created_at), \
                    percentile_disc(ARRAY{QUANTILES:?}) WITHIN GROUP (ORDER BY duration_us) \
             FROM invocations {wanted} GROUP BY route ORDER BY route"
        );
        self.0
            .with_client(LIMIT, async |client| {
                let rows = client.query(&sql, &parameters(&values)).await?;
                rows.iter().map(figures).collect()
            })
            .await
            .map_err(|lost| lost.to_string())
    }
}

/// The columns to select: those of the list that the table has. It may be of an older build, whose
/// rows lack the others, or of a newer one.
async fn columns(client: &Object) -> Result<String, Error> {
    let sql = "SELECT array_agg(attname::text) FROM pg_attribute \
               WHERE attrelid = 'invocations'::regclass AND attnum > 0 AND NOT attisdropped";
    let there: Vec<String> = client.query_one(sql, &[]).await?.try_get(0)?;
    let known = COLUMNS.iter().filter(|column| there.iter().any(|name| name == column.name));
    Ok(known.map(selected).collect::<Vec<_>>().join(", "))
}

/// A column as JSON can have it: times as text of one form.
fn selected(Column { name, kind, .. }: &Column) -> String {
    match kind {
        Kind::Time => format!(
            "to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS {name}"
        ),
        Kind::Id
        | Kind::Text
        | Kind::Trace
        | Kind::Address
        | Kind::Small
        | Kind::Big
        | Kind::Flag
        | Kind::Texts => (*name).to_owned(),
    }
}

fn figures(row: &tokio_postgres::Row) -> Result<RouteFigures, tokio_postgres::Error> {
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    let quantiles: Vec<i64> = row.try_get(5)?;
    let quantile = |n: usize| Duration::from_micros(count(quantiles.get(n).copied().unwrap_or(0)));
    Ok(RouteFigures {
        route: row.try_get(0)?,
        requests: count(row.try_get(1)?),
        succeeded: count(row.try_get(2)?),
        first: row.try_get::<_, SystemTime>(3)?,
        last: row.try_get::<_, SystemTime>(4)?,
        quantiles: [0, 1, 2].map(quantile),
    })
}

/// The `WHERE` clause, and the values of its parameters.
fn wanted(filter: &Filter) -> (String, Vec<Box<dyn ToSql + Sync + Send>>) {
    let mut clauses = Vec::new();
    let mut values: Vec<Box<dyn ToSql + Sync + Send>> = Vec::new();
    for (column, comparison, value) in filter.conditions() {
        let place = values.len() + 1;
        let cast = match value {
            Value::Text(_) => "text",
            Value::Id(_) => "uuid",
            Value::Number(_) => "bigint",
        };
        clauses.push(format!("invocations.{column} {comparison} ${place}::{cast}"));
        values.push(match value {
            Value::Text(text) => Box::new(text),
            Value::Id(id) => Box::new(id),
            Value::Number(number) => Box::new(number),
        });
    }
    let clause =
        if clauses.is_empty() { String::new() } else { format!("WHERE {}", clauses.join(" AND ")) };
    (clause, values)
}

fn parameters(values: &[Box<dyn ToSql + Sync + Send>]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
}
