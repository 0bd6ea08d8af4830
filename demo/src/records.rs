//! The rows the gateway wrote, read from its store as any other client of it would.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use tokio_postgres::NoTls;

use crate::Result;
use crate::table::Table;

/// Understood by both stores.
const ROWS: &str = "SELECT request_id, CAST(created_at AS text), route, CAST(status AS bigint), \
     CAST(CASE WHEN success THEN 1 ELSE 0 END AS bigint), CAST(attempts AS bigint), name, \
     result_message, rejection, CAST(duration_us AS bigint), \
     CAST(CASE WHEN completed THEN 1 ELSE 0 END AS bigint) \
     FROM invocations WHERE request_id LIKE $1 ORDER BY request_id";

const POLL: Duration = Duration::from_millis(20);
/// A row is written before its answer and completed soon after it.
const COMPLETE_WITHIN: Duration = Duration::from_secs(5);

/// The store the gateway writes to: PostgreSQL if DATABASE_URL names one, else the embedded one.
pub enum Records {
    Postgres(String),
    Sqlite(PathBuf),
}

impl Records {
    pub fn of(data: &Path) -> Self {
        match std::env::var("DATABASE_URL") {
            Ok(url) if !url.is_empty() => Records::Postgres(url),
            Ok(_) | Err(_) => Records::Sqlite(data.join("portcullis.db")),
        }
    }

    /// The rows of one run, ordered as its calls were; waits until `expected` are complete, and
    /// returns what there is if that takes too long.
    pub async fn of_run(&self, run: &str, expected: usize) -> Result<Vec<Row>> {
        let give_up = Instant::now() + COMPLETE_WITHIN;
        loop {
            let rows = self
                .read(&format!("{run}-%"))
                .await
                .map_err(|error| format!("cannot read the records from {self}: {error}"))?;
            let complete = rows.len() >= expected && rows.iter().all(|row| row.completed);
            if complete || Instant::now() > give_up {
                return Ok(rows);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn read(&self, pattern: &str) -> Result<Vec<Row>> {
        match self {
            Records::Postgres(url) => read_postgres(url, pattern).await,
            Records::Sqlite(path) => read_sqlite(path, pattern),
        }
    }
}

/// Without the URL of the database, which may hold a password.
impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Records::Postgres(_) => f.write_str("PostgreSQL, from DATABASE_URL"),
            Records::Sqlite(path) => path.display().fmt(f),
        }
    }
}

/// One row of `invocations`, as far as the demo shows it.
pub struct Row {
    request_id: String,
    created_at: String,
    route: String,
    status: i64,
    success: bool,
    attempts: i64,
    name: Option<String>,
    result_message: Option<String>,
    rejection: Option<String>,
    duration_us: i64,
    completed: bool,
}

impl Row {
    /// Request id, status, attempts.
    pub fn recorded(&self) -> (&str, u64, u64) {
        (&self.request_id, self.status.unsigned_abs(), self.attempts.unsigned_abs())
    }
}

fn read_sqlite(path: &Path, pattern: &str) -> Result<Vec<Row>> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(1))?;
    let mut statement = connection.prepare(ROWS)?;
    let rows = statement.query_map([pattern], |row| {
        Ok(Row {
            request_id: row.get(0)?,
            created_at: row.get(1)?,
            route: row.get(2)?,
            status: row.get(3)?,
            success: row.get::<_, i64>(4)? == 1,
            attempts: row.get(5)?,
            name: row.get(6)?,
            result_message: row.get(7)?,
            rejection: row.get(8)?,
            duration_us: row.get(9)?,
            completed: row.get::<_, i64>(10)? == 1,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

async fn read_postgres(url: &str, pattern: &str) -> Result<Vec<Row>> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    let mut rows = Vec::new();
    for row in client.query(ROWS, &[&pattern]).await? {
        rows.push(Row {
            request_id: row.try_get(0)?,
            created_at: row.try_get(1)?,
            route: row.try_get(2)?,
            status: row.try_get(3)?,
            success: row.try_get::<_, i64>(4)? == 1,
            attempts: row.try_get(5)?,
            name: row.try_get(6)?,
            result_message: row.try_get(7)?,
            rejection: row.try_get(8)?,
            duration_us: row.try_get(9)?,
            completed: row.try_get::<_, i64>(10)? == 1,
        });
    }
    drop(client);
    let _ = connection.await?;
    Ok(rows)
}

pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "created_at",
        "route",
        "status",
        "success",
        "attempts",
        "name",
        "result_message",
        "rejection",
        "duration_us",
    ]);
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    for row in rows {
        table.push(
            row.success,
            vec![
                row.created_at.clone(),
                row.route.clone(),
                row.status.to_string(),
                row.success.to_string(),
                row.attempts.to_string(),
                text(&row.name),
                text(&row.result_message),
                text(&row.rejection),
                row.duration_us.to_string(),
            ],
        );
    }
    table
}
