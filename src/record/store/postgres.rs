//! Rows in PostgreSQL, through a pool.
//!
//! A batch is one statement ([`batch`]). One that is refused is halved until the
//! row at fault stands alone, so the others arrive. A connection that failed in any way is thrown
//! away, so that a fail-over ends in a new one.

mod batch;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use deadpool_postgres::{Hook, HookError, Manager, Object, Pool, Runtime};
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, NoTls};

use super::{Lost, Migration, Refusal, Safety, Store, chain, one_line, tls};
use crate::record::config::{Postgres as Config, PostgresUrl};
use crate::record::invocation::Row;

const MIGRATIONS: &[Migration] =
    &[Migration { version: 1, sql: include_str!("../migrations/postgres/0001_invocations.sql") }];

/// Names the lock under which the schema is changed; any number that others do not use.
const MIGRATION_LOCK: i64 = 0x706f_7274_6375_6c6c;
/// A change of the schema may take longer than a statement.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(60);
/// Beyond the server's own limit, for a server that does not answer at all.
const GRACE: Duration = Duration::from_secs(1);

pub(crate) struct Postgres {
    pool: Pool,
    statement_timeout: Duration,
}

impl Postgres {
    /// Makes the pool; nothing is connected yet.
    ///
    /// # Errors
    /// The certificate authorities cannot be read.
    pub(crate) fn new(config: &Config, url: &PostgresUrl) -> Result<Self, String> {
        let mut driver = url.parsed().map_err(|_| "not a valid PostgreSQL URL".to_owned())?;
        driver.connect_timeout(*config.connect_timeout);
        driver.keepalives_idle(Duration::from_secs(30));
        driver.tcp_user_timeout(*config.statement_timeout + GRACE);
        if driver.get_application_name().is_none() {
            driver.application_name("portcullis");
        }
        let manager = match driver.get_ssl_mode() {
            SslMode::Disable => Manager::new(driver, NoTls),
            _ => Manager::new(driver, tls::connector(config.ca.as_deref())?),
        };
        let pool = Pool::builder(manager)
            .runtime(Runtime::Tokio1)
            .max_size(config.pool_size.get() as usize)
            .wait_timeout(Some(*config.statement_timeout))
            .create_timeout(Some(*config.connect_timeout))
            .recycle_timeout(Some(*config.connect_timeout))
            .post_create(limit_statements(*config.statement_timeout))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Postgres { pool, statement_timeout: *config.statement_timeout })
    }

    /// Runs `work` on a connection within `limit`. The connection goes back to the pool only if all
    /// went well.
    async fn with_client<T>(
        &self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut Object) -> Result<T, Error>,
    ) -> Result<T, Lost> {
        let mut client = self.pool.get().await.map_err(|error| Lost::because(&error))?;
        let outcome = timeout(limit + GRACE, work(&mut client)).await;
        let lost = match outcome {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Lost(describe(&error)),
            Err(_) => Lost(format!("no answer within {limit:?}")),
        };
        drop(Object::take(client));
        Err(lost)
    }
}

#[async_trait]
impl Store for Postgres {
    async fn migrate(&self) -> Result<(), Lost> {
        self.ping().await?;
        self.with_client(MIGRATION_TIMEOUT, migrate).await
    }

    async fn write(&self, rows: &Arc<Vec<Row>>, _safety: Safety) -> Result<Vec<Refusal>, Lost> {
        let (upserts, inserts): (Vec<usize>, Vec<usize>) =
            (0..rows.len()).partition(|index| rows[*index].stage.overwrites());
        let mut refusals = Vec::new();
        // A statement is a transaction of its own: what arrived stays, whatever comes of the rest.
        for (overwrite, indices) in [(false, inserts), (true, upserts)] {
            let mut parts = vec![indices.as_slice()];
            while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
                let written = self
                    .with_client(self.statement_timeout, async |client| {
                        match batch::insert(client, rows, part, overwrite).await {
                            Err(error) if is_refusal(&error) => Ok(Some(describe(&error))),
                            Err(error) => Err(error),
                            Ok(()) => Ok(None),
                        }
                    })
                    .await?;
                match (written, part) {
                    (None, _) => {}
                    (Some(reason), [index]) => refusals.push(Refusal { index: *index, reason }),
                    (Some(_), several) => {
                        let (left, right) = several.split_at(several.len() / 2);
                        parts.extend([right, left]);
                    }
                }
            }
        }
        Ok(refusals)
    }

    async fn ping(&self) -> Result<(), Lost> {
        let read_only: String = self
            .with_client(self.statement_timeout, async |client| {
                let statement = client
                    .prepare_cached("SELECT current_setting('transaction_read_only')")
                    .await?;
                client.query_one(&statement, &[]).await?.try_get(0)
            })
            .await?;
        if read_only == "on" {
            return Err(Lost("the database is read-only".to_owned()));
        }
        Ok(())
    }

    async fn expire(&self, before: SystemTime, at_most: u32) -> Result<u64, Lost> {
        // Several gateways may be at it: each takes rows that no other holds.
        let sql = "DELETE FROM invocations WHERE id IN (
                       SELECT id FROM invocations WHERE created_at < $1
                       ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)";
        self.with_client(self.statement_timeout, async |client| {
            let statement = client.prepare_cached(sql).await?;
            client.execute(&statement, &[&before, &i64::from(at_most)]).await
        })
        .await
    }
}

/// A hook, not a start-up option: poolers between us and the server refuse those.
fn limit_statements(limit: Duration) -> Hook {
    let sql = format!("SET statement_timeout = {}", limit.as_millis());
    Hook::async_fn(move |client, _| {
        let sql = sql.clone();
        Box::pin(async move { client.batch_execute(&sql).await.map_err(HookError::Backend) })
    })
}

async fn migrate(client: &mut Object) -> Result<(), Error> {
    if version(client).await? >= MIGRATIONS.last().map_or(0, |last| last.version) {
        // No lock, and no right to create anything, is needed to find that all is done.
        return Ok(());
    }
    let transaction = client.transaction().await?;
    let limit = MIGRATION_TIMEOUT.as_millis();
    transaction.batch_execute(&format!("SET LOCAL statement_timeout = {limit}")).await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS portcullis_schema_version (
                 version integer PRIMARY KEY,
                 applied_at timestamptz NOT NULL DEFAULT now()
             )",
        )
        .await?;
    // Another gateway may have been faster.
    let current = max_version(&transaction).await?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > current) {
        transaction.batch_execute(migration.sql).await?;
        let sql = "INSERT INTO portcullis_schema_version (version) VALUES ($1)";
        transaction.execute(sql, &[&migration.version]).await?;
    }
    transaction.commit().await
}

async fn version(client: &Object) -> Result<i32, Error> {
    let sql = "SELECT to_regclass('portcullis_schema_version') IS NOT NULL";
    let exists: bool = client.query_one(sql, &[]).await?.try_get(0)?;
    if exists { max_version(client).await } else { Ok(0) }
}

async fn max_version(client: &impl deadpool_postgres::GenericClient) -> Result<i32, Error> {
    let sql = "SELECT coalesce(max(version), 0) FROM portcullis_schema_version";
    client.query_one(sql, &[]).await?.try_get(0)
}

/// Whether the row is at fault, and not the server or the moment: data that cannot be
/// represented (22), a constraint (23), one row twice in a statement (21), too large (54), and what
/// a trigger or rule of the database's owner raises (P0, 44).
fn is_refusal(error: &Error) -> bool {
    error.code().is_some_and(|code| {
        matches!(code.code().get(..2), Some("21" | "22" | "23" | "44" | "54" | "P0"))
    })
}

/// The server's code and message, never its detail: that quotes the row.
fn describe(error: &Error) -> String {
    match error.as_db_error() {
        Some(refused) => {
            let constraint = refused.constraint().map(|name| format!(" ({name})"));
            let code: &SqlState = refused.code();
            let constraint = constraint.unwrap_or_default();
            one_line(&format!("{} {}{constraint}", code.code(), refused.message()))
        }
        None => chain(error),
    }
}
