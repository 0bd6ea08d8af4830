//! A record that cannot be written stops the start, with words that say where and what to do.

use crate::support::{Plan, Postgres, Store, Upstream};

const DURABLE: &str = "record: {mode: durable}";

#[track_caller]
fn assert_refused(plan: Plan, parts: &[&str]) {
    let (code, log) = plan.fails();
    assert_eq!(code, Some(1), "{log}");
    for part in parts {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!log.contains("] ready") && !log.contains(" ready\n"), "{log}");
}

fn stored_at(path: &str) -> Plan {
    let section = format!("record: {{store: {{sqlite: {{path: '{path}'}}}}}}");
    Plan::route("record: {mode: async}").section(&section)
}

#[test]
fn a_data_folder_that_cannot_be_written_stops_the_start() {
    // Where even root cannot write: below a regular file, and in the kernel's own file system.
    for (path, folder) in
        [("file/below/portcullis.db", "file/below"), ("/proc/portcullis.db", "/proc")]
    {
        let plan = stored_at(path).beside("file", "");
        let remedy = format!("right to write in {folder}, or set another path");
        assert_refused(plan, &["record.store.sqlite.path: ", path, &remedy]);
    }
}

#[test]
fn a_data_file_that_is_no_database_stops_the_start() {
    assert_refused(stored_at("/tmp"), &["record.store.sqlite.path: /tmp cannot be used: "]);
    let garbage = "not a database, and long enough to be looked at as one ".repeat(200);
    let plan = stored_at("garbage.db").beside("garbage.db", &garbage);
    assert_refused(plan, &["garbage.db cannot be used: ", "move it out of"]);
}

#[test]
fn a_journal_that_cannot_be_written_stops_the_start_where_a_route_needs_it() {
    let Some(server) = Postgres::shared() else { return };
    let store = Store::on(server);
    let section = store.section().replace("${PORTCULLIS_DATA}/journal.db", "/proc/journal.db");
    let plan = || Plan::route(DURABLE).section(&section);
    assert_refused(plan(), &["record.journal.path: ", "right to write in /proc"]);
    // A route that does not use it does not miss it.
    let upstream = Upstream::start();
    let plan = Plan::route("record: {mode: sync}").section(&section).upstream(&upstream);
    assert_eq!(plan.start().get("/").status, 200);
}

#[test]
fn a_folder_that_is_missing_is_made() {
    let upstream = Upstream::start();
    let section = "record: {store: {sqlite: {path: new/folder/portcullis.db}}}";
    let plan = Plan::route(DURABLE).section(section).upstream(&upstream);
    let gateway = plan.start();
    assert_eq!(gateway.get("/").status, 200);
    let made = gateway.directory().join("new/folder/portcullis.db");
    assert_eq!(Store::rows_in(&made).len(), 1);
}
