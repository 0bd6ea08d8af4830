//! What a process leaves in the journal at its end, in rows: a row may wait with both of its writes.

use std::collections::HashSet;
use std::path::{Path, PathBuf, absolute};
use std::time::Instant;

use rusqlite::Connection;
use uuid::Uuid;

use super::frame;

/// Rows that an end leaves in the journal. The next process with the same file ships them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// How many rows the store lacks, or lacks the second write of.
    pub rows: usize,
    /// Whether these are all: counting has a time limit.
    pub all: bool,
    /// The journal's file, from the root on if that can be told.
    pub path: PathBuf,
}

/// Counts the rows of all entries but those that are `done`.
pub(super) fn count(
    connection: &Connection,
    path: &Path,
    done: &HashSet<i64>,
    until: Instant,
) -> rusqlite::Result<Left> {
    let mut ids = HashSet::<Uuid>::new();
    let mut all = true;
    let mut query = connection.prepare("SELECT number, body FROM entries ORDER BY number")?;
    let mut entries = query.query([])?;
    while let Some(entry) = entries.next()? {
        if Instant::now() >= until {
            all = false;
            break;
        }
        if !done.contains(&entry.get(0)?) {
            let found = frame::find(entry.get_ref(1)?.as_bytes()?);
            ids.extend(found.rows.iter().map(|row| row.invocation.id));
        }
    }
    let path = absolute(path).unwrap_or_else(|_| path.to_owned());
    Ok(Left { rows: ids.len(), all, path })
}
