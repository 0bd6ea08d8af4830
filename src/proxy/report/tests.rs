//! A request that ends by a panic.
//!
//! No phase is known to panic, and no test can make one panic from outside. So a task that owns a
//! request's context panics as a phase would.

use tokio::runtime::Handle;

use super::*;
use crate::config::Config;
use crate::config::load::Environment;
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::Metrics;
use crate::record::{Database, Recorder};
use crate::runtime::descriptors::Descriptors;
use crate::runtime::snapshot::Snapshot;
use crate::time::Moment;
use std::time::Duration;

const YAML: &str = "
listeners: {public: {address: '127.0.0.1:0'}}
record: {store: {sqlite: {path: RECORD}}}
upstreams: {service: {endpoints: ['http://127.0.0.1:9']}}
routes: {all: {match: {path: /*}, upstream: service, record: {mode: async}}}
";

fn shared(directory: &std::path::Path) -> Arc<Shared> {
    let file = directory.join("portcullis.yaml");
    let record = directory.join("record.db");
    let yaml = YAML.replace("RECORD", record.to_str().expect("a path of text"));
    std::fs::write(&file, yaml).expect("a file");
    let environment = Environment::fixed([("", ""); 0]);
    let (config, _) = Config::load(&file, &environment).expect("valid");
    let database = Database::open(&config.record.store).expect("a store");
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let meters = metrics.record.meters.clone();
    let recorder = Recorder::start(&database, &config.record, &Handle::current(), meters);
    let snapshot = Snapshot::compile(config, None, &metrics, Moment::ZERO).expect("compiles");
    let descriptors = Descriptors::raise();
    Arc::new(Shared::new(
        snapshot,
        metrics,
        descriptors,
        Some(recorder),
        None,
        AccessLog::default(),
    ))
}

#[tokio::test]
async fn a_request_that_ends_by_a_panic_has_its_row_and_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let shared = shared(directory.path());
    let snapshot = shared.snapshot.load_full();
    let mut ctx = Context::new(snapshot.clone(), None, shared.lifecycle.enter(), Clock::now());
    ctx.begin_on(snapshot.routes[0].clone());
    let reported = Reported::new(Box::new(ctx), shared.clone());
    let ended = tokio::spawn(async move {
        tokio::task::yield_now().await;
        let _reported = reported;
        // Not `panic!`: that would write to the log of the tests.
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(ended.await.expect_err("a panic").is_panic());
    assert_eq!(shared.lifecycle.in_flight(), 0);
    assert_eq!(snapshot.routes[0].metrics.errors(), 1);
    let recorder = shared.recorder.as_ref().expect("a recorder");
    recorder.close(Duration::from_secs(10)).await;
    let store = rusqlite::Connection::open(directory.path().join("record.db")).expect("a store");
    let row = "SELECT cause, success, completed, status FROM invocations";
    let row = store.query_row(row, [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get(3)?))
    });
    assert_eq!(row, Ok(("panic".to_owned(), 0, 1, 0_i64)));
}
