//! The path names the upstream, among those that the route lists.

use crate::support::{Plan, Upstream, eventually};

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
