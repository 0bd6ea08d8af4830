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

fn in_force(gateway: &Gateway, kind: &str) -> f64 {
    gateway.metric("portcullis_orders_in_force", &[("kind", kind), ("name", "service")])
}

#[test]
fn an_order_about_a_circuit_says_for_how_long_by_whom_and_why_and_ends_by_itself() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let answer = order(&gateway, "upstream/service/open?for=5s&author=anna&reason=the%20disk");
    let given = &answer.json()["order"];
    assert_eq!((&given["kind"], &given["author"]), (&"circuit_open".into(), &"anna".into()));
    assert!(given["seconds_left"].as_f64().is_some_and(|left| left <= 5.0), "{given}");
    gateway.wait_for_log("is forced_open by order of an operator, for 5s, by anna: the disk");
    let listed = &gateway.admin("GET /orders").json()[0];
    assert_eq!((&listed["scope"], &listed["name"]), (&"upstream".into(), &"service".into()));
    assert_eq!((&listed["kind"], &listed["reason"]), (&"circuit_open".into(), &"the disk".into()));
    assert_eq!(gateway.get("/").code(), "circuit_open");
    gateway.wait_for_log("the circuit of upstream service is no longer ordered; its time is over");
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(shown(&gateway), ("closed".into(), 0.0));
    assert_eq!(gateway.admin("GET /orders").json(), serde_json::json!([]));
    assert_eq!(
        (in_force(&gateway, "circuit_open"), in_force(&gateway, "circuit_close")),
        (0.0, 0.0)
    );
}

#[test]
fn the_next_order_about_a_circuit_takes_the_place_of_the_one_before_and_a_reset_ends_it() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    order(&gateway, "upstream/service/open?for=1h");
    order(&gateway, "upstream/service/close");
    assert_eq!(
        (in_force(&gateway, "circuit_open"), in_force(&gateway, "circuit_close")),
        (0.0, 1.0)
    );
    let status = gateway.status();
    assert_eq!(status["orders"].as_array().map(Vec::len), Some(1), "{}", status["orders"]);
    // What survives a reload is the circuit, with what is ordered of it.
    assert!(gateway.reload(
        &YAML.replace("path: /own", "path: /other").replace("${UPSTREAM}", &upstream.url())
    ));
    assert_eq!(in_force(&gateway, "circuit_close"), 1.0);
    let answer = order(&gateway, "upstream/service/reset?author=anna");
    assert_eq!((answer.status, &answer.json()["order"]), (200, &serde_json::Value::Null));
    gateway.wait_for_log("is closed by order of an operator, by anna");
    assert_eq!(in_force(&gateway, "circuit_close"), 0.0);
    order(&gateway, "route/own/open");
    assert!(gateway.reload(
        &YAML.replace("failures: 9", "failures: 8").replace("${UPSTREAM}", &upstream.url())
    ));
    gateway.wait_for_log("the circuit of route own is no longer ordered; a reload has put another");
}

#[test]
fn an_order_about_a_circuit_that_is_misspelt_is_none() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    for query in ["four=1m", "for=0s", "for=10", "reason=a%0Ab", "author=a&author=b"] {
        let refused = order(&gateway, &format!("upstream/service/open?{query}"));
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_order"), "{query}");
    }
    assert_eq!(order(&gateway, "upstream/service/reset?for=1m").status, 400);
    assert_eq!(shown(&gateway), ("closed".into(), 0.0));
}

#[test]
fn the_command_orders_circuits() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let address = gateway.admin.to_string();
    let command = |arguments: &[&str]| {
        let more = ["--address", &address];
        let arguments = [&["order", "circuit"], arguments, &more].concat();
        let ended = Gateway::finish(&arguments, gateway.directory(), &[("USER", "anna")]);
        (ended.code, ended.stdout + &ended.stderr)
    };
    let open = ["open", "upstream", "service", "--for", "10m", "--reason", "the disk"];
    let (code, text) = command(&open);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("the circuit is forced_open; ordered: circuit_open, "), "{text}");
    assert!(text.contains("by anna: the disk"), "{text}");
    assert_eq!(gateway.get("/").code(), "circuit_open");
    let (code, text) = command(&["reset", "upstream", "service"]);
    assert_eq!((code, text.as_str()), (Some(0), "the circuit is closed; no orders\n"));
    let (code, text) = command(&["open", "route", "all"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no route with a circuit_breaker has this name"), "{text}");
}
