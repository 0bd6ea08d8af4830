//! Recovers rows from a journal that SQLite cannot read to its end.
//!
//! Two things can be wrong. If a page of the file is damaged, all rows are searched for in the
//! file's bytes. If the log is damaged, SQLite uses it only up to the first page whose checksum is
//! wrong, so the pages after that are searched. Rows found may have been shipped before, because
//! free pages keep what they held; the store recognizes them by their ids.
//!
//! The log holds a page once for each time it was written. A row that is damaged in one of these
//! versions and intact in another is not lost. A row is counted as damaged if an entry of the last
//! version holds it and it is intact nowhere.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use super::frame;
use super::frame::{Found, Head};
use crate::record::invocation::Row;
use crate::record::journal::page::PAGE;

/// Sizes in the log (file format, section 4.1): of its header, and of a page's header in it.
const LOG_HEAD: usize = 32;
const PAGE_HEAD: usize = 24;
/// The size of the header in the file's first page, before the page's own.
const FILE_HEAD: usize = 100;
/// The type of a page that holds rows of a table (section 1.6).
const LEAF: u8 = 0x0d;
/// What SQLite writes before an entry's body, at most: sizes, the entry's number, types.
const BEFORE_BODY: usize = 24;

/// The write-ahead log as it was before SQLite opened it.
pub(super) struct Log(pub(super) Vec<u8>);

/// Reads the log beside the journal at `path`; a missing log counts as empty.
pub(super) fn log(path: &Path) -> Log {
    Log(fs::read(beside(path, "-wal")).unwrap_or_default())
}

/// What is left of the pages. A page may be there in several versions, the last one last.
#[derive(Default)]
struct Left<'a> {
    found: Found,
    pages: HashMap<u32, &'a [u8]>,
    /// The damaged rows in the last version of each page.
    damaged: HashMap<u32, Vec<Head>>,
}

impl Log {
    /// The rows in the pages after the first `sound` ones. A row counts as damaged if it is intact
    /// nowhere else in the log.
    pub(super) fn beyond(&self, sound: u64) -> Found {
        let sound = usize::try_from(sound).unwrap_or(usize::MAX);
        let mut left = Left::default();
        for (number, page) in self.pages().take(sound) {
            left.found.good.extend(frame::find(page).good);
            left.pages.insert(number, page);
        }
        self.pages().skip(sound).for_each(|(number, page)| left.add(number, page));
        left.finish()
    }

    /// Each page with its number, in the order they were written. Pages from an earlier round of
    /// the log have another salt, which differs in more than one bit.
    fn pages(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let salt = salt(self.0.get(16..24).unwrap_or_default());
        let pages = self.0.get(LOG_HEAD..).unwrap_or_default();
        pages.chunks(PAGE_HEAD + PAGE as usize).filter_map(move |page| {
            let of_this_round = (salt? ^ salt_of(page)?).count_ones() <= 1;
            let number = u32::from_be_bytes(page.get(..4)?.try_into().ok()?);
            of_this_round.then_some((number, page.get(PAGE_HEAD..).unwrap_or_default()))
        })
    }
}

fn salt(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn salt_of(page: &[u8]) -> Option<u64> {
    salt(page.get(8..16)?)
}

/// Every row in the file and in the log.
pub(super) fn all(path: &Path, log: &Log) -> Found {
    in_bytes(&fs::read(path).unwrap_or_default(), log)
}

/// As [`all`], for a file that has been read already.
pub(super) fn in_bytes(file: &[u8], log: &Log) -> Found {
    let mut left = Left::default();
    (1..).zip(file.chunks(PAGE as usize)).for_each(|(number, page)| left.add(number, page));
    log.pages().for_each(|(number, page)| left.add(number, page));
    left.finish()
}

impl<'a> Left<'a> {
    /// Adds a page, in place of its earlier version.
    fn add(&mut self, number: u32, page: &'a [u8]) {
        // Bytes that no longer belong to an entry may be partly overwritten, so damage there does
        // not count.
        self.found.extend(Found { damaged: Vec::new(), ..frame::find(page) });
        let before = self.pages.insert(number, page).unwrap_or_default();
        let mut damaged = Vec::new();
        for (start, cell) in cells(number, page) {
            let is_cut = start + cell.len() == page.len() && page.len() < PAGE as usize;
            if is_cut && before.get(start..start + cell.len()) == Some(cell) {
                continue;
            }
            let body =
                (0..BEFORE_BODY.min(cell.len())).find(|start| frame::begins(&cell[*start..]));
            let found = frame::find(&cell[body.unwrap_or(0)..]);
            damaged.extend_from_slice(&found.damaged);
            self.found.extend(Found { damaged: Vec::new(), ..found });
        }
        self.damaged.insert(number, damaged);
    }

    fn finish(self) -> Found {
        let Left { mut found, damaged, .. } = self;
        found.rows = distinct(found.rows);
        found.damaged = damaged.into_values().flatten().collect();
        found.forget_known(&HashSet::new())
    }
}

impl Found {
    /// Without the damaged frames that are intact elsewhere, here or among `others`; each frame
    /// once.
    pub(super) fn forget_known(mut self, others: &HashSet<Head>) -> Self {
        let mut known: HashSet<Head> = self.good.iter().copied().collect();
        self.damaged.retain(|head| !others.contains(head) && known.insert(*head));
        self
    }
}

/// The cells of a page of entries, as far as they are there, and where each begins.
fn cells(number: u32, page: &[u8]) -> Vec<(usize, &[u8])> {
    let head = if number == 1 { FILE_HEAD } else { 0 };
    if page.get(head) != Some(&LEAF) {
        return Vec::new();
    }
    let pair = |at: usize| {
        let pair = page.get(head + at..head + at + 2)?;
        Some(usize::from(u16::from_be_bytes(pair.try_into().ok()?)))
    };
    let cell = |index: usize| {
        let start = pair(8 + 2 * index)?;
        let cell = page.get(start..)?;
        let (size, after) = varint(cell)?;
        let (_, after_number) = varint(&cell[after..])?;
        let end = size.saturating_add(after + after_number);
        Some((start, &cell[..end.min(cell.len())]))
    };
    (0..pair(3).unwrap_or(0)).filter_map(cell).collect()
}

/// A number in SQLite's encoding (section 1.6), and how many bytes it takes. Numbers that do not
/// fit `usize` are of no interest here.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0usize;
    for (index, byte) in bytes.iter().take(9).enumerate() {
        value = value << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 || index == 8 {
            return Some((value, index + 1));
        }
    }
    None
}

fn distinct(mut rows: Vec<Row>) -> Vec<Row> {
    let mut seen = HashSet::new();
    rows.retain(|row| seen.insert((row.invocation.id, row.stage.is_complete())));
    rows
}

/// Renames the file and the files that belong to it, and returns the new name.
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
