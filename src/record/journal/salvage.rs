//! Rows out of a journal that SQLite does not read to its end.
//!
//! Two things can be wrong. A page of the file is damaged: then all rows are looked for in the file's
//! bytes. Or the log is: SQLite uses it up to the first page whose checksum is wrong, so the pages
//! after that are searched. Rows found may have been shipped before: pages that are free keep what
//! they held. The store knows them by their ids.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::frame::{self, Found};
use crate::record::invocation::Row;

/// Sizes in the log (file format, section 4.1): of its head, and of that of a page in it.
const LOG_HEAD: usize = 32;
const PAGE_HEAD: usize = 24;

/// The write-ahead log as it was before SQLite opened it.
pub(super) struct Log {
    bytes: Vec<u8>,
    page: usize,
}

/// Reads the log beside the journal at `path`; none is an empty one.
pub(super) fn log(path: &Path) -> Log {
    let bytes = fs::read(beside(path, "-wal")).unwrap_or_default();
    let page = bytes.get(8..12).and_then(|size| size.try_into().ok()).map_or(0, u32::from_be_bytes);
    Log { bytes, page: page as usize }
}

impl Log {
    /// The rows in pages after the first `sound` ones.
    pub(super) fn beyond(&self, sound: u64) -> Found {
        let one = PAGE_HEAD + self.page;
        let start = usize::try_from(sound).unwrap_or(usize::MAX).saturating_mul(one);
        let pages = self.bytes.get(LOG_HEAD.saturating_add(start)..).unwrap_or_default();
        // Those of an earlier round carry another salt.
        let salt = self.bytes.get(16..24).unwrap_or_default();
        let (mut rows, mut damaged) = (Vec::new(), HashMap::new());
        for page in pages.chunks(one).take_while(|page| page.get(8..16) == Some(salt)) {
            let found = frame::find(page.get(PAGE_HEAD..).unwrap_or_default());
            rows.extend(found.rows);
            // A page is in the log once for each time it was written: the last one counts.
            damaged.insert(page.get(..4), found.damaged);
        }
        Found { rows: distinct(rows), damaged: damaged.values().sum() }
    }
}

/// Every row in the file and in the log.
pub(super) fn all(path: &Path, log: &Log) -> Found {
    let in_file = frame::find(&fs::read(path).unwrap_or_default());
    let in_log = log.beyond(0);
    let rows = distinct([in_file.rows, in_log.rows].concat());
    Found { rows, damaged: in_file.damaged + in_log.damaged }
}

fn distinct(mut rows: Vec<Row>) -> Vec<Row> {
    let mut seen = HashSet::new();
    rows.retain(|row| seen.insert((row.invocation.id, row.stage.is_complete())));
    rows
}

/// Moves the file and what belongs to it out of the way; its new name.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let aside = beside(path, &format!(".damaged-{seconds}"));
    for suffix in ["", "-wal", "-shm"] {
        match fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(aside)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
