//! The embedded store at its `max_size`.

use std::sync::Arc;
use std::time::Duration;

use super::whole;
use crate::record::config::StoreFull;
use crate::record::invocation::new_id;
use crate::record::invocation::tests::invocation;
use crate::record::store::contract::Store;
use crate::record::store::safety::Safety;
use crate::record::store::sqlite::{Limit, Sqlite};

const SIZE: u64 = 512 * 1024;

async fn filled(when_full: StoreFull) -> (tempfile::TempDir, Result<(), String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("records.db");
    let store = Sqlite::start(&path, Limit { size: SIZE, when_full }).expect("a thread");
    store.migrate().await.expect("migrated");
    for batch in 0..60 {
        let row = |_| {
            let mut row = invocation(&format!("batch {batch:02}"));
            row.created_at += Duration::from_secs(batch);
            row.id = new_id(row.created_at);
            whole(row)
        };
        let rows = (0..100).map(row).collect();
        if let Err(lost) = store.write(&Arc::new(rows), Safety::Process).await {
            return (directory, Err(lost.to_string()));
        }
    }
    drop(store);
    (directory, Ok(()))
}

#[tokio::test]
async fn the_oldest_rows_make_room_for_new_ones() {
    let (directory, outcome) = filled(StoreFull::DeleteOldest).await;
    assert_eq!(outcome, Ok(()));
    let path = directory.path().join("records.db");
    let connection = rusqlite::Connection::open(&path).expect("a file");
    let sql = "SELECT min(name), max(name) FROM invocations";
    let (oldest, newest): (String, String) =
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    assert!(&*oldest > "batch 00" && newest == "batch 59", "{oldest} to {newest}");
    assert!(std::fs::metadata(path).expect("a file").len() <= SIZE);
}

#[tokio::test]
async fn or_the_store_counts_as_down() {
    let (_directory, outcome) = filled(StoreFull::Refuse).await;
    assert!(outcome.is_err_and(|reason| reason.contains("full")));
}
