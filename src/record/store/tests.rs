//! What every store promises, tested on each of them.

mod columns;
mod commits;
mod full;
mod partitions;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::postgres::Postgres;
use super::sqlite::{Limit, Sqlite};
use crate::record::invocation::tests::invocation;
use crate::record::invocation::{Invocation, Row, Stage, new_id};
use crate::record::store::contract::Store;
use crate::record::store::safety::Safety;
use crate::record::{config, postgres_server};

/// A store, and a way to look into it from outside.
struct Subject {
    store: Arc<dyn Store>,
    /// The same store, as another process would open it.
    other: Arc<dyn Store>,
    place: Place,
}

enum Place {
    File { path: PathBuf, _directory: tempfile::TempDir },
    Database(String, Arc<postgres_server::Postgres>),
}

impl Subject {
    fn sqlite() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("made/on/the/way/records.db");
        let [store, other] =
            [(); 2].map(|()| Arc::new(Sqlite::start(&path, Limit::default()).expect("a thread")));
        Some(Subject { store, other, place: Place::File { path, _directory: directory } })
    }

    fn postgres() -> Option<Self> {
        let server = postgres_server::Postgres::shared()?;
        let url = server.database();
        let [store, other] = [(); 2].map(|()| Arc::new(postgres_store(&url)));
        Some(Subject { store, other, place: Place::Database(url, server) })
    }

    fn query(&self, sql: &str) -> String {
        match &self.place {
            Place::File { path, .. } => {
                let connection = rusqlite::Connection::open(path).expect("open");
                let mut statement = connection.prepare(sql).expect("valid SQL");
                let width = statement.column_count();
                let row = |row: &rusqlite::Row<'_>| {
                    let cell = |i| row.get::<_, rusqlite::types::Value>(i).map(show);
                    Ok((0..width).map(cell).collect::<Result<Vec<_>, _>>()?.join("|"))
                };
                let rows: Result<Vec<_>, _> =
                    statement.query_map([], row).expect("query").collect();
                rows.expect("rows").join("\n")
            }
            Place::Database(url, server) => server.query(url, sql),
        }
    }

    fn refuse_poison(&self) {
        self.query(match self.place {
            Place::File { .. } => {
                "CREATE TRIGGER poison BEFORE INSERT ON invocations WHEN new.name = 'poison' \
                 BEGIN SELECT raise(ABORT, 'poison'); END"
            }
            Place::Database(..) => "ALTER TABLE invocations ADD CHECK (name <> 'poison')",
        });
    }

    async fn write(&self, rows: Vec<Row>) -> Vec<crate::record::store::error::Refusal> {
        self.store.write(&Arc::new(rows), Safety::Power).await.expect("the store is there")
    }
}

fn show(value: rusqlite::types::Value) -> String {
    use rusqlite::types::Value;
    match value {
        Value::Null => String::new(),
        Value::Integer(n) => n.to_string(),
        Value::Real(n) => n.to_string(),
        Value::Text(text) => text,
        Value::Blob(_) => "blob".to_owned(),
    }
}

pub(crate) fn postgres_store(url: &str) -> Postgres {
    let config: config::Postgres =
        serde_yaml::from_str(&format!("{{url: '{url}', pool_size: 3}}")).expect("valid");
    Postgres::new(&config, config.url.as_ref().expect("a URL")).expect("a pool")
}

fn whole(invocation: Invocation) -> Row {
    Row::new(invocation, Stage::Whole)
}

fn on<F: Future>(subject: Option<Subject>, promise: impl FnOnce(Subject) -> F) {
    let Some(subject) = subject else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        subject.store.migrate().await.expect("migrated");
        promise(subject).await;
    });
}

macro_rules! on_each_store {
    ($($promise:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test] fn $promise() { super::on(super::Subject::sqlite(), super::$promise); })+
        }
        mod postgres {
            $(#[test] fn $promise() { super::on(super::Subject::postgres(), super::$promise); })+
        }
    };
}

on_each_store! {
    every_column_is_stored,
    a_row_written_twice_is_there_once,
    the_second_write_fills_the_first,
    the_second_write_changes_what_the_first_could_not_know,
    a_late_first_write_does_not_undo_the_second,
    a_poisoned_row_does_not_hold_up_the_others,
    old_rows_are_deleted_and_no_others,
    migrations_are_applied_once,
    hostile_text_is_stored,
}

async fn every_column_is_stored(subject: Subject) {
    let mut row = invocation("Ada");
    row.trace_id = 0xab;
    row.query = Some("a=1".to_owned());
    row.upstream = Some("service".into());
    row.endpoint = Some("10.0.0.1:80".into());
    row.consumer = Some("acme".into());
    row.client_address = Some("2001:db8::1".parse().expect("an address"));
    (row.status, row.upstream_status, row.success, row.attempts) = (503, Some(429), false, 2);
    row.rejection = Some("circuit_open".into());
    row.cause = Some("upstream_5xx".into());
    row.would_refuse = Some("rate_limited".into());
    row.host = Some("shop.test".to_owned());
    row.generation = Some(7);
    row.limit_keys = Some("00000000000000ab".to_owned());
    row.duration = Duration::from_micros(1500);
    row.upstream_duration = Some(Duration::from_micros(700));
    (row.bytes_in, row.bytes_out) = (3, u64::MAX);
    row.captured.result_message = Some("Hello".into());
    row.captured.insert(&"sku".into(), "a".into());
    let id = row.id.to_string();
    subject.write(vec![whole(row)]).await;

    let asked = "id, request_id, route, upstream, endpoint, consumer, client_address, method, path, \
                 status, upstream_status, attempts, rejection, duration_us, upstream_duration_us, \
                 bytes_in, bytes_out, protocol, name, result_message, captured ->> 'sku', trace_id, query, cause, \
                 would_refuse, host, generation, limit_keys";
    assert_eq!(
        subject.query(&format!("SELECT {asked} FROM invocations WHERE NOT success AND completed")),
        format!(
            "{id}|request-1|invoke|service|10.0.0.1:80|acme|2001:db8::1|POST|/invoke|503|429|2|\
             circuit_open|1500|700|3|{}|http|Ada|Hello|a|{:032x}|a=1|upstream_5xx|rate_limited|\
             shop.test|7|00000000000000ab",
            i64::MAX,
            0xab
        )
    );
    let at = "created_at BETWEEN '2023-11-14T22:13:20.123455Z' AND '2023-11-14T22:13:20.123457Z'";
    assert_eq!(subject.query(&format!("SELECT count(*) FROM invocations WHERE {at}")), "1");
}

async fn a_row_written_twice_is_there_once(subject: Subject) {
    let rows = vec![whole(invocation("one")), whole(invocation("two"))];
    assert_eq!(subject.write(rows.clone()).await, []);
    assert_eq!(subject.write([rows.clone(), rows].concat()).await, []);
    assert_eq!(subject.query("SELECT count(*) FROM invocations"), "2");
}

async fn the_second_write_fills_the_first(subject: Subject) {
    let mut row = invocation("Ada");
    subject.write(vec![Row::new(row.clone(), Stage::Answered)]).await;
    let asked = "SELECT completed, bytes_out, result_message FROM invocations";
    assert!(["f|0|", "0|0|"].contains(&subject.query(asked).as_str()));

    row.bytes_out = 5;
    row.captured.result_message = Some("Hello".into());
    subject.write(vec![Row::new(row, Stage::Completion)]).await;
    assert!(["t|5|Hello", "1|5|Hello"].contains(&subject.query(asked).as_str()));
}

/// Every field that the end of a request may change does change, and each value is in its column.
async fn the_second_write_changes_what_the_first_could_not_know(subject: Subject) {
    let mut row = invocation("Ada");
    subject.write(vec![Row::new(row.clone(), Stage::Answered)]).await;
    row.upstream = Some("other".into());
    row.endpoint = Some("10.0.0.2:80".into());
    (row.status, row.upstream_status) = (499, Some(206));
    (row.success, row.attempts) = (true, 3);
    row.rejection = Some("circuit_open".into());
    (row.duration, row.upstream_duration) =
        (Duration::from_micros(9), Some(Duration::from_micros(8)));
    (row.bytes_in, row.bytes_out) = (7, 6);
    row.captured.name = Some("Bob".into());
    row.captured.result_message = Some("Bye".into());
    row.captured.insert(&"sku".into(), "s".into());
    subject.write(vec![Row::new(row, Stage::Completion)]).await;
    let asked = "upstream, endpoint, status, upstream_status, attempts, rejection, duration_us, \
                 upstream_duration_us, bytes_in, bytes_out, name, result_message, captured ->> 'sku', \
                 request_id, route, method, path, protocol";
    assert_eq!(
        subject.query(&format!("SELECT {asked} FROM invocations WHERE success AND completed")),
        "other|10.0.0.2:80|499|206|3|circuit_open|9|8|7|6|Bob|Bye|s|request-1|invoke|POST|/invoke|http"
    );
}

async fn a_late_first_write_does_not_undo_the_second(subject: Subject) {
    let mut row = invocation("Ada");
    let first = Row::new(row.clone(), Stage::Answered);
    row.bytes_out = 5;
    // The same second write twice in one batch: delivery at least once must be harmless here too.
    let second = Row::new(row, Stage::Completion);
    assert_eq!(subject.write(vec![second.clone(), second]).await, []);
    subject.write(vec![first]).await;
    assert_eq!(subject.query("SELECT bytes_out FROM invocations WHERE completed"), "5");
}

async fn a_poisoned_row_does_not_hold_up_the_others(subject: Subject) {
    subject.refuse_poison();
    let name = |n| if n == 371 { "poison".to_owned() } else { format!("row {n}") };
    let refusals = subject.write((0..1000).map(|n| whole(invocation(&name(n)))).collect()).await;
    assert_eq!(refusals.iter().map(|refusal| refusal.index).collect::<Vec<_>>(), [371]);
    assert_eq!(subject.query("SELECT count(*) FROM invocations"), "999");
    let dead = subject.query("SELECT reason, invocation FROM invocations_dead");
    assert!(dead.contains("poison") && dead.contains("\"name\":\"poison\""), "{dead}");
}

async fn old_rows_are_deleted_and_no_others(subject: Subject) {
    let aged = |days: u64| {
        let mut row = invocation("aged");
        row.created_at = SystemTime::now() - Duration::from_secs(days * 86_400);
        row.id = new_id(row.created_at);
        whole(row)
    };
    subject.write([29, 31, 40, 50].map(aged).to_vec()).await;
    let before = SystemTime::now() - Duration::from_secs(30 * 86_400);
    assert_eq!(subject.store.expire(before, 2).await, Ok(2));
    assert_eq!(subject.store.expire(before, 2).await, Ok(1));
    assert_eq!(subject.store.expire(before, 2).await, Ok(0));
    assert_eq!(subject.query("SELECT count(*) FROM invocations"), "1");
}

async fn migrations_are_applied_once(subject: Subject) {
    let (again, other) = tokio::join!(subject.store.migrate(), subject.other.migrate());
    assert_eq!((again, other), (Ok(()), Ok(())));
    let sql = "SELECT version FROM portcullis_schema_version ORDER BY version";
    assert_eq!(subject.query(sql), "1\n2\n3\n4\n5\n6\n7");
}

async fn hostile_text_is_stored(subject: Subject) {
    let mut row = invocation("Robert'); DROP TABLE invocations;--\0\u{202e}\u{1f980}");
    row.captured.insert(&"k\0\"".into(), "\0\\u0000".into());
    assert_eq!(subject.write(vec![whole(row)]).await, []);
    let name = subject.query("SELECT name FROM invocations");
    assert_eq!(name, "Robert'); DROP TABLE invocations;--\u{fffd}\u{202e}\u{1f980}");
}

#[test]
fn two_gateways_may_migrate_an_empty_database_together() {
    for subject in [Subject::sqlite(), Subject::postgres()].into_iter().flatten() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let both = tokio::join!(subject.store.migrate(), subject.other.migrate());
            assert_eq!(both, (Ok(()), Ok(())));
        });
        let sql = "SELECT version FROM portcullis_schema_version ORDER BY version";
        assert_eq!(subject.query(sql), "1\n2\n3\n4\n5\n6\n7");
    }
}

/// The write-ahead log of a new file is turned on once; connections that open it meanwhile wait.
#[test]
fn many_may_open_a_new_file_together() {
    let directory = tempfile::tempdir().expect("a directory");
    for round in 0..50 {
        let path = directory.path().join(format!("{round}.db"));
        let barrier = std::sync::Barrier::new(4);
        let open = || {
            let connection = rusqlite::Connection::open(&path)?;
            connection.busy_timeout(Duration::from_secs(2))?;
            barrier.wait();
            super::sqlite::write_ahead(&connection)
        };
        std::thread::scope(|scope| {
            for it in [(); 4].map(|()| scope.spawn(open)) {
                assert_eq!(it.join().expect("a thread"), Ok(()), "file {round}");
            }
        });
    }
}

#[test]
fn a_read_only_database_is_not_healthy() {
    on(Subject::postgres(), async |subject: Subject| {
        assert_eq!(subject.store.ping().await, Ok(()));
        let Place::Database(url, _) = &subject.place else { unreachable!("it is PostgreSQL") };
        let database = url.rsplit('/').next().expect("a name");
        let set = "SET default_transaction_read_only = on";
        subject.query(&format!("ALTER DATABASE {database} {set}"));
        let lost = subject.other.ping().await.expect_err("read-only");
        assert!(lost.to_string().contains("read-only"), "{lost}");
    });
}

#[test]
fn a_file_that_is_no_database_is_named_in_the_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("records.db");
    std::fs::write(&path, "not a database, and long enough to be read as one".repeat(9))
        .expect("write");
    let file = Sqlite::start(&path, Limit::default()).expect("a thread");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let lost = runtime.expect("a runtime").block_on(file.migrate()).expect_err("no database");
    assert!(lost.to_string().contains("records.db: file is not a database"), "{lost}");
}
