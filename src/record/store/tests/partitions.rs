//! PostgreSQL has a partition for each month, by the row's id.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Place, Subject, on, postgres_store, whole};
use crate::record::invocation::Row;
use crate::record::invocation::tests::invocation;
use crate::record::invocation::{Invocation, Stage, new_id};
use crate::record::store::contract::Store;

const DAY: Duration = Duration::from_secs(86_400);
const NAMES: &str = "SELECT tableoid::regclass, name FROM invocations ORDER BY name";
const PARTITIONS: &str =
    "SELECT count(*) FROM pg_inherits WHERE inhparent = 'invocations'::regclass";

/// A row whose id was made at `at`.
fn of(name: &str, at: SystemTime) -> Invocation {
    Invocation { id: new_id(at), created_at: at, ..invocation(name) }
}

/// `YYYY_MM`, this many days from now.
fn month(subject: &Subject, days: i32) -> String {
    subject.query(&format!(
        "SELECT to_char(now() AT TIME ZONE 'UTC' + {days} * interval '1 day', 'YYYY_MM')"
    ))
}

#[test]
fn months_have_their_partitions_before_they_begin() {
    on(Subject::postgres(), async |subject: Subject| {
        // This month, the two after it, and one for everything else.
        assert_eq!(subject.query(PARTITIONS), "4");
        let rows = [("a", -400), ("b", 0), ("c", 31), ("d", 4000)].map(|(name, days)| {
            let distance = DAY * u32::try_from(i32::abs(days)).expect("days");
            let now = SystemTime::now();
            whole(of(name, if days < 0 { now - distance } else { now + distance }))
        });
        assert_eq!(subject.write(rows.to_vec()).await, []);
        let [this, next] = [0, 31].map(|days| month(&subject, days));
        let expected = format!(
            "invocations_other|a\ninvocations_{this}|b\ninvocations_{next}|c\ninvocations_other|d"
        );
        assert_eq!(subject.query(NAMES), expected);
    });
}

#[test]
fn rows_that_came_before_their_partition_move_into_it() {
    on(Subject::postgres(), async |subject: Subject| {
        let this = month(&subject, 0);
        subject.query(&format!("DROP TABLE invocations_{this}"));
        subject.write(vec![whole(of("early", SystemTime::now()))]).await;
        assert_eq!(subject.query(NAMES), "invocations_other|early");
        subject.store.prepare().await.expect("made");
        assert_eq!(subject.query(NAMES), format!("invocations_{this}|early"));
        // The second time there is nothing to do.
        subject.store.prepare().await.expect("nothing to make");
    });
}

#[test]
fn gateways_that_begin_at_once_make_each_partition_once() {
    on(Subject::postgres(), async |subject: Subject| {
        let months = [0, 31].map(|days| month(&subject, days));
        for _ in 0..10 {
            for month in &months {
                subject.query(&format!("DROP TABLE invocations_{month}"));
            }
            let store = &subject.store;
            let made =
                tokio::join!(store.prepare(), store.prepare(), store.prepare(), store.prepare(),);
            assert_eq!(made, (Ok(()), Ok(()), Ok(()), Ok(())));
        }
        assert_eq!(subject.query(PARTITIONS), "4");
    });
}

#[test]
fn a_row_is_stored_once_in_whatever_partition_it_is() {
    on(Subject::postgres(), async |subject: Subject| {
        let rows: Vec<Row> =
            (0..300).map(|n| whole(of("row", SystemTime::now() + DAY * (n % 90)))).collect();
        // More rows than go into a statement: they are copied, which then finds that they exist
        // already.
        assert_eq!(subject.write(rows.clone()).await, []);
        assert_eq!(subject.write(rows).await, []);
        assert_eq!(
            subject.query("SELECT count(*), count(DISTINCT id) FROM invocations"),
            "300|300"
        );
    });
}

#[test]
fn a_copied_row_without_its_end_does_not_undo_the_second_write() {
    on(Subject::postgres(), async |subject: Subject| {
        let mut row = invocation("row");
        let first = Row::new(row.clone(), Stage::Answered);
        row.bytes_out = 5;
        subject.write(vec![Row::new(row, Stage::Completion)]).await;
        let others = (0..300).map(|_| whole(invocation("other")));
        subject.write(others.chain([first]).collect()).await;
        assert_eq!(subject.query("SELECT bytes_out FROM invocations WHERE name = 'row'"), "5");
        assert_eq!(subject.query("SELECT count(*) FROM invocations"), "301");
    });
}

#[test]
fn months_that_are_over_are_dropped_whole() {
    on(Subject::postgres(), async |subject: Subject| {
        subject.query(
            "CREATE TABLE invocations_2020_01 PARTITION OF invocations
             FOR VALUES FROM (invocations_first_id('2020-01-01Z')) TO (invocations_first_id('2020-02-01Z'))",
        );
        let january = UNIX_EPOCH + Duration::from_secs(1_578_000_000);
        subject.write(vec![whole(of("old", january)), whole(of("new", SystemTime::now()))]).await;
        subject.store.expire(january + DAY, 10).await.expect("expired");
        assert_eq!(subject.query(PARTITIONS), "5", "the month is not over by then");
        subject.store.expire(january + 60 * DAY, 10).await.expect("expired");
        assert_eq!(subject.query(PARTITIONS), "4");
        assert_eq!(subject.query("SELECT name FROM invocations"), "new");
    });
}

#[test]
fn a_database_of_the_first_version_is_taken_over_with_its_rows() {
    let Some(subject) = Subject::postgres() else { return };
    subject.query(include_str!("../../migrations/postgres/0001_invocations.sql"));
    subject.query(
        "CREATE TABLE portcullis_schema_version (
             version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());
         INSERT INTO portcullis_schema_version (version) VALUES (1)",
    );
    let now = SystemTime::now();
    for (name, at) in [("old", now - 100 * DAY), ("now", now), ("ahead", now + 100 * DAY)] {
        let id = of(name, at).id;
        subject.query(&format!(
            "INSERT INTO invocations (id, created_at, request_id, route, method, path, status, success,
                 attempts, duration_us, bytes_in, bytes_out, protocol, name, completed)
             VALUES ('{id}', now(), 'r', 'r', 'GET', '/', 200, true, 1, 1, 0, 0, 'http', '{name}', true)"
        ));
    }
    on(Some(subject), async |subject: Subject| {
        let this = month(&subject, 0);
        assert_eq!(
            subject.query(NAMES),
            format!("invocations_other|ahead\ninvocations_{this}|now\ninvocations_{this}|old")
        );
        subject.write(vec![whole(invocation("z"))]).await;
        assert_eq!(subject.query("SELECT count(*) FROM invocations"), "4");
    });
}

#[test]
fn a_gateway_without_the_right_to_make_tables_still_writes() {
    on(Subject::postgres(), async |subject: Subject| {
        let Place::Database(url, _) = &subject.place else { unreachable!("it is PostgreSQL") };
        let (role, this) =
            (format!("writer_{}", new_id(SystemTime::now()).simple()), month(&subject, 0));
        subject.query(&format!(
            "DROP TABLE invocations_{this}; CREATE ROLE {role} LOGIN;
             REVOKE CREATE ON SCHEMA public FROM PUBLIC;
             GRANT SELECT, INSERT, UPDATE, DELETE ON invocations, portcullis_schema_version TO {role}"
        ));
        let store = postgres_store(&url.replace("//postgres@", &format!("//{role}@")));
        store.migrate().await.expect("nothing but a warning");
        let rows = std::sync::Arc::new(vec![whole(invocation("row"))]);
        let written = store.write(&rows, super::Safety::Power).await;
        assert_eq!(written, Ok(vec![]));
        assert_eq!(subject.query(NAMES), "invocations_other|row");
    });
}
