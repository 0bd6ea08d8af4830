//! Converts a row to and from the columns of the file.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::Method;
use rusqlite::types::Type;
use rusqlite::{Statement, params};
use uuid::Uuid;

use crate::record::capture::captured::Captured;
use crate::record::capture::json::timestamp;
use crate::record::invocation::{Invocation, Row};
use crate::record::store::columns::{AT_THE_END, COLUMNS, on_conflict};
use crate::record::store::{count, micros};

/// The statements without and with overwriting.
pub(super) static INSERT: LazyLock<[String; 2]> = LazyLock::new(|| {
    let places: Vec<String> = (1..=COLUMNS.len()).map(|n| format!("?{n}")).collect();
    [false, true].map(|overwrite| {
        format!(
            "INSERT INTO invocations ({}) VALUES ({}) {}",
            COLUMNS.join(", "),
            places.join(", "),
            on_conflict(overwrite)
        )
    })
});

/// Updates a row that exists with its second write.
pub(super) static COMPLETE: LazyLock<String> = LazyLock::new(|| {
    let set = AT_THE_END.iter().enumerate();
    let set: Vec<_> = set.map(|(n, column)| format!("{column} = ?{}", n + 2)).collect();
    format!("UPDATE invocations SET {} WHERE id = ?1", set.join(", "))
});

/// Runs [`COMPLETE`] for one row, and returns whether the row was there.
pub(super) fn complete(statement: &mut Statement<'_>, row: &Row) -> rusqlite::Result<bool> {
    let it = &row.invocation;
    let mut id = Uuid::encode_buffer();
    let found = statement.execute(params![
        &*it.id.hyphenated().encode_lower(&mut id),
        it.upstream,
        it.endpoint,
        it.status,
        it.upstream_status,
        it.success,
        it.attempts,
        it.rejection,
        micros(it.duration),
        it.upstream_duration.map(micros),
        count(it.bytes_in),
        count(it.bytes_out),
        it.captured.name,
        it.captured.result_message,
        it.captured.other_json(),
        row.stage.is_complete(),
        it.cause,
    ])?;
    Ok(found > 0)
}

/// Runs one of [`INSERT`] for one row.
pub(super) fn write(statement: &mut Statement<'_>, row: &Row) -> rusqlite::Result<()> {
    let it = &row.invocation;
    let (mut id, mut trace_id) = (Uuid::encode_buffer(), [0; 32]);
    statement.execute(params![
        &*it.id.hyphenated().encode_lower(&mut id),
        timestamp(it.created_at),
        it.request_id,
        it.route,
        it.upstream,
        it.endpoint,
        it.consumer,
        it.client_address.map(|address| address.to_string()),
        it.method.as_str(),
        it.path,
        it.status,
        it.upstream_status,
        it.success,
        it.attempts,
        it.rejection,
        micros(it.duration),
        it.upstream_duration.map(micros),
        count(it.bytes_in),
        count(it.bytes_out),
        it.protocol,
        it.captured.name,
        it.captured.result_message,
        it.captured.other_json(),
        row.stage.is_complete(),
        it.trace_id_text(&mut trace_id),
        it.query,
        it.cause,
    ])?;
    Ok(())
}

/// The row from the result of a query for all [`COLUMNS`].
pub(crate) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Invocation> {
    let shared = |index| row.get::<_, Option<Arc<str>>>(index);
    let owned = |index| row.get::<_, Option<String>>(index);
    let micros = |n: i64| Duration::from_micros(u64::try_from(n).unwrap_or(0));
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    Ok(Invocation {
        id: parse(row, 0)?,
        created_at: humantime::parse_rfc3339(&row.get::<_, String>(1)?)
            .map_err(|error| unreadable(1, error))?,
        request_id: row.get(2)?,
        trace_id: owned(24)?.and_then(|id| u128::from_str_radix(&id, 16).ok()).unwrap_or(0),
        route: row.get(3)?,
        upstream: shared(4)?,
        endpoint: shared(5)?,
        consumer: shared(6)?,
        client_address: match owned(7)? {
            Some(_) => Some(parse(row, 7)?),
            None => None,
        },
        method: parse::<Method>(row, 8)?,
        path: row.get(9)?,
        query: owned(25)?,
        cause: owned(26)?.map(Cow::Owned),
        status: row.get(10)?,
        upstream_status: row.get(11)?,
        success: row.get(12)?,
        attempts: row.get(13)?,
        rejection: owned(14)?.map(Cow::Owned),
        duration: micros(row.get(15)?),
        upstream_duration: row.get::<_, Option<i64>>(16)?.map(micros),
        bytes_in: count(row.get(17)?),
        bytes_out: count(row.get(18)?),
        protocol: Cow::Owned(row.get(19)?),
        captured: Captured {
            name: owned(20)?,
            result_message: owned(21)?,
            other: others(owned(22)?.as_deref()).map_err(|error| unreadable(22, error))?,
        },
    })
}

fn others(json: Option<&str>) -> serde_json::Result<Vec<(Arc<str>, String)>> {
    let Some(json) = json else { return Ok(Vec::new()) };
    let object: std::collections::BTreeMap<String, String> = serde_json::from_str(json)?;
    Ok(object.into_iter().map(|(field, value)| (field.into(), value)).collect())
}

fn parse<T>(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.get::<_, String>(index)?.parse().map_err(|error| unreadable(index, error))
}

fn unreadable(
    index: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error))
}
