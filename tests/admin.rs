//! What the gateway says about itself, and to whom.

use std::sync::Arc;

use crate::support::{Answer, Call, Client, Gateway, Plan, Postgres, Store, Upstream, eventually};

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
    assert_eq!(gateway.metric("portcullis_bulkhead_capacity", &[("route", "all")]), 7.0);
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
