//! Every answer a client received has exactly one row, however often the gateway is killed.
//!
//! A ledger joins what clients heard and what the store holds, by request id. `RECORD_KILLS` sets how
//! often it is killed; `scripts/soak.sh` does so fifty times, `make prove` a dozen.

use std::time::Duration;

use crate::support::{
    Gateway, Load, Plan, Proof, Row, Store, Upstream, eventually, from_environment, pass,
};

fn kills() -> usize {
    from_environment("RECORD_KILLS", 5)
}

#[test]
fn sync_on_sqlite() {
    promise("sync", &Store::Sqlite);
}

#[test]
fn sync_on_postgres() {
    if let Some(store) = Store::postgres() {
        promise("sync", &store);
    }
}

#[test]
fn durable_on_sqlite() {
    promise("durable", &Store::Sqlite);
}

#[test]
fn durable_on_postgres() {
    if let Some(store) = Store::postgres() {
        promise("durable", &store);
    }
}

#[test]
fn durable_without_waiting_for_the_disk() {
    for store in [Some(Store::Sqlite), Store::postgres()].into_iter().flatten() {
        promise_with("durable", "fsync: false, ", &store);
    }
}

fn promise(mode: &str, store: &Store) {
    promise_with(mode, "", store);
}

fn promise_with(mode: &str, more: &str, store: &Store) {
    let upstream = Upstream::start();
    let data = tempfile::tempdir().expect("a directory");
    let section = store.section().replace("${PORTCULLIS_DATA}", &data.path().display().to_string());
    // A disk that is busy with other things must not make a request give up.
    let section = section.replace("journal:", &format!("commit_timeout: 10s, {more}journal:"));
    let start = || -> Gateway {
        let policies = format!("record: {{mode: {mode}}}");
        let gateway = Plan::route(&policies).section(&section).upstream(&upstream).start();
        // A `sync` route answers 503 until it has reached its store.
        eventually("an answer", || (gateway.get("/warm-up").status == 200).then_some(()));
        gateway
    };
    let mut answered = Vec::new();
    for kill in 0..kills() {
        let mut gateway = start();
        let load = Load::start(gateway.address, 8, &format!("kill-{kill}"));
        eventually("requests under way", || (load.answers() > 20).then_some(()));
        pass(Duration::from_micros(fastrand::u64(0..100_000)));
        gateway.kill();
        answered.extend(load.finish());
    }
    let gateway = start();
    assert!(answered.len() >= kills() * 20);
    let recorded = || {
        let mut rows = rows(store, &gateway, data.path());
        rows.retain(|row| row.text("path") != Some("/warm-up"));
        rows
    };
    eventually("what the journal holds", || {
        let depth = gateway.metric("portcullis_record_journal_depth", &[]);
        (depth == 0.0 && recorded().len() >= answered.len()).then_some(())
    });
    let on = match store {
        Store::Sqlite => "embedded",
        Store::Postgres { .. } => "PostgreSQL",
    };
    let less = if more.is_empty() { "" } else { ", no fsync" };
    let name = format!("kills, {mode}, {on}{less}");
    let done = format!("{} kills under load", kills());
    Proof::of_rows((&name, done), &answered, &recorded()).assert_exact();
}

fn rows(store: &Store, gateway: &Gateway, data: &std::path::Path) -> Vec<Row> {
    match store {
        Store::Sqlite => Store::rows_in(&data.join("portcullis.db")),
        Store::Postgres { .. } => store.rows(gateway),
    }
}
