//! Writes rows that may exist already, in one statement: an array for each column in, rows out of
//! `unnest`.
//!
//! The store decides what to do about a batch that is refused.

use std::sync::LazyLock;

use deadpool_postgres::Object;
use tokio_postgres::Error;
use tokio_postgres::types::ToSql;

use super::value::type_of;
use crate::record::invocation::Row;
use crate::record::row::columns::COLUMNS;
use crate::record::row::value::Value;
use crate::record::store::sql::{columns, on_conflict};

/// The statements without and with overwriting.
static INSERT: LazyLock<[String; 2]> = LazyLock::new(|| {
    let places = COLUMNS.iter().enumerate();
    let places = places.map(|(i, column)| format!("${}::{}[]", i + 1, type_of(column.kind)));
    let (places, columns) = (places.collect::<Vec<_>>().join(", "), columns());
    [false, true].map(|overwrite| {
        format!(
            "INSERT INTO invocations ({columns}) SELECT {columns} FROM unnest({places}) AS arrays ({columns}) {}",
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
    let arrays: Vec<Vec<Value<'_>>> = COLUMNS
        .iter()
        .map(|column| {
            let rows = indices.iter().filter_map(|index| rows.get(*index));
            rows.map(|row| column.value(&row.invocation, row.stage.is_complete())).collect()
        })
        .collect();
    let parameters: Vec<_> = arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect();
    client.execute(&statement, &parameters).await?;
    Ok(())
}
