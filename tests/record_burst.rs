//! More rows at once than a store commits in a moment: their requests wait, within bounds, and each
//! row is counted once.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::support::{
    Call, Gateway, H2Client, Plan, Postgres, Response, Store, Upstream, at_once, eventually,
    request,
};

/// Streams of one connection.
const STREAMS: usize = 1000;

/// A route that answers by itself, so that nothing but the record takes time.
fn serving(store: &Store, mode: &str) -> Gateway {
    // No request gives up because the machine is busy with other things.
    let section = store.section().replace("record: {", "record: {queue: 50, commit_timeout: 20s, ");
    let yaml = format!(
        "routes: {{all: {{match: {{path: /*}}, serve: live, record: {{mode: {mode}}}}}}}\n\
         listeners: {{public: {{address: \"127.0.0.1:${{PORT}}\", http2: {{max_streams: {STREAMS}}}}}}}\n{section}"
    );
    Plan::new(&yaml).start()
}

/// Something else writes to the embedded store, and does not finish until it is told to roll back.
fn lock(gateway: &Gateway) -> Connection {
    let other = Connection::open(gateway.store()).expect("the store");
    other.busy_timeout(Duration::from_secs(10)).expect("set");
    other.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    other
}

fn wait_for_store(gateway: &Gateway) {
    eventually("the store to take rows", || (gateway.get("/").status == 200).then_some(()));
}

#[track_caller]
fn assert_unrecorded(refused: &Response) {
    assert_eq!((refused.status, &*refused.code()), (503, "record_unavailable"));
    assert!(refused.retry_after() > 0);
}

fn rows_total(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric("portcullis_record_rows_total", &[("result", result)])
}

/// Three thousand requests at once, sixty times what the queue holds, are all answered and recorded.
fn all_are_answered(store: &Store, mode: &str) {
    let gateway = serving(store, mode);
    let clients = [(); 3].map(|()| H2Client::connect(gateway.address));
    let head = || request("GET", "/").body(()).expect("a request");
    let streams = clients.iter().flat_map(|client| std::iter::repeat_n(client, STREAMS));
    let exchanges: Vec<_> = streams.map(|client| client.open(head(), true)).collect();
    let mut refused = 0;
    for exchange in exchanges {
        refused += usize::from(exchange.finish().status != 200);
    }
    assert_eq!(refused, 0, "{mode}");
    assert_eq!(rows_total(&gateway, "unavailable"), 0.0, "{mode}");
    eventually("a row of each", || (store.rows(&gateway).len() == 3 * STREAMS).then_some(()));
}

#[test]
fn a_burst_of_durable_requests_waits_for_the_embedded_store() {
    all_are_answered(&Store::Sqlite, "durable");
}

#[test]
fn a_burst_of_sync_requests_waits_for_the_embedded_store() {
    all_are_answered(&Store::Sqlite, "sync");
}

#[test]
fn a_burst_of_durable_requests_waits_for_the_journal() {
    if let Some(store) = Store::postgres() {
        all_are_answered(&store, "durable");
    }
}

#[test]
fn a_store_that_commits_nothing_is_waited_for_no_longer_than_it_may_take() {
    let upstream = Upstream::start();
    // Less than the 2 s that SQLite itself waits for a lock.
    let section = Store::Sqlite.section().replace("record: {", "record: {commit_timeout: 1500ms, ");
    let plan = Plan::route("record: {mode: durable}\ntimeout: {request: 30s}").section(&section);
    let gateway = plan.upstream(&upstream).start();
    assert_eq!(gateway.get("/").status, 200);
    let other = lock(&gateway);
    let begun = Instant::now();
    assert_unrecorded(&gateway.get("/"));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // Once, though its refusal has a row to commit as well.
    assert_eq!(rows_total(&gateway, "unavailable"), 1.0);
    other.execute_batch("ROLLBACK").expect("the lock is given back");
    wait_for_store(&gateway);
}

#[test]
fn a_deadline_before_the_commit_timeout_is_503_and_not_504_while_the_store_is_locked() {
    let upstream = Upstream::start();
    for mode in ["durable", "sync"] {
        // Less than the 1 s of `commit_timeout`, as it is by default.
        let policies = format!("record: {{mode: {mode}}}\ntimeout: {{request: 800ms}}");
        let plan = Plan::route(&policies).section(&Store::Sqlite.section());
        let gateway = plan.upstream(&upstream).start();
        wait_for_store(&gateway);
        let other = lock(&gateway);
        assert_unrecorded(&gateway.get("/"));
        other.execute_batch("ROLLBACK").expect("the lock is given back");
        wait_for_store(&gateway);
    }
}

#[test]
fn a_deadline_that_passes_while_the_store_commits_other_rows_is_503_and_not_504() {
    let Some(store) = Store::postgres() else { return };
    let Store::Postgres { server, url } = &store else { return };
    let upstream = Upstream::start();
    // One row at a time, and `commit_timeout` as it is by default: 1 s.
    let section = store.section().replace("record: {", "record: {batch: {max_rows: 1}, ");
    let plan = Plan::route("record: {mode: sync}\ntimeout: {request: 2s}").section(&section);
    let gateway = plan.upstream(&upstream).start();
    wait_for_store(&gateway);
    let before = rows_total(&gateway, "unavailable");
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
                    'BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END'; \
                CREATE TRIGGER slow BEFORE INSERT ON invocations \
                    FOR EACH STATEMENT EXECUTE FUNCTION slow()";
    server.query(url, slow);
    let responses = Mutex::new(Vec::new());
    at_once(0..16, |_| {
        let begun = Instant::now();
        let response = gateway.get("/");
        responses.lock().unwrap().push((response, begun.elapsed()));
    });
    let responses = responses.into_inner().unwrap();
    let refused: Vec<_> = responses.iter().filter(|(response, _)| response.status != 200).collect();
    // Nine rows or ten are written in 2 s.
    assert!(refused.len() >= 5, "{responses:?}");
    refused.iter().for_each(|(response, _)| assert_unrecorded(response));
    let longest = refused.iter().map(|(_, waited)| *waited).max();
    assert!(longest > Some(Duration::from_millis(1500)), "not until the deadline: {responses:?}");
    assert_eq!(rows_total(&gateway, "unavailable"), before + refused.len() as f64);
    server.query(url, "DROP FUNCTION slow CASCADE");
    wait_for_store(&gateway);
}

#[test]
fn a_row_that_a_full_journal_rejects_is_counted_once_and_none_as_dropped() {
    let Some(server) = Postgres::start().map(Arc::new) else { return };
    let store = Store::on(server.clone());
    let upstream = Upstream::start();
    let more = "max_size: 64KiB, when_full: reject, path:";
    let section = store.section().replace("path:", more);
    let section = section.replace("record: {", "record: {commit_timeout: 20s, ");
    let plan = Plan::route("record: {mode: durable}").section(&section);
    let gateway = plan.upstream(&upstream).start();
    server.stop();
    let call = Call::new(&format!("GET /{}", "x".repeat(1500)));
    let (mut answered, mut rejected) = (0.0, 0.0);
    while rejected < 8.0 && answered < 500.0 {
        match gateway.call(call.clone()).status {
            200 => answered += 1.0,
            503 => rejected += 1.0,
            other => panic!("answered {other}"),
        }
    }
    assert_eq!(rejected, 8.0, "{answered} answered");
    assert_eq!(rows_total(&gateway, "unavailable"), rejected);
    assert_eq!(rows_total(&gateway, "journaled"), answered);
    assert_eq!(rows_total(&gateway, "dropped"), 0.0);
    // Every row that was answered is there once the store is.
    server.restart();
    eventually("the journal to be shipped", || {
        (rows_total(&gateway, "shipped") == answered).then_some(())
    });
    assert_eq!(rows_total(&gateway, "dead"), 0.0);
}

#[test]
fn a_row_that_the_store_refuses_is_dead_once() {
    let Some(store) = Store::postgres() else { return };
    let Store::Postgres { server, url } = &store else { return };
    let upstream = Upstream::start();
    for (mode, status) in [("sync", 503), ("durable", 200), ("async", 200)] {
        let route = format!("record: {{mode: {mode}}}");
        let plan = Plan::route(&route).section(&store.section());
        let gateway = plan.upstream(&upstream).start();
        assert_eq!(gateway.get("/good").status, 200);
        let check = "ALTER TABLE invocations DROP CONSTRAINT IF EXISTS good; \
                     ALTER TABLE invocations ADD CONSTRAINT good CHECK (path <> '/bad')";
        server.query(url, check);
        assert_eq!(gateway.get("/bad").status, status, "{mode}");
        eventually("the row to be set aside", || {
            (rows_total(&gateway, "dead") > 0.0).then_some(())
        });
        // Its second write has come, and been refused, as well; or travelled with the first.
        assert_eq!(gateway.get("/good").status, 200);
        eventually("both good rows to be complete", || {
            let rows = store.rows(&gateway);
            rows.iter().all(|row| row.is_true("completed")).then_some(())
        });
        assert_eq!(rows_total(&gateway, "dead"), 1.0, "{mode}");
        assert_eq!(rows_total(&gateway, "unavailable"), 0.0, "{mode}");
        assert_eq!(rows_total(&gateway, "dropped"), 0.0, "{mode}");
    }
}
