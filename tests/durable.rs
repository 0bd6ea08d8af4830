//! Mode `durable`: the row is on the local disk before the client has the answer, and reaches the
//! store once, whatever the store does meanwhile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::support::{Answer, Call, Gateway, Plan, Postgres, Store, Upstream, eventually};

const DURABLE: &str = "record: {mode: durable}";

/// A server of the test's own, to be stopped by it.
fn own_server() -> Option<(Arc<Postgres>, Store)> {
    let server = Arc::new(Postgres::start()?);
    Some((server.clone(), Store::on(server)))
}

fn recording(store: &Store, upstream: &Upstream, policies: &str) -> Gateway {
    Plan::route(policies).section(&section(store)).upstream(upstream).start()
}

/// A disk that is busy with other things must not make a request give up.
fn section(store: &Store) -> String {
    store.section().replace("journal:", "commit_timeout: 10s, journal:")
}

fn journal(gateway: &Gateway) -> PathBuf {
    gateway.directory().join("data/journal.db")
}

fn rows(result: &str) -> [(&str, &str); 1] {
    [("result", result)]
}

#[test]
fn a_durable_row_reaches_the_store_once_and_whole() {
    let Some(store) = Store::postgres() else { return };
    let upstream = Upstream::always(Answer::json(200, "{\"message\":\"hi\"}"));
    let policies = "record: {mode: durable, capture: {result_message: response.message}}";
    let gateway = recording(&store, &upstream, policies);
    for n in 0..20 {
        let call = Call::new("GET /a").header("X-Request-Id", &format!("req-{n}"));
        assert_eq!(gateway.call(call).status, 200);
    }
    let rows = store.wait_for_rows(&gateway, 20);
    assert!(rows.iter().all(|row| row.is_true("success")));
    assert!(rows.iter().all(|row| row.text("result_message") == Some("hi")));
    assert!(rows.iter().all(|row| row.number("bytes_out") == 16));
    eventually("an empty journal", || {
        (gateway.metric("portcullis_record_journal_depth", &[]) == 0.0).then_some(())
    });
}

#[test]
fn requests_do_not_notice_that_the_store_is_down_and_their_rows_arrive_later() {
    let Some((server, store)) = own_server() else { return };
    let upstream = Upstream::script([Answer::reset(), Answer::from(503)]);
    let policies = format!("rate_limit: {{fixed_window: {{requests: 5, per: 1h}}}}\n{DURABLE}");
    let gateway = recording(&store, &upstream, &policies);
    server.stop();
    // A success, failures, and what the gateway itself refuses.
    let statuses: Vec<u16> = (0..7).map(|_| gateway.get("/").status).collect();
    assert_eq!(statuses, [502, 503, 200, 200, 200, 429, 429]);
    eventually("rows in the journal", || {
        let depth = gateway.metric("portcullis_record_journal_depth", &[]);
        (depth >= 7.0).then_some(())
    });
    eventually("an age", || {
        (gateway.metric("portcullis_record_journal_age_seconds", &[]) > 0.0).then_some(())
    });
    server.restart();
    let recorded = store.wait_for_rows(&gateway, 7);
    let recorded: Vec<_> = recorded.iter().map(|row| row.number("status")).collect();
    assert_eq!(recorded, [502, 503, 200, 200, 200, 429, 429]);
    gateway.expect_metric("portcullis_record_rows_total", &rows("journaled"), 7.0);
    eventually("all counted", || {
        let shipped = gateway.metric("portcullis_record_rows_total", &rows("shipped"));
        (shipped == 7.0).then_some(())
    });
}

#[test]
fn a_client_that_left_is_in_the_journal_too() {
    let Some(store) = Store::postgres() else { return };
    let upstream = Upstream::script([Answer::hang()]);
    let gateway = recording(&store, &upstream, DURABLE);
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    client.vanish();
    let row = &store.wait_for_rows(&gateway, 1)[0];
    assert_eq!(row.text("status"), Some("499"));
    assert!(journal(&gateway).exists());
}

#[test]
fn without_a_database_the_embedded_store_is_the_journal() {
    let upstream = Upstream::start();
    let store = Store::Sqlite;
    let mut gateway = recording(&store, &upstream, DURABLE);
    for _ in 0..5 {
        assert_eq!(gateway.get("/").status, 200);
    }
    gateway.kill();
    assert_eq!(store.rows(&gateway).len(), 5);
    assert!(!journal(&gateway).exists());
}

#[test]
fn an_orderly_stop_ships_what_the_journal_holds() {
    let Some(store) = Store::postgres() else { return };
    let upstream = Upstream::start();
    // Nothing is shipped in less than this by itself.
    let section = section(&store).replace("journal:", "batch: {max_delay: 2s}, journal:");
    let mut gateway = Plan::route(DURABLE).section(&section).upstream(&upstream).start();
    let mut client = gateway.connect();
    for _ in 0..50 {
        assert_eq!(client.call(&"GET /".into()).status, 200);
    }
    gateway.signal("TERM");
    assert!(gateway.exit().success());
    let rows = store.rows(&gateway);
    assert_eq!(rows.iter().filter(|row| row.is_true("completed")).count(), 50);
}

#[test]
fn a_full_journal_withholds_the_answer_or_drops_the_row_as_configured() {
    let Some((server, store)) = own_server() else { return };
    let upstream = Upstream::start();
    for policy in ["reject", "drop"] {
        let more = format!("max_size: 64KiB, when_full: {policy}, path:");
        let section = section(&store).replace("path:", &more);
        let gateway = Plan::route(DURABLE).section(&section).upstream(&upstream).start();
        server.stop();
        let mut client = gateway.connect();
        let path = format!("/{}", "x".repeat(1500));
        let rejected = (0..200).find_map(|_| {
            let response = client.call(&Call::new(&format!("GET {path}")));
            (response.status != 200).then(|| (response.status, response.code()))
        });
        let dropped = gateway.metric("portcullis_record_rows_total", &rows("dropped"));
        match policy {
            "reject" => assert_eq!(rejected, Some((503, "record_unavailable".to_owned()))),
            _ => assert!(rejected.is_none() && dropped > 0.0, "{rejected:?}, {dropped} dropped"),
        }
        server.restart();
        eventually("room again", || (gateway.get("/").status == 200).then_some(()));
    }
}

/// A disk of its own, gone with the value.
pub struct Disk(pub tempfile::TempDir);

impl Disk {
    /// `None`, said loudly, where none can be mounted.
    pub fn of(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let options = format!("size={size}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(directory.path())
            .output();
        if !mount.is_ok_and(|mount| mount.status.success()) {
            eprintln!("SKIPPED: a test that needs a full disk: nothing can be mounted here");
            return None;
        }
        Some(Disk(directory))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_withholds_answers_until_the_journal_is_shipped() {
    let Some((server, store)) = own_server() else { return };
    // The reserve takes 8 MiB of it.
    let Some(disk) = Disk::of("12m") else { return };
    let upstream = Upstream::start();
    let section = at(&store, disk.0.path());
    let gateway = Plan::route(DURABLE).section(&section).upstream(&upstream).start();
    server.stop();
    let mut client = gateway.connect();
    let call = Call::new(&format!("GET /{}", "x".repeat(1900)));
    let mut kept = 0;
    while kept < 5000 && client.call(&call).status == 200 {
        kept += 1;
    }
    assert!((100..5000).contains(&kept), "{kept} answers before the disk was full");
    assert_eq!(gateway.call(call.clone()).status, 503);
    server.restart();
    let Store::Postgres { url, .. } = &store else { unreachable!("it is PostgreSQL") };
    eventually("room again", || (gateway.call(call.clone()).status == 200).then_some(()));
    eventually("an empty journal", || {
        (gateway.metric("portcullis_record_journal_depth", &[]) == 0.0).then_some(())
    });
    let stored = server
        .query(url, "SELECT count(*), count(DISTINCT id) FROM invocations WHERE status = 200");
    let stored: Vec<usize> = stored.split('|').map(|n| n.parse().expect("a number")).collect();
    assert!(stored[0] > kept && stored[0] == stored[1], "{stored:?}, {kept} answered");
}

#[test]
fn a_journal_at_the_limit_on_the_size_of_files_is_full_and_shipped_all_the_same() {
    let Some((server, store)) = own_server() else { return };
    let upstream = Upstream::start();
    // 8.5 MiB: the reserve takes 8, as on a disk; the file of rows ends at the same size.
    let section = section(&store).replace("journal:", "fsync: false, journal:");
    let plan = Plan::route(DURABLE).section(&section).upstream(&upstream);
    let gateway = plan.limited("ulimit -f 17408").start();
    server.stop();
    let mut client = gateway.connect();
    let call = Call::new(&format!("GET /{}", "x".repeat(1900)));
    let mut kept = 0;
    while kept < 8000 && client.call(&call).status == 200 {
        kept += 1;
    }
    assert!((1000..8000).contains(&kept), "{kept} answers before the file was full");
    let refused = gateway.call(call.clone());
    assert_eq!((refused.status, refused.code().as_str()), (503, "record_unavailable"));
    let most = std::fs::metadata(journal(&gateway)).expect("the journal").len();
    assert!(most <= 17408 * 512, "{most}");
    server.restart();
    eventually("room again", || (gateway.call(call.clone()).status == 200).then_some(()));
    eventually("an empty journal", || {
        (gateway.metric("portcullis_record_journal_depth", &[]) == 0.0).then_some(())
    });
    let Store::Postgres { url, .. } = &store else { unreachable!("it is PostgreSQL") };
    let stored = server
        .query(url, "SELECT count(*), count(DISTINCT id) FROM invocations WHERE status = 200");
    let stored: Vec<usize> = stored.split('|').map(|n| n.parse().expect("a number")).collect();
    assert!(stored[0] > kept && stored[0] == stored[1], "{stored:?}, {kept} answered");
}

#[test]
fn an_embedded_store_at_the_limit_on_the_size_of_files_goes_on_with_the_latest_rows() {
    let upstream = Upstream::start();
    // 2 MiB.
    let section = "record: {store: {sqlite: {path: \"${PORTCULLIS_DATA}/portcullis.db\"}}, \
                   commit_timeout: 10s, fsync: false}";
    let plan = Plan::route("record: {mode: sync}").section(section).upstream(&upstream);
    let mut gateway = plan.limited("ulimit -f 4096").start();
    let mut client = gateway.connect();
    const CALLS: usize = 2000;
    for n in 0..CALLS {
        let path = format!("/{n}-{}", "x".repeat(1900));
        let response = client.call(&Call::new(&format!("GET {path}")));
        assert_eq!(response.status, 200, "{n}: {}", response.text());
    }
    let most = std::fs::metadata(gateway.store()).expect("the store").len();
    assert!(most <= 4096 * 512, "{most}");
    gateway.signal("TERM");
    assert_eq!(gateway.exit().code(), Some(0));
    let kept = Store::rows_in(&gateway.store());
    let last = kept.last().and_then(|row| row.text("path")).expect("rows");
    assert!(last.starts_with(&format!("/{}-", CALLS - 1)), "{last}");
    assert!((100..CALLS).contains(&kept.len()), "{} rows", kept.len());
}

#[test]
fn a_row_the_database_refuses_is_set_aside_and_holds_up_no_other() {
    let Some((server, store)) = own_server() else { return };
    let Store::Postgres { url, .. } = &store else { unreachable!("it is PostgreSQL") };
    let upstream = Upstream::start();
    let gateway = recording(&store, &upstream, DURABLE);
    gateway.get("/first");
    store.wait_for_rows(&gateway, 1);
    server.query(url, "ALTER TABLE invocations ADD CHECK (path <> '/poison')");
    // All of them wait for the same shipment.
    server.stop();
    for n in 0..100 {
        let path = if n == 37 { "/poison".to_owned() } else { format!("/{n}") };
        assert_eq!(gateway.get(&path).status, 200);
    }
    server.restart();
    store.wait_for_rows(&gateway, 100);
    let dead = server.query(url, "SELECT reason, invocation FROM invocations_dead");
    assert!(dead.contains("23514") && dead.contains("/poison"), "{dead}");
    assert!(gateway.metric("portcullis_record_rows_total", &rows("dead")) > 0.0);
}

#[test]
fn a_route_that_says_nothing_takes_the_default_and_a_reload_may_change_it() {
    let Some(store) = Store::postgres() else { return };
    let upstream = Upstream::start();
    let yaml = |mode: &str| {
        let section =
            store.section().replace("journal:", &format!("default: {{mode: {mode}}}, journal:"));
        format!(
            "{section}\nroutes:\n  all: {{match: {{path: /*}}, upstream: service}}\n  \
                 none: {{match: {{path: /none}}, upstream: service, record: {{mode: off}}}}\n"
        )
    };
    let gateway = Plan::new(&yaml("off")).upstream(&upstream).start();
    gateway.get("/before");
    assert!(gateway.reload(&yaml("durable")), "{}", gateway.log());
    gateway.get("/after");
    gateway.get("/none");
    let row = &store.wait_for_rows(&gateway, 1)[0];
    assert_eq!(row.text("path"), Some("/after"));
}

#[test]
fn a_journal_of_an_earlier_run_is_shipped_by_the_next() {
    let Some((server, store)) = own_server() else { return };
    let upstream = Upstream::start();
    let data = tempfile::tempdir().expect("a directory");
    let section = at(&store, data.path());
    server.stop();
    for id in ["first", "second"] {
        let mut gateway = Plan::route(DURABLE).section(&section).upstream(&upstream).start();
        assert_eq!(gateway.call(Call::new("GET /").header("X-Request-Id", id)).status, 200);
        gateway.kill();
    }
    server.restart();
    let gateway = Plan::route(DURABLE).section(&section).upstream(&upstream).start();
    let rows =
        eventually("both rows", || Some(store.rows(&gateway)).filter(|rows| rows.len() >= 2));
    let ids: Vec<_> = rows.iter().map(|row| row.text("request_id")).collect();
    assert_eq!(ids, [Some("first"), Some("second")]);
}

/// The section with a journal that outlives its gateway.
fn at(store: &Store, data: &Path) -> String {
    section(store).replace("${PORTCULLIS_DATA}", &data.display().to_string())
}
