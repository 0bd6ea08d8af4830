//! The tables. The first gateway to connect migrates them; partitions for months are made ahead of
//! time, and dropped when old.

use std::time::{Duration, SystemTime};

use deadpool_postgres::{GenericClient, Object};
use log::info;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::describe;
use crate::record::store::Migration;

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, sql: include_str!("../../migrations/postgres/0001_invocations.sql") },
    Migration {
        version: 2,
        sql: include_str!("../../migrations/postgres/0002_partitions_trace_query_dead.sql"),
    },
    Migration {
        version: 3,
        sql: include_str!("../../migrations/postgres/0003_idempotency_keys.sql"),
    },
    Migration {
        version: 4,
        sql: include_str!("../../migrations/postgres/0004_idempotency_trailers.sql"),
    },
    Migration { version: 5, sql: include_str!("../../migrations/postgres/0005_cause.sql") },
    Migration { version: 6, sql: include_str!("../../migrations/postgres/0006_would_refuse.sql") },
    Migration { version: 7, sql: include_str!("../../migrations/postgres/0007_decided.sql") },
];

/// The advisory lock taken to change the schema; any number that other applications do not use.
const LOCK: i64 = 0x706f_7274_6375_6c6c;
/// A change of the schema may take longer than other statements.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// How many months ahead partitions are made.
const MONTHS_AHEAD: i32 = 2;

/// Brings the schema up to date, and makes the partitions that should exist by now; or says why it
/// cannot.
pub(super) async fn migrate(client: &mut Object) -> Result<Result<(), String>, Error> {
    if version(client).await? < MIGRATIONS.last().map_or(0, |last| last.version) {
        apply(client).await?;
    }
    match make_partitions(client).await {
        // Not fatal: rows of a month without a partition go to the default one, also if the gateway
        // has no right to create partitions.
        Err(error) if error.as_db_error().is_some() => Ok(Err(describe(&error))),
        outcome => outcome.map(Ok),
    }
}

async fn apply(client: &mut Object) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    let limit = TIMEOUT.as_millis();
    transaction.batch_execute(&format!("SET LOCAL statement_timeout = {limit}")).await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS portcullis_schema_version (
                 version integer PRIMARY KEY,
                 applied_at timestamptz NOT NULL DEFAULT now()
             )",
        )
        .await?;
    // Another gateway may have migrated meanwhile.
    let current = max_version(&transaction).await?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > current) {
        transaction.batch_execute(migration.sql).await?;
        let sql = "INSERT INTO portcullis_schema_version (version) VALUES ($1)";
        transaction.execute(sql, &[&migration.version]).await?;
    }
    transaction.commit().await
}

async fn version(client: &Object) -> Result<i32, Error> {
    // Checking that the schema is current needs no lock and no right to create anything.
    let sql = "SELECT to_regclass('portcullis_schema_version') IS NOT NULL";
    let exists: bool = client.query_one(sql, &[]).await?.try_get(0)?;
    if exists { max_version(client).await } else { Ok(0) }
}

async fn max_version(client: &impl GenericClient) -> Result<i32, Error> {
    let sql = "SELECT coalesce(max(version), 0) FROM portcullis_schema_version";
    client.query_one(sql, &[]).await?.try_get(0)
}

/// Makes partitions for this month and the months ahead.
pub(super) async fn make_partitions(client: &mut Object) -> Result<(), Error> {
    let sql = "SELECT 'invocations_' || to_char(month, 'YYYY_MM'),
                      invocations_first_id(month AT TIME ZONE 'UTC')::text,
                      invocations_first_id((month + interval '1 month') AT TIME ZONE 'UTC')::text
               FROM (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month'
                     FROM generate_series(0, $1) AS n) AS months (month)
               WHERE to_regclass('invocations_' || to_char(month, 'YYYY_MM')) IS NULL";
    for row in client.query(sql, &[&MONTHS_AHEAD]).await? {
        let (name, first, end): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        make_partition(client, &name, &first, &end).await?;
        info!("record store: made the partition {name}");
    }
    Ok(())
}

/// Creates the table and then attaches it: creating it as a partition would block all writers. Rows
/// that were written before it existed are moved into it.
async fn make_partition(
    client: &mut Object,
    name: &str,
    first: &str,
    end: &str,
) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    // Not by `to_regclass`, which may still remember that there was none before the lock was held.
    let sql = "SELECT EXISTS (
                   SELECT FROM pg_class WHERE relname = $1 AND relnamespace =
                       (SELECT relnamespace FROM pg_class WHERE oid = 'invocations'::regclass))";
    if transaction.query_one(sql, &[&name]).await?.try_get(0)? {
        return transaction.commit().await;
    }
    transaction
        .batch_execute(&format!(
            "SET LOCAL lock_timeout = '1s';
             CREATE TABLE {name} (LIKE invocations INCLUDING ALL);
             WITH early AS (
                 DELETE FROM invocations_other WHERE id >= '{first}' AND id < '{end}' RETURNING *)
             INSERT INTO {name} SELECT * FROM early;
             ALTER TABLE invocations ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{end}')",
        ))
        .await?;
    transaction.commit().await
}

/// Drops the partitions of months that ended before `before`, and returns about how many rows they
/// held.
pub(super) async fn drop_partitions(client: &mut Object, before: SystemTime) -> Result<u64, Error> {
    // An id begins with the time its request arrived, so a month of old ids holds no newer row.
    let sql = "SELECT relname::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
               WHERE inhparent = 'invocations'::regclass
                 AND relname ~ '^invocations_[0-9]{4}_[0-9]{2}$'
                 AND (to_timestamp(right(relname, 7), 'YYYY_MM')::timestamp + interval '1 month')
                     AT TIME ZONE 'UTC' <= $1
               ORDER BY relname";
    let mut gone = 0;
    for row in client.query(sql, &[&before]).await? {
        let name: String = row.try_get(0)?;
        match drop_partition(client, &name).await {
            Ok(rows) => {
                gone += rows;
                info!("record store: dropped the partition {name}, of about {rows} rows");
            }
            // A reader holds the table, so try again later; or another gateway has dropped it.
            Err(error)
                if matches!(
                    error.code(),
                    Some(&SqlState::LOCK_NOT_AVAILABLE | &SqlState::UNDEFINED_TABLE)
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(gone)
}

async fn drop_partition(client: &mut Object, name: &str) -> Result<u64, Error> {
    let transaction = client.transaction().await?;
    // An estimate: counting the rows would take as long as reading them.
    let sql = "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass($1)";
    let rows = transaction.query_opt(sql, &[&name]).await?;
    let rows: i64 = rows.map_or(Ok(0), |row| row.try_get(0))?;
    // While this waits for its lock, all writers queue up behind it.
    let sql = format!("SET LOCAL lock_timeout = '500ms'; DROP TABLE {name}");
    transaction.batch_execute(&sql).await?;
    transaction.commit().await?;
    Ok(u64::try_from(rows).unwrap_or(0))
}
