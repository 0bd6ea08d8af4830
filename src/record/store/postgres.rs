//! Rows in PostgreSQL, through a pool.
//!
//! New rows are copied ([`copy`]). Rows that turn out to exist already, or are expected to, are
//! written in one statement ([`batch`]). A batch that is refused is halved until the row at fault
//! stands alone and is set aside ([`dead`]), so that the others arrive. A connection that failed in
//! any way is discarded, so that after a fail-over a new one is made.

mod batch;
mod copy;
mod dead;
mod schema;
mod value;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use deadpool_postgres::{Hook, HookError, Manager, Object, Pool, Runtime};
use log::{error, info, warn};
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, NoTls};

use super::tls;
use crate::condition::{Condition, Spell};
use crate::record::config::{Postgres as Config, PostgresUrl};
use crate::record::invocation::{Row, Stage, first_id};
use crate::record::store::contract::Store;
use crate::record::store::error::{Lost, Refusal, chain, one_line};
use crate::record::store::safety::Safety;
use crate::time::Clock;

/// Time beyond the server's own limit, for a server that does not respond at all.
const GRACE: Duration = Duration::from_secs(1);

/// So many new rows are copied. Fewer are written by statements, each of which takes one round trip where a
/// copy takes four (bench/README.md).
const MANY: usize = 32;

pub struct Postgres {
    pool: Pool,
    statement_timeout: Duration,
    /// Rows that are refused cannot be set aside.
    losing: Spell,
    /// Partitions cannot be made. Locked once for each connection to the server.
    unpartitioned: Mutex<Condition>,
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
        Ok(Postgres {
            pool,
            statement_timeout: *config.statement_timeout,
            losing: Spell::default(),
            unpartitioned: Mutex::default(),
        })
    }

    /// Whether all rows were copied; if not, none was.
    async fn copy(&self, rows: &[Row], indices: &[usize]) -> Result<bool, Lost> {
        self.with_client(self.statement_timeout, async |client| {
            match copy::insert(client, rows, indices).await {
                Err(error) if is_refusal(&error) => Ok(false),
                outcome => outcome.map(|()| true),
            }
        })
        .await
    }

    /// Writes the rows at `indices`; a batch that is refused is halved until the row at fault
    /// stands alone. Each statement is its own transaction: rows that are written stay, whatever
    /// happens to the rest.
    async fn insert(
        &self,
        rows: &[Row],
        indices: &[usize],
        overwrite: bool,
        refusals: &mut Vec<Refusal>,
    ) -> Result<(), Lost> {
        let mut parts = vec![indices];
        while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
            let refused = self
                .with_client(self.statement_timeout, async |client| {
                    match batch::insert(client, rows, part, overwrite).await {
                        Err(error) if is_refusal(&error) => Ok(Some(describe(&error))),
                        Err(error) => Err(error),
                        Ok(()) => Ok(None),
                    }
                })
                .await?;
            match (refused, part) {
                (None, _) => {}
                (Some(reason), [index]) => {
                    self.set_aside(&rows[*index], &reason).await?;
                    refusals.push(Refusal { index: *index, reason });
                }
                (Some(_), several) => {
                    let (left, right) = several.split_at(several.len() / 2);
                    parts.extend([right, left]);
                }
            }
        }
        Ok(())
    }

    async fn set_aside(&self, row: &Row, reason: &str) -> Result<(), Lost> {
        self.with_client(self.statement_timeout, async |client| {
            match dead::insert(client, row, reason).await {
                // This table's own trouble must not hold anything up either: that it refuses the row, is
                // gone, or is not ours to write (class 42). Any other error is the server's, and passes.
                Err(error) if is_refusal(&error) || is_of(&error, &["42"]) => {
                    if let Some(begun) = self.losing.met() {
                        let (id, why) = (row.invocation.id, describe(&error));
                        error!("record store: row {id} could not be set aside: {why}");
                        begun.until(|over| info!("record store: all rows set aside again {over}"));
                    }
                    Ok(())
                }
                outcome => outcome,
            }
        })
        .await
    }

    /// Runs one or more statements on a connection.
    pub(crate) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut Object) -> Result<T, Error>,
    ) -> Result<T, Lost> {
        self.with_client(self.statement_timeout, work).await
    }

    /// Runs `work` on a connection within `limit`. The connection returns to the pool only if it
    /// succeeded.
    pub(crate) async fn with_client<T>(
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
        let partitioned = self.with_client(schema::TIMEOUT, schema::migrate).await?;
        let now = Clock::now();
        let mut state = self.unpartitioned.lock().unwrap_or_else(PoisonError::into_inner);
        match partitioned {
            Err(why) if state.met(now) => {
                warn!("record store: partitions could not be made: {why}");
            }
            Err(_) => {}
            Ok(()) => {
                if let Some(over) = state.over(now) {
                    info!("record store: partitions can be made again {over}");
                }
            }
        }
        Ok(())
    }

    async fn write(&self, rows: &Arc<Vec<Row>>, _safety: Safety) -> Result<Vec<Refusal>, Lost> {
        let at = |stage| (0..rows.len()).filter(|i| rows[*i].stage == stage).collect::<Vec<_>>();
        let [answered, whole, completions] =
            [Stage::Answered, Stage::Whole, Stage::Completion].map(at);
        let mut refusals = Vec::new();
        let new = [&answered[..], &whole].concat();
        if new.len() < MANY || !self.copy(rows, &new).await? {
            self.insert(rows, &answered, false, &mut refusals).await?;
            self.insert(rows, &whole, true, &mut refusals).await?;
        }
        self.insert(rows, &completions, true, &mut refusals).await?;
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
            // The cause may be limited to this session.
            self.pool.retain(|_, _| false);
            return Err(Lost("the database is read-only".to_owned()));
        }
        Ok(())
    }

    async fn prepare(&self) -> Result<(), Lost> {
        self.with_client(schema::TIMEOUT, schema::make_partitions).await
    }

    async fn expire(&self, before: SystemTime, at_most: u32) -> Result<u64, Lost> {
        // Several gateways may do this at once: each deletes rows that no other has locked.
        let sql = "DELETE FROM invocations WHERE id IN (
                       SELECT id FROM invocations WHERE id < $1
                       ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)";
        self.with_client(self.statement_timeout, async |client| {
            let dropped = schema::drop_partitions(client, before).await?;
            let statement = client.prepare_cached(sql).await?;
            Ok(dropped
                + client.execute(&statement, &[&first_id(before), &i64::from(at_most)]).await?)
        })
        .await
    }
}

/// A hook and not a start-up option, because connection poolers refuse those.
fn limit_statements(limit: Duration) -> Hook {
    let sql = format!("SET statement_timeout = {}", limit.as_millis());
    Hook::async_fn(move |client, _| {
        let sql = sql.clone();
        Box::pin(async move {
            // The pool limits the time to connect, but not that of a hook.
            match timeout(limit + GRACE, client.batch_execute(&sql)).await {
                Ok(outcome) => outcome.map_err(HookError::Backend),
                Err(_) => Err(HookError::message(format!("no answer within {limit:?}"))),
            }
        })
    })
}

/// Whether the row is at fault, and not the server or the moment: data that cannot be represented
/// (22), a constraint (23), one row twice in a statement (21), too large (54), and errors raised by
/// a trigger or rule of the database's owner (P0, 44).
fn is_refusal(error: &Error) -> bool {
    is_of(error, &["21", "22", "23", "44", "54", "P0"])
}

/// Whether the server's code belongs to one of these classes.
fn is_of(error: &Error, classes: &[&str]) -> bool {
    let class = error.code().and_then(|code| code.code().get(..2));
    class.is_some_and(|class| classes.contains(&class))
}

/// The server's code and message. Never its detail, which quotes the row.
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
