//! Writes new rows in bulk: binary COPY, straight into the table.
//!
//! A single row that exists already, or is refused, undoes all of it; the store decides what to do
//! then.

use std::error::Error as StdError;
use std::pin::pin;
use std::sync::LazyLock;

use deadpool_postgres::Object;
use tokio_postgres::Error;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::record::invocation::Row;
use crate::record::store::columns::COLUMNS;
use crate::record::store::{count, micros};

/// The type of each column, in the order of [`COLUMNS`].
const TYPES: [Type; COLUMNS.len()] = [
    Type::UUID,
    Type::TIMESTAMPTZ,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::INET,
    Type::TEXT,
    Type::TEXT,
    Type::INT4,
    Type::INT4,
    Type::BOOL,
    Type::INT4,
    Type::TEXT,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::JSONB,
    Type::BOOL,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
];

static COPY: LazyLock<String> =
    LazyLock::new(|| format!("COPY invocations ({}) FROM STDIN BINARY", COLUMNS.join(", ")));

/// Writes the rows at `indices`: all of them, or none on an error.
pub(super) async fn insert(client: &Object, rows: &[Row], indices: &[usize]) -> Result<(), Error> {
    let statement = client.prepare_cached(&COPY).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(client.copy_in(&statement).await?, &TYPES));
    for row in indices.iter().filter_map(|index| rows.get(*index)) {
        let it = &row.invocation;
        let mut trace_id = [0; 32];
        let captured = it.captured.other_json().map(Json);
        writer
            .as_mut()
            .write(&[
                &it.id,
                &it.created_at,
                &&*it.request_id,
                &&*it.route,
                &it.upstream.as_deref(),
                &it.endpoint.as_deref(),
                &it.consumer.as_deref(),
                &it.client_address,
                &it.method.as_str(),
                &it.path,
                &i32::from(it.status),
                &it.upstream_status.map(i32::from),
                &it.success,
                &i32::try_from(it.attempts).unwrap_or(i32::MAX),
                &it.rejection.as_deref(),
                &micros(it.duration),
                &it.upstream_duration.map(micros),
                &count(it.bytes_in),
                &count(it.bytes_out),
                &&*it.protocol,
                &it.captured.name,
                &it.captured.result_message,
                &captured,
                &row.stage.is_complete(),
                &it.trace_id_text(&mut trace_id),
                &it.query,
                &it.cause.as_deref(),
            ])
            .await?;
    }
    writer.finish().await?;
    Ok(())
}

/// JSON that is already text.
#[derive(Debug)]
struct Json(String);

impl ToSql for Json {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        // The version of the `jsonb` wire format; there is only this one.
        out.extend_from_slice(&[1]);
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSONB
    }

    to_sql_checked!();
}
