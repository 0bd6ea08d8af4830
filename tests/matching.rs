//! Versions and canaries: routes with one path that are told apart by headers, query and cookies.

use crate::support::{Call, Gateway, H2Client, Plan, Response, Upstream, request};

/// Routes that say their name in the answer.
const VERSIONS: &str = "
routes:
  plain: {match: {path: /a}, upstream: service, headers: {response: {set: {X-Route: plain}}}}
  v2:
    match: {path: /a, headers: {Accept: {prefix: application/vnd.api.v2}}}
    upstream: service
    headers: {response: {set: {X-Route: v2}}}
  v3: {match: {path: /a, query: {version: '3'}, methods: GET}, upstream: service, headers: {response: {set: {X-Route: v3}}}}
  canary:
    match: {path: /a, cookies: {canary: {present: true}}, headers: {X-No-Canary: {present: false}}}
    upstream: service
    headers: {response: {set: {X-Route: canary}}}
  written:
    match: {path: /a, methods: POST, headers: {X-Canary: always}}
    upstream: service
    headers: {response: {set: {X-Route: written}}}
  only: {match: {path: /only, headers: {X-Key: {present: true}}, methods: [GET, PUT]}, upstream: service}
";

fn gateway(upstream: &Upstream) -> Gateway {
    Plan::new(VERSIONS).upstream(upstream).start()
}

#[track_caller]
fn route_of(response: &Response) -> &str {
    response.header("x-route").expect("a route answered")
}

#[test]
fn a_version_is_chosen_by_header_or_query_and_a_canary_by_cookie() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    for (call, route) in [
        (Call::new("GET /a"), "plain"),
        (Call::new("GET /a").header("accept", "application/vnd.api.v2+json"), "v2"),
        (Call::new("GET /a").header("Accept", "application/vnd.api.v1+json"), "plain"),
        (Call::new("GET /a?a=1&vers%69on=%33&version=2"), "v3"),
        (Call::new("GET /a?version=2&version=3"), "plain"),
        (
            Call::new("GET /a")
                .header("Cookie", "a=1; canary=")
                .header("Accept", "application/vnd.api.v2"),
            "canary",
        ),
        (Call::new("GET /a").header("Cookie", "a=1").header("Cookie", "canary=1"), "canary"),
        (Call::new("GET /a").header("Cookie", "canary=1").header("X-No-Canary", ""), "plain"),
        (Call::new("GET /a").header("Cookie", "canary"), "plain"),
        (Call::new("POST /a").header("X-Canary", "always"), "written"),
        (Call::new("GET /a").header("X-Canary", "always"), "plain"),
        (Call::new("POST /a").header("X-Canary", "Always"), "plain"),
    ] {
        assert_eq!(route_of(&gateway.call(call.clone())), route, "{call:?}");
    }
    // What chose the route goes on to the upstream.
    let targets: Vec<_> = upstream.requests().into_iter().map(|r| r.target).collect();
    assert!(targets.contains(&"/a?a=1&vers%69on=%33&version=2".to_owned()), "{targets:?}");
}

#[test]
fn a_cookie_is_found_in_the_fields_that_http_2_splits_it_into() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let client = H2Client::connect(gateway.address);
    let split = request("GET", "/a").header("cookie", "theme=dark").header("cookie", "canary=1");
    let response = client.call(split.body(&b""[..]).expect("a request"));
    assert_eq!(response.header("x-route"), Some("canary"));
    assert_eq!(client.get("/a").header("x-route"), Some("plain"));
}

#[test]
fn a_route_whose_conditions_are_not_met_is_not_there() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let without = gateway.get("/only");
    assert_eq!((without.status, without.code().as_str()), (404, "no_route"));
    assert_eq!(gateway.call(Call::new("GET /only").header("X-Key", "1")).status, 200);
    let wrong = gateway.call(Call::new("DELETE /only").header("X-Key", "1"));
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET, HEAD, PUT")));
    let neither = gateway.call("DELETE /only");
    assert_eq!((neither.status, neither.header("allow")), (404, None));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_preflight_is_answered_for_a_request_whose_headers_it_cannot_have() {
    const PAGES: &str = "
routes:
  one:
    match: {path: /a, headers: {X-Version: '1'}}
    upstream: service
    cors: {origins: ['https://shop.test'], request_headers: [X-Version]}
  two: {match: {path: /b, headers: {X-Version: '1'}}, upstream: service}
";
    let upstream = Upstream::start();
    let gateway = Plan::new(PAGES).upstream(&upstream).start();
    let preflight = |path: &str| {
        let call = Call::new(&format!("OPTIONS {path}")).header("Origin", "https://shop.test");
        gateway.call(
            call.header("Access-Control-Request-Method", "GET")
                .header("Access-Control-Request-Headers", "x-version"),
        )
    };
    let allowed = preflight("/a");
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://shop.test"));
    assert_eq!(allowed.header("access-control-allow-headers"), Some("x-version"));
    assert_eq!(preflight("/b").status, 404);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_reload_that_changes_only_a_condition_is_in_force() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let call = || Call::new("GET /a").header("X-Ring", "inner");
    assert_eq!(route_of(&gateway.call(call())), "plain");
    let changed = VERSIONS.replace("query: {version: '3'}", "headers: {X-Ring: inner}");
    assert!(gateway.reload(&changed));
    assert_eq!(route_of(&gateway.call(call())), "v3");
    assert_eq!(route_of(&gateway.get("/a?version=3")), "plain");
}

#[test]
fn two_routes_that_one_request_can_meet_are_told_at_a_reload_and_the_old_ones_go_on() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let canary = "cookies: {canary: {present: true}}, headers: {X-No-Canary: {present: false}}";
    assert!(VERSIONS.contains(canary));
    // As specific as the condition of `v3`.
    assert!(!gateway.reload(&VERSIONS.replace(canary, "cookies: {canary: '1'}")));
    gateway.wait_for_log("one request can meet the conditions of both");
    let log = gateway.log();
    assert!(
        log.contains("routes.v3.match.path: `/a` is matched by routes.canary already"),
        "{log}"
    );
    let response = gateway.call(Call::new("GET /a").header("Cookie", "canary=1"));
    assert_eq!(route_of(&response), "canary");
}

#[test]
fn the_routes_show_conditions_in_the_order_of_matching() {
    let directory = tempfile::tempdir().expect("a directory");
    let yaml = format!(
        "listeners: {{public: {{address: '127.0.0.1:8080'}}}}\nupstreams: {{service: {{endpoints: ['http://127.0.0.1:1']}}}}\n{VERSIONS}"
    );
    std::fs::write(directory.path().join("c.yaml"), yaml).expect("a file");
    let run = |arguments: &[&str]| {
        let finished = Gateway::finish(arguments, directory.path(), &[]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout
    };
    let table = run(&["routes", "-c", "c.yaml"]);
    let order = ["canary", "v3", "written", "v2", "plain", "only"];
    let lines: Vec<_> = table.lines().skip(1).collect();
    for (line, route) in lines.iter().zip(order) {
        assert!(line.contains(&format!("  {route}  ")), "{route} in {table}");
    }
    assert!(lines[0].contains("no header x-no-canary and cookie canary"), "{table}");
    assert!(lines[3].contains("header accept begins with application/vnd.api.v2"), "{table}");
    assert!(table.starts_with("HOST  PATH   METHODS  WHEN"), "{table}");
    let json = run(&["routes", "-c", "c.yaml", "--format", "json"]);
    let rows: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        rows[0]["conditions"],
        serde_json::json!([
            {"in": "header", "name": "x-no-canary", "present": false},
            {"in": "cookie", "name": "canary", "present": true},
        ])
    );
    assert_eq!(rows[4]["conditions"], serde_json::json!([]));
}
