//! What an operator may order of endpoints and splits, how long that lasts, and how it shows.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Answer, Call, Gateway, Load, Plan, Response, Upstream, eventually, pass};

/// Two endpoints in turn; `more` is the rest of their upstream.
fn plan(ends: [&Upstream; 2], more: &str) -> Plan {
    let [a, b] = ends.map(Upstream::url);
    let yaml = format!(
        "
upstreams: {{service: {{endpoints: ['{a}', '{b}'], balance: round_robin{more}}}}}
routes: {{all: {{match: {{path: /*}}, upstream: service}}}}
"
    );
    Plan::new(&yaml)
}

fn pair() -> [Upstream; 2] {
    [Upstream::start(), Upstream::start()]
}

/// An order about an endpoint, with the rest of its query.
fn order(gateway: &Gateway, verb: &str, endpoint: &Upstream, rest: &str) -> Response {
    let address = endpoint.address();
    let line = format!("POST /upstreams/service/endpoints/{verb}?address={address}{rest}");
    gateway.admin(Call::new(&line))
}

#[track_caller]
fn carried_out(answer: Response) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn shown(gateway: &Gateway, endpoint: &Upstream) -> Value {
    let all = gateway.status()["upstreams"]["service"]["endpoints"].clone();
    let address = endpoint.address().to_string();
    let found = all.as_array().into_iter().flatten().find(|one| one["address"] == *address);
    found.cloned().unwrap_or_else(|| panic!("{address} in {all}"))
}

fn in_force(gateway: &Gateway, kind: &str) -> f64 {
    gateway.metric("portcullis_orders_in_force", &[("kind", kind)])
}

/// How many of `requests` each of them gets.
fn shares(gateway: &Gateway, ends: [&Upstream; 2], requests: usize) -> [usize; 2] {
    let before = ends.map(Upstream::count);
    let mut client = gateway.connect();
    for _ in 0..requests {
        assert_eq!(client.call(&Call::new("GET /")).status, 200);
    }
    [ends[0].count() - before[0], ends[1].count() - before[1]]
}

#[test]
fn a_drained_endpoint_finishes_what_it_has_and_gets_nothing_new() {
    let [a, b] = [Upstream::always(Answer::ok().held()), Upstream::start()];
    let gateway = plan([&a, &b], "").start();
    assert_eq!(in_force(&gateway, "drain"), 0.0);
    let mut waiting = gateway.connect();
    waiting.send(Call::new("GET /held").bytes());
    a.wait_for(1);
    let answer = carried_out(order(&gateway, "drain", &a, "&author=anna&reason=new%20disk"));
    assert_eq!(answer["upstream"], "service");
    let endpoint = &answer["endpoints"][0];
    assert_eq!((&endpoint["state"], &endpoint["in_flight"]), (&"drained".into(), &1.into()));
    assert_eq!(shares(&gateway, [&a, &b], 10), [0, 10]);
    a.release();
    assert_eq!(waiting.receive().status, 200, "it finishes what it has");

    let endpoint = shown(&gateway, &a);
    assert_eq!((&endpoint["state"], &endpoint["in_flight"]), (&"drained".into(), &0.into()));
    let order_shown = &endpoint["orders"][0];
    assert_eq!(order_shown["kind"], "drain");
    assert_eq!(
        (&order_shown["author"], &order_shown["reason"]),
        (&"anna".into(), &"new disk".into())
    );
    assert!(order_shown["seconds_left"].is_null(), "until it is withdrawn: {order_shown}");
    assert_eq!(in_force(&gateway, "drain"), 1.0);
    let listed = gateway.admin("GET /orders").json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(gateway.status()["orders"][0]["endpoint"], listed[0]["endpoint"]);
    assert_eq!((&listed[0]["scope"], &listed[0]["name"]), (&"upstream".into(), &"service".into()));
    assert_eq!(listed[0]["endpoint"], a.address().to_string());
    gateway.wait_for_log(&format!(
        "WARN  portcullis::runtime::orders] upstreams.service: {}: ordered: drain until it is withdrawn, by anna: new disk",
        a.address()
    ));

    carried_out(order(&gateway, "restore", &a, ""));
    assert_eq!(shares(&gateway, [&a, &b], 10), [5, 5]);
    assert_eq!(
        (in_force(&gateway, "drain"), shown(&gateway, &a)["state"].clone()),
        (0.0, "available".into())
    );
    gateway.wait_for_log("ordered: restore; withdrawn: drain");
}

#[test]
fn draining_under_load_loses_no_request_and_nothing_comes_afterwards() {
    let ends = pair();
    let [a, b] = &ends;
    let gateway = plan([a, b], "").start();
    let load = Load::start(gateway.address, 8, "drain");
    for _ in 0..3 {
        eventually("traffic on both", || (a.count() > 20 && b.count() > 20).then_some(()));
        carried_out(order(&gateway, "drain", a, ""));
        // What was picked before the order has arrived once nothing is in flight.
        eventually("an idle endpoint", || (shown(&gateway, a)["in_flight"] == 0).then_some(()));
        let before = (a.count(), load.answers());
        eventually("more answers", || (load.answers() > before.1 + 200).then_some(()));
        assert_eq!(a.count(), before.0, "nothing new while it is drained");
        carried_out(order(&gateway, "readmit", a, ""));
        eventually("its share again", || (a.count() > before.0 + 20).then_some(()));
    }
    let answered = load.finish();
    let failed: Vec<_> = answered.iter().filter(|answer| answer.status != 200).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(answered.len() > 600, "{}", answered.len());
}

#[test]
fn a_drained_endpoint_is_not_used_even_if_none_is_left() {
    let ends = pair();
    let [a, b] = &ends;
    let gateway = plan([a, b], ", when_none_available: all").start();
    carried_out(order(&gateway, "drain", a, ""));
    carried_out(order(&gateway, "drain", b, ""));
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"));
    assert_eq!((a.count(), b.count()), (0, 0));
    let line = gateway.wait_for_access_lines(1).remove(0).to_string();
    assert!(line.contains("all endpoints are drained"), "{line}");
    carried_out(order(&gateway, "readmit", b, ""));
    assert_eq!(shares(&gateway, [a, b], 4), [0, 4]);
}

#[test]
fn an_ejected_endpoint_gets_nothing_and_no_probe_while_another_is_available() {
    let ends = pair();
    let [a, b] = &ends;
    let gateway = plan([a, b], ", ejection: {eject_for: 100ms, max_eject_for: 100ms}").start();
    carried_out(order(&gateway, "eject", a, ""));
    assert_eq!(shown(&gateway, a)["state"], "ejected");
    gateway.expect_metric("portcullis_upstream_ejected", &[("upstream", "service")], 1.0);
    // Longer than an ejection of its own would last.
    pass(Duration::from_millis(300));
    assert_eq!(shares(&gateway, [a, b], 20), [0, 20]);

    let last = order(&gateway, "eject", b, "");
    assert_eq!((last.status, last.code().as_str()), (409, "last_endpoint"));
    assert!(last.json()["detail"].as_str().is_some_and(|words| words.contains("drain it")));
    assert_eq!(shares(&gateway, [a, b], 4), [0, 4], "nothing has changed");
    let again = order(&gateway, "eject", a, "&for=1h");
    assert_eq!(again.status, 200, "it changes for how long, and nothing else");
    assert_eq!(shown(&gateway, a)["orders"].as_array().map(Vec::len), Some(1));

    // With no other left it is used, as one that its failures have ejected.
    carried_out(order(&gateway, "drain", b, ""));
    assert_eq!(shares(&gateway, [a, b], 4), [4, 0]);
}

#[test]
fn readmitting_ends_an_ejection_and_forgets_the_failures() {
    let [a, b] = [Upstream::always(500), Upstream::start()];
    let long = ", ejection: {consecutive_failures: 3, eject_for: 1h, max_eject_for: 1h, failure_on: [500]}";
    let gateway = plan([&a, &b], long).start();
    let mut client = gateway.connect();
    let mut calls = |count: usize| (0..count).for_each(|_| drop(client.call(&Call::new("GET /"))));
    calls(10);
    assert_eq!((shown(&gateway, &a)["state"].clone(), a.count()), ("ejected".into(), 3));
    carried_out(order(&gateway, "restore", &a, ""));
    assert_eq!(shown(&gateway, &a)["state"], "ejected", "no order has ejected it");
    carried_out(order(&gateway, "readmit", &a, "&author=anna"));
    assert_eq!(shown(&gateway, &a)["state"], "available");
    gateway.wait_for_log("ordered: readmit, by anna; no order was in force");
    calls(4);
    assert_eq!((shown(&gateway, &a)["state"].clone(), a.count()), ("available".into(), 5));
    calls(2);
    assert_eq!((shown(&gateway, &a)["state"].clone(), a.count()), ("ejected".into(), 6));
}

#[test]
fn an_ordered_weight_is_the_endpoint_s_share_until_it_is_withdrawn() {
    let ends = pair();
    let [a, b] = &ends;
    let gateway = plan([a, b], "").start();
    assert_eq!(shares(&gateway, [a, b], 40), [20, 20]);
    let answer = carried_out(order(&gateway, "weight", a, "&weight=3"));
    let endpoint = &answer["endpoints"][0];
    assert_eq!((&endpoint["weight"], &endpoint["configured_weight"]), (&3.into(), &1.into()));
    assert_eq!(shares(&gateway, [a, b], 40), [30, 10]);
    assert_eq!(in_force(&gateway, "weight"), 1.0);
    // It stays while the endpoint is taken out and comes back.
    carried_out(order(&gateway, "drain", a, ""));
    assert_eq!(shares(&gateway, [a, b], 8), [0, 8]);
    carried_out(order(&gateway, "readmit", a, ""));
    assert_eq!(shares(&gateway, [a, b], 40), [30, 10]);
    carried_out(order(&gateway, "weight", a, "&weight=7"));
    assert_eq!(shares(&gateway, [a, b], 40), [35, 5]);
    let endpoint = carried_out(order(&gateway, "restore", a, ""))["endpoints"][0].clone();
    assert_eq!((&endpoint["weight"], &endpoint["configured_weight"]), (&1.into(), &Value::Null));
    assert_eq!(shares(&gateway, [a, b], 40), [20, 20]);
}

#[test]
fn an_order_ends_when_its_time_is_over_though_no_request_comes() {
    let ends = pair();
    let [a, b] = &ends;
    let gateway = plan([a, b], "").start();
    let answer = carried_out(order(&gateway, "drain", a, "&for=1500ms"));
    let left = answer["endpoints"][0]["orders"][0]["seconds_left"].as_f64();
    assert!(left.is_some_and(|left| left > 0.0 && left <= 1.5), "{answer}");
    carried_out(order(&gateway, "weight", b, "&weight=9&for=1h"));
    gateway.wait_for_log(&format!(
        "INFO  portcullis::runtime::orders] upstreams.service: {}: no longer ordered: drain; its time is over",
        a.address()
    ));
    assert_eq!(shown(&gateway, a)["state"], "available");
    assert_eq!((in_force(&gateway, "drain"), in_force(&gateway, "weight")), (0.0, 1.0));
    assert_eq!((a.count(), b.count()), (0, 0), "no client asked for anything");
    assert_eq!(gateway.log().matches("no longer ordered").count(), 1);
}

/// The next order is given before it is looked whether endpoints with orders are still there.
#[test]
fn the_end_of_an_order_is_told_though_another_follows_at_once() {
    let [a, b] = pair();
    let list = |upstreams: &[&Upstream]| {
        upstreams.iter().map(|upstream| format!("- {}\n", upstream.url())).collect::<String>()
    };
    let yaml = "
upstreams: {service: {discover: {file: {path: endpoints.yaml}}}}
routes: {all: {match: {path: /*}, upstream: service}}
";
    let gateway = Plan::new(yaml).beside("endpoints.yaml", &list(&[&a, &b])).start();
    carried_out(order(&gateway, "drain", &a, ""));
    let new = gateway.directory().join("endpoints.new");
    std::fs::write(&new, list(&[&b])).expect("written");
    std::fs::rename(new, gateway.directory().join("endpoints.yaml")).expect("renamed");
    eventually("only one of them", || {
        let status = gateway.status();
        let endpoints = status["upstreams"]["service"]["endpoints"].as_array()?.len();
        (endpoints == 1).then_some(())
    });
    carried_out(order(&gateway, "weight", &b, "&weight=5"));
    let gone = format!("{}: no longer ordered: drain; the endpoint is gone", a.address());
    gateway.wait_for_log(&gone);
    assert_eq!(gateway.log().matches(&gone).count(), 1);
}

#[test]
fn orders_survive_a_reload_while_their_endpoint_does() {
    let ends = pair();
    let [a, b] = &ends;
    let gateway = plan([a, b], "").start();
    carried_out(order(&gateway, "weight", a, "&weight=4&for=1h&reason=big"));
    carried_out(order(&gateway, "drain", b, ""));
    // Another upstream of the same endpoints.
    assert!(gateway.reload_plan(&plan([a, b], ", idle_timeout: 3s")));
    assert_eq!(shares(&gateway, [a, b], 4), [4, 0]);
    assert_eq!(shown(&gateway, a)["orders"][0]["reason"], "big");
    assert_eq!((in_force(&gateway, "weight"), in_force(&gateway, "drain")), (1.0, 1.0));
    // Given to what the reload has made.
    carried_out(order(&gateway, "readmit", b, ""));
    assert_eq!(shares(&gateway, [a, b], 10), [8, 2]);
    carried_out(order(&gateway, "drain", b, ""));

    let without = Plan::new(&plan([a, b], "").yaml().replace(&format!(", '{}'", b.url()), ""));
    assert!(gateway.reload_plan(&without));
    gateway.wait_for_log(&format!(
        "upstreams.service: {}: no longer ordered: drain; the endpoint is gone",
        b.address()
    ));
    assert_eq!((in_force(&gateway, "weight"), in_force(&gateway, "drain")), (1.0, 0.0));
    assert!(gateway.reload_plan(&plan([a, b], "")));
    assert_eq!(shown(&gateway, b)["state"], "available", "it is another endpoint now");
    assert_eq!(shares(&gateway, [a, b], 10), [8, 2], "the other order is still in force");
}

#[test]
fn an_order_ends_with_the_process() {
    let ends = pair();
    let [a, b] = &ends;
    let mut gateway = plan([a, b], "").start();
    carried_out(order(&gateway, "drain", a, ""));
    gateway.signal("TERM");
    assert!(gateway.exit().success());
    let again = plan([a, b], "").start();
    assert_eq!(again.admin("GET /orders").json(), Value::Array(Vec::new()));
    assert_eq!(shares(&again, [a, b], 4), [2, 2]);
}

#[test]
fn an_order_that_cannot_be_carried_out_says_why_and_changes_nothing() {
    let ends = pair();
    let [a, b] = &ends;
    let gateway = plan([a, b], "").start();
    let known = format!("address={}", a.address());
    for (target, status, code) in [
        (format!("other/endpoints/drain?{known}"), 404, "unknown_upstream"),
        ("service/endpoints/drain?address=127.0.0.1:1".to_owned(), 404, "unknown_endpoint"),
        (format!("service/endpoints/explode?{known}"), 404, "unknown_order"),
        ("service/endpoints/drain".to_owned(), 400, "invalid_order"),
        ("service/endpoints/drain?address=".to_owned(), 400, "invalid_order"),
        (format!("service/endpoints/drain?{known}&four=10m"), 400, "invalid_order"),
        (format!("service/endpoints/drain?{known}&for=10"), 400, "invalid_order"),
        (format!("service/endpoints/drain?{known}&for=0s"), 400, "invalid_order"),
        (format!("service/endpoints/drain?{known}&reason=a%0Ab"), 400, "invalid_order"),
        (format!("service/endpoints/drain?{known}&weight=2"), 400, "invalid_order"),
        (format!("service/endpoints/readmit?{known}&for=1m"), 400, "invalid_order"),
        (format!("service/endpoints/weight?{known}"), 400, "invalid_order"),
        (format!("service/endpoints/weight?{known}&weight=0"), 400, "invalid_order"),
        (format!("service/endpoints/weight?{known}&weight=1001"), 400, "invalid_order"),
    ] {
        let answer = gateway.admin(Call::new(&format!("POST /upstreams/{target}")));
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{target}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let unknown = Call::new("POST /upstreams/service/endpoints/drain?address=127.0.0.1:1");
    assert!(gateway.admin(unknown).text().contains(&a.address().to_string()), "those there are");
    let zero = order(&gateway, "weight", a, "&weight=0");
    assert!(zero.json()["detail"].as_str().is_some_and(|words| words.contains("drain it")));
    // PUT and DELETE are for instances that register themselves.
    for (method, status) in [("GET", 405), ("HEAD", 405), ("PUT", 400), ("DELETE", 404)] {
        let line = format!("{method} /upstreams/service/endpoints/drain?{known}");
        assert_eq!(gateway.admin(Call::new(&line)).status, status, "{method}");
    }
    let line = format!("POST /upstreams/service/endpoints/drain?{known}");
    assert_eq!(gateway.admin(Call::new(&line).header("Origin", "null")).status, 403);
    assert_eq!(gateway.admin("GET /orders").json(), Value::Array(Vec::new()));
    assert_eq!(shares(&gateway, [a, b], 4), [2, 2]);
    assert!(!gateway.log().contains("ordered"), "{}", gateway.log());
}

#[test]
fn endpoints_of_every_kind_can_be_named() {
    let yaml = "
upstreams: {service: {endpoints: ['unix:/run/a b+c.sock', 'http://[::1]:9', 'http://127.0.0.1:9/a', 'http://127.0.0.1:9/b']}}
routes: {all: {match: {path: /*}, upstream: service}}
";
    let gateway = Plan::new(yaml).start();
    for (address, endpoints) in
        [("unix:/run/a%20b%2Bc.sock", 1), ("[::1]:9", 1), ("127.0.0.1:9", 2)]
    {
        let line = format!("POST /upstreams/service/endpoints/drain?address={address}");
        let answer = carried_out(gateway.admin(Call::new(&line)));
        assert_eq!(answer["endpoints"].as_array().map(Vec::len), Some(endpoints), "{answer}");
        assert!(
            answer["endpoints"]
                .as_array()
                .expect("a list")
                .iter()
                .all(|one| one["state"] == "drained")
        );
    }
    assert_eq!(in_force(&gateway, "drain"), 4.0);
    assert_eq!(gateway.get("/").code(), "no_endpoint");
}

#[test]
fn an_order_holds_for_an_instance_that_renews_its_lease_and_instances_give_none() {
    let yaml = "
admin: {address: '${ADMIN_ADDRESS}', token: an-admin-token-0001}
upstreams:
  service: {discover: {registry: {allow: [127.0.0.1], token: registry-token-0001}}, balance: round_robin}
routes: {all: {match: {path: /*}, upstream: service}}
";
    let ends = pair();
    let [a, b] = &ends;
    let gateway = Plan::new(yaml).start();
    let send = |line: &str, token: &str, body: String| {
        gateway.admin(Call::new(line).bearer(token).body(body)).status
    };
    let register = |id: &str, upstream: &Upstream, weight: u32| {
        let body = serde_json::json!({"address": upstream.address().to_string(), "weight": weight});
        let line = format!("PUT /upstreams/service/endpoints/{id}");
        send(&line, "registry-token-0001", body.to_string())
    };
    assert_eq!((register("a", a, 1), register("b", b, 1)), (201, 201));
    let order = |verb: &str, rest: &str, token: &str| {
        let address = a.address();
        let line = format!("POST /upstreams/service/endpoints/{verb}?address={address}{rest}");
        send(&line, token, String::new())
    };
    assert_eq!(order("drain", "", "registry-token-0001"), 401, "not for instances");
    assert_eq!(shares(&gateway, [a, b], 4), [2, 2]);
    assert_eq!(order("weight", "&weight=3", "an-admin-token-0001"), 200);
    assert_eq!(register("a", a, 9), 200);
    assert_eq!(shares(&gateway, [a, b], 8), [6, 2]);
    assert_eq!(order("restore", "", "an-admin-token-0001"), 200);
    assert_eq!(shares(&gateway, [a, b], 10), [9, 1], "as it has registered");
    assert_eq!(order("drain", "", "an-admin-token-0001"), 200);
    assert_eq!(register("a", a, 9), 200);
    assert_eq!(shares(&gateway, [a, b], 4), [0, 4]);
    assert_eq!(
        send("DELETE /upstreams/service/endpoints/a", "registry-token-0001", String::new()),
        204
    );
    gateway.wait_for_log("no longer ordered: drain; the endpoint is gone");
    assert_eq!(in_force(&gateway, "drain"), 0.0);
}

const USERS: usize = 400;

/// Two upstreams that say their names.
struct Fleet {
    stable: Upstream,
    canary: Upstream,
}

impl Fleet {
    fn new() -> Self {
        let named = |name: &str| Upstream::always(Answer::ok().body(name));
        Fleet { stable: named("stable"), canary: named("canary") }
    }

    fn plan(&self, more: &str) -> Plan {
        let (stable, canary) = (self.stable.url(), self.canary.url());
        Plan::new(&format!(
            "
upstreams: {{stable: {{endpoints: ['{stable}']}}, canary: {{endpoints: ['{canary}']}}}}
routes:
  shop: {{match: {{path: /*}}, upstream: [{{name: stable, weight: 90}}, {{name: canary, weight: 10}}],
         split: {{key: {{header: X-User}}}}{more}}}
  plain: {{match: {{path: /plain}}, upstream: stable}}
"
        ))
    }
}

/// The upstream of each user's requests.
fn places(gateway: &Gateway) -> Vec<String> {
    let mut client = gateway.connect();
    let call = |user| Call::new("GET /").header("X-User", &format!("user-{user}"));
    (0..USERS).map(|user| client.call(&call(user)).text()).collect()
}

fn order_split(gateway: &Gateway, rest: &str) -> Response {
    gateway.admin(Call::new(&format!("POST /routes/shop/split{rest}")))
}

fn moved(before: &[String], after: &[String]) -> Vec<(String, String)> {
    let pairs = before.iter().zip(after).filter(|(before, after)| before != after);
    pairs.map(|(before, after)| (before.clone(), after.clone())).collect()
}

#[test]
fn an_ordered_split_moves_no_more_users_than_it_must_and_all_return_after_it() {
    let fleet = Fleet::new();
    let gateway = fleet.plan("").start();
    let before = places(&gateway);
    let answer =
        carried_out(order_split(&gateway, "?weights=stable:60,canary:40&author=anna&for=1h"));
    assert_eq!(
        (&answer["split"][0]["weight"], &answer["split"][0]["configured"]),
        (&60.into(), &90.into())
    );
    assert_eq!(
        (&answer["order"]["author"], &answer["order"]["weights"]["canary"]),
        (&"anna".into(), &40.into())
    );
    let during = places(&gateway);
    let changes = moved(&before, &during);
    let is_forth = |(from, to): &(String, String)| from == "stable" && to == "canary";
    assert!(changes.iter().all(is_forth), "{changes:?}");
    // 30 % of the users, give or take six standard deviations.
    assert!(changes.len().abs_diff(120) < 55, "{}", changes.len());
    assert_eq!(in_force(&gateway, "split"), 1.0);
    gateway.expect_metric("portcullis_split_weight", &[("upstream", "canary")], 40.0);
    let listed = gateway.admin("GET /orders").json();
    assert_eq!(
        (&listed[0]["scope"], &listed[0]["name"], &listed[0]["kind"]),
        (&"route".into(), &"shop".into(), &"split".into())
    );
    gateway.wait_for_log("routes.shop: split ordered: stable 60, canary 40 for 1h, by anna");

    assert!(
        gateway.reload_plan(&fleet.plan(", timeout: {request: 9s}")),
        "another route of the same upstreams"
    );
    assert_eq!(places(&gateway), during);

    let answer = carried_out(order_split(&gateway, "/restore"));
    assert!(answer["order"].is_null(), "{answer}");
    assert_eq!(places(&gateway), before);
    assert_eq!(in_force(&gateway, "split"), 0.0);
}

#[test]
fn an_ordered_split_ends_with_its_time() {
    let fleet = Fleet::new();
    let gateway = fleet.plan("").start();
    let before = places(&gateway);
    carried_out(order_split(&gateway, "?weights=canary:0&for=1s"));
    gateway.wait_for_log("routes.shop: split no longer ordered; its time is over");
    assert_eq!(places(&gateway), before);
    assert_eq!(in_force(&gateway, "split"), 0.0);
}

#[test]
fn an_ordered_split_ends_with_the_last_upstream_it_names() {
    let fleet = Fleet::new();
    let gateway = fleet.plan("").start();
    carried_out(order_split(&gateway, "?weights=canary:50"));
    let one = fleet.plan("").yaml();
    let one = one.replace("[{name: stable, weight: 90}, {name: canary, weight: 10}]", "stable");
    let one = one.replace("split: {key: {header: X-User}}", "");
    assert!(gateway.reload(&one));
    gateway.wait_for_log("routes.shop: split no longer ordered; its upstreams are gone");
    assert!(gateway.reload_plan(&fleet.plan("")));
    gateway.expect_metric("portcullis_split_weight", &[("upstream", "canary")], 10.0);
}

#[test]
fn an_order_about_a_split_that_cannot_be_carried_out_says_why() {
    let fleet = Fleet::new();
    let gateway = fleet.plan("").start();
    let before = places(&gateway);
    for (target, status, code) in [
        ("shop/split", 400, "invalid_order"),
        ("shop/split?weights=", 400, "invalid_order"),
        ("shop/split?weights=stable", 400, "invalid_order"),
        ("shop/split?weights=other:1", 400, "invalid_order"),
        ("shop/split?weights=stable:0,canary:0", 400, "invalid_order"),
        ("shop/split?weights=stable:1,stable:2", 400, "invalid_order"),
        ("shop/split?weights=stable:1000001", 400, "invalid_order"),
        ("shop/split?weights=stable:1&address=a", 400, "invalid_order"),
        ("plain/split?weights=stable:1", 404, "no_split"),
        ("other/split?weights=stable:1", 404, "unknown_route"),
        ("other/split/restore", 404, "unknown_route"),
    ] {
        let answer = gateway.admin(Call::new(&format!("POST /routes/{target}")));
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{target}");
    }
    assert_eq!(places(&gateway), before);
    assert_eq!(in_force(&gateway, "split"), 0.0);
}

#[test]
fn the_command_gives_orders_with_the_token_and_shows_them() {
    let ends = pair();
    let [a, b] = &ends;
    let token = "an-admin-token-0001";
    let admin = format!("admin: {{address: \"${{ADMIN_ADDRESS}}\", token: {token}}}");
    let gateway = plan([a, b], "").section(&admin).start();
    let (address, at) = (a.address().to_string(), gateway.admin.to_string());
    let order = |arguments: &[&str], token: &str| {
        let all = [&["order"], arguments, &["--address", &at]].concat();
        let environment = [("ADMIN_TOKEN", token), ("USER", "anna")];
        Gateway::finish(&all, gateway.directory(), &environment)
    };
    let refused = order(&["drain", "service", &address], "another-token-0002");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("ADMIN_TOKEN"), "{}", refused.stderr);
    let drained =
        order(&["drain", "service", &address, "--for", "1h", "--reason", "new disk"], token);
    assert_eq!(drained.code, Some(0), "{}", drained.stderr);
    let line =
        format!("upstreams.service: {address}: drained, weight 1, 0 in flight; ordered: drain, ");
    assert!(drained.stdout.starts_with(&line), "{}", drained.stdout);
    assert!(drained.stdout.ends_with("left, by anna: new disk\n"), "{}", drained.stdout);
    let listed = order(&["list"], token);
    assert!(
        listed.stdout.starts_with(&format!("upstreams.service: {address}: drain, ")),
        "{}",
        listed.stdout
    );
    let json = order(&["list", "--format", "json"], token).stdout;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json[0]["endpoint"], &json[0]["author"]),
        (&address.clone().into(), &"anna".into())
    );
    let weighed = order(&["weight", "service", &address, "5"], token);
    assert!(weighed.stdout.contains("weight 5"), "{}", weighed.stdout);
    let zero = order(&["weight", "service", &address, "0"], token);
    assert!(zero.code == Some(1) && zero.stderr.contains("drain it"), "{}", zero.stderr);
    for verb in ["readmit", "restore"] {
        let done = order(&[verb, "service", &address], token);
        assert_eq!(done.code, Some(0), "{verb}: {}", done.stderr);
    }
    assert_eq!(order(&["list"], token).stdout, "no orders are in force\n");
    let unknown = order(&["eject", "nowhere", &address], token);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("no upstream has this name"));
    assert_eq!(shares(&gateway, [a, b], 4), [2, 2]);
}

#[test]
fn the_command_orders_splits() {
    let fleet = Fleet::new();
    let gateway = fleet.plan("").start();
    let at = gateway.admin.to_string();
    let order = |arguments: &[&str]| {
        let all = [&["order", "split", "shop"], arguments, &["--address", &at]].concat();
        let done = Gateway::finish(&all, gateway.directory(), &[]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        done.stdout
    };
    let ordered = order(&["stable=60", "canary=40"]);
    assert_eq!(
        ordered,
        "routes.shop: stable 60, canary 40; ordered: split canary 40, stable 60, until it is withdrawn\n"
    );
    assert_eq!(order(&["--restore"]), "routes.shop: stable 90, canary 10; as configured\n");
}
