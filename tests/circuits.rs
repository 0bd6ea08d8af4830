//! What an operator may order circuits to do, and how that shows.

use crate::support::{Call, Gateway, Plan, Response, Upstream};

const YAML: &str = "
upstreams: {service: {endpoints: ['${UPSTREAM}'], circuit_breaker: {consecutive: {failures: 2}, open_for: 30s}}}
routes:
  own: {match: {path: /own}, upstream: service, circuit_breaker: {consecutive: {failures: 9}}}
  all: {match: {path: /*}, upstream: service}
";

fn start(upstream: &Upstream) -> Gateway {
    Plan::new(YAML).upstream(upstream).start()
}

fn order(gateway: &Gateway, circuit: &str) -> Response {
    gateway.admin(Call::new(&format!("POST /circuits/{circuit}")))
}

fn shown(gateway: &Gateway) -> (serde_json::Value, f64) {
    let state = gateway.status()["upstreams"]["service"]["circuit"]["state"].clone();
    (state, gateway.metric("portcullis_circuit_state", &[("scope", "upstream")]))
}

#[test]
fn a_circuit_that_is_ordered_open_lets_nothing_through_until_told_otherwise() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let answer = order(&gateway, "upstream/service/open");
    assert_eq!((answer.status, &answer.json()["state"]), (200, &"forced_open".into()));
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "circuit_open"));
    assert_eq!(refused.retry_after(), 30);
    assert_eq!(shown(&gateway), ("forced_open".into(), 3.0));
    assert_eq!(upstream.count(), 0);
    order(&gateway, "upstream/service/close");
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_circuit_that_is_ordered_closed_lets_everything_through() {
    let upstream = Upstream::always(500);
    let gateway = start(&upstream);
    assert_eq!(order(&gateway, "upstream/service/close").json()["state"], "forced_closed");
    for _ in 0..5 {
        assert_eq!(gateway.get("/").status, 500);
    }
    assert_eq!(shown(&gateway), ("forced_closed".into(), 4.0));
}

#[test]
fn a_circuit_that_is_reset_begins_anew_and_decides_by_itself() {
    let upstream = Upstream::always(500);
    let gateway = start(&upstream);
    let statuses = || [(); 3].map(|()| gateway.get("/").status);
    assert_eq!(statuses(), [500, 500, 503]);
    assert_eq!(order(&gateway, "upstream/service/reset").json()["state"], "closed");
    assert_eq!(shown(&gateway), ("closed".into(), 0.0));
    assert_eq!(statuses(), [500, 500, 503]);
    assert_eq!(upstream.count(), 4);
}

#[test]
fn a_route_s_circuit_is_ordered_by_itself() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    assert_eq!(order(&gateway, "route/own/open").status, 200);
    assert_eq!((gateway.get("/own").status, gateway.get("/").status), (503, 200));
    assert_eq!(gateway.status()["routes"]["own"]["circuit"]["state"], "forced_open");
}

#[test]
fn an_order_outlives_a_reload_that_leaves_the_circuit_as_it_is() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    order(&gateway, "upstream/service/open");
    assert!(gateway.reload(&YAML.replace("/own}", "/other}")));
    assert_eq!(gateway.get("/").status, 503);
}

#[test]
fn orders_to_nobody_and_orders_nobody_knows_are_404_and_say_so() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    for circuit in [
        "upstream/unknown/open",
        "route/unknown/open",
        "route/all/open", // Has none of its own.
        "gateway/service/open",
        "upstream/service/explode",
    ] {
        let answer = order(&gateway, circuit);
        assert_eq!(answer.status, 404, "{circuit}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.json()["error"].is_string(), "{circuit}");
    }
    assert_eq!(shown(&gateway), ("closed".into(), 0.0));
}

#[test]
fn only_a_post_that_no_web_page_made_is_an_order() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let call = Call::new(&format!("{method} /circuits/upstream/service/open"));
        assert_eq!(gateway.admin(call).status, 405, "{method}");
    }
    let page = Call::new("POST /circuits/upstream/service/open").header("Origin", "null");
    assert_eq!(gateway.admin(page).status, 403);
    assert_eq!(shown(&gateway), ("closed".into(), 0.0));
}
