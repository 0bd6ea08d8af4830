//! Entries of the journal.
//!
//! An entry holds as many rows as fit into a page, as frames: one insert for several rows, and each
//! row in one piece, so that `salvage` finds it without SQLite's help. Entries are numbered by the
//! microsecond they were made in; that tells their age, and two processes that have the file open
//! during an upgrade do not take each other's numbers.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, params};

use super::frame;
use crate::record::invocation::Row;
use crate::record::journal::page::PAGE;

/// What SQLite keeps of a value within its page (file format, section 1.6), less the entry's number.
const ENTRY: usize = PAGE as usize - 35 - 32;

/// An entry on its way to the store.
///
/// ```text
///           commit            handed to the shipper
/// inbox ─────────────> Disk ─────────────────────────> Held ──the store has it──> Done
///   │ no room           │ ^   `Entry`, or `Read` later   │                         │ `Forget`; deleted with
///   v                   │ └──────── not written ─────────┘                         v a later transaction
/// refused               │                                                         gone
///                       └── damaged: the file is set aside; rows that are whole become entries
///                           of a new one, the others are counted
///
/// Disk  in the file alone: the shipper is away, or behind, and will ask with `Read`
/// Held  in the file, and in the shipper's memory
/// Done  in the file and in the store; not shipped again by this process
/// ```
///
/// A process that ends between the store's commit and the deletion leaves the entry to be shipped
/// again; the store knows its rows by their ids.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) number: i64,
    pub(crate) rows: Vec<Row>,
    /// Rows that cannot be read any more.
    pub(crate) damaged: u64,
}

/// Puts the rows into entries: how many each holds, and its body.
pub(super) fn pack(rows: &[Row]) -> Vec<(usize, Vec<u8>)> {
    let mut entries: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut one = Vec::with_capacity(1024);
    for row in rows {
        one.clear();
        frame::write(row, &mut one);
        match entries.last_mut() {
            Some((count, body)) if body.len() + one.len() <= ENTRY => {
                *count += 1;
                body.extend_from_slice(&one);
            }
            Some(_) | None => {
                let mut body = Vec::with_capacity(ENTRY.max(one.len()));
                body.extend_from_slice(&one);
                entries.push((1, body));
            }
        }
    }
    entries
}

/// Inserts an entry with the next number after `last`, and says which that is.
pub(super) fn insert_next(
    insert: &mut rusqlite::CachedStatement<'_>,
    last: i64,
    rows: usize,
    body: &[u8],
) -> rusqlite::Result<i64> {
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut number = i64::try_from(now.as_micros()).unwrap_or(i64::MAX).max(last + 1);
    loop {
        match insert.execute(params![number, rows, body]) {
            Ok(_) => return Ok(number),
            // Another process has taken it.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                number += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Deletes the entries, and says how many rows they held.
pub(super) fn forget(connection: &Connection, done: &[i64]) -> rusqlite::Result<u64> {
    let sql = "DELETE FROM entries WHERE number = ?1 RETURNING rows";
    let mut delete = connection.prepare_cached(sql)?;
    let mut gone = 0;
    for number in done {
        let mut rows = delete.query([number])?;
        while let Some(row) = rows.next()? {
            gone += u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
        }
    }
    Ok(gone)
}
