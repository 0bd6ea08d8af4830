//! Binds the columns of a row to statements, and reads them from results.
//!
//! Columns are read by their names: one that an older file lacks is absent, and one that is unknown
//! here is left alone.

use std::error::Error;
use std::sync::LazyLock;

use rusqlite::Statement;
use rusqlite::types::{Null, ValueRef};
use uuid::Uuid;

use crate::record::invocation::{Invocation, Row};
use crate::record::row::columns::{COLUMNS, Column, Draft};
use crate::record::row::value::{self, Kind, Value};
use crate::record::store::count;
use crate::record::store::sql::{at_the_end, columns, on_conflict};

/// The statements without and with overwriting. A parameter's number is its column's place in the
/// list, from one on.
pub(super) static INSERT: LazyLock<[String; 2]> = LazyLock::new(|| {
    let places: Vec<String> = (1..=COLUMNS.len()).map(|n| format!("?{n}")).collect();
    [false, true].map(|overwrite| {
        format!(
            "INSERT INTO invocations ({}) VALUES ({}) {}",
            columns(),
            places.join(", "),
            on_conflict(overwrite)
        )
    })
});

/// Updates a row that exists with its second write; numbered likewise.
pub(super) static COMPLETE: LazyLock<String> = LazyLock::new(|| {
    let set = at_the_end().map(|(index, column)| format!("{} = ?{}", column.name, index + 1));
    format!("UPDATE invocations SET {} WHERE id = ?1", set.collect::<Vec<_>>().join(", "))
});

/// Runs [`COMPLETE`] for one row, and returns whether the row was there.
pub(super) fn complete(statement: &mut Statement<'_>, row: &Row) -> rusqlite::Result<bool> {
    let id = (0, &COLUMNS[0]);
    Ok(run(statement, std::iter::once(id).chain(at_the_end()), row)? > 0)
}

/// Runs one of [`INSERT`] for one row.
pub(super) fn write(statement: &mut Statement<'_>, row: &Row) -> rusqlite::Result<()> {
    run(statement, COLUMNS.iter().enumerate(), row).map(drop)
}

fn run(
    statement: &mut Statement<'_>,
    columns: impl Iterator<Item = (usize, &'static Column)>,
    row: &Row,
) -> rusqlite::Result<usize> {
    let completed = row.stage.is_complete();
    for (index, column) in columns {
        bind(statement, index + 1, column.value(&row.invocation, completed))?;
    }
    statement.raw_execute()
}

fn bind(statement: &mut Statement<'_>, place: usize, value: Value<'_>) -> rusqlite::Result<()> {
    match value {
        Value::Absent => statement.raw_bind_parameter(place, Null),
        Value::Id(id) => {
            let mut room = Uuid::encode_buffer();
            statement.raw_bind_parameter(place, &*id.hyphenated().encode_lower(&mut room))
        }
        Value::Time(at) => statement.raw_bind_parameter(place, value::timestamp(at)),
        Value::Text(text) => statement.raw_bind_parameter(place, text),
        Value::Trace(id) => {
            statement.raw_bind_parameter(place, value::trace_text(id, &mut [0; 32]))
        }
        Value::Address(address) => statement.raw_bind_parameter(place, address.to_string()),
        Value::Small(n) => statement.raw_bind_parameter(place, n),
        Value::Big(n) => statement.raw_bind_parameter(place, count(n)),
        Value::Flag(flag) => statement.raw_bind_parameter(place, flag),
        Value::Texts(texts) => statement.raw_bind_parameter(place, value::texts_json(texts)),
    }
}

/// The row from a result that has its columns, and whether the request had ended when it was written.
pub(crate) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<(Invocation, bool)> {
    let mut draft = Draft::new();
    for (index, column) in COLUMNS.iter().enumerate() {
        let Ok(place) = row.as_ref().column_index(column.name) else { continue };
        let found = row.get_ref(place)?;
        set(&mut draft, index, found).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(place, found.data_type(), error)
        })?;
    }
    draft.finish().ok_or_else(|| rusqlite::Error::InvalidColumnName("one is missing".to_owned()))
}

fn set(
    draft: &mut Draft,
    index: usize,
    found: ValueRef<'_>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let texts;
    let value = match COLUMNS[index].kind {
        _ if found == ValueRef::Null => Value::Absent,
        Kind::Id => Value::Id(found.as_str()?.parse()?),
        Kind::Time => Value::Time(value::time(found.as_str()?).ok_or("not a time")?),
        Kind::Text => Value::Text(found.as_str()?),
        Kind::Trace => value::trace(found.as_str()?),
        Kind::Address => Value::Address(found.as_str()?.parse()?),
        Kind::Small => Value::Small(found.as_i64()?.try_into()?),
        // The gateway writes none below zero.
        Kind::Big => Value::Big(found.as_i64()?.try_into().unwrap_or(0)),
        Kind::Flag => Value::Flag(found.as_i64()? != 0),
        Kind::Texts => {
            texts = value::texts(found.as_str()?)?;
            Value::Texts(&texts)
        }
    };
    Ok(draft.set(index, value).ok_or("not a value of this column")?)
}
