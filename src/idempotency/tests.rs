//! What both stores of keys promise, tested with two gateways on each.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::runtime::Handle;

use super::postgres::PostgresKeys;
use super::sqlite::SqliteKeys;
use super::store::{Claim, Store};
use super::*;
use crate::policy::idempotency::{Answer, Fingerprint, OnUndecided, Refusal, Scope};
use crate::policy::outcome::Outcome;
use crate::record::{Database, Stores, new_id, postgres_server};

/// Longer than a test takes.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);
/// Short, and yet longer than a few questions to a busy store.
const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// Two gateways on one database.
struct Subject {
    keys: [Keys; 2],
    databases: [Database; 2],
    _place: Place,
}

enum Place {
    File(#[allow(dead_code, reason = "kept while the file is in use")] tempfile::TempDir),
    Server(#[allow(dead_code, reason = "as above")] Arc<postgres_server::Postgres>),
}

impl Subject {
    fn new(stores: &str, place: Place) -> Self {
        let stores: Stores = serde_yaml::from_str(stores).expect("valid");
        let databases = [(); 2].map(|()| Database::open(&stores).expect("opened"));
        let keys = [0, 1].map(|n: usize| Keys::start(&databases[n], &Handle::current()));
        Subject { keys, databases, _place: place }
    }

    fn sqlite() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys.db");
        let stores = format!("{{sqlite: {{path: '{}'}}}}", path.display());
        Subject::new(&stores, Place::File(directory))
    }

    fn postgres() -> Option<Self> {
        let server = postgres_server::Postgres::shared()?;
        let stores = format!("{{postgres: {{url: '{}'}}}}", server.database());
        Some(Subject::new(&stores, Place::Server(server)))
    }

    fn store(&self) -> Box<dyn Store> {
        match &self.databases[0] {
            Database::Postgres(postgres) => Box::new(PostgresKeys(Arc::clone(postgres))),
            Database::Sqlite(file) => Box::new(SqliteKeys::new(file.clone(), &Handle::current())),
        }
    }

    async fn claim(&self, claim: Claim) -> Claimed {
        let claimed = self.keys[0].claim(claim, OnUndecided::Reject, PATIENCE).await;
        claimed.expect("a store that answers")
    }

    /// Claims one key many times on both gateways, and returns the leases; the other claims are
    /// told to wait.
    async fn claim_at_once(&self, claims: usize) -> Vec<Lease> {
        let claims = (0..claims).map(|n| {
            let keys = self.keys[n % 2].clone();
            tokio::spawn(async move {
                keys.claim(claim(1, LONG, LONG), OnUndecided::Retry, PATIENCE).await
            })
        });
        let mut leases = Vec::new();
        for claimed in claims.collect::<Vec<_>>() {
            match claimed.await.expect("no panic").expect("a store that answers") {
                Claimed::First(lease) => leases.push(lease),
                other => assert_eq!(refused(other), Refusal::InFlight),
            }
        }
        leases
    }
}

macro_rules! on_each_store {
    ($(async fn $name:ident($subject:ident: Subject) $body:block)+) => {$(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                promise(Subject::sqlite()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                if let Some(subject) = Subject::postgres() {
                    promise(subject).await;
                }
            }

            async fn promise($subject: Subject) $body
        }
    )+};
}

fn claim(key: u8, lease: Duration, ttl: Duration) -> Claim {
    Claim {
        scope: Scope([key; 32]),
        fingerprint: Fingerprint([7; 32]),
        route: "pay".into(),
        lease,
        ttl,
        owner: new_id(SystemTime::now()),
    }
}

fn answer(body: &'static [u8]) -> Answer {
    let mut headers = HeaderMap::new();
    headers.append("x-order", HeaderValue::from_static("7"));
    headers.append("x-order", HeaderValue::from_static("8"));
    let body = Some(Bytes::from_static(body));
    Answer { status: StatusCode::CREATED, headers, body, trailers: None }
}

async fn eventually(what: &str, reached: impl Fn() -> bool) {
    let waiting = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect(what);
}

#[track_caller]
fn first(claimed: Claimed) -> Lease {
    let Claimed::First(lease) = claimed else { panic!("not the first: {claimed:?}") };
    lease
}

#[track_caller]
fn refused(claimed: Claimed) -> Refusal {
    let Claimed::Refused { refusal, .. } = claimed else { panic!("not refused: {claimed:?}") };
    refusal
}

on_each_store! {
    async fn of_many_claims_on_two_gateways_one_is_the_first(subject: Subject) {
        let leases = subject.claim_at_once(60).await;
        assert_eq!(leases.len(), 1);
        let [one, other] = [0, 1].map(|n: usize| subject.keys[n].stats());
        assert_eq!(one.leased + other.leased, 1);
        assert_eq!(one.refused + other.refused, 59);
    }

    async fn an_answer_is_kept_as_it_is(subject: Subject) {
        for (key, body) in [(1, &b"a\0b\r\n\xff"[..]), (2, b"")] {
            let lease = first(subject.claim(claim(key, LONG, LONG)).await);
            lease.keep(answer(body), PATIENCE).await.ok();
            let again = subject.keys[1].claim(claim(key, LONG, LONG), OnUndecided::Reject, PATIENCE);
            let Ok(Claimed::Replay(kept)) = again.await else { panic!("a replay") };
            assert_eq!(kept, answer(body));
        }
        assert_eq!((subject.keys[0].stats().kept, subject.keys[1].stats().replayed), (2, 2));
    }

    async fn an_answer_is_kept_with_its_trailers_and_taken_over_without(subject: Subject) {
        let mut ended = answer(b"message");
        let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("5"));
        ended.end_with(&HeaderMap::from_iter([status]));
        let lease = first(subject.claim(claim(1, LONG, SECOND)).await);
        lease.keep(ended.clone(), PATIENCE).await.ok();
        let Claimed::Replay(kept) = subject.claim(claim(1, LONG, SECOND)).await else {
            panic!("a replay")
        };
        assert_eq!(kept, ended);
        tokio::time::sleep(SECOND).await;
        let lease = first(subject.claim(claim(1, LONG, LONG)).await);
        lease.keep(answer(b"another"), PATIENCE).await.ok();
        let Claimed::Replay(kept) = subject.claim(claim(1, LONG, LONG)).await else {
            panic!("a replay")
        };
        assert_eq!(kept, answer(b"another"));
    }

    async fn an_answer_without_its_body_is_not_given_again(subject: Subject) {
        let lease = first(subject.claim(claim(1, LONG, LONG)).await);
        lease.keep(Answer { body: None, ..answer(b"") }, PATIENCE).await.ok();
        assert_eq!(refused(subject.claim(claim(1, LONG, LONG)).await), Refusal::NotKept);
    }

    async fn what_was_not_sent_gives_its_key_back(subject: Subject) {
        first(subject.claim(claim(1, LONG, LONG)).await).release(PATIENCE).await;
        // Dropping the lease gives the key back as well, a moment later.
        drop(first(subject.claim(claim(1, LONG, LONG)).await));
        eventually("both are released", || subject.keys[0].stats().released == 2).await;
        let _lease = first(subject.claim(claim(1, LONG, LONG)).await);
    }

    async fn what_was_sent_keeps_its_key_until_its_time_is_over(subject: Subject) {
        let mut lease = first(subject.claim(claim(1, SECOND, SECOND * 4)).await);
        lease.traces.sending();
        lease.traces.attempted(Outcome::Timeout, &Default::default());
        drop(lease);
        assert_eq!(subject.keys[0].stats().undecided, 1);
        let mut seen = BTreeSet::new();
        let lease = loop {
            match subject.claim(claim(1, SECOND, SECOND * 4)).await {
                Claimed::First(lease) => break lease,
                other => seen.insert(refused(other).code()),
            };
        };
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [
            Refusal::InFlight.code(),
            Refusal::Undecided.code()
        ]);
        lease.release(PATIENCE).await;
    }

    async fn a_lease_that_is_over_is_taken_over_once_where_that_is_wanted(subject: Subject) {
        let mut lease = first(subject.claim(claim(1, SHORT, LONG)).await);
        lease.traces.sending();
        drop(lease);
        tokio::time::sleep(SHORT).await;
        let leases = subject.claim_at_once(20).await;
        assert_eq!(leases.len(), 1);
    }

    async fn an_answer_that_comes_too_late_changes_nothing(subject: Subject) {
        let mut late = first(subject.claim(claim(1, SHORT, LONG)).await);
        late.traces.sending();
        tokio::time::sleep(SHORT).await;
        let taken = subject.keys[1].claim(claim(1, LONG, LONG), OnUndecided::Retry, PATIENCE);
        let taken = first(taken.await.expect("a store that answers"));
        late.keep(answer(b"late"), PATIENCE).await.ok();
        assert_eq!(refused(subject.claim(claim(1, LONG, LONG)).await), Refusal::InFlight);
        taken.keep(answer(b"in time"), PATIENCE).await.ok();
        let Claimed::Replay(kept) = subject.claim(claim(1, LONG, LONG)).await else {
            panic!("a replay")
        };
        assert_eq!(kept, answer(b"in time"));
    }

    async fn another_fingerprint_is_another_request(subject: Subject) {
        let _lease = first(subject.claim(claim(1, LONG, LONG)).await);
        let other = Claim { fingerprint: Fingerprint([8; 32]), ..claim(1, LONG, LONG) };
        assert_eq!(refused(subject.claim(other).await), Refusal::Mismatch);
    }

    async fn only_what_is_over_is_deleted(subject: Subject) {
        for key in 0..3 {
            let lease = first(subject.claim(claim(key, Duration::ZERO, Duration::ZERO)).await);
            // Dropping it would give the key back.
            std::mem::forget(lease);
        }
        let kept = first(subject.claim(claim(9, LONG, LONG)).await);
        let store = subject.store();
        assert_eq!(store.expire(2).await, Ok(2));
        assert_eq!(store.expire(2).await, Ok(1));
        assert_eq!(store.expire(2).await, Ok(0));
        assert_eq!(refused(subject.claim(claim(9, LONG, LONG)).await), Refusal::InFlight);
        kept.release(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_comes_back_is_used_again() {
    let Some(server) = postgres_server::Postgres::start() else { return };
    let server = Arc::new(server);
    let stores = format!("{{postgres: {{url: '{}', connect_timeout: 500ms}}}}", server.database());
    let subject = Subject::new(&stores, Place::Server(server.clone()));
    let lease = first(subject.claim(claim(1, LONG, LONG)).await);
    server.stop();
    let unavailable = subject.keys[0].claim(claim(2, LONG, LONG), OnUndecided::Reject, SHORT);
    assert_eq!(unavailable.await.err(), Some(Unavailable));
    let kept = lease.keep(answer(b"meanwhile"), SHORT);
    assert_eq!(kept.await, Ok(()), "no request waits for longer than was said");
    server.restart();
    eventually("the answer is kept", || subject.keys[0].stats().kept == 1).await;
    let Claimed::Replay(kept) = subject.claim(claim(1, LONG, LONG)).await else {
        panic!("a replay")
    };
    assert_eq!(kept, answer(b"meanwhile"));
    let _lease = first(subject.claim(claim(2, LONG, LONG)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_opened_is_unavailable() {
    let directory = tempfile::tempdir().expect("a directory");
    let stores = format!("{{sqlite: {{path: '{}'}}}}", directory.path().display());
    let subject = Subject::new(&stores, Place::File(directory));
    let claimed = subject.keys[0].claim(claim(1, LONG, LONG), OnUndecided::Reject, SHORT).await;
    assert_eq!(claimed.err(), Some(Unavailable));
    assert_eq!(subject.keys[0].stats().unavailable, 1);
}
