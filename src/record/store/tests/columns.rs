//! The list of columns, held against the tables of both stores.

use std::future::Future;

use super::{Place, Subject, on};
use crate::record::Config;
use crate::record::invocation::{Invocation, Row, Stage, new_id};
use crate::record::read::{Filter, Reader, Stored};
use crate::record::row::columns::names;
use crate::record::row::tests::{assert_same, full};

/// What the command line reads.
async fn rows(subject: &Subject) -> Vec<Stored> {
    let store = match &subject.place {
        Place::File { path, .. } => format!("{{sqlite: {{path: '{}'}}}}", path.display()),
        Place::Database(url, _) => format!("{{postgres: {{url: '{url}'}}}}"),
    };
    let config: Config = serde_yaml::from_str(&format!("{{store: {store}}}")).expect("valid");
    let reader = Reader::open(&config).expect("the store is there");
    reader.latest(&Filter::default(), 100).await.expect("rows")
}

fn on_both<F: Future>(promise: impl Fn(Subject) -> F) {
    for subject in [Subject::sqlite(), Subject::postgres()] {
        on(subject, &promise);
    }
}

#[test]
fn the_table_has_the_columns_of_the_list() {
    on_both(async |subject: Subject| {
        let columns = match subject.place {
            Place::File { .. } => "SELECT name FROM pragma_table_info('invocations')",
            Place::Database(..) => {
                "SELECT column_name FROM information_schema.columns \
                 WHERE table_name = 'invocations'"
            }
        };
        let columns = subject.query(columns);
        let mut columns: Vec<&str> = columns.lines().collect();
        let mut listed: Vec<&str> = names().collect();
        columns.sort_unstable();
        listed.sort_unstable();
        assert_eq!(columns, listed);
    });
}

#[test]
fn every_column_is_read_as_it_was_written() {
    on_both(async |subject: Subject| {
        // New, as a second write alone, and as a second write over a first that knew nothing.
        let stages = [Stage::Whole, Stage::Completion, Stage::Completion];
        let written = [full(), full(), full()].map(|mut row| {
            row.id = new_id(row.created_at);
            row
        });
        let mut first = Invocation { captured: Default::default(), ..written[2].clone() };
        (first.upstream, first.upstream_status, first.cause) = (None, None, None);
        first.would_refuse = None;
        (first.status, first.success, first.duration) = (200, false, Default::default());
        subject.write(vec![Row::new(first, Stage::Answered)]).await;
        let rows_of = written.iter().cloned().zip(stages);
        subject.write(rows_of.map(|(row, stage)| Row::new(row, stage)).collect()).await;
        let read = rows(&subject).await;
        assert_eq!(read.len(), written.len());
        for (written, stage) in written.into_iter().zip(stages) {
            let written = Row::new(written, stage).invocation;
            let read = read.iter().find(|row| row.id() == written.id).expect("it is there");
            assert_same("a store's row", &read.invocation, &written);
            assert_eq!((&read.invocation, read.completed), (&*written, true));
        }
    });
}

#[test]
fn a_column_of_a_newer_build_is_left_alone() {
    on_both(async |subject: Subject| {
        subject.write(vec![Row::new(full(), Stage::Answered)]).await;
        subject.query("ALTER TABLE invocations ADD COLUMN whois text");
        subject.query("UPDATE invocations SET whois = 'kept'");
        let row = Invocation { id: rows(&subject).await[0].id(), ..full() };
        for stage in [Stage::Completion, Stage::Whole] {
            subject.write(vec![Row::new(row.clone(), stage)]).await;
            assert_eq!(subject.query("SELECT whois FROM invocations"), "kept", "{stage:?}");
            assert!(rows(&subject).await[0].completed);
        }
        subject.write(vec![Row::new(full(), Stage::Whole)]).await;
        assert_eq!(rows(&subject).await.len(), 2);
    });
}

#[test]
fn rows_of_an_older_build_are_read() {
    on_both(async |subject: Subject| {
        let row = full();
        subject.write(vec![Row::new(row.clone(), Stage::Whole)]).await;
        subject.query("ALTER TABLE invocations DROP COLUMN cause");
        let row = Row::new(Invocation { cause: None, ..row }, Stage::Whole).invocation;
        assert_same("a row of an older build", &rows(&subject).await[0].invocation, &row);
    });
}
