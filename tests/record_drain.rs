//! The end of a process ships what its journal holds, for as long as it is told to, and says how many rows it leaves
//! to the next one that starts with the same file.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{
    Answered, Gateway, Load, Plan, Postgres, Proof, Row, Store, Upstream, assert_within, at_once,
    eventually, timed,
};

/// A database that goes away, and the replicas on it with a volume each.
struct Place {
    server: Arc<Postgres>,
    store: Store,
    upstream: Upstream,
    volumes: [tempfile::TempDir; 3],
}

const DURABLE: &str = "record: {mode: durable}";

impl Place {
    fn new() -> Option<Self> {
        let server = Arc::new(Postgres::start()?);
        Some(Place {
            store: Store::on(server.clone()),
            server,
            upstream: Upstream::start(),
            volumes: [(); 3].map(|()| tempfile::tempdir().expect("a directory")),
        })
    }

    /// The record of replica `number`, whose end waits this long for the store.
    fn record(&self, number: usize, drain_timeout: &str) -> String {
        record(&self.store, self.volumes[number].path(), drain_timeout)
    }

    fn journal(&self, number: usize) -> String {
        self.volumes[number].path().join("journal.db").display().to_string()
    }

    fn start(&self, number: usize, drain_timeout: &str) -> Gateway {
        let record = self.record(number, drain_timeout);
        Plan::route(DURABLE).section(&record).upstream(&self.upstream).start()
    }

    /// The rows in the journal of replica `number`, which a gateway of its own ships from a copy of the volume to an
    /// empty database.
    fn waiting(&self, number: usize) -> Vec<Row> {
        let copy = tempfile::tempdir().expect("a directory");
        for file in std::fs::read_dir(self.volumes[number].path()).expect("a volume") {
            let file = file.expect("a file");
            std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("copied");
        }
        let store = Store::on(self.server.clone());
        let mut gateway = shipping(&record(&store, copy.path(), "10s"));
        let path = copy.path().join("journal.db").display().to_string();
        assert_eq!(ended(&mut gateway, &path), 0, "{}", gateway.log());
        store.rows(&gateway)
    }

    fn rows(&self, gateway: &Gateway) -> Vec<Row> {
        self.store.rows(gateway)
    }
}

fn record(store: &Store, volume: &Path, drain_timeout: &str) -> String {
    let section = store.section().replace("${PORTCULLIS_DATA}", &volume.display().to_string());
    // A disk that is busy with other things makes no request give up.
    let more = format!("commit_timeout: 10s, drain_timeout: {drain_timeout}, journal:");
    section.replace("journal:", &more)
}

/// A gateway with this record that serves nothing.
fn shipping(record: &str) -> Gateway {
    let alone = "routes: {none: {serve: live, match: {path: /livez}}}\n";
    let gateway = Plan::new(&format!("{record}\n{alone}")).start();
    gateway.wait_for_log("record store: ready");
    gateway
}

/// Ends it; how many rows it says to have left in the journal at `path`.
fn ended(gateway: &mut Gateway, path: &str) -> usize {
    gateway.end();
    left(gateway, path)
}

fn left(gateway: &Gateway, path: &str) -> usize {
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("record closed: ")).expect("a line");
    if line.ends_with(", none left in the journal") {
        return 0;
    }
    let told = format!(" left in {path}: the next start with this file ships them");
    let before = line.strip_suffix(&told).unwrap_or_else(|| panic!("{line}"));
    before.rsplit(' ').next().and_then(|rows| rows.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

/// The ids of these that have no complete row.
fn lacking<'a>(answered: &'a [Answered], rows: &[Row]) -> BTreeSet<&'a str> {
    let complete = rows.iter().filter(|row| row.is_true("completed"));
    let complete: BTreeSet<_> = complete.filter_map(|row| row.text("request_id")).collect();
    let ids = answered.iter().map(|answer| answer.id.as_str());
    ids.filter(|id| !complete.contains(id)).collect()
}

#[test]
fn replicas_that_are_scaled_away_while_the_database_is_lose_no_row() {
    let Some(place) = Place::new() else { return };
    let replicas = [0, 1, 2].map(|number| place.start(number, "300ms"));
    let mut loads: Vec<_> = replicas
        .iter()
        .enumerate()
        .map(|(n, gateway)| {
            let pace = Duration::from_millis(40);
            Load::paced(gateway.address, 4, &format!("replica-{n}"), pace)
        })
        .collect();
    eventually("rows of each", || {
        let rows = place.rows(&replicas[0]);
        let of = |n: usize| {
            let name = format!("replica-{n}");
            rows.iter()
                .filter(|row| row.text("request_id").unwrap_or("").starts_with(&name))
                .count()
        };
        (0..3).all(|n| of(n) > 20).then_some(())
    });
    place.server.stop();
    eventually("rows in each journal", || {
        replicas.iter().all(|gateway| gateway.journal_depth() > 40.0).then_some(())
    });

    // From three to one, while clients call.
    let [stays, mut second, mut third] = replicas;
    let left = [ended(&mut second, &place.journal(1)), ended(&mut third, &place.journal(2))];
    let of_third = loads.pop().expect("a load").finish();
    let of_second = loads.pop().expect("a load").finish();
    place.server.restart();
    let rows = place.rows(&stays);
    for (number, left, answered) in [(1, left[0], &of_second), (2, left[1], &of_third)] {
        assert!(left > 20, "{left}");
        let waiting = place.waiting(number);
        assert_eq!(left, waiting.len(), "what it said to leave, and what is there");
        // What the database had committed without being able to say so is in both.
        let waits = |id: &&str| waiting.iter().any(|row| row.text("request_id") == Some(*id));
        let lacking = lacking(answered, &rows);
        assert!(lacking.len() > 20 && lacking.iter().all(waits), "{lacking:?}");
    }

    // One comes back with its volume, and is scaled away again at once. The journal of the other is shipped by a
    // gateway that serves nothing.
    let alone = shipping(&place.record(2, "10s"));
    for (number, mut gateway) in [(1, place.start(1, "10s")), (2, alone)] {
        gateway.wait_for_log("record store: ready");
        assert_eq!(ended(&mut gateway, &place.journal(number)), 0, "{}", gateway.log());
    }
    let load = loads.pop().expect("a load");
    let broken = load.broken();
    let mut answered = load.finish();
    eventually("an empty journal", || (stays.journal_depth() == 0.0).then_some(()));
    let rows = place.rows(&stays);
    answered.extend(of_second.into_iter().chain(of_third));
    assert_eq!(lacking(&answered, &rows), BTreeSet::new());
    let done = format!("PostgreSQL away, 3 replicas to 1, {} rows left behind", left[0] + left[1]);
    let proof = Proof::of_rows(("scaled away, durable", done), &answered, &rows);
    proof.broken(broken).assert_exact();
}

#[test]
fn a_database_that_is_behind_is_waited_for() {
    let Some(store @ Store::Postgres { .. }) = Store::postgres() else { return };
    let Store::Postgres { server, url } = &store else { return };
    let upstream = Upstream::start();
    let section = store.section().replace("journal:", "drain_timeout: 30s, journal:");
    let mut gateway = Plan::route(DURABLE).section(&section).upstream(&upstream).start();
    gateway.wait_for_log("record store: ready");
    std::thread::scope(|scope| {
        let lock = "LOCK TABLE invocations IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(2)";
        scope.spawn(|| server.query(url, lock));
        eventually("a table that is locked", || {
            let held = "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' \
                        AND relation = 'invocations'::regclass";
            (server.query(url, held) == "1").then_some(())
        });
        let mut client = gateway.connect();
        for _ in 0..30 {
            assert_eq!(client.call(&"GET /".into()).status, 200);
        }
        let path = gateway.directory().join("data/journal.db").display().to_string();
        assert_eq!(ended(&mut gateway, &path), 0, "{}", gateway.log());
    });
    assert_eq!(store.rows(&gateway).iter().filter(|row| row.is_true("completed")).count(), 30);
}

#[test]
fn a_database_that_is_away_is_waited_for_until_the_time_is_over_or_another_signal_comes() {
    let Some(place) = Place::new() else { return };
    let gateways = [0, 1].map(|number| (number, place.start(number, "10m")));
    place.server.stop();
    at_once(gateways, |(number, mut gateway)| {
        assert_eq!(gateway.get("/").status, 200);
        eventually("both writes in the journal", || (gateway.journal_depth() == 2.0).then_some(()));
        let path = place.journal(number);
        let (rows, took) = if number == 0 {
            let shorter = Plan::route(DURABLE).section(&place.record(number, "200ms"));
            assert!(gateway.reload_plan(&shorter), "{}", gateway.log());
            timed(|| ended(&mut gateway, &path))
        } else {
            let said = "again: not waiting for the record's store any longer";
            // Earlier ones end the wait for requests.
            eventually("an end to the wait", || {
                gateway.signal("TERM");
                gateway.log().contains(said).then_some(())
            });
            timed(|| {
                assert!(gateway.exit().success(), "{}", gateway.log());
                left(&gateway, &path)
            })
        };
        assert_eq!(rows, 1, "{}", gateway.log());
        assert_within(took, Duration::from_secs(3));
        assert!(Path::new(&path).exists());
    });
}
