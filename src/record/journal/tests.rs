//! What is left of a journal after damage: every row is either found or counted as damaged, exactly
//! once.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::file::File;
use super::frame::tests::of_another_build;
use super::page::PAGE;
use crate::record::invocation::tests::invocation;
use crate::record::invocation::{Row, Stage};
use crate::record::store::safety::Safety;

const ROWS: usize = 50;

/// A journal's file and its log.
#[derive(Clone)]
struct Bytes {
    file: Vec<u8>,
    log: Vec<u8>,
}

impl Bytes {
    /// A journal as a killed process leaves it: [`ROWS`] rows in transactions of one to three,
    /// after twenty that have been shipped.
    fn left_behind() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("journal.db");
        let (mut file, _) = File::open(&path, 0, Safety::Power).expect("opened");
        let row = |name: String| Row::new(invocation(&name), Stage::Answered);
        for n in 0..20 {
            let made = file.append(&[row(format!("shipped {n}"))], &[]).expect("written");
            file.append(&[], &[made[0].0]).expect("forgotten");
        }
        let rows: Vec<Row> = (0..ROWS).map(|n| row(format!("row {n:02}"))).collect();
        let mut rest = &rows[..];
        for size in [1, 2, 3].into_iter().cycle() {
            let (group, others) = rest.split_at(size.min(rest.len()));
            file.append(group, &[]).expect("written");
            rest = others;
            if rest.is_empty() {
                break;
            }
        }
        let read = |suffix: &str| {
            fs::read(directory.path().join(format!("journal.db{suffix}"))).expect("a file")
        };
        Bytes { file: read(""), log: read("-wal") }
    }

    /// The same with everything in the file, and no log.
    fn settled() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("journal.db");
        Bytes::left_behind().write(directory.path());
        let connection = Connection::open(&path).expect("a file");
        connection.query_row("SELECT count(*) FROM entries", [], |_| Ok(())).expect("rows");
        drop(connection);
        Bytes { file: fs::read(path).expect("a file"), log: Vec::new() }
    }

    fn write(&self, directory: &Path) {
        fs::write(directory.join("journal.db"), &self.file).expect("written");
        if !self.log.is_empty() {
            fs::write(directory.join("journal.db-wal"), &self.log).expect("written");
        }
    }

    /// How many of the rows are found, and how many are counted as damaged.
    fn opened(&self) -> (usize, usize) {
        let directory = tempfile::tempdir().expect("a directory");
        self.write(directory.path());
        let path = directory.path().join("journal.db");
        let (mut file, repaired) = File::open(&path, 0, Safety::Power).expect("it starts");
        let (entries, all) = file.oldest(usize::MAX).expect("readable");
        assert!(all);
        let damaged: u64 = entries.iter().map(|entry| entry.damaged).sum();
        let names: BTreeSet<_> = entries
            .into_iter()
            .flat_map(|entry| entry.rows)
            .filter_map(|row| row.invocation.captured.name.clone())
            .filter(|name| name.starts_with("row "))
            .collect();
        (names.len(), (repaired.damaged + damaged) as usize)
    }
}

#[test]
fn without_damage_nothing_is_counted() {
    assert_eq!(Bytes::left_behind().opened(), (ROWS, 0));
    assert_eq!(Bytes::settled().opened(), (ROWS, 0));
}

/// Places all over `bytes`, in no pattern that pages have.
fn places(bytes: &[u8], count: usize) -> impl Iterator<Item = usize> {
    let step = (bytes.len() / count) | 1;
    (0..bytes.len()).step_by(step)
}

#[test]
fn after_a_flipped_bit_in_the_log_every_row_is_there_or_counted() {
    let bytes = Bytes::left_behind();
    for at in (0..64).chain(places(&bytes.log, 150)) {
        let mut flipped = bytes.clone();
        flipped.log[at] ^= 1 << (at % 8);
        let (found, damaged) = flipped.opened();
        assert_eq!(found + damaged, ROWS, "byte {at}: {found} found, {damaged} damaged");
    }
}

#[test]
fn after_a_flipped_bit_in_the_last_state_of_a_page_its_row_alone_is_counted() {
    let bytes = Bytes::left_behind();
    // Text of the last row, which occurs in one place.
    let name = b"row 49";
    let at = memchr::memmem::rfind(&bytes.log, name).expect("it is there");
    let mut flipped = bytes.clone();
    flipped.log[at] ^= 1;
    assert_eq!(flipped.opened(), (ROWS - 1, 1));
    // And of a row that occurs in many.
    let copies = |name: &String| memchr::memmem::find_iter(&bytes.log, name.as_bytes()).count();
    let names = (0..ROWS).map(|n| format!("row {n:02}"));
    let name = names.max_by_key(copies).expect("there are rows");
    assert!(copies(&name) > 1);
    let at = memchr::memmem::rfind(&bytes.log, name.as_bytes()).expect("it is there");
    let mut flipped = bytes.clone();
    flipped.log[at] ^= 1;
    assert_eq!(flipped.opened(), (ROWS, 0));
}

#[test]
fn after_a_flipped_bit_in_the_file_every_row_is_there_or_counted() {
    let bytes = Bytes::settled();
    let mut lost = 0;
    // In the file's head, the schema, and everywhere else.
    for at in (0..110).step_by(3).chain(3900..4096).chain(places(&bytes.file, 100)) {
        let mut flipped = bytes.clone();
        flipped.file[at] ^= 1 << (at % 8);
        let (found, damaged) = flipped.opened();
        assert_eq!(found + damaged, ROWS, "byte {at}: {found} found, {damaged} damaged");
        lost += damaged;
    }
    assert!(lost > 0, "some of the bits are in rows");
}

/// The file has lost its schema and the true number of its pages. To SQLite the pages after that
/// number are free: it would make a new table there, over rows that are whole.
#[test]
fn a_file_that_seems_to_hold_no_table_keeps_every_row() {
    let bytes = Bytes::settled();
    let pages = (bytes.file.len() / PAGE as usize) as u32;
    assert!(pages > 2);
    for count in 0..=pages + 1 {
        let mut emptied = bytes.clone();
        // How many cells the first page has: its entries in the schema.
        emptied.file[103..105].fill(0);
        emptied.file[28..32].copy_from_slice(&count.to_be_bytes());
        assert_eq!(emptied.opened(), (ROWS, 0), "{count} of {pages} pages");
        // As a new file begins: no free pages, and in the first page nothing but room. With one
        // page it looks sound.
        emptied.file[32..40].fill(0);
        emptied.file[100..108].copy_from_slice(&[0x0d, 0, 0, 0, 0, 0x10, 0, 0]);
        assert_eq!(emptied.opened(), (ROWS, 0), "{count} of {pages} pages, none free");
    }
}

#[test]
fn a_damaged_file_is_set_aside_as_it_was_and_its_log_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal.db");
    Bytes::settled().write(directory.path());
    let (mut file, _) = File::open(&path, 0, Safety::Power).expect("opened");
    file.append(&[Row::new(invocation("row in the log"), Stage::Answered)], &[]).expect("written");
    let log_path = directory.path().join("journal.db-wal");
    let (mut damaged, log) = (fs::read(&path).expect("a file"), fs::read(log_path).expect("a log"));
    drop(file);
    let in_log =
        |page: u32| log[32..].chunks(24 + PAGE as usize).any(|at| at[..4] == page.to_be_bytes());
    let page = (1..).find(|page| !in_log(*page)).expect("a page of the file alone");
    let kind = if page == 1 { 100 } else { (page as usize - 1) * PAGE as usize };
    damaged[kind] = u8::MAX;
    let bytes = Bytes { file: damaged, log };
    assert_eq!(bytes.opened(), (ROWS + 1, 0));
    let directory = tempfile::tempdir().expect("a directory");
    bytes.write(directory.path());
    File::open(&directory.path().join("journal.db"), 0, Safety::Power).expect("it starts");
    let aside = |is_log: bool| {
        let found = fs::read_dir(directory.path()).expect("a directory").flatten();
        let mut names = found.map(|file| file.path()).filter(|path| {
            let name = path.to_string_lossy();
            name.contains(".damaged-")
                && name.ends_with("-wal") == is_log
                && !name.ends_with("-shm")
        });
        fs::read(names.next().expect("it is kept")).expect("a file")
    };
    assert!(aside(false) == bytes.file, "the file was written to");
    assert!(aside(true) == bytes.log, "the log was written to");
}

#[test]
fn a_file_of_an_unknown_format_opens_and_keeps_its_rows() {
    // The version for writing, the one for reading, the format of the schema.
    for (at, value) in [(18, 6), (18, 0xff), (19, 6), (47, 5), (47, 0xff)] {
        for mut bytes in [Bytes::settled(), Bytes::left_behind()] {
            bytes.file[at] = value;
            assert_eq!(bytes.opened(), (ROWS, 0), "byte {at} is {value}");
            let directory = tempfile::tempdir().expect("a directory");
            bytes.write(directory.path());
            let path = directory.path().join("journal.db");
            let (mut file, _) = File::open(&path, 0, Safety::Power).expect("it starts");
            let row = Row::new(invocation("another"), Stage::Answered);
            file.append(&[row], &[]).expect("rows are taken again");
        }
    }
}

/// A build that has another form of rows has used the file: before this one, or at the same time.
#[test]
fn an_entry_of_a_form_that_is_unknown_here_stays_in_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal.db");
    let row = |name: &str| Row::new(invocation(name), Stage::Answered);
    let (mut file, _) = File::open(&path, 0, Safety::Power).expect("opened");
    file.append(&[row("before")], &[]).expect("written");
    let unknown = of_another_build(&row("unknown"));
    let insert = |number: i64| {
        let sql = "INSERT INTO entries (number, rows, body) VALUES (?1, 1, ?2)";
        let other = Connection::open(&path).expect("a file");
        other.execute(sql, (number, &unknown)).expect("written");
    };
    insert(1);
    insert(i64::MAX / 2);
    file.append(&[row("after")], &[]).expect("written");
    for _ in 0..2 {
        let (entries, all) = file.oldest(usize::MAX).expect("readable");
        let names = entries.iter().flat_map(|entry| &entry.rows);
        let names: Vec<_> = names.map(|row| row.invocation.captured.name.as_deref()).collect();
        assert_eq!((names, all), (vec![Some("before"), Some("after")], true));
        assert!(entries.iter().all(|entry| entry.damaged == 0));
        assert_eq!(file.depth, 2);
        drop(file);
        (file, _) = File::open(&path, 0, Safety::Power).expect("opened again");
    }
    let (entries, _) = file.oldest(usize::MAX).expect("readable");
    let shipped: Vec<i64> = entries.iter().map(|entry| entry.number).collect();
    file.append(&[], &shipped).expect("forgotten");
    assert_eq!((file.oldest(usize::MAX).expect("readable").0.len(), file.depth), (0, 0));
    let other = Connection::open(&path).expect("a file");
    let left = "SELECT count(*) FROM entries WHERE body = ?1";
    let left: i64 = other.query_row(left, [&unknown], |row| row.get(0)).expect("counted");
    assert_eq!(left, 2);
}

#[test]
fn a_torn_log_loses_what_came_last_and_counts_what_is_left_of_it() {
    let bytes = Bytes::left_behind();
    for cut in (1..3 * 4120).step_by(37) {
        let mut torn = bytes.clone();
        torn.log.truncate(bytes.log.len() - cut);
        let (found, damaged) = torn.opened();
        // At most the rows of the last two transactions are lost; rows torn off leave nothing to
        // count.
        assert!(found >= ROWS - 5, "{cut} bytes: {found} found");
        assert!(found + damaged <= ROWS, "{cut} bytes: {found} found, {damaged} damaged");
    }
}
