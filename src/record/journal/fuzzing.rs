//! Fuzz targets for the journal: every intact row is found, whatever else is damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::file::File;
use super::frame;
use super::page::PAGE;
use super::salvage;
use crate::record::fuzzing::rows::{invocation, sorted};
use crate::record::invocation::{Invocation, Row, Stage};
use crate::record::row::{binary, json};
use crate::record::store::safety::Safety;

/// Separates the rows of an input, and these from the bytes that damage them. No text contains it.
const NEXT_ROW: u8 = 0xfe;
const DAMAGE: u8 = 0xfd;
const MOST_ROWS: usize = 6;
/// Sizes in the log: of its header, and of a page's header.
const LOG_HEAD: usize = 32;
const PAGE_HEAD: usize = 24;

/// Rows, and damage to their frames. Every row whose frame is intact is found, in order.
pub fn frames(input: &[u8]) {
    check_reading(input);
    let (rows, damage) = rows_and_damage(input);
    let mut bytes = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let mut frame = Vec::new();
        frame::write(row, &mut frame);
        bytes.extend(frame.iter().enumerate().map(|(at, byte)| (*byte, Some((index, at)))));
    }
    let found = frame::find(&plain(&bytes));
    assert_eq!(found.rows, rows);
    assert_eq!((found.covered, found.damaged.len()), (bytes.len(), 0));
    let mut damaged = bytes;
    apply(damage, &mut damaged, |byte| (byte, None), |(byte, _)| byte);
    let found = frame::find(&plain(&damaged));
    let mut left = found.rows.iter();
    for (index, row) in rows.iter().enumerate() {
        if is_whole(&damaged, index, row) {
            assert!(left.any(|found| found == row), "row {index} is whole and not found");
        }
    }
    assert!(found.covered <= damaged.len());
}

/// Damage to a journal's file and its log, which SQLite need not be able to read. Every row whose
/// frame is intact in a page is found.
pub fn salvage(input: &[u8]) {
    let left = left_behind();
    let (damage_of_file, damage_of_log) = input.split_at(input.len() / 2);
    let (mut file, mut log) = (left.file.clone(), left.log.clone());
    apply(damage_of_file, &mut file, |byte| byte, |byte| byte);
    apply(damage_of_log, &mut log, |byte| byte, |byte| byte);
    let found = salvage::in_bytes(&file, &salvage::Log(log.clone()));
    for row in whole_in_a_page(&left, &file, &log) {
        assert!(found.rows.contains(row), "{} is whole and not found", row.invocation.path);
    }
    let log = salvage::Log(log);
    for sound in [0, 1, u64::from(input.first().copied().unwrap_or(0))] {
        let beyond = log.beyond(sound);
        assert!(beyond.rows.iter().all(|row| found.rows.contains(row)));
    }
}

/// Damage to a journal's file and its log, which is then opened. It always opens, and keeps what is
/// intact in the file.
pub fn journal(input: &[u8]) {
    let left = left_behind();
    let (damage_of_file, damage_of_log) = input.split_at(input.len() / 2);
    let (mut file, mut log) = (left.file.clone(), left.log.clone());
    apply(damage_of_file, &mut file, |byte| byte, |byte| byte);
    apply(damage_of_log, &mut log, |byte| byte, |byte| byte);
    let directory = OPENED.with(|directory| directory.0.clone());
    clear(&directory);
    let path = directory.join("journal.db");
    fs::write(&path, &file).expect("written");
    fs::write(directory.join("journal.db-wal"), &log).expect("written");
    let (mut opened, _) = File::open(&path, 0, Safety::Process).expect("it opens");
    let (entries, is_all) = opened.oldest(usize::MAX).expect("it is read");
    assert!(is_all);
    let found: Vec<Row> = entries.into_iter().flat_map(|entry| entry.rows).collect();
    for row in whole_in_a_page(&left, &file, &log) {
        assert!(found.contains(row), "{} is whole and not found", row.invocation.path);
    }
}

/// Bytes that parse as a row give the same row after a round trip.
fn check_reading(input: &[u8]) {
    let read: [Option<(Invocation, bool)>; 2] = [binary::read(input), json::read(input)];
    for (invocation, completed) in read.into_iter().flatten() {
        let stage = if completed { Stage::Completion } else { Stage::Answered };
        let row = written_and_read(&Row::new(invocation, stage));
        assert_eq!(written_and_read(&row), row);
        let mut text = Vec::new();
        json::write(&row.invocation, completed, &mut text);
        assert!(json::read(&text).is_some());
    }
}

fn written_and_read(row: &Row) -> Row {
    let mut bytes = Vec::new();
    frame::write(row, &mut bytes);
    let mut found = frame::find(&bytes);
    assert_eq!((found.rows.len(), found.covered), (1, bytes.len()));
    let row = found.rows.remove(0);
    Row::new(sorted(Invocation::clone(&row.invocation)), row.stage)
}

fn rows_and_damage(input: &[u8]) -> (Vec<Row>, &[u8]) {
    let end = memchr::memchr(DAMAGE, input).unwrap_or(input.len());
    let rows = input[..end].split(|byte| *byte == NEXT_ROW).take(MOST_ROWS);
    let rows = rows.map(|row| {
        let row = sorted(invocation(row));
        let stage = if row.success { Stage::Completion } else { Stage::Answered };
        Row::new(row, stage)
    });
    (rows.collect(), input.get(end + 1..).unwrap_or_default())
}

/// A byte, and the position it had in which frame.
type Tagged = (u8, Option<(usize, usize)>);

fn plain(bytes: &[Tagged]) -> Vec<u8> {
    bytes.iter().map(|(byte, _)| *byte).collect()
}

/// Applies `damage`, four bytes at a time: what is done, where, and with what. Elements may carry
/// more than the byte: `of` makes one from a byte, `plain` gives the byte back.
fn apply<B: Copy>(damage: &[u8], bytes: &mut Vec<B>, of: fn(u8) -> B, plain: fn(B) -> u8) {
    for step in damage.chunks_exact(4) {
        let [kind, high, low, value] = *step else { continue };
        // Two bytes for the place, so that large files are damaged everywhere too.
        let place = usize::from(u16::from_be_bytes([high, low]));
        let at = place * (bytes.len() / 65_536 + 1) % (bytes.len() + 1);
        let end = (at + usize::from(value)).min(bytes.len());
        match kind % 5 {
            0 => {
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = of(plain(*byte) ^ value))
            }
            1 => drop(bytes.drain(at..end)),
            2 => bytes.insert(at, of(value)),
            3 => bytes[at..end].fill(of(0)),
            // The bytes of another place, as if a sector was written to the wrong place.
            _ => {
                let from: Vec<B> = bytes[at..end].iter().map(|byte| of(plain(*byte))).collect();
                bytes.splice(at / 2..at / 2, from);
            }
        }
    }
}

fn is_whole(bytes: &[Tagged], index: usize, row: &Row) -> bool {
    let mut frame = Vec::new();
    frame::write(row, &mut frame);
    let start = bytes.iter().position(|(_, tag)| *tag == Some((index, 0)));
    let there = start.and_then(|start| bytes.get(start..start + frame.len()));
    there.is_some_and(|there| {
        there.iter().enumerate().all(|(at, (_, tag))| *tag == Some((index, at)))
    })
}

/// A journal as a killed process leaves it.
struct LeftBehind {
    file: Vec<u8>,
    log: Vec<u8>,
    rows: Vec<Row>,
    frames: Vec<Vec<u8>>,
}

thread_local! {
    static LEFT: Rc<LeftBehind> = Rc::new(LeftBehind::new());
    static OPENED: Directory = Directory::new("opened");
}

fn left_behind() -> Rc<LeftBehind> {
    LEFT.with(Rc::clone)
}

impl LeftBehind {
    fn new() -> Self {
        let directory = Directory::new("left");
        let path = directory.0.join("journal.db");
        let (mut file, _) = File::open(&path, 0, Safety::Process).expect("opened");
        let row = |n: usize| Row::new(invocation(format!("/row/{n}").as_bytes()), Stage::Answered);
        let rows: Vec<Row> = (0..30).map(row).collect();
        file.append(&rows[..10], &[]).expect("written");
        // These go into the file itself; what follows is in the log only.
        rusqlite::Connection::open(&path)
            .and_then(|it| it.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
            .expect("written back");
        for group in rows[10..].chunks(5) {
            file.append(group, &[]).expect("written");
        }
        let read = |name: &str| fs::read(directory.0.join(name)).expect("a file");
        let (left, log) = (read("journal.db"), read("journal.db-wal"));
        let frames = rows.iter().map(|row| {
            let mut frame = Vec::new();
            frame::write(row, &mut frame);
            frame
        });
        LeftBehind { file: left, log, frames: frames.collect(), rows }
    }
}

/// The rows whose frames are intact in a page of the file or the log.
fn whole_in_a_page<'a>(left: &'a LeftBehind, file: &[u8], log: &[u8]) -> Vec<&'a Row> {
    let pages: Vec<&[u8]> = file.chunks(PAGE as usize).chain(pages_of(log)).collect();
    let is_there =
        |frame: &[u8]| pages.iter().any(|page| memchr::memmem::find(page, frame).is_some());
    let rows = left.rows.iter().zip(&left.frames);
    rows.filter(|(_, frame)| is_there(frame)).map(|(row, _)| row).collect()
}

/// Pages that belong to the log's current round, found by an independent reader of the format.
fn pages_of(log: &[u8]) -> impl Iterator<Item = &[u8]> {
    let salt = log.get(16..24);
    let pages = log.get(LOG_HEAD..).unwrap_or_default().chunks(PAGE_HEAD + PAGE as usize);
    pages
        .filter(move |page| page.get(8..16) == salt && salt.is_some())
        .map(|page| page.get(PAGE_HEAD..).unwrap_or_default())
}

/// A directory that goes with its thread.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let (process, thread) = (std::process::id(), std::thread::current().id());
        let name = format!("portcullis-{name}-{process}-{thread:?}");
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Deletes all files but the reserve, which takes long to make.
fn clear(directory: &Path) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        if !entry.path().to_string_lossy().ends_with("-reserve") {
            fs::remove_file(entry.path()).expect("removed");
        }
    }
}
