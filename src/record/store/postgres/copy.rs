//! Writes new rows in bulk: binary COPY, straight into the table.
//!
//! A single row that exists already, or is refused, undoes all of it; the store decides what to do
//! then.
//!
//! In a transaction of its own: PostgreSQL says that a COPY is complete before it commits it, and the
//! driver hears no more than that. Of a commit, it hears the outcome.

use std::pin::pin;
use std::sync::LazyLock;

use deadpool_postgres::Object;
use tokio_postgres::Error;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;

use super::value::type_of;
use crate::record::invocation::Row;
use crate::record::row::columns::{COLUMNS, values};
use crate::record::store::sql::columns;

/// The type of each column.
static TYPES: LazyLock<Vec<Type>> =
    LazyLock::new(|| COLUMNS.iter().map(|column| type_of(column.kind)).collect());

static COPY: LazyLock<String> =
    LazyLock::new(|| format!("COPY invocations ({}) FROM STDIN BINARY", columns()));

/// Writes the rows at `indices`: all of them, or none on an error. They are committed when it returns.
pub(super) async fn insert(
    client: &mut Object,
    rows: &[Row],
    indices: &[usize],
) -> Result<(), Error> {
    let statement = client.prepare_cached(&COPY).await?;
    let transaction = client.transaction().await?;
    let mut writer = pin!(BinaryCopyInWriter::new(transaction.copy_in(&statement).await?, &TYPES));
    for row in indices.iter().filter_map(|index| rows.get(*index)) {
        let completed = row.stage.is_complete();
        writer.as_mut().write_raw(values(&row.invocation, completed)).await?;
    }
    writer.finish().await?;
    transaction.commit().await
}
