//! The recorder on a PostgreSQL that goes away and comes back.

use std::time::Instant;

use tokio::runtime::Handle;

use super::{LONG, REJECT, SHORT, config, eventually};
use crate::record::invocation::tests::invocation;
use crate::record::meters::Meters;
use crate::record::{Committed, Database, Recorder, Unavailable, postgres_server};

fn on_postgres(url: &str) -> Recorder {
    // The rows of these tests are from 2023, and must not expire.
    let yaml = format!(
        "{{retention: 0, store: {{postgres: {{url: '{url}', connect_timeout: 500ms}}}}, batch: {{max_delay: 1ms}}}}"
    );
    let config = config(&yaml);
    let database = Database::open(&config.store).expect("opened");
    Recorder::start(&database, &config, &Handle::current(), Meters::unseen())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_outlast_a_database_that_is_stopped_and_started() {
    let Some(server) = postgres_server::Postgres::start() else { return };
    let url = server.database();
    let recorder = on_postgres(&url);
    recorder.commit(invocation("before").into(), None, LONG, REJECT).await.expect("committed");
    assert_eq!(recorder.health().await, Ok(()));

    server.stop();
    for _ in 0..1000 {
        recorder.enqueue(invocation("during"));
    }
    let refused = recorder.commit(invocation("lost").into(), None, 10 * SHORT, REJECT).await;
    assert!(matches!(refused, Err(Unavailable::Down(_))), "{refused:?}");
    assert!(recorder.health().await.is_err());

    server.restart();
    let stats = recorder.close(LONG).await;
    assert_eq!((stats.enqueued, stats.written, stats.dropped), (1000, 1000, 0));
    let names = "SELECT name, count(*) FROM invocations GROUP BY name ORDER BY name";
    assert_eq!(server.query(&url, names), "before|1\nduring|1000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_down_at_the_start_is_used_once_it_is_up() {
    let Some(server) = postgres_server::Postgres::start() else { return };
    let url = server.database();
    server.stop();
    let recorder = on_postgres(&url);
    recorder.enqueue(invocation("early"));
    let row = invocation("sync");
    recorder.commit(row.clone().into(), None, SHORT, REJECT).await.expect_err("down");
    server.restart();
    eventually(|| recorder.stats().written == 1).await;
    let outcome = recorder.commit(row.clone().into(), None, LONG, REJECT).await;
    assert_eq!(outcome, Ok(Committed::Store));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_connections_commit_together_on_postgres() {
    let Some(server) = postgres_server::Postgres::shared() else { return };
    let url = server.database();
    let recorder = on_postgres(&url);
    recorder.commit(invocation("first").into(), None, LONG, REJECT).await.expect("committed");
    let clients = (0..64).map(|_| {
        let recorder = recorder.clone();
        tokio::spawn(async move {
            let mut waits = Vec::new();
            for _ in 0..20 {
                let begun = Instant::now();
                let outcome = recorder.commit(invocation("row").into(), None, LONG, REJECT).await;
                assert_eq!(outcome, Ok(Committed::Store));
                waits.push(begun.elapsed());
            }
            waits
        })
    });
    let mut waits = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        waits.extend(client.await.expect("no panic"));
    }
    waits.sort();
    eprintln!("commit: p50 {:?}, p99 {:?}", waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
    let stats = recorder.close(LONG).await;
    assert_eq!(stats.committed, 1281);
    assert!(stats.batches <= 1281 / 8, "{} transactions are no group commit", stats.batches);
    assert_eq!(server.query(&url, "SELECT count(*) FROM invocations"), "1281");
}
