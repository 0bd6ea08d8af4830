//! An embedded store that is full: rows of the record make room where that is the policy, keys never
//! do, and a request whose key finds no room is not executed.

use std::collections::BTreeMap;

use crate::durable::Disk;
use crate::support::{Answer, Call, Gateway, Plan, Response, Upstream, at_once, eventually};

/// Of an answer: a page and more.
const BODY: u64 = 8 * 1024;

/// Without waiting for the disk: how much room there is does not depend on it.
fn start(upstream: &Upstream, when_full: &str, route: &str) -> Gateway {
    let section = format!(
        "record: {{store: {{sqlite: {{path: \"${{PORTCULLIS_DATA}}/portcullis.db\", max_size: 512KiB, \
         when_full: {when_full}}}}}, commit_timeout: 2s, fsync: false}}"
    );
    Plan::route(route).section(&section).upstream(upstream).start()
}

fn pay(gateway: &Gateway, key: &str) -> Response {
    gateway.call(Call::new("POST /pay").header("Idempotency-Key", key).json("{\"amount\":10}"))
}

/// Requests with new keys until one of them finds no room; the keys of those that were answered.
fn fill(gateway: &Gateway) -> Vec<String> {
    let mut answered = Vec::new();
    for n in 0..1000 {
        let key = format!("key-{n}");
        let response = pay(gateway, &key);
        if response.status != 200 {
            let said = (response.status, response.code(), response.retry_after());
            assert_eq!(said, (503, "idempotency_unavailable".to_owned(), 1));
            return answered;
        }
        answered.push(key);
    }
    panic!("the file is never full");
}

/// How often the upstream has seen each key.
fn executed(upstream: &Upstream) -> BTreeMap<Option<String>, usize> {
    let mut executed = BTreeMap::new();
    for request in upstream.requests() {
        *executed.entry(request.header("idempotency-key").map(str::to_owned)).or_default() += 1;
    }
    executed
}

#[test]
fn a_key_that_finds_no_room_is_refused_and_those_that_are_kept_still_count() {
    let upstream = Upstream::always(Answer::ok().body(&"x".repeat(BODY as usize)));
    let gateway = start(&upstream, "refuse", "idempotency: {}");
    let answered = fill(&gateway);
    assert!(answered.len() > 10, "{}", answered.len());
    gateway.wait_for_log("no room for new ones");
    for _ in 0..3 {
        assert_eq!(pay(&gateway, "another").code(), "idempotency_unavailable");
    }
    // No request is executed again: each gets its response, or is told that it was too large to keep.
    let mut replayed = 0;
    for key in &answered {
        let again = pay(&gateway, key);
        match again.status {
            200 => {
                assert_eq!(again.header("idempotency-replayed"), Some("true"));
                assert_eq!(again.body_length, BODY);
                replayed += 1;
            }
            _ => assert_eq!(again.code(), "idempotency_answer_not_kept"),
        }
    }
    assert!(replayed > 10, "{replayed} of {}", answered.len());
    assert_eq!(upstream.count(), answered.len());
    assert!(executed(&upstream).values().all(|times| *times == 1));
    assert_eq!(gateway.post("/pay", "{}").status, 200, "without a key");
}

#[test]
fn on_a_full_disk_no_key_is_taken_and_none_forgotten() {
    let Some(disk) = Disk::of("2m") else { return };
    let upstream = Upstream::always(Answer::ok().body(&"x".repeat(BODY as usize)));
    let path = disk.0.path().join("portcullis.db");
    let section = format!("record: {{store: {{sqlite: {{path: \"{}\"}}}}}}", path.display());
    let plan = Plan::route("idempotency: {}").section(&section).upstream(&upstream);
    let gateway = plan.start();
    let answered = fill(&gateway);
    assert!(answered.len() > 10, "{}", answered.len());
    for _ in 0..3 {
        assert_eq!(pay(&gateway, "another").code(), "idempotency_unavailable");
    }
    // A request that comes again is answered from the store, or is told to wait until the store answers.
    for key in &answered {
        let again = pay(&gateway, key);
        let replayed = again.header("idempotency-replayed") == Some("true");
        assert!(replayed || again.status == 503 || again.status == 409, "{again:?}");
    }
    assert_eq!(upstream.count(), answered.len());
    assert!(executed(&upstream).values().all(|times| *times == 1));
}

#[test]
fn a_route_may_let_requests_pass_that_find_no_room() {
    let upstream = Upstream::always(Answer::ok().body(&"x".repeat(BODY as usize)));
    let gateway = start(&upstream, "refuse", "idempotency: {on_failure: pass}");
    let unavailable =
        || gateway.metric("portcullis_idempotency_keys_total", &[("result", "unavailable")]);
    for n in 0.. {
        assert_eq!(pay(&gateway, &format!("key-{n}")).status, 200);
        if unavailable() > 0.0 {
            break;
        }
    }
    let before = upstream.count();
    for _ in 0..2 {
        assert_eq!(pay(&gateway, "another").header("idempotency-replayed"), None);
    }
    assert_eq!(upstream.count(), before + 2);
}

#[test]
fn rows_make_room_for_keys_and_no_key_for_anything() {
    let upstream = Upstream::always(Answer::ok().body(&"x".repeat(BODY as usize)));
    let route = "record: {mode: sync}\nidempotency: {}";
    let gateway = start(&upstream, "delete_oldest", route);
    // More rows than the file holds; several at a time are committed together.
    at_once(0..10, |_| {
        let mut plain = gateway.connect();
        for _ in 0..250 {
            assert_eq!(plain.call(&Call::new("GET /")).status, 200);
        }
    });
    let mut plain = gateway.connect();
    gateway.wait_for_log("deleted the");
    let keys: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        let first = pay(&gateway, key);
        assert_eq!((first.status, first.header("idempotency-replayed")), (200, None));
        // The record goes on, and takes the room of older rows.
        for _ in 0..20 {
            assert_eq!(plain.call(&Call::new("GET /")).status, 200);
        }
    }
    for key in &keys {
        let again = pay(&gateway, key);
        assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")));
        assert_eq!(again.body_length, BODY);
    }
    let executed = executed(&upstream);
    assert!(keys.iter().all(|key| executed[&Some(key.clone())] == 1));
}

#[test]
fn keys_whose_time_is_over_make_room() {
    let upstream = Upstream::always(Answer::ok().body(&"x".repeat(BODY as usize)));
    let gateway =
        start(&upstream, "refuse", "timeout: {request: 1s}\nidempotency: {ttl: 4s, lease: 0}");
    let answered = fill(&gateway);
    let next = eventually("room", || {
        let response = pay(&gateway, "another");
        (response.status != 503).then_some(response)
    });
    assert_eq!((next.status, next.header("idempotency-replayed")), (200, None));
    assert_eq!(upstream.count(), answered.len() + 1);
}
