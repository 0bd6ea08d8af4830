//! Rows in an SQLite file: the embedded store.
//!
//! One thread owns the connection and does one job after the other; callers await it. The file is
//! in WAL mode, so other processes may read it meanwhile. A commit always survives `kill -9`;
//! commits made before the response also wait for the disk ([`Safety::Power`]), once per group.

pub(crate) mod room;
pub(crate) mod row;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};
use tokio::sync::oneshot;

use self::room::{Room, is_full, make_room};
use super::Migration;
use crate::record::config::StoreFull;
use crate::record::invocation::{Row, Stage, first_id};
use crate::record::row::json;
use crate::record::store::contract::Store;
use crate::record::store::error::{Lost, Refusal};
use crate::record::store::file_limit::{file_limit, pages};
use crate::record::store::safety::Safety;

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, sql: include_str!("../migrations/sqlite/0001_invocations.sql") },
    Migration { version: 2, sql: include_str!("../migrations/sqlite/0002_trace_query_dead.sql") },
    Migration { version: 3, sql: include_str!("../migrations/sqlite/0003_idempotency_keys.sql") },
    Migration {
        version: 4,
        sql: include_str!("../migrations/sqlite/0004_idempotency_trailers.sql"),
    },
    Migration { version: 5, sql: include_str!("../migrations/sqlite/0005_cause.sql") },
    Migration { version: 6, sql: include_str!("../migrations/sqlite/0006_would_refuse.sql") },
    Migration { version: 7, sql: include_str!("../migrations/sqlite/0007_decided.sql") },
];

/// How long to wait while another process writes to the file, before the batch is retried later.
const BUSY: Duration = Duration::from_secs(2);

/// Pages of the write-ahead log at which it is checkpointed.
const LOG_PAGES: u64 = 4000;

/// A handle. Dropping the last one ends the thread, which closes the file.
#[derive(Clone, Debug)]
pub struct Sqlite {
    jobs: mpsc::Sender<Job>,
}

/// How large the file may get, and what happens then.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limit {
    /// Bytes; zero means no limit but the disk's.
    pub(crate) size: u64,
    pub(crate) when_full: StoreFull,
}

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

impl Sqlite {
    /// Starts the thread. The file is opened by the first `migrate`.
    pub(crate) fn start(path: &Path, limit: Limit) -> std::io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let room = Room::new(limit.when_full);
        let mut worker = Worker { path: path.to_owned(), limit, room, connection: None };
        std::thread::Builder::new()
            .name("record-sqlite".to_owned())
            .spawn(move || inbox.iter().for_each(|job| job(&mut worker)))?;
        Ok(Sqlite { jobs })
    }

    /// As `migrate`, at the start of a process: another process may hold the file for a while,
    /// which is no error.
    pub(super) async fn require(&self) -> Result<(), Lost> {
        self.hand_over(|worker| {
            worker.open()?;
            worker.with_connection(|connection| match migrate(connection) {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(()),
                outcome => outcome,
            })
        })
        .await
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Lost> {
        self.hand_over(move |worker| worker.with_connection(work)).await
    }

    /// As `run`, for work that may need more space than there is: it is told what to do when the
    /// file is full.
    pub(crate) async fn run_for_room<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &Room) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Lost> {
        self.hand_over(move |worker| {
            let room = worker.room.clone();
            worker.with_connection(|connection| work(connection, &room))
        })
        .await
    }

    async fn hand_over<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Worker) -> Result<T, Lost> + Send + 'static,
    ) -> Result<T, Lost> {
        let gone = || Lost("the thread of the SQLite file has ended".to_owned());
        let (answer, outcome) = oneshot::channel();
        let job: Job = Box::new(move |worker| {
            // The caller may have stopped waiting; the work is done all the same.
            answer.send(work(worker)).ok();
        });
        self.jobs.send(job).map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn migrate(&self) -> Result<(), Lost> {
        self.hand_over(|worker| {
            worker.open()?;
            worker.with_connection(migrate)
        })
        .await
    }

    async fn write(&self, rows: &Arc<Vec<Row>>, safety: Safety) -> Result<Vec<Refusal>, Lost> {
        let rows = Arc::clone(rows);
        self.run_for_room(move |connection, room| match write(connection, &rows, safety) {
            Err(error) if is_full(&error) => match make_room(connection, rows.len(), room)? {
                true => write(connection, &rows, safety),
                false => Err(error),
            },
            outcome => outcome,
        })
        .await
    }

    async fn ping(&self) -> Result<(), Lost> {
        self.run(|connection| {
            connection.query_row(
                "SELECT count(*) FROM (SELECT 1 FROM invocations LIMIT 1)",
                [],
                |_| Ok(()),
            )
        })
        .await
    }

    async fn expire(&self, before: SystemTime, at_most: u32) -> Result<u64, Lost> {
        self.run(move |connection| {
            // By id, which begins with the time: another index would slow down every insert.
            let sql = "DELETE FROM invocations WHERE id IN \
                       (SELECT id FROM invocations WHERE id < ?1 ORDER BY id LIMIT ?2)";
            let bound = first_id(before).to_string();
            let gone = connection.prepare_cached(sql)?.execute(params![bound, at_most])?;
            Ok(gone as u64)
        })
        .await
    }
}

/// The state that the thread owns.
struct Worker {
    path: PathBuf,
    limit: Limit,
    room: Room,
    connection: Option<Connection>,
}

impl Worker {
    fn open(&mut self) -> Result<(), Lost> {
        if self.connection.is_some() {
            return Ok(());
        }
        let unusable = |error: &dyn std::error::Error| {
            Lost(format!("{}: {}", self.path.display(), crate::record::store::error::chain(error)))
        };
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory).map_err(|error| unusable(&error))?;
        }
        let connection = connect(&self.path, self.limit.size).map_err(|error| unusable(&error))?;
        self.connection = Some(connection);
        Ok(())
    }

    fn with_connection<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Lost> {
        let Some(connection) = &mut self.connection else {
            return Err(Lost(format!("{}: not open", self.path.display())));
        };
        work(connection).map_err(|error| {
            // A lock is released and space is freed again; after any other error the file is opened
            // anew.
            if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) && !is_full(&error) {
                self.connection = None;
            }
            Lost(format!("{}: {}", self.path.display(), crate::record::store::error::chain(&error)))
        })
    }
}

fn connect(path: &Path, max_size: u64) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    write_ahead(&connection)?;
    connection.pragma_update(None, "synchronous", "normal")?;
    // Otherwise the log stays at the largest size it ever had.
    connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    let page: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let (page, limit) = (u64::from(page), file_limit());
    // Hot pages are written to the log repeatedly: the longer it is, the fewer copies reach the
    // file. Half of a limit on files leaves room for the transaction that makes it too long.
    let log = limit.map_or(LOG_PAGES, |limit| LOG_PAGES.min(limit / 2 / page)).max(1);
    connection.execute_batch(&format!("PRAGMA wal_autocheckpoint = {log}"))?;
    if let Some(pages) = pages(max_size, page, limit) {
        let limit = format!("PRAGMA max_page_count = {pages}");
        connection.query_row(&limit, [], |_| Ok(()))?;
    }
    Ok(connection)
}

/// Turns the write-ahead log on. If several connections do so on a new file at once, each holds
/// what the others wait for, and SQLite tells all but one that it is busy, without the busy
/// timeout. So this retries for as long as that.
pub(crate) fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let until = Instant::now() + BUSY;
    loop {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && Instant::now() < until =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            outcome => return outcome,
        }
    }
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    // Immediate, so that two processes that start together migrate one after the other. It also
    // fails on a file that cannot be written.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS portcullis_schema_version (
             version INTEGER PRIMARY KEY NOT NULL,
             applied_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
         )",
    )?;
    let current: i32 = transaction.query_row(
        "SELECT coalesce(max(version), 0) FROM portcullis_schema_version",
        [],
        |row| row.get(0),
    )?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > current) {
        transaction.execute_batch(migration.sql)?;
        transaction.execute(
            "INSERT INTO portcullis_schema_version (version) VALUES (?1)",
            [migration.version],
        )?;
    }
    transaction.commit()
}

fn write(
    connection: &mut Connection,
    rows: &[Row],
    safety: Safety,
) -> rusqlite::Result<Vec<Refusal>> {
    connection.pragma_update(None, "synchronous", synchronous(safety))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut refusals = Vec::new();
    {
        let mut insert = transaction.prepare_cached(&row::INSERT[0])?;
        let mut upsert = transaction.prepare_cached(&row::INSERT[1])?;
        let mut complete = transaction.prepare_cached(&row::COMPLETE)?;
        for (index, it) in rows.iter().enumerate() {
            let outcome = match it.stage {
                Stage::Answered => row::write(&mut insert, it),
                Stage::Whole => row::write(&mut upsert, it),
                Stage::Completion => match row::complete(&mut complete, it) {
                    Ok(false) => row::write(&mut upsert, it),
                    outcome => outcome.map(drop),
                },
            };
            match outcome {
                Ok(()) => {}
                // The statement is undone, and the transaction continues.
                Err(error) if is_refusal(&error) => {
                    let reason = crate::record::store::error::chain(&error);
                    set_aside(&transaction, it, &reason)?;
                    refusals.push(Refusal { index, reason });
                }
                Err(error) => return Err(error),
            }
        }
    }
    transaction.commit()?;
    Ok(refusals)
}

/// How a file in WAL mode is written.
pub(crate) fn synchronous(safety: Safety) -> &'static str {
    match safety {
        Safety::Process => "normal",
        Safety::Power => "full",
    }
}

fn set_aside(connection: &Connection, row: &Row, reason: &str) -> rusqlite::Result<()> {
    let mut text = Vec::new();
    json::write(&row.invocation, row.stage.is_complete(), &mut text);
    let sql =
        "INSERT OR REPLACE INTO invocations_dead (id, reason, invocation) VALUES (?1, ?2, ?3)";
    let id = row.invocation.id.to_string();
    connection.prepare_cached(sql)?.execute(params![id, reason, String::from_utf8_lossy(&text)])?;
    Ok(())
}

/// Whether the row is at fault, and not the file or the moment.
fn is_refusal(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
    )
}
