//! The journal: what it holds while the store is down, and what is left of it after damage.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use uuid::Uuid;

use super::{DURABLE, FALL_BACK, Fake, LONG, SHORT, eventually, recorder};
use crate::record::invocation::tests::{ending, invocation};
use crate::record::{Commit, Committed, Left, Mode, Recorder, Unavailable};

/// For requests that first try the store in vain; long enough for writing a file.
const A_WHILE: Duration = Duration::from_secs(1);

fn path(directory: &Path) -> PathBuf {
    directory.join("journal.db")
}

fn journalled(store: &Arc<Fake>, directory: &Path, more: &str) -> Recorder {
    let path = path(directory);
    recorder(store, &format!("{{journal: {{path: '{}'{more}}}}}", path.display()))
}

/// A journal with these rows, as a killed process leaves it: its log is not checkpointed into the
/// file.
async fn left_behind(directory: &Path, rows: usize) {
    let made = tempfile::tempdir().expect("a directory");
    let store = Fake::down();
    let recorder = journalled(&store, made.path(), "");
    for n in 0..rows {
        let row = invocation(&format!("row {n:04}"));
        recorder.commit(row.clone().into(), None, LONG, DURABLE).await.expect("journalled");
    }
    for file in ["journal.db", "journal.db-wal"] {
        fs::copy(made.path().join(file), directory.join(file)).expect("it is there");
    }
}

/// Starts a recorder on what is there, and returns the rows that arrive: `good` of them, and no
/// more.
async fn shipped(directory: &Path, good: usize) -> (Vec<String>, crate::record::Stats) {
    let store = Fake::new();
    let recorder = journalled(&store, directory, "");
    eventually(|| store.names().len() >= good).await;
    recorder
        .commit(invocation("still works").into(), None, LONG, DURABLE)
        .await
        .expect("journalled");
    let stats = recorder.close(LONG).await;
    let mut names = store.names();
    names.retain(|name| name != "still works");
    names.sort();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    (names, stats)
}

#[tokio::test]
async fn the_journal_takes_what_the_store_cannot_and_ships_it_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Fake::down();
    let recorder = journalled(&store, directory.path(), "");
    let outcome = recorder.commit(invocation("kept").into(), None, A_WHILE, FALL_BACK).await;
    assert_eq!(outcome, Ok(Committed::Journal));
    store.down.store(false, SeqCst);
    eventually(|| recorder.stats().shipped == 1).await;
    assert_eq!(store.names(), ["kept"]);
    eventually(|| recorder.stats().journal_depth == 0).await;
}

#[tokio::test]
async fn a_durable_row_is_on_disk_before_it_is_in_the_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Fake::with_gate(0);
    let recorder = journalled(&store, directory.path(), "");
    let outcome = recorder.commit(invocation("row").into(), None, LONG, DURABLE).await;
    assert_eq!(outcome, Ok(Committed::Journal));
    let file = Connection::open(path(directory.path())).expect("a file");
    let rows: i64 = file
        .query_row("SELECT sum(rows) FROM entries", [], |row| row.get(0))
        .expect("another process reads it");
    assert_eq!((rows, store.names().len()), (1, 0));
    store.gate.add_permits(10);
    eventually(|| store.names() == ["row"]).await;
}

#[tokio::test]
async fn the_two_writes_of_a_durable_row_reach_the_store_as_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Fake::down();
    let recorder = journalled(&store, directory.path(), "");
    let mut row = invocation("row");
    let commit =
        recorder.commit(row.clone().into(), None, LONG, DURABLE).await.expect("journalled");
    row.bytes_out = 5;
    recorder.complete(row.clone().into(), ending(&row), Mode::Durable, Commit::Made(commit));
    eventually(|| recorder.stats().journal_depth == 2).await;
    store.down.store(false, SeqCst);
    let stats = recorder.close(LONG).await;
    assert_eq!((stats.journaled, stats.shipped, stats.completed), (1, 1, 0));
    assert_eq!(store.rows.lock().expect("whole").get(&row.id).map(|row| row.bytes_out), Some(5));
}

/// A durable row that is being shipped, and its second write, which came after shipping began.
async fn completed_while_shipped(store: &Arc<Fake>, directory: &Path) -> (Recorder, Uuid) {
    let recorder = journalled(store, directory, "");
    // So that the shipper has nothing to catch up with.
    recorder.commit(invocation("first").into(), None, LONG, DURABLE).await.expect("journalled");
    eventually(|| recorder.stats().journal_depth == 0).await;
    let mut row = invocation("row");
    let commit =
        recorder.commit(row.clone().into(), None, LONG, DURABLE).await.expect("journalled");
    store.has_begun(2).await;
    row.bytes_out = 5;
    recorder.complete(row.clone().into(), ending(&row), Mode::Durable, Commit::Made(commit));
    (recorder, row.id)
}

#[tokio::test]
async fn a_second_write_does_not_go_over_the_disk_while_the_store_keeps_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Fake::with_gate(1);
    let (recorder, id) = completed_while_shipped(&store, directory.path()).await;
    assert_eq!(recorder.stats().journal_depth, 1);
    store.gate.add_permits(10);
    let stats = recorder.close(LONG).await;
    assert_eq!((stats.journaled, stats.shipped, stats.completed), (2, 2, 1));
    assert_eq!(store.rows.lock().expect("whole").get(&id).map(|row| row.bytes_out), Some(5));
}

#[tokio::test]
async fn a_second_write_is_on_disk_once_the_store_fails() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Fake::with_gate(1);
    let (recorder, id) = completed_while_shipped(&store, directory.path()).await;
    store.down.store(true, SeqCst);
    store.gate.add_permits(10);
    eventually(|| recorder.stats().journal_depth == 2).await;
    recorder.close(SHORT).await;
    drop(recorder);
    store.down.store(false, SeqCst);
    let next = journalled(&store, directory.path(), "");
    // Those of a run that ends meanwhile may come twice.
    eventually(|| next.stats().journal_depth == 0 && next.stats().shipped > 0).await;
    assert_eq!(store.names().len(), 2);
    assert_eq!(store.rows.lock().expect("whole").get(&id).map(|row| row.bytes_out), Some(5));
}

#[tokio::test]
async fn a_second_write_is_on_disk_in_the_end_though_the_store_holds_still() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Fake::with_gate(1);
    let (recorder, _) = completed_while_shipped(&store, directory.path()).await;
    let stats = recorder.close(A_WHILE).await;
    assert_eq!((stats.journal_depth, stats.completions_dropped), (2, 0));
}

#[tokio::test]
async fn what_a_journal_holds_is_shipped_by_the_next_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Fake::down();
    let first = journalled(&store, directory.path(), "");
    first.commit(invocation("kept").into(), None, LONG, DURABLE).await.expect("journalled");
    first.close(SHORT).await;
    drop(first);
    store.down.store(false, SeqCst);
    let second = journalled(&store, directory.path(), "");
    eventually(|| second.stats().shipped > 0).await;
    assert_eq!(store.names(), ["kept"]);
}

#[tokio::test]
async fn an_end_says_how_many_rows_it_leaves_however_many_writes_they_have() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Fake::down();
    let recorder = journalled(&store, directory.path(), "");
    for n in 0..30 {
        let row = invocation(&format!("row {n}"));
        let commit =
            recorder.commit(row.clone().into(), None, LONG, DURABLE).await.expect("journalled");
        if n % 3 == 0 {
            let made = Commit::Made(commit);
            recorder.complete(row.clone().into(), ending(&row), Mode::Durable, made);
        }
    }
    let stats = recorder.close(SHORT).await;
    assert_eq!((stats.journal_depth, stats.completions_dropped), (40, 0));
    let left = recorder.left().await.expect("a journal");
    assert_eq!(left, Left { rows: 30, all: true, path: path(directory.path()) });
}

#[tokio::test]
async fn an_end_that_has_no_time_for_the_store_loses_nothing_in_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Fake::with_gate(1);
    let (recorder, _) = completed_while_shipped(&store, directory.path()).await;
    let stats = recorder.close(Duration::ZERO).await;
    assert_eq!((stats.journal_depth, stats.completions_dropped), (2, 0));
    assert_eq!(recorder.left().await.map(|left| left.rows), Some(1));
}

#[tokio::test]
async fn an_end_that_is_hurried_waits_for_the_store_no_longer() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Fake::with_gate(1);
    let (recorder, _) = completed_while_shipped(&store, directory.path()).await;
    // A row for the queue, too, which the store does not take either.
    recorder.enqueue(invocation("queued"));
    let begun = Instant::now();
    let (stats, ()) = tokio::join!(recorder.close(LONG), async {
        tokio::time::sleep(SHORT).await;
        recorder.hurry();
    });
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
    assert_eq!((stats.journal_depth, stats.completions_dropped, stats.dropped), (2, 0, 1));
}

#[tokio::test]
async fn a_store_that_is_away_for_long_costs_disk_and_no_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Fake::down();
    // Ten rows in memory at most.
    let path = path(directory.path());
    let yaml = format!("{{queue: 10, journal: {{path: '{}'}}}}", path.display());
    let recorder = recorder(&store, &yaml);
    for n in 0..200 {
        let row = invocation(&format!("row {n}"));
        recorder.commit(row.clone().into(), None, LONG, DURABLE).await.expect("journalled");
    }
    assert_eq!(recorder.stats().journal_depth, 200);
    assert!(recorder.stats().journal_oldest_us > 0);
    store.down.store(false, SeqCst);
    let stats = recorder.close(LONG).await;
    assert_eq!((stats.shipped, stats.journal_depth, stats.journal_oldest_us), (200, 0, 0));
    assert_eq!(store.names().len(), 200);
}

#[tokio::test]
async fn a_full_journal_does_as_its_policy_says() {
    for (policy, answered) in [("reject", false), ("drop", true)] {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Fake::down();
        let more = format!(", max_size: 64KiB, when_full: {policy}");
        let recorder = journalled(&store, directory.path(), &more);
        let mut kept = 0;
        let refused = loop {
            match recorder.commit(invocation(&"x".repeat(900)).into(), None, LONG, DURABLE).await {
                Ok(Committed::Journal) if kept < 1000 => kept += 1,
                outcome => break outcome,
            }
        };
        match refused {
            Ok(Committed::Nowhere) => assert!(answered),
            Err(Unavailable::Full(reason)) => {
                assert!(!answered && reason.contains("max_size"), "{reason}");
            }
            other => panic!("{policy}: {other:?}"),
        }
        assert_eq!(recorder.stats().dropped, u64::from(answered));
        store.down.store(false, SeqCst);
        eventually(|| recorder.stats().journal_depth == 0).await;
        assert_eq!(store.names().len(), kept);
        let after = recorder.commit(invocation("after").into(), None, LONG, DURABLE).await;
        assert_eq!(after, Ok(Committed::Journal), "there is room again");
    }
}

#[tokio::test]
async fn a_poisoned_row_holds_up_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Fake::new();
    let recorder = journalled(&store, directory.path(), "");
    for name in ["one", "poison", "two"] {
        recorder.commit(invocation(name).into(), None, LONG, DURABLE).await.expect("journalled");
    }
    let stats = recorder.close(LONG).await;
    assert_eq!((stats.shipped, stats.dead, stats.journal_depth), (2, 1, 0));
}

#[tokio::test]
async fn a_log_that_was_torn_off_keeps_what_comes_before() {
    let directory = tempfile::tempdir().expect("a directory");
    left_behind(directory.path(), 50).await;
    let log = directory.path().join("journal.db-wal");
    let bytes = fs::read(&log).expect("a log");
    // In the middle of the last page.
    fs::write(&log, &bytes[..bytes.len() - 2000]).expect("write");
    let (names, _) = shipped(directory.path(), 49).await;
    let all: Vec<_> = (0..50).map(|n| format!("row {n:04}")).collect();
    assert!(names == all[..49] || names == all, "{names:?}");
}

#[tokio::test]
async fn a_flipped_bit_in_the_log_costs_at_most_the_row_it_is_in() {
    for part in [3, 5, 7] {
        let directory = tempfile::tempdir().expect("a directory");
        left_behind(directory.path(), 50).await;
        let log = directory.path().join("journal.db-wal");
        let mut bytes = fs::read(&log).expect("a log");
        // SQLite reads a log up to the first damage: on its own it would lose the rows after that.
        let at = bytes.len() * part / 20;
        bytes[at] ^= 0x10;
        fs::write(&log, bytes).expect("write");
        let (names, _) = shipped(directory.path(), 49).await;
        assert!(names.len() >= 49, "{} of 50 rows: {names:?}", names.len());
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_file_costs_at_most_the_row_it_is_in_and_is_counted() {
    for page in 0..6 {
        let directory = tempfile::tempdir().expect("a directory");
        left_behind(directory.path(), 200).await;
        let file = path(directory.path());
        // Opened and closed: everything is in the file then.
        let connection = Connection::open(&file).expect("a file");
        connection.query_row("SELECT count(*) FROM entries", [], |_| Ok(())).expect("rows");
        drop(connection);
        assert!(!directory.path().join("journal.db-wal").exists());
        let mut bytes = fs::read(&file).expect("a file");
        // In a page's own header, in headers of cells, and in the middle of rows.
        for (at, bit) in [(page * 4096 + 1, 0x40), (page * 4096 + 3000, 0x02)] {
            bytes[at] ^= bit;
        }
        fs::write(&file, bytes).expect("write");
        let (names, stats) = shipped(directory.path(), 199).await;
        let lost = 200 - names.len() as u64;
        assert!(lost <= 1 && stats.damaged >= lost, "{lost} lost, {stats:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_journal_is_set_aside() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(path(directory.path()), "not a database, and long enough".repeat(99)).expect("write");
    let (names, _) = shipped(directory.path(), 0).await;
    assert_eq!(names, [""; 0]);
    let aside = fs::read_dir(directory.path()).expect("a directory").filter_map(Result::ok);
    let aside = aside.filter(|file| file.file_name().to_string_lossy().contains(".damaged-"));
    assert_eq!(aside.count(), 1);
}

#[tokio::test]
async fn no_journal_is_made_that_is_not_needed() {
    let directory = tempfile::tempdir().expect("a directory");
    let recorder = journalled(&Fake::new(), directory.path(), "");
    let outcome = recorder.commit(invocation("row").into(), None, LONG, FALL_BACK).await;
    assert_eq!(outcome, Ok(Committed::Store));
    assert!(!directory.path().join("journal.db").exists());
}
