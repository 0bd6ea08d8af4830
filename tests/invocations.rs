//! `portcullis invocations` shows what the record holds, while the gateway writes it.

use std::io::{BufRead, BufReader};

use crate::support::{Answer, Call, Finished, Gateway, Plan, Store, Upstream};

/// The same promise for either store.
macro_rules! on_each_store {
    ($(fn $name:ident($store:ident: &Store) $body:block)+) => {$(
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

            fn promise($store: &Store) $body
        }
    )+};
}

/// What the gateway's own file asks for.
const ENVIRONMENT: [(&str, &str); 2] = [("PORT", "2"), ("ADMIN_ADDRESS", "127.0.0.1:1")];

fn show(gateway: &Gateway, arguments: &[&str]) -> Finished {
    let all = [&["invocations"], arguments, &["-c", "portcullis.yaml"]].concat();
    Gateway::finish(&all, gateway.directory(), &ENVIRONMENT)
}

#[track_caller]
fn lines(gateway: &Gateway, arguments: &[&str]) -> Vec<String> {
    let shown = show(gateway, arguments);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    shown.stdout.lines().map(str::to_owned).collect()
}

/// A gateway that has answered `req-0` to `req-4` with 200, 404, 500, 503 and 200.
fn busy(store: &Store) -> Gateway {
    let upstream = Upstream::script([200, 404, 500, 503]);
    let yaml = "
routes:
  all: {match: {path: /*}, upstream: service, record: {mode: sync, query: true}}
  last: {match: {path: /last}, upstream: service, record: {mode: sync}}
";
    let section = format!("{}\ntraces: {{sample: 0%}}", store.section());
    let gateway = Plan::new(yaml).section(&section).upstream(&upstream).start();
    for (n, path) in ["/a?x=1&token=s3cret", "/b", "/c,\"d", "/e", "/last"].iter().enumerate() {
        let path = path.replace(",\"", "%2C%22");
        let call = Call::new(&format!("GET {path}")).header("X-Request-Id", &format!("req-{n}"));
        gateway.call(call);
    }
    store.wait_for_rows(&gateway, 5);
    gateway
}

fn ids(lines: &[String]) -> Vec<String> {
    let id = |line: &String| {
        let row: serde_json::Value = serde_json::from_str(line).expect("a line is an object");
        row["request_id"].as_str().expect("an id").to_owned()
    };
    lines.iter().map(id).collect()
}

on_each_store! {
    fn rows_are_shown_by_filter(store: &Store) {
        let gateway = busy(store);
        for (filter, expected) in [
            (&[][..], &["req-0", "req-1", "req-2", "req-3", "req-4"][..]),
            (&["-n", "2"], &["req-3", "req-4"]),
            (&["--status", "5xx"], &["req-2", "req-3"]),
            (&["--status", "404"], &["req-1"]),
            (&["--route", "last"], &["req-4"]),
            (&["--request-id", "req-2"], &["req-2"]),
            (&["--since", "1h", "--status", "200-299"], &["req-0", "req-4"]),
            (&["--until", "1h"], &[]),
            (&["--consumer", "nobody"], &[]),
        ] {
            let shown = lines(&gateway, &[filter, &["--format", "json"]].concat());
            assert_eq!(ids(&shown), expected, "{filter:?}");
        }
        let first = &lines(&gateway, &["--request-id", "req-0", "--format", "json"])[0];
        let row: serde_json::Value = serde_json::from_str(first).expect("an object");
        assert_eq!((&row["query"], &row["status"]), (&"x=1&token=***".into(), &200.into()));
        assert_eq!(row["trace_id"].as_str().map(str::len), Some(32));
    }

    fn a_table_and_csv_say_the_same(store: &Store) {
        let gateway = busy(store);
        let table = lines(&gateway, &["--status", "500"]);
        assert_eq!(table.len(), 2, "{table:?}");
        assert!(table[0].starts_with("created_at ") && table[0].contains("  request_id"));
        assert!(table[1].contains("  500 ") && table[1].ends_with("req-2"), "{table:?}");
        let csv = lines(&gateway, &["--status", "500", "--format", "csv"]);
        assert_eq!(csv[0].split(',').nth(2), Some("request_id"));
        assert_eq!(csv[1].split(',').nth(2), Some("req-2"));
        assert_eq!(csv.len(), 2);
    }

    fn stats_sum_up_each_route(store: &Store) {
        let gateway = busy(store);
        let all = [&["stats", "--format", "json"][..]].concat();
        let figures: Vec<serde_json::Value> = lines(&gateway, &all)
            .iter()
            .map(|line| serde_json::from_str(line).expect("an object"))
            .collect();
        let [of_all, last] = &figures[..] else { panic!("{figures:?}") };
        assert_eq!((&of_all["route"], &of_all["requests"]), (&"all".into(), &4.into()));
        assert_eq!(of_all["success_percent"], 25.0);
        let quantile = |name: &str| of_all[name].as_f64().expect("a number");
        assert!(0.0 < quantile("p50_ms") && quantile("p50_ms") <= quantile("p99_ms"));
        assert_eq!((&last["route"], &last["success_percent"]), (&"last".into(), &100.0.into()));
        let table = lines(&gateway, &["stats", "--route", "last", "--since", "1h"]);
        assert!(table.len() == 2 && table[1].starts_with("last "), "{table:?}");
    }

    fn a_route_that_is_unknown_is_an_error_that_lists_those_there_are(store: &Store) {
        let gateway = busy(store);
        let file = gateway.directory().join("portcullis.yaml");
        let renamed = std::fs::read_to_string(&file).expect("a file").replace("last:", "newest:");
        std::fs::write(&file, renamed).expect("written");
        for arguments in [&["--route", "lsat"][..], &["stats", "--route", "lsat"]] {
            let shown = show(&gateway, arguments);
            assert_eq!((shown.code, &*shown.stdout), (Some(1), ""), "{shown:?}");
            let said = "lsat: there is no such route; those of portcullis.yaml: all, newest; in the record besides: last";
            assert!(shown.stderr.contains(said), "{shown:?}");
        }
        // One that only the record knows, and one that only the file knows.
        assert_eq!(ids(&lines(&gateway, &["--route", "last", "--format", "json"])), ["req-4"]);
        assert!(lines(&gateway, &["--route", "newest", "--format", "json"]).is_empty());
    }

    fn what_follows_is_shown_as_it_comes(store: &Store) {
        let gateway = busy(store);
        let arguments =
            ["invocations", "--follow", "-n", "1", "--format", "json", "-c", "portcullis.yaml"];
        let mut child = Gateway::begin(&arguments, gateway.directory(), &ENVIRONMENT);
        let mut shown = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut next = || shown.next().expect("a line").expect("text");
        assert_eq!(ids(&[next()]), ["req-4"]);
        for n in 5..8 {
            gateway.call(Call::new("GET /").header("X-Request-Id", &format!("req-{n}")));
            assert_eq!(ids(&[next()]), [format!("req-{n}")]);
        }
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }
}

#[test]
fn a_status_that_cannot_be_is_an_error_that_says_what_can() {
    let upstream = Upstream::always(Answer::ok());
    let gateway = Gateway::route(&upstream, "");
    for wrong in ["9xx", "0", "600", "400-999", "ok"] {
        let shown = show(&gateway, &["--status", wrong]);
        assert_eq!((shown.code, &*shown.stdout), (Some(2), ""), "{shown:?}");
        let said = shown.stderr.contains("100 to 599") && shown.stderr.contains("1xx to 5xx");
        assert!(said, "{shown:?}");
    }
}

#[test]
fn a_store_that_cannot_be_read_is_named() {
    let upstream = Upstream::always(Answer::ok());
    let gateway = Gateway::route(&upstream, "");
    std::fs::remove_dir_all(gateway.directory().join("data")).expect("a store");
    let shown = show(&gateway, &[]);
    assert_eq!(shown.code, Some(1));
    assert!(shown.stderr.contains("portcullis.db"), "{shown:?}");
}
