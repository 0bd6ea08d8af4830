//! How many requests a route has in flight: never more, and no slot is ever lost.

use crate::support::{Answer, Call, Ending, Gateway, Upstream, eventually};

const ONE: &str = "bulkhead: {max_in_flight: 1}";

#[track_caller]
fn wait_until_free(gateway: &Gateway) {
    eventually("the slot to be free", || {
        (gateway.metric("portcullis_bulkhead_in_flight", &[("route", "all")]) == 0.0).then_some(())
    });
}

#[test]
fn a_full_route_refuses_at_once_and_names_no_time() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let gateway = Gateway::route(&upstream, ONE);
    let mut first = gateway.connect();
    first.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (429, "bulkhead_full"));
    assert_eq!(refused.header("retry-after"), None);
    assert_eq!(upstream.count(), 1);
    upstream.release();
    assert_eq!(first.receive().status, 200);
}

#[test]
fn the_status_of_a_full_route_is_configurable() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let gateway = Gateway::route(&upstream, "bulkhead: {max_in_flight: 1, status: 503}");
    let mut first = gateway.connect();
    first.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    assert_eq!(gateway.get("/").status, 503);
}

#[test]
fn a_slot_is_held_until_the_body_has_ended() {
    let upstream = Upstream::script([Answer::hold_body()]);
    let gateway = Gateway::route(&upstream, ONE);
    let mut first = gateway.connect();
    first.send(Call::new("GET /").bytes());
    assert_eq!(first.receive_head().status, 200);
    assert_eq!(gateway.get("/").status, 429);
    upstream.release();
    wait_until_free(&gateway);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_client_that_leaves_frees_its_slot_and_cancels_the_upstream() {
    let upstream = Upstream::script([Answer::hang()]);
    let gateway = Gateway::route(&upstream, ONE);
    let mut first = gateway.connect();
    first.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    first.vanish();
    upstream.wait_cancelled(1);
    wait_until_free(&gateway);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_the_answer_frees_its_slot() {
    let upstream = Upstream::script([Answer::hold_body()]);
    let gateway = Gateway::route(&upstream, ONE);
    let mut first = gateway.connect();
    first.send(Call::new("GET /").bytes());
    assert_eq!(first.receive_head().status, 200);
    first.vanish();
    upstream.wait_cancelled(1);
    wait_until_free(&gateway);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn failures_and_timeouts_free_their_slots() {
    let upstream = Upstream::script([
        Answer::hang(),
        Answer::reset(),
        Answer::close(),
        Answer::truncated("x", 9),
    ]);
    let gateway =
        Gateway::route(&upstream, "bulkhead: {max_in_flight: 1}\ntimeout: {attempt: 300ms}");
    for status in [504, 502, 502] {
        assert_eq!(gateway.get("/").status, status);
        wait_until_free(&gateway);
    }
    assert_eq!(gateway.get("/").ending, Ending::Truncated);
    wait_until_free(&gateway);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn one_full_route_leaves_the_others_alone() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let yaml = "
routes:
  slow: {match: {path: /slow}, upstream: service, bulkhead: {max_in_flight: 1}}
  other: {match: {path: /other}, upstream: service, bulkhead: {max_in_flight: 1}}
";
    let gateway = crate::support::Plan::new(yaml).upstream(&upstream).start();
    let mut first = gateway.connect();
    first.send(Call::new("GET /slow").bytes());
    upstream.wait_for(1);
    assert_eq!(gateway.get("/slow").status, 429);
    assert_eq!(gateway.get("/other").status, 200);
}

#[test]
fn never_more_are_in_flight_than_there_are_slots() {
    let upstream = Upstream::always(Answer::ok().held());
    let gateway = Gateway::route(&upstream, "bulkhead: {max_in_flight: 3}");
    let mut clients: Vec<_> = (0..10).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send(Call::new("GET /").bytes());
    }
    upstream.wait_for(3);
    // Seven are told so at once; the three others wait for the upstream.
    eventually("seven refusals", || {
        let labels = [("route", "all"), ("code", "bulkhead_full")];
        (gateway.metric("portcullis_rejections_total", &labels) == 7.0).then_some(())
    });
    assert_eq!(upstream.count(), 3);
    upstream.release();
    let statuses: Vec<_> = clients.iter_mut().map(|client| client.receive().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3);
}
