//! The journal's write-ahead log, and when it is checkpointed into the file.
//!
//! By default SQLite checkpoints in the commit that makes the log too long, so the requests of that
//! commit wait for it too. Here it is done between two commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::Connection;
use rusqlite::hooks::Wal;

/// Pages at which the log is checkpointed if no request waits. Requests that arrive meanwhile wait
/// for it, so it should be rare; many pages take little longer than a few.
const LONG: usize = 900;
/// Pages at which it is checkpointed even if requests wait. Together with the largest group after
/// it, this is less than the reserve holds.
const LONGEST: usize = 1000;

/// Tracks how long the log is.
pub(super) struct Log {
    /// In pages, after the last commit. It orders no other memory, so accesses are relaxed.
    pages: Arc<AtomicUsize>,
}

impl Log {
    /// Turns off the checkpoints that the connection's commits would make.
    pub(super) fn of(connection: &mut Connection) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&pages);
        // Replaces SQLite's own hook, which would checkpoint.
        connection.wal_hook(Some(move |_: &mut Wal, pages| {
            seen.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Log { pages })
    }

    pub(super) fn wants_checkpoint(&self, now: bool) -> bool {
        self.pages.load(Ordering::Relaxed) >= if now { LONGEST } else { LONG }
    }

    /// Checkpoints as much as possible. If another connection is in the way or the disk is full,
    /// the next one after a later commit finishes it.
    pub(super) fn checkpoint(&self, connection: &Connection) {
        self.pages.store(0, Ordering::Relaxed);
        let query = connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)");
        query.and_then(|mut query| query.query_row([], |_| Ok(()))).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_leaves_the_log_alone_until_it_is_told_to_work_it_in() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("journal.db");
        let mut connection = Connection::open(&path).expect("a file");
        connection.pragma_update(None, "journal_mode", "wal").expect("a log");
        let log = Log::of(&mut connection).expect("a hook");
        let size = || std::fs::metadata(&path).expect("a file").len();
        let fill =
            "CREATE TABLE IF NOT EXISTS t (b BLOB); INSERT INTO t VALUES (zeroblob(2000000))";
        connection.execute_batch(fill).expect("room");
        assert!(!log.wants_checkpoint(false));
        connection.execute_batch(fill).expect("room");
        assert!(log.wants_checkpoint(false) && !log.wants_checkpoint(true));
        connection.execute_batch(fill).expect("room");
        assert!(log.wants_checkpoint(true));
        assert!(size() < 100_000, "{}", size());
        log.checkpoint(&connection);
        assert!(!log.wants_checkpoint(false));
        assert!(size() > 6_000_000, "{}", size());
        // The log starts over.
        connection.execute_batch("DELETE FROM t").expect("room");
        assert!(!log.wants_checkpoint(false));
    }
}
