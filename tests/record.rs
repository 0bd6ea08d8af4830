//! What is written down about a request, when, and what a store that is down means.

use std::sync::Arc;

use crate::support::{
    Answer, Authority, Call, Gateway, Plan, Postgres, Row, Store, Upstream, assert_within,
    eventually, timed,
};

/// The same promise for either store.
macro_rules! on_each_store {
    ($($(#[$doc:meta])* fn $name:ident($store:ident: &Store) $body:block)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn on_sqlite() {
                promise(&Store::Sqlite);
            }

            #[test]
            fn on_postgres() {
                if let Some(store) = Store::postgres() {
                    promise(&store);
                }
            }

            $(#[$doc])*
            fn promise($store: &Store) $body
        }
    )+};
}

fn recording(store: &Store, upstream: &Upstream, policies: &str) -> Gateway {
    Plan::route(policies).section(&store.section()).upstream(upstream).start()
}

/// A server of the test's own, to be stopped by it.
fn own_server() -> Option<(Arc<Postgres>, Store)> {
    let server = Arc::new(Postgres::start()?);
    Some((server.clone(), Store::on(server)))
}

const SYNC: &str = "record: {mode: sync, on_failure: reject}";
const CAPTURE: &str =
    "record: {mode: sync, capture: {name: request.name, result_message: response.message}}";

on_each_store! {
    fn a_success_is_one_row_that_says_everything(store: &Store) {
        let upstream = Upstream::always(Answer::json(200, "{\"message\":\"hi\"}"));
        let keys = "auth: {partners: {api_key: {header: X-Api-Key, keys: {acme: acme-key-0123456789}}}}";
        let route = format!("auth: {{require: partners}}\n{SYNC}");
        let plan = Plan::route(&route).section(keys).section(&store.section());
        let gateway = plan.upstream(&upstream).start();
        let call = Call::new("POST /orders/7?secret=s3cret")
            .header("X-Request-Id", "req-1")
            .header("X-Api-Key", "acme-key-0123456789")
            .json("{\"a\":1}");
        assert_eq!(gateway.call(call).status, 200);
        let row = &store.wait_for_rows(&gateway, 1)[0];
        for (column, value) in [
            ("request_id", "req-1"),
            ("route", "all"),
            ("upstream", "service"),
            ("consumer", "acme"),
            ("client_address", "127.0.0.1"),
            ("method", "POST"),
            ("path", "/orders/7"),
            ("status", "200"),
            ("upstream_status", "200"),
            ("attempts", "1"),
            ("bytes_in", "7"),
            ("bytes_out", "16"),
        ] {
            assert_eq!(row.text(column), Some(value), "{column}");
        }
        assert!(row.is_true("success"));
        assert_eq!(row.text("rejection"), None);
        let endpoint = row.text("endpoint").expect("an endpoint").to_owned();
        assert!(endpoint.contains(&upstream.address().port().to_string()), "{endpoint}");
        assert!(row.number("duration_us") >= row.number("upstream_duration_us"));
        assert!(row.number("upstream_duration_us") > 0);
        assert_eq!(row.text("id").map(str::len), Some(36), "a UUID");
        assert!(row.text("protocol").is_some());
    }

    fn a_row_holds_no_credential(store: &Store) {
        let upstream = Upstream::start();
        let gateway = recording(store, &upstream, SYNC);
        let call = Call::new("GET /x?token=s3cret-in-query")
            .bearer("s3cret-token")
            .header("Cookie", "session=s3cret-cookie");
        gateway.call(call);
        let row = format!("{:?}", store.wait_for_rows(&gateway, 1));
        assert!(!row.contains("s3cret"), "{row}");
    }

    fn what_failed_is_recorded_as_what_it_was(store: &Store) {
        let upstream = Upstream::script([Answer::reset(), Answer::from(500), Answer::hang()]);
        let policies = format!("timeout: {{attempt: 200ms}}\n{SYNC}");
        let gateway = recording(store, &upstream, &policies);
        let answered = [(); 3].map(|()| gateway.get("/").status);
        assert_eq!(answered, [502, 500, 504]);
        let rows = store.wait_for_rows(&gateway, 3);
        let said = |column: &str| rows.iter().map(|r| r.text(column).map(str::to_owned)).collect::<Vec<_>>();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(said("status"), [some("502"), some("500"), some("504")]);
        assert_eq!(said("upstream_status"), [None, some("500"), None]);
        assert_eq!(said("rejection"), [some("reset"), None, some("attempt_timeout")]);
        assert!(rows.iter().all(|row| !row.is_true("success")));
    }

    fn what_the_gateway_refused_is_recorded_without_an_attempt(store: &Store) {
        let upstream = Upstream::start();
        let policies = format!("rate_limit: {{fixed_window: {{requests: 1, per: 1m}}}}\n{SYNC}");
        let gateway = recording(store, &upstream, &policies);
        gateway.get("/");
        assert_eq!(gateway.get("/").status, 429);
        let row = &store.wait_for_rows(&gateway, 2)[1];
        assert_eq!((row.text("status"), row.text("rejection")), (Some("429"), Some("rate_limited")));
        assert_eq!((row.number("attempts"), row.text("upstream_status")), (0, None));
        assert!(!row.is_true("success"));
    }

    fn a_retried_request_is_one_row_with_its_attempts(store: &Store) {
        let upstream = Upstream::script([503]);
        let policies = format!("retry: {{max_retries: 1, on: [503], backoff: {{base: 1ms}}}}\n{SYNC}");
        let gateway = recording(store, &upstream, &policies);
        assert_eq!(gateway.get("/").status, 200);
        let row = &store.wait_for_rows(&gateway, 1)[0];
        assert_eq!((row.number("attempts"), row.text("status")), (2, Some("200")));
        assert!(row.is_true("success"));
    }

    fn a_client_that_left_is_recorded_as_such(store: &Store) {
        let upstream = Upstream::script([Answer::hang()]);
        let gateway = recording(store, &upstream, "record: {mode: async}");
        let mut client = gateway.connect();
        client.send(Call::new("GET /").bytes());
        upstream.wait_for(1);
        client.vanish();
        let row = &store.wait_for_rows(&gateway, 1)[0];
        assert_eq!(row.text("status"), Some("499"));
        assert!(!row.is_true("success"));
    }

    fn an_answer_of_a_sync_route_is_in_the_store_before_the_client_has_it(store: &Store) {
        let upstream = Upstream::start();
        let mut gateway = recording(store, &upstream, SYNC);
        let mut client = gateway.connect();
        for n in 0..20 {
            let id = format!("req-{n}");
            let call = Call::new("GET /").header("X-Request-Id", &id);
            assert_eq!(client.call(&call).status, 200);
        }
        gateway.kill();
        let ids: Vec<_> = store.rows(&gateway).iter().map(|r| r.text("request_id").map(str::to_owned)).collect();
        assert_eq!(ids, (0..20).map(|n| Some(format!("req-{n}"))).collect::<Vec<_>>());
    }

    fn an_async_row_arrives_after_the_answer(store: &Store) {
        let upstream = Upstream::start();
        let gateway = recording(store, &upstream, "record: {mode: async}");
        for _ in 0..5 {
            assert_eq!(gateway.get("/").status, 200);
        }
        store.wait_for_rows(&gateway, 5);
    }

    fn an_orderly_stop_writes_what_is_still_to_be_written(store: &Store) {
        let upstream = Upstream::start();
        let section = store.section().replace("journal:", "batch: {max_rows: 500, max_delay: 5s}, journal:");
        let plan = Plan::route("record: {mode: async}").section(&section).upstream(&upstream);
        let mut gateway = plan.start();
        let mut client = gateway.connect();
        for _ in 0..50 {
            assert_eq!(client.call(&"GET /".into()).status, 200);
        }
        gateway.signal("TERM");
        assert!(gateway.exit().success());
        assert_eq!(store.rows(&gateway).len(), 50);
    }

    fn nothing_is_recorded_where_nothing_is_asked_for(store: &Store) {
        let upstream = Upstream::start();
        let yaml = "
routes:
  off: {match: {path: /off}, upstream: service}
  on: {match: {path: /on}, upstream: service, record: {mode: sync}}
";
        let gateway = Plan::new(yaml).section(&store.section()).upstream(&upstream).start();
        gateway.get("/off");
        gateway.get("/on");
        assert_eq!(store.wait_for_rows(&gateway, 1)[0].text("route"), Some("on"));
    }

    fn fields_of_request_and_answer_are_captured(store: &Store) {
        let upstream = Upstream::always(Answer::json(200, "{\"message\":\"Hello Ada\"}"));
        let gateway = recording(store, &upstream, CAPTURE);
        assert_eq!(gateway.post("/", "{\"name\":\"Ada\"}").text(), "{\"message\":\"Hello Ada\"}");
        let row = &store.wait_for_rows(&gateway, 1)[0];
        assert_eq!(row.text("name"), Some("Ada"));
        assert_eq!(row.text("result_message"), Some("Hello Ada"));
    }

    fn what_cannot_be_captured_changes_nothing_else(store: &Store) {
        let big = format!("{{\"message\":\"{}\"}}", "x".repeat(200_000));
        let upstream = Upstream::script([
            Answer::ok().body("no JSON"),
            Answer::json(200, "{\"message\":"),
            Answer::json(200, &big),
            Answer::json(200, "{\"message\":\"a\\u0000b\"}"),
        ]);
        let gateway = recording(store, &upstream, CAPTURE);
        let lengths = [(); 4].map(|()| gateway.post("/", "{\"name\":\"\\u0000\"}").body_length);
        assert_eq!(lengths, [7, 11, big.len() as u64, 22]);
        let rows = store.wait_for_rows(&gateway, 4);
        assert!(rows.iter().all(|row| row.is_true("success")), "{rows:#?}");
        let kept = rows.iter().map(|r| r.text("result_message").map_or(0, str::len)).max();
        assert!(kept <= Some(4096), "bounded: {kept:?}");
    }

    fn many_requests_at_once_are_as_many_rows(store: &Store) {
        let upstream = Upstream::start();
        let gateway = recording(store, &upstream, SYNC);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = gateway.connect();
                    for _ in 0..25 {
                        assert_eq!(client.call(&"GET /".into()).status, 200);
                    }
                });
            }
        });
        let rows = store.wait_for_rows(&gateway, 200);
        let ids: std::collections::BTreeSet<_> = rows.iter().map(|r| r.text("id")).collect();
        assert_eq!(ids.len(), 200);
    }
}

#[test]
fn a_row_that_cannot_be_committed_withholds_the_answer_where_asked() {
    let Some((server, store)) = own_server() else { return };
    let upstream = Upstream::start();
    let gateway = recording(&store, &upstream, SYNC);
    assert_eq!(gateway.get("/").status, 200);
    server.stop();
    let (refused, took) = timed(|| gateway.get("/"));
    assert_eq!((refused.status, refused.code().as_str()), (503, "record_unavailable"));
    assert_within(took, std::time::Duration::from_secs(6));
    server.restart();
    eventually("a commit", || (gateway.get("/").status == 200).then_some(()));
}

#[test]
fn a_row_that_cannot_be_committed_is_journaled_and_stored_once_later() {
    let Some((server, store)) = own_server() else { return };
    let upstream = Upstream::start();
    let gateway = recording(&store, &upstream, "record: {mode: sync, on_failure: journal}");
    let call = |id: &str| gateway.call(Call::new("GET /").header("X-Request-Id", id)).status;
    assert_eq!(call("before"), 200);
    server.stop();
    assert_eq!([call("during-1"), call("during-2")], [200, 200]);
    server.restart();
    let stored = |rows: &[Row]| -> Vec<String> {
        rows.iter().filter_map(|r| r.text("request_id").map(str::to_owned)).collect()
    };
    eventually("the journal in the store", || (store.rows(&gateway).len() >= 3).then_some(()));
    assert_eq!(call("after"), 200);
    let rows = store.wait_for_rows(&gateway, 4);
    assert_eq!(stored(&rows), ["before", "during-1", "during-2", "after"]);
}

#[test]
fn an_async_route_does_not_notice_a_store_that_is_down() {
    let Some((server, store)) = own_server() else { return };
    let upstream = Upstream::start();
    let gateway = recording(&store, &upstream, "record: {mode: async}");
    gateway.get("/");
    server.stop();
    for _ in 0..20 {
        let (response, took) = timed(|| gateway.get("/"));
        assert_eq!(response.status, 200);
        assert_within(took, std::time::Duration::from_millis(200));
    }
    server.restart();
    store.wait_for_rows(&gateway, 21);
}

#[test]
fn what_an_async_route_answered_is_stored_or_counted_as_dropped() {
    let Some((server, store)) = own_server() else { return };
    let upstream = Upstream::start();
    let section = store.section().replace("journal:", "queue: 20, journal:");
    let plan = Plan::route("record: {mode: async}").section(&section).upstream(&upstream);
    let mut gateway = plan.start();
    let mut client = gateway.connect();
    let mut answer = |times: usize| {
        for _ in 0..times {
            assert_eq!(client.call(&"GET /".into()).status, 200);
        }
    };
    server.stop();
    answer(200);
    server.restart();
    let rows = |result| gateway.metric("portcullis_record_rows_total", &[("result", result)]);
    eventually("every row to be one or the other", || {
        (rows("written") + rows("dropped") == 200.0).then_some(())
    });
    assert!(rows("written") >= 1.0 && rows("dropped") >= 100.0, "{} written", rows("written"));
    gateway.expect_metric("portcullis_record_queue_depth", &[], 0.0);
    assert!(gateway.metric("portcullis_record_batch_rows_count", &[]) >= 1.0);
    assert!(gateway.metric("portcullis_record_commit_seconds_count", &[]) >= 1.0);
    let written = rows("written") as usize;
    answer(10);
    gateway.signal("TERM");
    assert!(gateway.exit().success());
    assert_eq!(store.rows(&gateway).len(), written + 10);
}

#[test]
fn the_database_is_spoken_to_over_tls_and_only_if_it_is_who_it_should_be() {
    let Some((server, store)) = own_server() else { return };
    let (authority, other) = (Authority::new(), Authority::new());
    let leaf = authority.sign("localhost");
    server.speak_tls(&leaf.pem(), &leaf.key_pem());
    let Store::Postgres { url, .. } = &store else { unreachable!("it is PostgreSQL") };
    let upstream = Upstream::start();
    let plan = |ca: &str| {
        let url = format!("{}?sslmode=require", url.replace("127.0.0.1", "localhost"));
        let section = format!("record: {{store: {{postgres: {{url: \"{url}\"{ca}}}}}}}");
        let plan = Plan::route(SYNC).section(&section).upstream(&upstream);
        plan.beside("right.pem", &authority.pem()).beside("wrong.pem", &other.pem())
    };
    for ca in ["", ", ca: right.pem"] {
        let gateway = plan(ca).start();
        gateway.wait_for_log("record store: ready");
        assert_eq!(gateway.get("/").status, 200, "{ca}\n{}", gateway.log());
        let encrypted = "SELECT count(*) > 0 AND bool_and(ssl) FROM pg_stat_ssl \
                         JOIN pg_stat_activity USING (pid) \
                         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        assert_eq!(server.query("postgres", encrypted), "t");
    }
    let gateway = plan(", ca: wrong.pem").start();
    assert_eq!(gateway.get("/").code(), "record_unavailable");
    assert_eq!(server.query(url, "SELECT count(*) FROM invocations"), "2");
}

#[test]
fn a_database_that_is_down_at_the_start_is_used_once_it_is_there() {
    let Some((server, store)) = own_server() else { return };
    server.stop();
    let upstream = Upstream::start();
    let gateway = recording(&store, &upstream, "record: {mode: async}");
    assert_eq!(gateway.get("/").status, 200);
    server.restart();
    store.wait_for_rows(&gateway, 1);
    assert!(!gateway.log().contains("postgres://"), "no URL in the log, it may hold a password");
}

#[test]
fn two_gateways_that_start_together_share_one_database() {
    let Some(store) = Store::postgres() else { return };
    let upstream = Upstream::start();
    let start = || recording(&store, &upstream, SYNC);
    let gateways = std::thread::scope(|scope| {
        let starts = [scope.spawn(start), scope.spawn(start)];
        starts.map(|start| start.join().expect("a gateway"))
    });
    for gateway in &gateways {
        eventually("a commit", || (gateway.get("/").status == 200).then_some(()));
    }
    eventually("both rows", || (store.rows(&gateways[0]).len() >= 2).then_some(()));
}

#[test]
fn the_embedded_store_survives_a_restart_of_its_gateway() {
    let upstream = Upstream::start();
    let data = tempfile::tempdir().expect("a directory");
    let path = data.path().join("kept.db");
    let section = format!("record: {{store: {{sqlite: {{path: \"{}\"}}}}}}", path.display());
    for _ in 0..2 {
        let mut gateway = Plan::route(SYNC).section(&section).upstream(&upstream).start();
        assert_eq!(gateway.get("/").status, 200);
        gateway.kill();
    }
    let count: i64 = rusqlite::Connection::open(&path)
        .and_then(|c| c.query_row("SELECT count(*) FROM invocations", [], |row| row.get(0)))
        .expect("a store");
    assert_eq!(count, 2);
}
