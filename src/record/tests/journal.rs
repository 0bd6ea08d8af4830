//! The journal, while the store it stands in for is down, and after.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::{Fake, LONG, SHORT, eventually, recorder};
use crate::record::invocation::tests::invocation;
use crate::record::{Committed, OnFailure, Recorder};

/// Spent in vain on the store first, and then enough for a file.
const A_WHILE: Duration = Duration::from_secs(1);

fn journalled(store: &Arc<Fake>, directory: &Path) -> Recorder {
    recorder(store, &format!("journal: {{path: '{}/journal.db'}}", directory.display()))
}

#[tokio::test]
async fn the_journal_takes_what_the_store_cannot_and_ships_it_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Fake::new();
    store.down.store(true, SeqCst);
    let recorder = journalled(&store, directory.path());
    let outcome = recorder.commit(&invocation("kept"), A_WHILE, OnFailure::Journal).await;
    assert_eq!(outcome, Ok(Committed::Journal));
    store.down.store(false, SeqCst);
    eventually(|| recorder.stats().shipped == 1).await;
    assert_eq!(store.names(), ["kept"]);
    eventually(|| recorder.stats().journal_depth == 0).await;
}

#[tokio::test]
async fn what_a_journal_holds_is_shipped_by_the_next_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Fake::new();
    store.down.store(true, SeqCst);
    let first = journalled(&store, directory.path());
    first.commit(&invocation("kept"), A_WHILE, OnFailure::Journal).await.expect("journalled");
    first.close(SHORT).await;
    drop(first);
    store.down.store(false, SeqCst);
    let second = journalled(&store, directory.path());
    eventually(|| second.stats().shipped == 1).await;
    assert_eq!(store.names(), ["kept"]);
}

#[tokio::test]
async fn no_journal_is_made_that_is_not_needed() {
    let directory = tempfile::tempdir().expect("a directory");
    let recorder = journalled(&Fake::new(), directory.path());
    let outcome = recorder.commit(&invocation("row"), LONG, OnFailure::Journal).await;
    assert_eq!(outcome, Ok(Committed::Store));
    assert!(!directory.path().join("journal.db").exists());
}
