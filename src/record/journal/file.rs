//! The journal's file: SQLite in WAL mode, one table of entries.
//!
//! It opens in whatever state it is in, can be emptied even on a full disk, and shrinks once empty.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension};

use super::check;
use super::entry::{Entry, forget, insert_next, pack};
use super::failure::{Failure, failure};
use super::frame::{self, Found, Head};
use super::left::{self, Left};
use super::reserve::Reserve;
use super::salvage;
use super::wal::Log;
use crate::record::invocation::Row;
use crate::record::journal::page::PAGE;
use crate::record::store::file_limit::{file_limit, pages};
use crate::record::store::safety::Safety;
use crate::record::store::sqlite;

/// Entries read at a time; rows wait to be committed meanwhile.
const PORTION: usize = 256;
/// An empty file with more pages than this is shrunk.
const SHRINK_FROM: u64 = 256;
/// How long to wait for a writer in another process.
const BUSY: Duration = Duration::from_secs(2);

pub(super) struct File {
    path: PathBuf,
    connection: Connection,
    reserve: Reserve,
    safety: Safety,
    log: Log,
    last: i64,
    /// The oldest entry's number, if known.
    oldest: Option<i64>,
    /// Rows in the file, those of another build not counted.
    pub(super) depth: u64,
    /// Entries with rows of a form that this build does not know. They stay for the build that does.
    unknown: usize,
}

/// What was recovered from a file that a crash or the disk has damaged.
#[derive(Debug, Default)]
pub(super) struct Repaired {
    pub(super) found: u64,
    pub(super) damaged: u64,
}

impl File {
    /// Opens the file, creating it and its directory if missing. A damaged file is set aside, and
    /// its intact rows are kept.
    pub(super) fn open(
        path: &Path,
        max_size: u64,
        safety: Safety,
    ) -> Result<(Self, Repaired), Failure> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .map_err(|error| Failure::Other(path.to_owned(), error.to_string()))?;
        }
        // Read before SQLite opens the log: SQLite silently drops everything after the first
        // damage.
        let log = salvage::log(path);
        let mut repaired = Repaired::default();
        let (mut file, rows) = match Self::connect(path, max_size, safety) {
            Ok((file, sound)) => {
                let lost = log.beyond(sound);
                let lost = if lost.damaged.is_empty() { lost } else { file.without_known(lost)? };
                repaired.damaged = lost.damaged.len() as u64;
                (file, lost.rows)
            }
            Err(Failure::Damaged(_, reason)) => {
                let found = salvage::all(path, &log);
                let aside = salvage::set_aside(path)
                    .map_err(|error| Failure::Other(path.to_owned(), error.to_string()))?;
                let aside = aside.display();
                log::error!(
                    "record journal: {}: {reason}; kept as {aside}, what is good in it is used",
                    path.display()
                );
                repaired.damaged = found.damaged.len() as u64;
                (Self::connect(path, max_size, safety)?.0, found.rows)
            }
            Err(failure) => return Err(failure),
        };
        repaired.found = rows.len() as u64;
        if !rows.is_empty() {
            file.append(&rows, &[])?;
        }
        Ok((file, repaired))
    }

    /// Also returns the number of sound pages in the log. A damaged file is left as it is, so that
    /// all that is good in it can be found.
    fn connect(path: &Path, max_size: u64, safety: Safety) -> Result<(Self, u64), Failure> {
        let connect = || -> rusqlite::Result<_> {
            let connection = Connection::open(path)?;
            // Closing it would otherwise write the log into a damaged file.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "page_size", PAGE)?;
            sqlite::write_ahead(&connection)?;
            connection.pragma_update(None, "cell_size_check", true)?;
            if let Some(damage) = check::damage(&connection, path)? {
                return Ok(Err(damage));
            }
            // If another process has the log in use, this writes only what was there already.
            let sound: i64 =
                connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
            if sound <= 0 && check::goes_on(&connection, path)? {
                return Ok(Err("the file goes on after its last page".to_owned()));
            }
            connection.pragma_update(None, "synchronous", sqlite::synchronous(safety))?;
            let pages = pages(max_size, u64::from(PAGE), file_limit());
            let pages = pages.unwrap_or(u64::from(u32::MAX - 1));
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
            connection.execute_batch(
                "CREATE TABLE IF NOT EXISTS entries (
                     number INTEGER PRIMARY KEY NOT NULL,
                     rows   INTEGER NOT NULL,
                     body   BLOB NOT NULL
                 )",
            )?;
            // Names every column, so that a column whose name is damaged is noticed here.
            let sql = "SELECT coalesce(max(number), 0), coalesce(sum(rows), 0), count(body) \
                       FROM entries";
            let (last, depth): (i64, i64) =
                connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
            Ok(Ok((connection, sound, last, depth)))
        };
        let (mut connection, sound, last, depth) = connect()
            .map_err(|error| failure(path, &error))?
            .map_err(|damage| Failure::Damaged(path.to_owned(), damage))?;
        let log = Log::of(&mut connection).map_err(|error| failure(path, &error))?;
        let depth = u64::try_from(depth).unwrap_or(0);
        let reserve = Reserve::beside(path);
        let path = path.to_owned();
        let file =
            File { path, connection, reserve, safety, log, last, oldest: None, depth, unknown: 0 };
        Ok((file, u64::try_from(sound).unwrap_or(0)))
    }

    /// Sets what commits have to survive from now on. This covers earlier commits too.
    pub(super) fn survive(&mut self, safety: Safety) -> Result<(), Failure> {
        if self.safety != safety {
            let set =
                self.connection.pragma_update(None, "synchronous", sqlite::synchronous(safety));
            set.map_err(|error| failure(&self.path, &error))?;
            self.safety = safety;
        }
        Ok(())
    }

    /// Commits `rows` and forgets the entries `done` in one transaction. Returns the new entries,
    /// each with the number of rows it holds, in order. If the rows do not fit, the entries are
    /// still forgotten.
    pub(super) fn append(
        &mut self,
        rows: &[Row],
        done: &[i64],
    ) -> Result<Vec<(i64, usize)>, Failure> {
        if rows.is_empty() || self.reserve.hold() {
            match self.write(rows, done) {
                Err(Failure::Full(_)) if !self.is_capped(rows) => self.make_room(),
                outcome => return outcome,
            }
        }
        // Skip an empty write: without the reserve every write counts.
        if !done.is_empty() {
            self.write(&[], done)?;
        }
        if rows.is_empty() { Ok(Vec::new()) } else { Err(Failure::Full(self.path.clone())) }
    }

    /// Whether these rows do not fit because of the file's size limit, though the disk has room.
    fn is_capped(&self, rows: &[Row]) -> bool {
        // A row may take more than a page, and the tree above the rows needs some pages too.
        let needed = 4 * rows.len() as u64 + 8;
        self.pages("page_count") + needed > self.pages("max_page_count")
    }

    fn pages(&self, name: &str) -> u64 {
        let pages = self.connection.prepare_cached(&format!("PRAGMA {name}"));
        let pages = pages.and_then(|mut query| query.query_row([], |row| row.get::<_, i64>(0)));
        u64::try_from(pages.unwrap_or(0)).unwrap_or(0)
    }

    /// Gives an empty file's space back to the disk; SQLite never does so by itself.
    fn shrink(&self) {
        if self.depth > 0 || self.unknown > 0 || self.pages("page_count") <= SHRINK_FROM {
            return;
        }
        // Another process may be reading; the next write tries again.
        self.connection.execute_batch("VACUUM").ok();
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        self.connection.query_row(checkpoint, [], |_| Ok(())).ok();
    }

    /// Whether a checkpoint is due. `now` says that requests are waiting; then the log may grow
    /// longer before it is.
    pub(super) fn wants_checkpoint(&self, now: bool) -> bool {
        self.log.wants_checkpoint(now)
    }

    pub(super) fn checkpoint(&self) {
        self.log.checkpoint(&self.connection);
    }

    /// Makes room by giving up the reserve and checkpointing, so that the log starts over in place.
    fn make_room(&mut self) {
        self.reserve.give_up();
        let checkpoint = "PRAGMA wal_checkpoint(RESTART)";
        self.connection.query_row(checkpoint, [], |_| Ok(())).ok();
    }

    fn write(&mut self, rows: &[Row], done: &[i64]) -> Result<Vec<(i64, usize)>, Failure> {
        let entries = pack(rows);
        let insert_all = |connection: &Connection| {
            let gone = forget(connection, done)?;
            let mut insert = connection
                .prepare_cached("INSERT INTO entries (number, rows, body) VALUES (?1, ?2, ?3)")?;
            let mut made = Vec::with_capacity(entries.len());
            let mut last = self.last;
            for (count, body) in &entries {
                last = insert_next(&mut insert, last, *count, body)?;
                made.push((last, *count));
            }
            Ok((made, gone, last))
        };
        let (made, gone, last) = transaction(&self.connection, insert_all)
            .map_err(|error| failure(&self.path, &error))?;
        if self.depth == 0 || self.oldest.is_some_and(|oldest| done.contains(&oldest)) {
            self.oldest = None;
        }
        self.last = last;
        self.depth = (self.depth + rows.len() as u64).saturating_sub(gone);
        self.shrink();
        Ok(made)
    }

    /// The oldest entries, up to `most` rows or [`PORTION`] entries, and whether these are all
    /// there are. Entries of a form that is unknown here are left out, and so never forgotten.
    pub(super) fn oldest(&mut self, most: usize) -> Result<(Vec<Entry>, bool), Failure> {
        let read = || -> rusqlite::Result<_> {
            let sql = "SELECT number, rows, body FROM entries ORDER BY number";
            let mut query = self.connection.prepare_cached(sql)?;
            let mut found = query.query([])?;
            let (mut entries, mut rows, mut unknown) = (Vec::new(), 0, 0);
            while let Some(row) = found.next()? {
                if rows >= most || entries.len() >= PORTION {
                    return Ok((entries, None, unknown));
                }
                let (held, body) = (row.get::<_, i64>(1)?, row.get_ref(2)?.as_bytes()?);
                let found = frame::find(body);
                if found.unknown > 0 {
                    unknown += 1;
                    continue;
                }
                let good = found.rows.len();
                rows += good;
                let missing = usize::try_from(held).unwrap_or(0).saturating_sub(good);
                // The row count itself may be damaged.
                let whole = found.covered == body.len();
                let damaged = if whole { 0 } else { missing.max(found.damaged.len()) as u64 };
                entries.push(Entry { number: row.get(0)?, rows: found.rows, damaged });
            }
            Ok((entries, Some(rows as u64), unknown))
        };
        let (entries, all, unknown) = read().map_err(|error| failure(&self.path, &error))?;
        if unknown > self.unknown {
            let path = self.path.display();
            log::warn!(
                "record journal: {path}: {unknown} entries are of another version of the gateway, \
                 and stay there for it"
            );
        }
        self.unknown = unknown;
        // Another process may have added or removed entries.
        self.depth = all.unwrap_or(self.depth);
        self.oldest = None;
        Ok((entries, all.is_some()))
    }

    /// `found`, without the rows that are damaged in the log but intact in the file.
    fn without_known(&self, found: Found) -> Result<Found, Failure> {
        let read = || -> rusqlite::Result<HashSet<Head>> {
            let mut known = HashSet::new();
            let mut query = self.connection.prepare("SELECT body FROM entries")?;
            let mut entries = query.query([])?;
            while let Some(entry) = entries.next()? {
                known.extend(frame::find(entry.get_ref(0)?.as_bytes()?).good);
            }
            Ok(known)
        };
        let known = read().map_err(|error| failure(&self.path, &error))?;
        Ok(found.forget_known(&known))
    }

    /// What waits in the file beside the entries `done`, as far as it is counted by `until`.
    pub(super) fn left(&self, done: &HashSet<i64>, until: Instant) -> Option<Left> {
        left::count(&self.connection, &self.path, done, until).ok()
    }

    /// Since when the oldest entry has been waiting.
    pub(super) fn oldest_since(&mut self) -> Option<SystemTime> {
        if self.oldest.is_none() {
            let sql = "SELECT min(number) FROM entries";
            let query = self.connection.prepare_cached(sql);
            let found =
                query.and_then(|mut query| query.query_row([], |row| row.get(0)).optional());
            self.oldest = found.ok()?.flatten();
        }
        let micros = u64::try_from(self.oldest?).ok()?;
        Some(UNIX_EPOCH + Duration::from_micros(micros))
    }
}

/// Runs `work` in a transaction. BEGIN, COMMIT and ROLLBACK are cached, so that SQLite does not
/// parse them each time.
fn transaction<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let run = |sql| connection.prepare_cached(sql)?.execute([]);
    run("BEGIN IMMEDIATE")?;
    let done = work(connection).and_then(|value| run("COMMIT").map(|_| value));
    // SQLite has already rolled back after some failures.
    if done.is_err() && !connection.is_autocommit() {
        run("ROLLBACK").ok();
    }
    done
}
