//! The path or the host names the upstream, among those that the route lists.

use crate::support::{Answer, Call, Plan, Upstream, eventually};

const YAML: &str = "
upstreams:
  users: {endpoints: ['${USERS}']}
  orders: {endpoints: ['${ORDERS}'], circuit_breaker: {consecutive: {failures: 1}, open_for: 60s}}
  hidden: {endpoints: ['${USERS}']}
routes:
  services:
    match: {path: '/svc/:service/*'}
    upstream: {parameter: service, among: [users, orders]}
    rewrite: {strip_segments: 2}
    retry: {max_retries: 1, on: [5xx]}
  hidden: {match: {path: /hidden}, upstream: hidden}
";

#[test]
fn the_path_names_the_upstream_and_each_has_its_own_circuit_and_budget() {
    let (users, orders) = (Upstream::start(), Upstream::always(500));
    let gateway = Plan::new(YAML).env("USERS", &users.url()).env("ORDERS", &orders.url()).start();
    assert_eq!(gateway.get("/svc/users/7").status, 200);
    assert_eq!(users.only().target, "/7");
    assert_eq!(gateway.get("/svc/orders/7").status, 500);
    let open = gateway.get("/svc/orders/8");
    assert_eq!((open.status, open.code().as_str()), (503, "circuit_open"));
    assert_eq!(gateway.get("/svc/users/8").status, 200, "another circuit");
    eventually("each is counted under its name", || {
        let attempts = |name, outcome| {
            let labels = [("upstream", name), ("outcome", outcome)];
            gateway.metric("portcullis_upstream_attempts_total", &labels)
        };
        (attempts("users", "2xx") == 2.0 && attempts("orders", "5xx") >= 1.0).then_some(())
    });
    let status = gateway.status();
    let route = &status["routes"]["services"];
    assert_eq!(route["among"], serde_json::json!(["users", "orders"]), "{route}");
    let tokens = |name: &str| status["retry_budgets"][format!("upstream:{name}")].is_object();
    assert!(tokens("users") && tokens("orders"), "{}", status["retry_budgets"]);
}

#[test]
fn what_is_not_listed_is_not_found_however_it_is_written() {
    let users = Upstream::start();
    let gateway = Plan::new(YAML).env("USERS", &users.url()).env("ORDERS", &users.url()).start();
    for path in ["/svc/hidden/7", "/svc/Users/7", "/svc/users%00/7", "/svc/billing/7", "/svc/7"] {
        let refused = gateway.get(path);
        assert!([400, 404].contains(&refused.status), "{path}: {}", refused.status);
    }
    assert_eq!(users.count(), 0);
    assert_eq!(gateway.get("/svc/%75sers/7").status, 200, "the same name in another encoding");
    let lines = gateway.wait_for_access_lines(5);
    assert!(lines.iter().any(|line| line.to_string().contains("no_route")), "{lines:?}");
}

const EACH: &str = "
upstreams:
  services:
    each: ['one, two']
    endpoints: ['${UPSTREAM}/{name}']
    circuit_breaker: {consecutive: {failures: 1}, open_for: 60s}
routes:
  services: {match: {path: /*}, upstream: {host: {suffixes: [.internal]}, among: services}}
";

#[test]
fn upstreams_made_of_a_list_are_named_by_the_host_and_stay_when_a_name_is_added() {
    let upstream = Upstream::start();
    let plan = Plan::new(EACH).upstream(&upstream);
    let text = plan.yaml();
    let gateway = plan.start();
    let status = |host: &str| gateway.call(Call::new("GET /7").header("Host", host)).status;
    assert_eq!([status("one"), status("two.internal"), status("three")], [200, 200, 404]);
    let targets: Vec<_> = upstream.requests().into_iter().map(|received| received.target).collect();
    assert_eq!(targets, ["/one/7", "/two/7"]);
    upstream.answer_always(Answer::json(500, "{}"));
    assert_eq!([status("one"), status("one")], [500, 503], "its circuit is open");
    upstream.answer_always(200);
    assert!(gateway.reload(&text.replace("'one, two'", "one, two, three")));
    assert_eq!([status("one"), status("two"), status("three")], [503, 200, 200], "it still is");
    let shown = gateway.status();
    let among = &shown["routes"]["services"]["among"];
    assert_eq!(among, &serde_json::json!(["one", "two", "three"]), "{shown}");
    eventually("each is counted under its name", || {
        let labels = |name| [("upstream", name), ("outcome", "2xx")];
        let attempts = |name| gateway.metric("portcullis_upstream_attempts_total", &labels(name));
        (attempts("two") == 2.0 && attempts("three") == 1.0).then_some(())
    });
    assert!(gateway.reload(&text.replace("'one, two'", "")));
    assert_eq!([status("one"), status("two")], [404, 404], "none are left");
}
