//! Writes rows that may exist already, in one statement: an array for each column in, rows out of
//! `unnest`.
//!
//! The store decides what to do about a batch that is refused.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::SystemTime;

use deadpool_postgres::Object;
use tokio_postgres::Error;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::record::invocation::Row;
use crate::record::store::columns::{COLUMNS, on_conflict};
use crate::record::store::{count, micros};

/// The type of each column's array, in the order of [`COLUMNS`]. `captured` travels as text.
const ARRAYS: [&str; COLUMNS.len()] = [
    "uuid",
    "timestamptz",
    "text",
    "text",
    "text",
    "text",
    "text",
    "inet",
    "text",
    "text",
    "int4",
    "int4",
    "bool",
    "int4",
    "text",
    "int8",
    "int8",
    "int8",
    "int8",
    "text",
    "text",
    "text",
    "text",
    "bool",
    "text",
    "text",
    "text",
];

/// The statements without and with overwriting.
static INSERT: LazyLock<[String; 2]> = LazyLock::new(|| {
    let places: Vec<String> =
        ARRAYS.iter().enumerate().map(|(i, kind)| format!("${}::{kind}[]", i + 1)).collect();
    let columns = COLUMNS.join(", ");
    let values = columns.replace("captured", "captured::jsonb");
    [false, true].map(|overwrite| {
        format!(
            "INSERT INTO invocations ({columns}) SELECT {values} FROM unnest({}) AS arrays ({columns}) {}",
            places.join(", "),
            on_conflict(overwrite)
        )
    })
});

/// Writes the rows at `indices` in one statement.
pub(super) async fn insert(
    client: &Object,
    rows: &[Row],
    indices: &[usize],
    overwrite: bool,
) -> Result<(), Error> {
    let statement = client.prepare_cached(&INSERT[usize::from(overwrite)]).await?;
    let columns = Columns::gather(indices.iter().map(|index| &rows[*index]), indices.len());
    client.execute(&statement, &columns.parameters()).await?;
    Ok(())
}

/// The batch transposed: one array per column.
#[derive(Default)]
struct Columns<'a> {
    id: Vec<Uuid>,
    created_at: Vec<SystemTime>,
    texts: [Vec<Option<&'a str>>; 11],
    client_address: Vec<Option<IpAddr>>,
    status: Vec<i32>,
    upstream_status: Vec<Option<i32>>,
    success: Vec<bool>,
    attempts: Vec<i32>,
    duration: Vec<i64>,
    upstream_duration: Vec<Option<i64>>,
    bytes: [Vec<i64>; 2],
    captured: Vec<Option<String>>,
    completed: Vec<bool>,
    trace_id: Vec<Option<String>>,
    query: Vec<Option<&'a str>>,
    cause: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    fn gather(rows: impl Iterator<Item = &'a Row>, n: usize) -> Self {
        let mut columns = Columns::default();
        columns.id.reserve_exact(n);
        for row in rows {
            columns.push(row);
        }
        columns
    }

    fn push(&mut self, row: &'a Row) {
        let it = &row.invocation;
        self.id.push(it.id);
        self.created_at.push(it.created_at);
        let texts = [
            Some(&*it.request_id),
            Some(&*it.route),
            it.upstream.as_deref(),
            it.endpoint.as_deref(),
            it.consumer.as_deref(),
            Some(it.method.as_str()),
            Some(it.path.as_str()),
            it.rejection.as_deref(),
            Some(&*it.protocol),
            it.captured.name.as_deref(),
            it.captured.result_message.as_deref(),
        ];
        for (column, text) in self.texts.iter_mut().zip(texts) {
            column.push(text);
        }
        self.client_address.push(it.client_address);
        self.status.push(it.status.into());
        self.upstream_status.push(it.upstream_status.map(Into::into));
        self.success.push(it.success);
        self.attempts.push(i32::try_from(it.attempts).unwrap_or(i32::MAX));
        self.duration.push(micros(it.duration));
        self.upstream_duration.push(it.upstream_duration.map(micros));
        self.bytes[0].push(count(it.bytes_in));
        self.bytes[1].push(count(it.bytes_out));
        self.captured.push(it.captured.other_json());
        self.completed.push(row.stage.is_complete());
        self.trace_id.push(it.trace_id_text(&mut [0; 32]).map(str::to_owned));
        self.query.push(it.query.as_deref());
        self.cause.push(it.cause.as_deref());
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); COLUMNS.len()] {
        let [
            request_id,
            route,
            upstream,
            endpoint,
            consumer,
            method,
            path,
            rejection,
            protocol,
            name,
            result,
        ] = &self.texts;
        [
            &self.id,
            &self.created_at,
            request_id,
            route,
            upstream,
            endpoint,
            consumer,
            &self.client_address,
            method,
            path,
            &self.status,
            &self.upstream_status,
            &self.success,
            &self.attempts,
            rejection,
            &self.duration,
            &self.upstream_duration,
            &self.bytes[0],
            &self.bytes[1],
            protocol,
            name,
            result,
            &self.captured,
            &self.completed,
            &self.trace_id,
            &self.query,
            &self.cause,
        ]
    }
}
