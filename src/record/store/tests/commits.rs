//! A write has succeeded once PostgreSQL has committed it, and not before.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Subject, on, whole};
use crate::record::config;
use crate::record::invocation::tests::invocation;
use crate::record::invocation::{Row, Stage};
use crate::record::store::contract::Store;
use crate::record::store::postgres::Postgres;
use crate::record::store::safety::Safety;

/// Few go by statements, many by COPY.
const SIZES: [usize; 2] = [1, 50];

impl Subject {
    /// What happens before each row of `table` is committed, or is written.
    fn interfere(&self, table: &str, when: &str, what: &str) {
        let kind = if when == "commit" { "CONSTRAINT TRIGGER" } else { "TRIGGER" };
        let when = match when {
            "commit" => format!("AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED"),
            _ => format!("BEFORE INSERT ON {table}"),
        };
        self.query(&format!(
            "CREATE FUNCTION interfere() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN {what}; RETURN NEW; END';
             CREATE {kind} interfere {when} FOR EACH ROW EXECUTE FUNCTION interfere()"
        ));
    }

    fn leave_alone(&self) {
        self.query("DROP FUNCTION interfere CASCADE");
    }

    fn rows(&self) -> usize {
        self.query("SELECT count(*) FROM invocations").parse().expect("a number")
    }
}

fn rows(count: usize) -> Vec<Row> {
    (0..count).map(|n| whole(invocation(&format!("row {n}")))).collect()
}

const DIE: &str = "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5)";

#[test]
fn rows_whose_connection_is_cut_before_they_are_committed_are_written_again() {
    for count in SIZES {
        on(Subject::postgres(), async |subject: Subject| {
            let rows = Arc::new(rows(count));
            subject.interfere("invocations", "commit", DIE);
            let lost = subject.store.write(&rows, Safety::Power).await;
            assert!(lost.is_err(), "{count} rows are not there: {lost:?}");
            assert_eq!(subject.rows(), 0);
            subject.leave_alone();
            assert_eq!(subject.store.write(&rows, Safety::Power).await, Ok(Vec::new()));
            assert_eq!(subject.rows(), count);
        });
    }
}

#[test]
fn a_row_that_is_refused_when_it_is_committed_holds_up_no_other() {
    on(Subject::postgres(), async |subject: Subject| {
        let mut rows = rows(50);
        rows[17] = whole(invocation("poison"));
        let poison = "IF NEW.name = ''poison'' THEN RAISE EXCEPTION ''poison''; END IF";
        subject.interfere("invocations", "commit", poison);
        let refusals = subject.write(rows).await;
        assert_eq!(refusals.iter().map(|refusal| refusal.index).collect::<Vec<_>>(), [17]);
        assert_eq!(subject.rows(), 49);
        assert_eq!(subject.query("SELECT count(*) FROM invocations_dead"), "1");
    });
}

#[test]
fn a_row_that_cannot_be_set_aside_for_a_moment_is_not_given_up() {
    on(Subject::postgres(), async |subject: Subject| {
        subject.refuse_poison();
        let row = Arc::new(vec![whole(invocation("poison"))]);
        subject.interfere("invocations_dead", "write", DIE);
        let lost = subject.store.write(&row, Safety::Power).await;
        assert!(lost.is_err(), "it is nowhere: {lost:?}");
        subject.leave_alone();
        let refusals = subject.store.write(&row, Safety::Power).await.expect("the store is there");
        assert_eq!(refusals.len(), 1);
        assert_eq!(subject.query("SELECT count(*) FROM invocations_dead"), "1");
    });
}

#[test]
fn a_table_for_refused_rows_that_is_gone_holds_up_nothing() {
    on(Subject::postgres(), async |subject: Subject| {
        subject.refuse_poison();
        subject.query("DROP TABLE invocations_dead");
        let rows = vec![whole(invocation("poison")), whole(invocation("sound"))];
        assert_eq!(subject.write(rows).await.len(), 1);
        assert_eq!(subject.rows(), 1);
    });
}

/// With synchronous replication a row may be there before the standby has it, and only a commit waits.
#[test]
fn a_row_that_is_there_already_is_committed_once_more() {
    on(Subject::postgres(), async |subject: Subject| {
        let row = Row::new(invocation("row"), Stage::Answered);
        subject.write(vec![row.clone()]).await;
        let version = || subject.query("SELECT xmin FROM invocations");
        let before = version();
        subject.write(vec![row]).await;
        assert_ne!(version(), before, "a transaction that changes nothing commits nothing");
        assert_eq!(subject.rows(), 1);
    });
}

/// One that lets clients in, and then says nothing.
#[test]
fn a_server_that_falls_silent_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!(
        "postgres://ada@{}/any?sslmode=disable",
        listener.local_addr().expect("an address")
    );
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut startup = [0; 1024];
            let _ = stream.read(&mut startup);
            // It is in, and the server is ready.
            let _ = stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
            kept.push(stream);
        }
    });
    let settings = format!("{{url: '{url}', statement_timeout: 200ms}}");
    let config: config::Postgres = serde_yaml::from_str(&settings).expect("valid");
    let store = Postgres::new(&config, config.url.as_ref().expect("a URL")).expect("a pool");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let begun = Instant::now();
        let lost = store.ping().await.expect_err("it says nothing");
        assert!(lost.to_string().contains("no answer within 200ms"), "{lost}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    });
}
