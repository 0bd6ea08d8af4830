//! Replicas of two versions share a PostgreSQL and a Redis, and follow each other on a journal, forwards and back:
//! what `docs/compatibility.md` promises. `PORTCULLIS_BEFORE` names the earlier version's executable, which
//! `scripts/two-versions.sh` builds; without it, both sides are this one.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{
    Answer, Answered, Call, Gateway, Load, Plan, Postgres, Proof, Redis, Row, Store, Upstream,
    eventually, pass,
};

/// Of the shared limit, which no second of the test reaches.
const LIMIT: usize = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Before,
    This,
}
use Version::{Before, This};

/// What both versions share, and the upstreams behind them.
struct Place {
    server: Arc<Postgres>,
    store: Store,
    redis: Redis,
    upstream: Upstream,
    payments: Upstream,
    /// Of two replicas; each keeps its own, whatever its version.
    data: [tempfile::TempDir; 2],
}

impl Place {
    fn new() -> Option<Self> {
        let server = Arc::new(Postgres::start()?);
        Some(Place {
            store: Store::on(server.clone()),
            server,
            redis: Redis::start()?,
            upstream: Upstream::start(),
            payments: Upstream::always(Answer::json(201, "{\"id\":7}")),
            data: [(); 2].map(|()| tempfile::tempdir().expect("a directory")),
        })
    }

    /// Replica `number`, in this version.
    fn start(&self, number: usize, version: Version) -> Gateway {
        let data = self.data[number].path().display().to_string();
        let record = self.store.section().replace("${PORTCULLIS_DATA}", &data);
        let record = record.replace("journal:", "commit_timeout: 10s, journal:");
        let (service, payments) = (self.upstream.url(), self.payments.url());
        let redis = self.redis.url();
        let yaml = format!(
            "{record}
rate_limit_stores: {{shared: {{redis: {{url: \"{redis}\", timeout: 1s}}}}}}
upstreams:
  service: {{endpoints: [\"{service}\"]}}
  payments: {{endpoints: [\"{payments}\"]}}
routes:
  pay:
    match: {{path: /pay, methods: [POST]}}
    upstream: payments
    idempotency: {{}}
    record: {{mode: durable}}
  limited:
    match: {{path: /limited}}
    upstream: service
    rate_limit: {{fixed_window: {{requests: {LIMIT}, per: 1h}}, key: route, shared: {{store: shared, on_failure: closed}}}}
  all:
    match: {{path: /*}}
    upstream: service
    record: {{mode: durable}}
"
        );
        let before = std::env::var("PORTCULLIS_BEFORE").ok().filter(|_| version == Before);
        let plan = Plan::new(&yaml);
        let gateway = match &before {
            Some(before) => plan.program(Path::new(before)),
            None => plan,
        };
        let gateway = gateway.start();
        gateway.wait_for_log("record store: ready");
        eventually("the store of limits", || {
            let up = gateway.metric("portcullis_rate_limit_store_up", &[("store", "shared")]);
            (up > 0.0).then_some(())
        });
        gateway
    }

    fn rows(&self, gateway: &Gateway) -> Vec<Row> {
        self.store.rows(gateway)
    }
}

fn pay(gateway: &Gateway, key: &str) -> (u16, bool) {
    let call = Call::new("POST /pay").header("Idempotency-Key", key).json("{\"amount\":10}");
    let answer = gateway.call(call);
    (answer.status, answer.header("idempotency-replayed") == Some("true"))
}

#[test]
fn two_versions_share_their_stores_and_roll_forward_and_back() {
    let Some(place) = Place::new() else { return };
    let mut answered: Vec<Answered> = Vec::new();
    let (mut admitted, mut asked, mut paid) = (0, 0, Vec::new());
    let (mut ends, mut kills) = (0, 0);
    // Of the two replicas: all old, one new, all new, and back; the last is replaced by a kill.
    let steps = [[Before, Before], [This, Before], [This, This], [Before, This], [Before, Before]];
    let mut running = [0, 1].map(|number| Some(place.start(number, steps[0][number])));
    for (step, versions) in steps.into_iter().enumerate() {
        for (number, wanted) in versions.into_iter().enumerate() {
            if step > 0 && steps[step - 1][number] != wanted {
                let mut gateway = running[number].take().expect("it runs");
                let load = Load::start(gateway.address, 4, &format!("roll-{step}"));
                eventually("requests under way", || (load.answers() > 10).then_some(()));
                if step % 2 == 0 {
                    gateway.kill();
                    kills += 1;
                } else {
                    ends += 1;
                    gateway.end();
                }
                answered.extend(load.finish());
                running[number] = Some(place.start(number, wanted));
            }
        }
        let both = running.each_ref().map(|gateway| gateway.as_ref().expect("it runs"));
        let loads: Vec<_> = both
            .iter()
            .enumerate()
            .map(|(number, gateway)| {
                Load::start(gateway.address, 2, &format!("step-{step}-{number}"))
            })
            .collect();

        // A key that one has completed is answered by the other, in any order of versions.
        for (first, second) in [(0, 1), (1, 0)] {
            let key = format!("key-{step}-{first}");
            assert_eq!(pay(both[first], &key), (201, false), "{versions:?}");
            assert_eq!(pay(both[second], &key), (201, true), "{versions:?}");
            paid.push(key);
        }
        // As are those of earlier versions.
        for key in &paid {
            assert_eq!(pay(both[step % 2], key), (201, true), "{key}, {versions:?}");
        }
        // One limit over both.
        for n in 0..80 {
            asked += 1;
            admitted += usize::from(both[n % 2].get("/limited").status == 200);
            assert_eq!(admitted, asked.min(LIMIT), "{versions:?}");
        }
        // Rows that PostgreSQL could not take are in the journal when the version changes.
        place.server.stop();
        let depth = || -> f64 { both.iter().map(|gateway| gateway.journal_depth()).sum() };
        eventually("rows in the journals", || (depth() > 20.0).then_some(()));
        answered.extend(loads.into_iter().flat_map(Load::finish));
        if step % 2 == 0 {
            place.server.restart();
            eventually("empty journals", || (depth() == 0.0).then_some(()));
        } else {
            // The versions change meanwhile.
            place.server.restart();
            pass(Duration::from_millis(20));
        }
    }
    let last = running[0].as_ref().expect("it runs");
    let rows = eventually("a row for each answer", || {
        let rows = place.rows(last);
        let ids: BTreeSet<_> = rows.iter().filter_map(|row| row.text("request_id")).collect();
        let complete = answered.iter().all(|answer| ids.contains(&*answer.id));
        complete.then_some(rows)
    });
    assert_eq!(place.payments.count(), paid.len(), "each payment is made once");
    println!(
        "two versions: {} answers, {} rows, {} payments made once, {admitted} of {asked} admitted by a limit of {LIMIT}",
        answered.len(),
        rows.len(),
        paid.len()
    );
    let name = match std::env::var_os("PORTCULLIS_BEFORE") {
        Some(_) => "two versions, durable",
        None => "replicas replaced, durable",
    };
    let done = format!("{ends} ended, {kills} killed, PostgreSQL stopped {} times", steps.len());
    Proof::of_rows((name, done), &answered, &rows).assert_exact();
}
