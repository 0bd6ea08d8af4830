//! What the gateway says about itself, and to whom.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{
    Answer, Call, Client, Gateway, Plan, Postgres, Store, Upstream, at_once, eventually, timed,
};

#[test]
fn a_running_gateway_is_alive_ready_and_healthy() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    for path in ["/livez", "/readyz"] {
        assert_eq!(gateway.admin(Call::new(&format!("GET {path}"))).status, 200, "{path}");
    }
    // The store is opened in the background.
    eventually("health", || (gateway.admin("GET /healthz").status == 200).then_some(()));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_gateway_that_says_it_is_ready_listens() {
    for _ in 0..5 {
        assert!(Plan::route("").listens_when_ready());
    }
}

#[test]
fn health_follows_the_configured_store_down_and_up_again() {
    let Some(server) = Postgres::start().map(Arc::new) else { return };
    let store = Store::on(server.clone());
    let upstream = Upstream::start();
    let yaml = "
routes:
  health: {match: {path: /healthz, methods: [GET]}, serve: health}
  all: {match: {path: /*}, upstream: service, record: {mode: async}}
";
    let gateway = Plan::new(yaml).section(&store.section()).upstream(&upstream).start();
    let healthy = |status: u16| {
        let both = || (gateway.admin("GET /healthz").status, gateway.get("/healthz").status);
        eventually("the health of the store", || (both() == (status, status)).then_some(()));
    };
    healthy(200);
    server.stop();
    healthy(503);
    assert_eq!(gateway.admin("GET /livez").status, 200, "no reason to be restarted");
    assert_eq!(gateway.admin("GET /readyz").status, 200, "nor to get no requests");
    assert_eq!(gateway.get("/").status, 200);
    server.restart();
    healthy(200);
}

#[test]
fn metrics_are_in_the_text_format_and_labelled_by_configuration_only() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "bulkhead: {max_in_flight: 7}");
    gateway.get("/some/path?with=query");
    gateway.get("/%2e%2e");
    eventually("counted requests", || {
        (gateway.metric("portcullis_requests_total", &[("route", "all")]) >= 1.0).then_some(())
    });
    let response = gateway.admin("GET /metrics");
    assert!(response.header("content-type").is_some_and(|t| t.starts_with("text/plain")));
    let text = response.text();
    assert!(!text.contains("some/path") && !text.contains("127.0.0.1:5"), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let known = name.starts_with("portcullis_") || name.starts_with("process_");
        assert!(known, "{line}");
    }
    gateway.expect_metric("portcullis_bulkhead_capacity", &[("route", "all")], 7.0);
    assert!(gateway.metric("process_resident_memory_bytes", &[]) > 0.0);
}

#[test]
fn status_shows_the_state_of_every_route() {
    let upstream = Upstream::script([Answer::from(500), Answer::ok(), Answer::ok().held()]);
    let route = "bulkhead: {max_in_flight: 5}\ncircuit_breaker: {consecutive: {failures: 9}}";
    let gateway = Gateway::route(&upstream, route);
    gateway.get("/");
    gateway.get("/");
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(3);
    let status = eventually("two counted requests", || {
        let status = gateway.status();
        (status["routes"]["all"]["requests"] == 2).then_some(status)
    });
    assert_eq!(status["generation"], 1);
    assert!(status["uptime_seconds"].as_f64() > Some(0.0));
    let route = &status["routes"]["all"];
    assert_eq!(route["circuit"]["state"], "closed");
    assert_eq!((&route["bulkhead"]["slots"], &route["bulkhead"]["free"]), (&5.into(), &4.into()));
    assert_eq!(route["errors"], 1);
    assert!(route["average_latency_ms"].as_f64() > Some(0.0));
}

#[test]
fn status_shows_an_open_circuit_and_the_time_until_it_is_tried() {
    let upstream = Upstream::always(500);
    let breaker = "circuit_breaker: {consecutive: {failures: 1}, open_for: 30s}";
    let gateway = Gateway::route(&upstream, breaker);
    gateway.get("/");
    let circuit = gateway.status()["routes"]["all"]["circuit"].clone();
    assert_eq!(circuit["state"], "open");
    let left = circuit["next_probe_in_ms"].as_u64().expect("the time left");
    assert!((20_000..=30_000).contains(&left), "{left}");
}

#[test]
fn the_admin_listener_serves_nothing_else_and_what_it_shows_is_only_read() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    assert_eq!(gateway.admin("GET /").status, 404);
    assert_eq!(gateway.admin("GET /routes/all").status, 404);
    for path in ["/livez", "/readyz", "/healthz", "/status", "/metrics"] {
        for method in ["POST", "PUT", "DELETE"] {
            assert_eq!(gateway.admin(Call::new(&format!("{method} {path}"))).status, 405, "{path}");
        }
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn the_public_listener_serves_no_admin_endpoint() {
    let upstream = Upstream::always(418);
    let gateway = Gateway::route(&upstream, "");
    for path in ["/metrics", "/status", "/livez", "/readyz", "/healthz"] {
        assert_eq!(gateway.get(path).status, 418, "{path} is the upstream's");
    }
}

#[test]
fn a_route_may_serve_what_the_gateway_knows() {
    let yaml = "
routes:
  live: {match: {path: /live}, serve: live}
  ready: {match: {path: /ready}, serve: ready}
  health: {match: {path: /health}, serve: health}
  status: {match: {path: /state}, serve: status}
";
    let gateway = Plan::new(yaml).start();
    eventually("health", || (gateway.get("/health").status == 200).then_some(()));
    for path in ["/live", "/ready", "/state"] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
    assert!(gateway.get("/state").json()["routes"]["state"].is_null());
    let mut client = Client::connect(gateway.address);
    for _ in 0..3 {
        assert_eq!(client.call(&"GET /health".into()).status, 200, "one connection, kept");
    }
}

#[test]
fn half_a_head_does_not_hold_an_admin_connection() {
    let gateway = Plan::route("").start();
    at_once(["", "GET /livez HTTP/1.1\r\nHo"], |sent| {
        let mut client = Client::connect(gateway.admin);
        client.send(sent);
        let (closed, took) = timed(|| client.is_closed());
        assert!(closed, "{sent:?}");
        // Five seconds, on a busy machine.
        assert!(took < Duration::from_secs(9), "{sent:?}: {took:?}");
    });
}

#[test]
fn a_probe_is_answered_however_many_admin_connections_hang_on() {
    let gateway = Plan::route("").start();
    let mut kept = Client::connect(gateway.admin);
    assert_eq!(kept.call(&"GET /livez".into()).status, 200);
    let crowd: Vec<_> = (0..200)
        .map(|_| {
            let mut client = Client::connect(gateway.admin);
            let _ = client.try_send("GET /livez HTTP/1.1\r\n");
            client
        })
        .collect();
    for _ in 0..5 {
        let (answer, took) = timed(|| gateway.admin("GET /livez"));
        assert_eq!(answer.status, 200);
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    gateway.wait_for_log("the oldest is closed");
    assert!(kept.is_closed(), "it was the oldest one");
    drop(crowd);
}

/// DNS rebinding: a page whose name leads to the admin listener says that name in `Host`.
#[test]
fn only_health_and_metrics_are_answered_by_any_name() {
    let admin = "admin: {address: \"${ADMIN_ADDRESS}\", hosts: [gateway.internal, \"*.svc.cluster.local\"]}";
    let gateway =
        Plan::route("circuit_breaker: {consecutive: {failures: 1}}").section(admin).start();
    let port = gateway.admin.port();
    let ask = |line: &str, host: &str| gateway.admin(Call::new(line).header("Host", host));
    let foreign = ["rebound.example".to_owned(), format!("rebound.example:{port}")];
    for host in &foreign {
        for path in ["/livez", "/readyz", "/healthz", "/metrics"] {
            assert!([200, 503].contains(&ask(&format!("GET {path}"), host).status), "{path}");
        }
        for line in ["GET /status", "HEAD /status", "GET /", "POST /circuits/route/all/open"] {
            let answer = ask(line, host);
            assert_eq!(answer.status, 421, "{line}");
            if !line.starts_with("HEAD") {
                assert_eq!(answer.header("content-type"), Some("application/problem+json"));
                assert_eq!(answer.code(), "unknown_host");
                assert!(answer.text().contains("admin.hosts"), "the remedy");
            }
        }
    }
    for host in [
        gateway.admin.to_string(),
        format!("localhost:{port}"),
        "[::1]".to_owned(),
        "Gateway.internal".to_owned(),
        format!("gateway.default.svc.cluster.local:{port}"),
    ] {
        assert_eq!(ask("GET /status", &host).status, 200, "{host}");
    }
    assert_eq!(gateway.status()["routes"]["all"]["circuit"]["state"], "closed");
}

#[test]
fn the_names_of_the_admin_listener_follow_a_reload() {
    let admin =
        |hosts: &str| format!("admin: {{address: \"${{ADMIN_ADDRESS}}\", hosts: [{hosts}]}}");
    let plan = |hosts: &str| Plan::route("").section(&admin(hosts));
    let gateway = plan("").start();
    let status = || gateway.admin(Call::new("GET /status").header("Host", "gateway")).status;
    assert_eq!(status(), 421);
    assert!(gateway.reload_plan(&plan("gateway")));
    assert_eq!(status(), 200);
}

#[test]
fn a_post_that_a_page_of_another_site_sends_is_refused() {
    let gateway = Plan::route("circuit_breaker: {consecutive: {failures: 1}}").start();
    let order = || Call::new("POST /circuits/route/all/open");
    for (name, value) in [
        ("Origin", "https://page.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        let answer = gateway.admin(order().header(name, value));
        assert_eq!(answer.status, 403, "{name}: {value}");
        assert_eq!(answer.code(), "cross_origin");
    }
    assert_eq!(gateway.status()["routes"]["all"]["circuit"]["state"], "closed");
    assert_eq!(gateway.admin(order()).status, 200);
    assert_eq!(gateway.status()["routes"]["all"]["circuit"]["state"], "forced_open");
}
