//! Gateways that share a database share its idempotency keys; and what a database that is down
//! means for a request with a key.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{
    Answer, Call, Gateway, Plan, Postgres, Store, Upstream, assert_within, eventually, timed,
};

/// Of a store that answers, with patience for a busy machine; it is there when this returns.
fn start(store: &Store, upstream: &Upstream, route: &str) -> Gateway {
    let gateway = within("2s", store, upstream, route);
    gateway.wait_for_log(READY);
    gateway
}

/// Of a store that goes away.
fn impatient(store: &Store, upstream: &Upstream, route: &str) -> Gateway {
    within("500ms", store, upstream, route)
}

/// What the gateway logs once its tables are there, which may take longer than a request waits.
const READY: &str = "record store: ready";

fn within(limit: &str, store: &Store, upstream: &Upstream, route: &str) -> Gateway {
    let section = format!("record: {{commit_timeout: {limit}, ");
    let section = store.section().replace("record: {", &section);
    Plan::route(route).section(&section).upstream(upstream).start()
}

/// A server of the test's own, to be stopped by it.
fn own_server() -> Option<(Arc<Postgres>, Store)> {
    let server = Arc::new(Postgres::start()?);
    Some((server.clone(), Store::on(server)))
}

fn pay(key: &str) -> Call {
    Call::new("POST /pay").header("Idempotency-Key", key).json("{\"amount\":10}")
}

fn refused(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_idempotency_keys_total", &[("result", "refused")])
}

#[test]
fn of_fifty_requests_over_two_gateways_the_upstream_sees_one() {
    let Some(store) = Store::postgres() else { return };
    let answer = Answer::json(201, "{\"id\":7}").header("Location", "/orders/7");
    let upstream = Upstream::always(answer.held());
    let gateways = [(); 2].map(|()| start(&store, &upstream, "idempotency: {}"));
    let answers = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..50)
            .map(|n| {
                let gateway = &gateways[n % 2];
                scope.spawn(move || gateway.call(pay("k")))
            })
            .collect();
        eventually("49 refusals", || {
            (gateways.iter().map(refused).sum::<f64>() == 49.0).then_some(())
        });
        upstream.release();
        calls.into_iter().map(|call| call.join().expect("an answer")).collect::<Vec<_>>()
    });
    let (first, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status != 409);
    let statuses: Vec<_> = first.iter().map(|answer| answer.status).collect();
    assert_eq!((first.len(), others.len()), (1, 49), "{statuses:?}");
    assert!(others.iter().all(|other| other.code() == "idempotency_in_flight"));
    for gateway in &gateways {
        let again = gateway.call(pay("k"));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!((again.status, &again.body), (first[0].status, &first[0].body));
        assert_eq!(again.header("location"), Some("/orders/7"));
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_key_is_undecided_everywhere_when_its_gateway_is_killed() {
    let Some(store) = Store::postgres() else { return };
    let upstream = Upstream::script([Answer::hang()]);
    let route = "timeout: {request: 500ms}\nidempotency: {lease: 1500ms}";
    let other = start(&store, &upstream, route);
    let mut killed = start(&store, &upstream, route);
    let mut client = killed.connect();
    client.send(pay("k").bytes());
    upstream.wait_complete(1);
    killed.kill();
    let undecided = eventually("the end of the lease", || {
        let response = other.call(pay("k"));
        // A slow machine's store may not answer within the request's time.
        if response.code() == "idempotency_unavailable" {
            return None;
        }
        assert_eq!(response.status, 409);
        (response.code() != "idempotency_in_flight").then_some(response)
    });
    assert_eq!(undecided.code(), "idempotency_undecided");
    assert_eq!(upstream.count(), 1, "never twice in silence");
}

#[test]
fn of_many_who_find_a_lease_over_one_executes_again() {
    let Some(store) = Store::postgres() else { return };
    let upstream = Upstream::script([Answer::hang(), Answer::ok().held()]);
    let route = "timeout: {request: 500ms}\nidempotency: {lease: 0, on_undecided: retry}";
    let patient = "timeout: {request: 10s}\nidempotency: {lease: 0, on_undecided: retry}";
    let first = start(&store, &upstream, route);
    assert_eq!(first.call(pay("k")).status, 504);
    let gateways = [(); 2].map(|()| start(&store, &upstream, patient));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..20)
            .map(|n| {
                let gateway = &gateways[n % 2];
                scope.spawn(move || {
                    // Until the lease of the one that timed out is over.
                    eventually("an execution", || {
                        let status = gateway.call(pay("k")).status;
                        (status == 200 || upstream_saw_the_second(gateway)).then_some(status)
                    })
                })
            })
            .collect();
        upstream.wait_for(2);
        upstream.release();
        calls.into_iter().map(|call| call.join().expect("an answer")).collect()
    });
    assert!(statuses.contains(&200), "{statuses:?}");
    assert_eq!(upstream.count(), 2);
}

/// One of this gateway's requests holds the key, or has held it.
fn upstream_saw_the_second(gateway: &Gateway) -> bool {
    gateway.metric("portcullis_idempotency_keys_total", &[("result", "leased")]) > 0.0
}

#[test]
fn without_its_store_a_request_with_a_key_is_refused() {
    let Some((server, store)) = own_server() else { return };
    server.stop();
    let upstream = Upstream::start();
    let gateway = impatient(&store, &upstream, "idempotency: {}");
    let (response, took) = timed(|| gateway.call(pay("k")));
    assert_eq!((response.status, response.code().as_str()), (503, "idempotency_unavailable"));
    assert_eq!(response.retry_after(), 1);
    assert_within(took, Duration::from_millis(800));
    assert_eq!(gateway.post("/pay", "{}").status, 200, "without a key");
    assert_eq!(upstream.count(), 1);
    server.restart();
    eventually("the store", || (gateway.call(pay("k")).status == 200).then_some(()));
    assert_eq!(gateway.call(pay("k")).header("idempotency-replayed"), Some("true"));
    assert_eq!(upstream.count(), 2);
    let unavailable =
        gateway.metric("portcullis_idempotency_keys_total", &[("result", "unavailable")]);
    assert!(unavailable >= 1.0);
}

#[test]
fn a_store_that_stays_away_is_not_waited_for_by_everybody() {
    let Some((server, store)) = own_server() else { return };
    let upstream = Upstream::start();
    let gateway = impatient(&store, &upstream, "idempotency: {}");
    gateway.wait_for_log(READY);
    assert_eq!(gateway.call(pay("before")).status, 200);
    server.stop();
    assert_eq!(gateway.call(pay("k")).status, 503);
    let (_, took) = timed(|| {
        for n in 0..50 {
            assert_eq!(gateway.call(pay(&format!("k-{n}"))).status, 503);
        }
    });
    // Few find out for themselves, and none of them insists: it would be 25 s if all of them did.
    assert_within(took, Duration::from_secs(5));
    server.restart();
    eventually("the store", || (gateway.call(pay("k")).status == 200).then_some(()));
    assert_eq!(gateway.call(pay("before")).header("idempotency-replayed"), Some("true"));
}

#[test]
fn a_route_may_let_requests_pass_unprotected_meanwhile() {
    let Some((server, store)) = own_server() else { return };
    server.stop();
    let upstream = Upstream::start();
    let gateway = impatient(&store, &upstream, "idempotency: {on_failure: pass}");
    for _ in 0..2 {
        let response = gateway.call(pay("k"));
        assert_eq!((response.status, response.header("idempotency-replayed")), (200, None));
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn an_answer_whose_store_went_away_meanwhile_reaches_its_client_and_is_kept_later() {
    let Some((server, store)) = own_server() else { return };
    let upstream = Upstream::script([Answer::ok().body("done").held()]);
    let gateway = impatient(&store, &upstream, "idempotency: {}");
    gateway.wait_for_log(READY);
    let mut client = gateway.connect();
    client.send(pay("k").bytes());
    upstream.wait_complete(1);
    server.stop();
    upstream.release();
    let first = client.receive();
    assert_eq!((first.status, first.text().as_str()), (200, "done"));
    server.restart();
    let again = eventually("the answer", || {
        let response = gateway.call(pay("k"));
        (response.status == 200).then_some(response)
    });
    assert_eq!((again.text().as_str(), upstream.count()), ("done", 1));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
}
