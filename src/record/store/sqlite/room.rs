//! Makes room in a file that has reached its `max_size`, or on a full disk.

use log::{info, warn};
use rusqlite::{Connection, ErrorCode};

use crate::condition::Spell;
use crate::record::config::StoreFull;

pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// What a file that is full does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room {
    pub(crate) when_full: StoreFull,
    /// Rows are deleted for others.
    deleting: Spell,
}

impl Room {
    pub(crate) fn new(when_full: StoreFull) -> Self {
        Room { when_full, deleting: Spell::default() }
    }
}

/// Deletes expired idempotency keys, and the oldest rows if the policy allows it, so that `rows`
/// new rows should fit. Never a key that is still valid, or its request might be executed again.
/// Returns whether there is more room now.
pub(crate) fn make_room(
    connection: &Connection,
    rows: usize,
    room: &Room,
) -> rusqlite::Result<bool> {
    // Rows differ in size, and rows written together lie in the same pages.
    let most = i64::try_from((rows * 4).max(1000)).unwrap_or(i64::MAX);
    let sql = "DELETE FROM idempotency_keys WHERE scope IN (SELECT scope FROM idempotency_keys \
               WHERE expires_at <= unixepoch('subsec') * 1000 ORDER BY expires_at LIMIT ?1)";
    let keys = connection.execute(sql, [most])?;
    if room.when_full == StoreFull::Refuse {
        return Ok(keys > 0);
    }
    let sql =
        "DELETE FROM invocations WHERE id IN (SELECT id FROM invocations ORDER BY id LIMIT ?1)";
    let gone = connection.execute(sql, [most])?;
    if gone > 0
        && let Some(begun) = room.deleting.met()
    {
        warn!(
            "record store: the file has reached its max_size: deleted the {gone} oldest rows, and \
             so on for others"
        );
        begun.until(|over| info!("record store: no more rows deleted for room {over}"));
    }
    Ok(keys > 0 || gone > 0)
}
