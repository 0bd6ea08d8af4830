//! The recorder, on a store controlled by the test.

mod journal;
mod outage;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use super::invocation::tests::{ending, invocation};
use super::invocation::{Invocation, Row};
use super::meters::Meters;
use super::store::sqlite::{Limit, Sqlite};
use super::{Commit, Committed, Config, Database, Mode, OnFailure, Recorder, Unavailable};
use crate::record::store::contract::Store;
use crate::record::store::error::{Lost, Refusal};
use crate::record::store::link::Link;
use crate::record::store::retention;
use crate::record::store::safety::Safety;

/// Longer than any test should have to wait.
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(20);

const REJECT: (Mode, OnFailure) = (Mode::Sync, OnFailure::Reject);
const FALL_BACK: (Mode, OnFailure) = (Mode::Sync, OnFailure::Journal);
const DURABLE: (Mode, OnFailure) = (Mode::Durable, OnFailure::Reject);

/// A store in memory. Refuses rows named `poison`.
struct Fake {
    rows: Mutex<BTreeMap<Uuid, Invocation>>,
    down: AtomicBool,
    /// Each write consumes one permit.
    gate: Semaphore,
    /// The number of rows in each write that has begun.
    begun: watch::Sender<Vec<usize>>,
}

impl Fake {
    fn new() -> Arc<Self> {
        Self::with_gate(Semaphore::MAX_PERMITS)
    }

    fn down() -> Arc<Self> {
        let store = Self::new();
        store.down.store(true, SeqCst);
        store
    }

    fn with_gate(writes: usize) -> Arc<Self> {
        Arc::new(Fake {
            rows: Mutex::default(),
            down: AtomicBool::new(false),
            gate: Semaphore::new(writes),
            begun: watch::Sender::default(),
        })
    }

    fn check(&self) -> Result<(), Lost> {
        if self.down.load(SeqCst) { Err(Lost("unplugged".to_owned())) } else { Ok(()) }
    }

    fn names(&self) -> Vec<String> {
        let rows = self.rows.lock().expect("no test panics in here");
        rows.values().filter_map(|row| row.captured.name.clone()).collect()
    }

    async fn has_begun(&self, writes: usize) {
        self.begun.subscribe().wait_for(|begun| begun.len() >= writes).await.expect("it is ours");
    }
}

#[async_trait]
impl Store for Fake {
    async fn migrate(&self) -> Result<(), Lost> {
        self.check()
    }

    async fn write(&self, rows: &Arc<Vec<Row>>, _: Safety) -> Result<Vec<Refusal>, Lost> {
        self.begun.send_modify(|begun| begun.push(rows.len()));
        self.gate.acquire().await.expect("never closed").forget();
        self.check()?;
        let mut refusals = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            if row.invocation.captured.name.as_deref() == Some("poison") {
                refusals.push(Refusal { index, reason: "poison".to_owned() });
                continue;
            }
            let mut stored = self.rows.lock().expect("no test panics in here");
            if row.stage.is_complete() || !stored.contains_key(&row.invocation.id) {
                stored.insert(row.invocation.id, (*row.invocation).clone());
            }
        }
        Ok(refusals)
    }

    async fn ping(&self) -> Result<(), Lost> {
        self.check()
    }

    async fn expire(&self, _: SystemTime, _: u32) -> Result<u64, Lost> {
        Ok(0)
    }
}

fn config(yaml: &str) -> Config {
    serde_yaml::from_str(yaml).expect("a valid configuration")
}

fn recorder(store: &Arc<Fake>, yaml: &str) -> Recorder {
    let store = Arc::<Fake>::clone(store);
    Recorder::with_store(store, &config(yaml), &Handle::current(), Meters::unseen())
}

/// Polls `what` until it is true, for at most `LONG`.
async fn eventually(what: impl Fn() -> bool) {
    let looking = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, looking).await.expect("it comes true");
}

#[tokio::test]
async fn every_row_is_written_or_dropped_and_counted() {
    let store = Fake::with_gate(0);
    let recorder = recorder(&store, "{queue: 10, batch: {max_rows: 4, max_delay: 1ms}}");
    for n in 0..25 {
        recorder.enqueue(invocation(&format!("row {n}")));
    }
    store.has_begun(1).await;
    recorder.enqueue(invocation("too many: those being written take a place too"));
    store.gate.add_permits(100);
    let stats = recorder.close(LONG).await;
    assert_eq!((stats.enqueued, stats.written, stats.dropped), (26, 10, 16));
    assert_eq!((store.names().len(), stats.queue_depth), (10, 0));
}

#[tokio::test]
async fn rows_that_follow_each_other_share_a_batch() {
    let store = Fake::new();
    let recorder = recorder(&store, "batch: {max_rows: 40, max_delay: 1h}");
    for _ in 0..80 {
        recorder.enqueue(invocation("row"));
    }
    eventually(|| recorder.stats().written == 80).await;
    assert_eq!(*store.begun.borrow(), [40, 40]);
}

#[tokio::test]
async fn an_outage_delays_rows_and_loses_none() {
    let store = Fake::new();
    let recorder = recorder(&store, "batch: {max_delay: 0}");
    recorder.enqueue(invocation("before"));
    eventually(|| recorder.stats().written == 1).await;
    store.down.store(true, SeqCst);
    recorder.enqueue(invocation("during"));
    store.has_begun(2).await;
    assert_eq!(recorder.stats().written, 1);
    store.down.store(false, SeqCst);
    let stats = recorder.close(LONG).await;
    assert_eq!((stats.written, stats.dropped), (2, 0));
}

#[tokio::test]
async fn rows_left_at_the_end_are_counted_as_dropped() {
    let store = Fake::new();
    store.down.store(true, SeqCst);
    let recorder = recorder(&store, "batch: {max_rows: 2}");
    for _ in 0..5 {
        recorder.enqueue(invocation("row"));
    }
    let second = invocation("second write");
    recorder.complete(second.clone().into(), ending(&second), Mode::Sync, Commit::Failed);
    let stats = recorder.close(SHORT).await;
    recorder.enqueue(invocation("after the end"));
    assert_eq!((stats.written, stats.dropped, stats.completions_dropped), (0, 5, 1));
    assert_eq!((recorder.stats().dropped, stats.queue_depth), (6, 0));
}

#[tokio::test]
async fn a_refused_row_is_counted_and_the_others_arrive() {
    let store = Fake::new();
    let recorder = recorder(&store, "{}");
    for name in ["one", "poison", "two"] {
        recorder.enqueue(invocation(name));
    }
    let stats = recorder.close(LONG).await;
    assert_eq!((stats.enqueued, stats.written, stats.dead, stats.dropped), (3, 2, 1, 0));
}

#[tokio::test]
async fn commits_that_wait_together_share_a_transaction() {
    let store = Fake::with_gate(0);
    let recorder = recorder(&store, "{}");
    let commit = || {
        let recorder = recorder.clone();
        tokio::spawn(
            async move { recorder.commit(invocation("row").into(), None, LONG, REJECT).await },
        )
    };
    let mut commits = vec![commit()];
    store.has_begun(1).await;
    commits.extend((0..50).map(|_| commit()));
    // All fifty get to wait before the first transaction ends.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    store.gate.add_permits(100);
    for commit in commits {
        assert_eq!(commit.await.expect("no panic"), Ok(Committed::Store));
    }
    assert_eq!(*store.begun.borrow(), [1, 50]);
    assert_eq!(recorder.stats().committed, 51);
}

#[tokio::test]
async fn a_commit_given_up_before_its_transaction_is_not_written() {
    let store = Fake::with_gate(0);
    let recorder = recorder(&store, "{}");
    let first = tokio::spawn({
        let recorder = recorder.clone();
        async move { recorder.commit(invocation("first").into(), None, LONG, REJECT).await }
    });
    store.has_begun(1).await;
    let late = recorder.commit(invocation("late").into(), None, SHORT, REJECT).await;
    assert_eq!(late, Err(Unavailable::Late(SHORT)));
    store.gate.add_permits(100);
    assert_eq!(first.await.expect("no panic"), Ok(Committed::Store));
    recorder.close(LONG).await;
    assert_eq!(store.names(), ["first"]);
}

#[tokio::test]
async fn a_refused_row_fails_only_its_own_commit() {
    let recorder = recorder(&Fake::new(), "{}");
    let (good, bad) = (invocation("good"), invocation("poison"));
    let (good, bad) = tokio::join!(
        recorder.commit(good.clone().into(), None, LONG, REJECT),
        recorder.commit(bad.clone().into(), None, LONG, REJECT),
    );
    assert_eq!(good, Ok(Committed::Store));
    assert_eq!(bad, Err(Unavailable::Refused("poison".to_owned())));
}

#[tokio::test]
async fn a_commit_outlasts_a_short_outage() {
    let store = Fake::new();
    let recorder = recorder(&store, "{}");
    recorder.commit(invocation("before").into(), None, LONG, REJECT).await.expect("committed");
    store.down.store(true, SeqCst);
    let row = invocation("during");
    let commit = recorder.commit(row.clone().into(), None, LONG, REJECT);
    let outage = async {
        store.has_begun(2).await;
        store.down.store(false, SeqCst);
    };
    assert_eq!(tokio::join!(commit, outage).0, Ok(Committed::Store));
}

#[tokio::test]
async fn a_store_down_for_long_is_not_waited_for() {
    let store = Fake::new();
    store.down.store(true, SeqCst);
    let recorder = recorder(&store, "{}");
    let row = invocation("row");
    let waited = recorder.commit(row.clone().into(), None, SHORT, REJECT).await;
    assert_eq!(waited, Err(Unavailable::Down("unplugged".to_owned())));
    let at_once = tokio::select! {
        biased;
        outcome = recorder.commit(row.clone().into(), None, SHORT, REJECT) => outcome,
        () = std::future::ready(()) => panic!("it waits"),
    };
    assert_eq!(at_once, Err(Unavailable::Down("unplugged".to_owned())));
    assert_eq!(recorder.stats().unavailable, 2);
}

#[tokio::test]
async fn the_second_write_stands_in_for_a_first_that_failed() {
    let store = Fake::new();
    store.down.store(true, SeqCst);
    let recorder = recorder(&store, "{}");
    let mut row = invocation("row");
    recorder.commit(row.clone().into(), None, SHORT, REJECT).await.expect_err("down");
    row.status = 503;
    recorder.complete(row.clone().into(), ending(&row), Mode::Sync, Commit::Failed);
    store.down.store(false, SeqCst);
    let stats = recorder.close(LONG).await;
    assert_eq!((stats.completed, stats.written), (1, 0));
    assert_eq!(store.rows.lock().expect("whole").get(&row.id).map(|row| row.status), Some(503));
}

#[tokio::test]
async fn second_writes_for_postgresql_do_not_wait_for_a_full_batch() {
    let store = Fake::new();
    let postgres = "store: {postgres: {url: \"postgres://localhost/none\"}}";
    let recorder = recorder(&store, &format!("{{{postgres}, batch: {{max_delay: 1h}}}}"));
    for _ in 0..128 {
        let row = invocation("row");
        let commit = Commit::Made(Committed::Store);
        recorder.complete(row.clone().into(), ending(&row), Mode::Sync, commit);
    }
    eventually(|| recorder.stats().completed == 128).await;
}

#[tokio::test]
async fn health_says_what_is_wrong() {
    let store = Fake::new();
    store.down.store(true, SeqCst);
    let recorder = recorder(&store, "{}");
    recorder.commit(invocation("row").into(), None, SHORT, REJECT).await.expect_err("down");
    assert_eq!(recorder.health().await, Err("unplugged".to_owned()));
}

#[tokio::test]
async fn a_dropped_recorder_leaves_no_task_behind() {
    let store = Fake::new();
    store.down.store(true, SeqCst);
    let recorder = recorder(&store, "batch: {max_delay: 0}");
    recorder.enqueue(invocation("row"));
    drop(recorder);
    // Tasks hold the store.
    eventually(|| Arc::strong_count(&store) == 1).await;
}

#[tokio::test]
async fn retention_deletes_in_portions_until_all_is_gone() {
    let directory = tempfile::tempdir().expect("a directory");
    let file =
        Sqlite::start(&directory.path().join("records.db"), Limit::default()).expect("a thread");
    file.migrate().await.expect("migrated");
    // The rows of these tests are of 2023.
    let rows = (0..2500).map(|_| Row::new(invocation("old"), super::invocation::Stage::Whole));
    file.write(&Arc::new(rows.collect()), Safety::Process).await.expect("written");
    let link = Link::new("test", Arc::new(file), Meters::unseen());
    assert_eq!(retention::expire(&link, SystemTime::now()).await, Ok(2500));
}

#[test]
fn without_a_store_nothing_starts() {
    let error = Database::open(&config("{}").store).err().expect("no store");
    assert!(error.to_string().starts_with("record.store: names no store"), "{error}");
}
