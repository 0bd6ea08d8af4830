//! Whether a journal's file is sound. SQLite must not write to it before that is known: in a damaged
//! file it takes pages for free that hold rows.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, MAIN_DB};

use super::failure::{UNKNOWN_VERSION, has_unknown_version};
use crate::record::journal::page::PAGE;

/// Tables that are neither ours nor SQLite's own.
const STRANGE_TABLES: &str = "SELECT count(*) FROM sqlite_schema \
    WHERE tbl_name <> 'entries' AND tbl_name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";

/// What is wrong with the file as SQLite sees it through the log, if anything. Writes nothing.
pub(super) fn damage(connection: &Connection, path: &Path) -> rusqlite::Result<Option<String>> {
    // A damaged name would be a table that no code reads, and its rows would be lost.
    let strange: i64 = connection.query_row(STRANGE_TABLES, [], |row| row.get(0))?;
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    // Nothing has been written yet that would have found out.
    if connection.is_readonly(MAIN_DB)? && has_unknown_version(path) {
        return Ok(Some(UNKNOWN_VERSION.to_owned()));
    }
    if strange > 0 {
        return Ok(Some("a table has a wrong name".to_owned()));
    }
    Ok((check != "ok").then_some(check))
}

/// Whether the file goes on after its last page. SQLite would write over the rest and cut it off.
/// Without a page in the log nothing else explains it: a checkpoint cuts the file to its pages.
pub(super) fn goes_on(connection: &Connection, path: &Path) -> rusqlite::Result<bool> {
    // While this is being read no other process can check pages into the file, or cut it.
    let reading = connection.unchecked_transaction()?;
    let pages: i64 = reading.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    let size = fs::metadata(path).map_or(0, |file| file.len());
    reading.commit()?;
    Ok(size > u64::try_from(pages).unwrap_or(0) * u64::from(PAGE))
}
