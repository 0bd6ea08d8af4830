//! Active health checks: what fails them gets no requests, and comes back.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::support::{
    Authority, Call, Gateway, H2Upstream, Plan, Port, Reply, Upstream, eventually, frame, pass,
    refused_address,
};

/// A server that answers requests with 200, and those for `/health` as it is told.
struct Service {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    health: Vec<u8>,
    /// Answers before that one.
    script: VecDeque<Vec<u8>>,
    /// The heads of requests for `/health`, and how many others came.
    checks: Vec<String>,
    requests: usize,
    /// While it is so, requests other than checks are not answered.
    is_holding: bool,
    connections: Vec<TcpStream>,
    is_stopped: bool,
}

fn answer(head: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

fn status(status: u16) -> Vec<u8> {
    answer(&format!("{status} As Told"))
}

impl Service {
    fn start(health: Vec<u8>) -> Self {
        Service::listen(TcpListener::bind("127.0.0.1:0").expect("a listener"), health)
    }

    fn listen(listener: TcpListener, health: Vec<u8>) -> Self {
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { health, ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let mut state = shared.lock().expect("its state");
                if state.is_stopped {
                    return;
                }
                state.connections.push(connection.try_clone().expect("a copy"));
                drop(state);
                let shared = shared.clone();
                std::thread::spawn(move || serve(connection, &shared));
            }
        });
        Service { address, state }
    }

    fn healthy() -> Self {
        Service::start(status(200))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("its state")
    }

    fn answer(&self, health: Vec<u8>) {
        self.state().health = health;
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn requests(&self) -> usize {
        self.state().requests
    }

    fn checks(&self) -> usize {
        self.state().checks.len()
    }

    /// Waits for as many checks more.
    fn wait_for_checks(&self, more: usize) {
        let before = self.checks();
        eventually("more checks", || (self.checks() >= before + more).then_some(()));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let mut state = self.state();
        state.is_stopped = true;
        for connection in state.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(connection: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let is_check = head.split(' ').nth(1).is_some_and(|target| target.contains("/health"));
        let mut state = state.lock().ok()?;
        let is_held = state.is_holding && !is_check;
        let bytes = if is_check {
            state.checks.push(head);
            state.script.pop_front().unwrap_or_else(|| state.health.clone())
        } else {
            state.requests += 1;
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
        };
        drop(state);
        if is_held {
            // Until the connection is closed.
            let _ended = reader.read_to_end(&mut Vec::new());
            return None;
        }
        (&connection).write_all(&bytes).ok()?;
    }
}

const FAST: &str = "interval: 20ms, fast_interval: 20ms";

fn upstream(endpoints: &[String], rest: &str) -> String {
    format!("upstreams: {{service: {{balance: round_robin, endpoints: {endpoints:?}, {rest}}}}}")
}

/// A gateway before endpoints that it checks by `http: {path: /health}`.
fn plan(endpoints: &[&Service], health: &str) -> Plan {
    let urls: Vec<_> = endpoints.iter().map(|service| service.url()).collect();
    let health = format!("health: {{http: {{path: /health}}, {FAST}, {health}}}");
    Plan::route("").section(&upstream(&urls, &health))
}

fn start(endpoints: &[&Service], health: &str) -> Gateway {
    plan(endpoints, health).start()
}

/// What `/status` says of the checks of an endpoint.
fn shown(gateway: &Gateway, address: impl ToString) -> serde_json::Value {
    let status = gateway.status();
    let endpoints = status["upstreams"]["service"]["endpoints"].as_array().expect("a list").clone();
    let address = address.to_string();
    let found = endpoints.into_iter().find(|endpoint| endpoint["address"] == address);
    found.expect("the endpoint")["health"].clone()
}

#[track_caller]
fn wait_until(gateway: &Gateway, address: impl ToString + Copy, state: &str) -> String {
    eventually(&format!("{} that is {state}", address.to_string()), || {
        let health = shown(gateway, address);
        let words = health["last"].as_str().unwrap_or_default().to_owned();
        (health["state"] == state).then_some(words)
    })
}

/// How many of ten requests each of the services gets.
fn shares<const N: usize>(gateway: &Gateway, services: [&Service; N]) -> [usize; N] {
    let before = services.map(Service::requests);
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
    let after = services.map(Service::requests);
    std::array::from_fn(|n| after[n] - before[n])
}

#[test]
fn an_endpoint_that_fails_its_checks_gets_no_requests_and_comes_back() {
    let (one, other) = (Service::healthy(), Service::healthy());
    let gateway = start(&[&one, &other], "");
    wait_until(&gateway, one.address, "healthy");
    wait_until(&gateway, other.address, "healthy");
    assert_eq!(shares(&gateway, [&one, &other]), [5, 5]);

    one.answer(status(503));
    let words = wait_until(&gateway, one.address, "unhealthy");
    assert_eq!(words, "status 503, expected 2xx");
    assert_eq!(shares(&gateway, [&one, &other]), [0, 10]);
    gateway.wait_for_log(&format!(
        "upstreams.service: {} is unhealthy, 3 health checks in a row failed: status 503",
        one.address
    ));

    one.answer(status(204));
    wait_until(&gateway, one.address, "healthy");
    assert_eq!(shares(&gateway, [&one, &other]), [5, 5]);
    gateway.wait_for_log("is healthy again after");
    let log = gateway.log();
    for line in ["is unhealthy", "is healthy again"] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
}

#[test]
fn checks_are_counted_by_their_result_and_healthy_endpoints_are_shown() {
    let (one, other) = (Service::healthy(), Service::start(status(404)));
    let gateway = start(&[&one, &other], "unhealthy: 1");
    wait_until(&gateway, one.address, "healthy");
    wait_until(&gateway, other.address, "unhealthy");
    let count = |result| {
        let labels = [("upstream", "service"), ("result", result)];
        gateway.metric("portcullis_upstream_health_checks_total", &labels)
    };
    assert!(count("passed") >= 1.0 && count("status") >= 1.0);
    gateway.expect_metric("portcullis_upstream_endpoints_healthy", &[], 1.0);
    gateway.expect_metric("portcullis_upstream_endpoints", &[], 2.0);
    let health = shown(&gateway, other.address);
    assert!(health["checks"].as_u64() >= Some(1), "{health}");
    assert!(health["for_seconds"].is_number() && health["last_seconds_ago"].is_number());
    // Checks are no attempts, and their connections no connections of requests.
    gateway.expect_metric("portcullis_upstream_connects_total", &[], 0.0);
    gateway.expect_metric("portcullis_upstream_attempts_total", &[], 0.0);
}

#[test]
fn fewer_failures_in_a_row_than_the_threshold_change_nothing() {
    let (one, other) = (Service::healthy(), Service::healthy());
    one.state().script.extend((0..30).map(|n| status(if n % 3 == 0 { 200 } else { 500 })));
    let gateway = start(&[&one, &other], "unhealthy: 3");
    eventually("the end of the script", || one.state().script.is_empty().then_some(()));
    one.wait_for_checks(1);
    assert!(!gateway.log().contains("is unhealthy"), "two of three failed, never three in a row");
    assert_eq!(shares(&gateway, [&one, &other]), [5, 5]);
}

#[test]
fn a_check_is_the_request_that_is_configured() {
    let service = Service::healthy();
    let health = "http: {path: '/health?full=1', method: HEAD, headers: {Host: app.test, X-Check: yes}, expect: [200]}";
    let endpoint = format!("{}/base", service.url());
    let yaml = upstream(&[endpoint], &format!("health: {{{health}, {FAST}}}"));
    let gateway = Plan::route("").section(&yaml).start();
    wait_until(&gateway, service.address, "healthy");
    let head = service.state().checks[0].to_ascii_lowercase();
    assert!(head.starts_with("head /base/health?full=1 http/1.1\r\n"), "{head}");
    for line in ["\r\nhost: app.test\r\n", "\r\nx-check: yes\r\n", "\r\nconnection: close\r\n"] {
        assert_eq!(head.matches(line).count(), 1, "{line:?} in {head}");
    }
}

#[test]
fn a_redirect_fails_the_check_with_a_word_and_is_not_followed() {
    let (one, elsewhere) = (Service::healthy(), Service::healthy());
    let location = format!("301 Moved\r\nLocation: {}/health", elsewhere.url());
    one.answer(answer(&location));
    let gateway = start(&[&one], "");
    let words = wait_until(&gateway, one.address, "unhealthy");
    let expected =
        format!("301 redirects to {}/health, and redirects are not followed", elsewhere.url());
    assert_eq!(words, expected);
    assert_eq!(elsewhere.checks(), 0);
    let labels = [("result", "redirect")];
    assert!(gateway.metric("portcullis_upstream_health_checks_total", &labels) >= 3.0);
}

#[test]
fn a_response_that_is_late_or_never_ends_or_is_not_http_fails_the_check() {
    let endless = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok".to_vec();
    for (health, expected) in [
        (Vec::new(), "no complete response within 500ms"),
        (endless, "no complete response within 500ms"),
        (b"SSH-2.0-OpenSSH\r\n\r\n".to_vec(), "response is not valid HTTP"),
    ] {
        let (one, other) = (Service::start(health), Service::healthy());
        let gateway = start(&[&one, &other], "timeout: 500ms, unhealthy: 2");
        let words = wait_until(&gateway, one.address, "unhealthy");
        assert!(words.starts_with(expected), "{words}");
        assert_eq!(shares(&gateway, [&one, &other]), [0, 10]);
    }
}

#[test]
fn a_large_body_is_not_read_to_its_end() {
    let mut large = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n".to_vec();
    large.extend(std::iter::repeat_n(b'x', 200_000));
    let service = Service::start(large);
    let gateway = start(&[&service], "timeout: 2s");
    assert_eq!(wait_until(&gateway, service.address, "healthy"), "passed");
}

#[test]
fn a_tcp_check_fails_while_nothing_listens() {
    let port = Port::reserve();
    let other = Service::healthy();
    let endpoints = [format!("http://{}", port.address()), other.url()];
    let yaml = upstream(&endpoints, &format!("health: {{tcp: {{}}, {FAST}}}"));
    let gateway = Plan::route("").section(&yaml).start();
    assert_eq!(wait_until(&gateway, port.address(), "unhealthy"), "connection refused");
    for _ in 0..6 {
        assert_eq!(gateway.get("/").status, 200);
    }
    let listener = TcpListener::bind(port.address()).expect("the port");
    let one = Service::listen(listener, status(503));
    wait_until(&gateway, one.address, "healthy");
    assert_eq!(shares(&gateway, [&one, &other]), [5, 5]);
    assert_eq!((one.checks(), other.checks()), (0, 0), "it only connects");
}

/// A gateway with a certificate for `one.test`, as an endpoint that speaks HTTP/1 and 2 over TLS.
fn over_tls(authority: &Authority) -> Gateway {
    let leaf = authority.sign("one.test");
    let listener = "listeners: {public: {address: \"127.0.0.1:${PORT}\", tls: {certificates: [{certificate: one.pem, key: one.key}]}}}";
    let routes = "routes: {all: {match: {path: /*}, serve: live}}";
    let plan = Plan::new(routes).section(listener);
    plan.beside("one.pem", &leaf.pem()).beside("one.key", &leaf.key_pem()).start()
}

#[test]
fn checks_go_over_the_tls_and_the_protocol_of_requests() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (good, bad) = (over_tls(&ours), over_tls(&theirs));
    for protocol in ["http1", "h2", "auto"] {
        for check in ["http: {path: /health}", "tcp: {}"] {
            let endpoints = [&good, &bad].map(|gateway| format!("https://{}", gateway.address));
            let rest = format!(
                "protocol: {protocol}, tls: {{server_name: one.test, ca: ca.pem}}, \
                 health: {{{check}, {FAST}}}"
            );
            let plan = Plan::route("").section(&upstream(&endpoints, &rest));
            let gateway = plan.beside("ca.pem", &ours.pem()).start();
            wait_until(&gateway, good.address, "healthy");
            let words = wait_until(&gateway, bad.address, "unhealthy");
            assert!(words.contains("unknown authority"), "{protocol}, {check}: {words}");
            assert_eq!(gateway.get("/").status, 200);
        }
    }
}

#[test]
fn an_endpoint_that_is_new_gets_no_request_before_its_first_pass() {
    let (old, new) = (Service::healthy(), Service::start(Vec::new()));
    let gateway = start(&[&old], "timeout: 10s");
    wait_until(&gateway, old.address, "healthy");
    assert!(gateway.reload_plan(&plan(&[&old, &new], "timeout: 10s")));
    eventually("its first check", || (new.checks() > 0).then_some(()));
    assert_eq!(shown(&gateway, new.address)["state"], "unknown");
    assert_eq!(shares(&gateway, [&old, &new]), [10, 0]);

    new.answer(status(200));
    // The check that hangs fails, and the next one passes.
    for connection in new.state().connections.drain(..) {
        let _ = connection.shutdown(Shutdown::Both);
    }
    wait_until(&gateway, new.address, "healthy");
    assert_eq!(shares(&gateway, [&old, &new]), [5, 5]);
    gateway.wait_for_log(&format!("{} is healthy, a health check passed", new.address));
}

#[test]
fn at_the_start_requests_go_only_where_a_check_has_passed() {
    let (one, silent) = (Service::healthy(), Service::start(Vec::new()));
    let gateway = start(&[&one, &silent], "timeout: 30s");
    assert_eq!(shares(&gateway, [&one, &silent]), [10, 0]);
}

#[test]
fn before_any_check_has_ended_every_endpoint_is_used() {
    let (one, other) = (Service::start(Vec::new()), Service::start(Vec::new()));
    let gateway = start(&[&one, &other], "timeout: 30s");
    assert_eq!(shown(&gateway, one.address)["checks"], 0);
    assert_eq!(shares(&gateway, [&one, &other]), [5, 5]);
}

#[test]
fn when_no_endpoint_is_healthy_all_are_used_and_the_gateway_is_ready() {
    let (one, other) = (Service::start(status(503)), Service::start(status(503)));
    let gateway = start(&[&one, &other], "");
    wait_until(&gateway, one.address, "unhealthy");
    wait_until(&gateway, other.address, "unhealthy");
    assert_eq!(shares(&gateway, [&one, &other]), [5, 5]);
    assert_eq!(gateway.admin(Call::new("GET /readyz")).status, 200);
}

#[test]
fn when_no_endpoint_is_healthy_and_none_may_be_used_the_client_is_told_to_come_back() {
    let (one, other) = (Service::start(status(503)), Service::start(status(503)));
    let urls = [one.url(), other.url()];
    let health = format!("health: {{http: {{path: /health}}, {FAST}}}");
    let refuse = format!("{health}, when_none_available: refuse");
    let gateway = Plan::route("").section(&upstream(&urls, &refuse)).start();
    wait_until(&gateway, one.address, "unhealthy");
    wait_until(&gateway, other.address, "unhealthy");
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "none_available"));
    assert!(refused.retry_after() >= 1);
    assert_eq!(one.requests() + other.requests(), 0);
    gateway.wait_for_log("none of 2 endpoints is available; requests are refused");
    other.state().health = status(200);
    wait_until(&gateway, other.address, "healthy");
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!((one.requests(), other.requests()), (0, 1));
    gateway.wait_for_log("1 of 2 endpoints are available again; only these are used");
}

#[test]
fn a_reload_that_removes_an_endpoint_ends_its_checks_even_while_a_request_is_under_way() {
    let (one, other) = (Service::healthy(), Service::healthy());
    let gateway = start(&[&one, &other], "");
    one.wait_for_checks(2);
    // It keeps the former generation alive.
    other.state().is_holding = true;
    one.state().is_holding = true;
    let mut client = gateway.connect();
    client.send(Call::new("GET /held").bytes());
    eventually("the request", || (one.requests() + other.requests() > 0).then_some(()));

    assert!(gateway.reload_plan(&plan(&[&other], "")));
    // A check that was under way may still arrive.
    other.wait_for_checks(2);
    let before = one.checks();
    other.wait_for_checks(10);
    assert_eq!(one.checks(), before);
}

#[test]
fn a_reload_that_removes_an_upstream_ends_its_checks() {
    let (one, other) = (Service::healthy(), Service::healthy());
    let gateway = start(&[&one], "");
    one.wait_for_checks(2);
    let with_other = plan(&[&other], "").yaml().replace("service", "another");
    assert!(gateway.reload(&with_other));
    other.wait_for_checks(2);
    let before = one.checks();
    other.wait_for_checks(10);
    assert_eq!(one.checks(), before);
}

#[test]
fn a_reload_that_changes_other_settings_keeps_the_verdicts_and_goes_on_checking() {
    let (one, other) = (Service::start(status(503)), Service::healthy());
    let gateway = start(&[&one, &other], "");
    wait_until(&gateway, one.address, "unhealthy");
    let before = shown(&gateway, one.address);
    let changed = plan(&[&one, &other], "").replacing("round_robin", "random");
    assert!(gateway.reload_plan(&changed));
    assert_eq!(shares(&gateway, [&one, &other]), [0, 10]);
    let after = shown(&gateway, one.address);
    assert!(after["checks"].as_u64() >= before["checks"].as_u64(), "{before} {after}");
    assert!(after["for_seconds"].as_f64() > before["for_seconds"].as_f64(), "{before} {after}");
    one.answer(status(200));
    wait_until(&gateway, one.address, "healthy");
    assert!(!gateway.log().contains("is unhealthy, 3 health checks in a row failed: connection"));
    assert_eq!(gateway.log().matches("is unhealthy").count(), 1);
}

#[test]
fn without_health_checks_after_a_reload_every_endpoint_is_used_again() {
    let (one, other) = (Service::start(status(503)), Service::healthy());
    let gateway = start(&[&one, &other], "");
    wait_until(&gateway, one.address, "unhealthy");
    let urls = [one.url(), other.url()];
    let unchecked = Plan::route("").section(&upstream(&urls, "slow_start: 0"));
    assert!(gateway.reload_plan(&unchecked));
    let before = (one.checks(), other.checks());
    assert_eq!(shares(&gateway, [&one, &other]), [5, 5]);
    assert_eq!(shown(&gateway, one.address), serde_json::Value::Null);
    pass(Duration::from_millis(200));
    assert_eq!((one.checks(), other.checks()), before);
}

#[test]
fn checks_that_a_reload_adds_take_out_what_fails_them() {
    let (one, other) = (Service::start(status(503)), Service::healthy());
    let urls = [one.url(), other.url()];
    let gateway = Plan::route("").section(&upstream(&urls, "slow_start: 0")).start();
    assert_eq!(shares(&gateway, [&one, &other]), [5, 5]);
    assert!(gateway.reload_plan(&plan(&[&one, &other], "")));
    assert_eq!(shares(&gateway, [&one, &other]), [0, 10], "checked before it is in force");
}

#[test]
fn an_upstream_with_a_name_is_checked_once_the_name_is_resolved() {
    let service = Service::healthy();
    let url = format!("http://localhost:{}", service.address.port());
    let health = format!("health: {{http: {{path: /health}}, {FAST}}}");
    let gateway = Plan::route("").section(&upstream(&[url], &health)).start();
    wait_until(&gateway, service.address, "healthy");
    let head = service.state().checks[0].to_ascii_lowercase();
    assert!(head.contains(&format!("host: localhost:{}", service.address.port())), "{head}");
}

#[test]
fn the_slow_start_of_an_endpoint_begins_with_its_first_pass() {
    let (old, new) = (Service::healthy(), Service::start(status(503)));
    let rest = |services: &[&Service]| {
        let urls: Vec<_> = services.iter().map(|service| service.url()).collect();
        let health = format!("health: {{http: {{path: /health}}, {FAST}}}");
        Plan::route("").section(&upstream(&urls, &format!("slow_start: 1h, {health}")))
    };
    let gateway = rest(&[&old]).start();
    assert!(gateway.reload_plan(&rest(&[&old, &new])));
    wait_until(&gateway, new.address, "unhealthy");
    new.answer(status(200));
    wait_until(&gateway, new.address, "healthy");
    let gets: usize = (0..10).map(|_| shares(&gateway, [&old, &new])[1]).sum();
    // A tenth of its share is about one of eleven, and its whole share 50.
    assert!((1..30).contains(&gets), "{gets}");
}

fn grpc(upstream: &H2Upstream, health: &str) -> Gateway {
    let url = upstream.url();
    let section = format!(
        "upstreams: {{service: {{endpoints: ['{url}'], protocol: h2c, health: {{grpc: {{{health}}}, {FAST}}}}}}}"
    );
    Plan::route("").section(&section).start()
}

fn address(upstream: &H2Upstream) -> String {
    upstream.url().trim_start_matches("http://").to_owned()
}

#[test]
fn a_grpc_check_calls_the_health_service() {
    let upstream = H2Upstream::always(Reply::grpc(&[8, 1], 0));
    let gateway = grpc(&upstream, "service: a.B");
    assert_eq!(wait_until(&gateway, &*address(&upstream), "healthy"), "passed");
    let call = &upstream.requests()[0];
    assert_eq!((&*call.method, &*call.path), ("POST", "/grpc.health.v1.Health/Check"));
    assert_eq!(call.body, frame(b"\x0a\x03a.B"));
    assert_eq!(call.headers.get("te").map(|te| te.as_bytes()), Some(&b"trailers"[..]));
    assert_eq!(call.authority, address(&upstream));
}

#[test]
fn a_grpc_server_that_does_not_say_serving_is_unhealthy() {
    for (reply, health, state, expected) in [
        (Reply::grpc(&[8, 2], 0), "", "unhealthy", "the server says NOT_SERVING"),
        (Reply::grpc(&[], 0), "", "unhealthy", "the server says UNKNOWN"),
        (Reply::grpc(&[], 14), "", "unhealthy", "grpc-status 14"),
        (Reply::trailers_only(12), "", "unhealthy", "the server has no health service"),
        (Reply::trailers_only(12), "unimplemented: healthy", "healthy", "passed"),
        (
            Reply::trailers_only(5),
            "service: a",
            "unhealthy",
            "the server does not know the service `a`",
        ),
        (Reply::status(404), "", "unhealthy", "status 404 in place of a gRPC response"),
    ] {
        let upstream = H2Upstream::always(reply);
        let gateway = grpc(&upstream, health);
        assert_eq!(wait_until(&gateway, &*address(&upstream), state), expected);
    }
}

#[test]
fn an_http_check_goes_over_http2_where_requests_do() {
    let upstream = H2Upstream::always(Reply::status(200));
    let section = format!(
        "upstreams: {{service: {{endpoints: ['{}'], protocol: h2c, health: {{http: {{path: /health}}, {FAST}}}}}}}",
        upstream.url()
    );
    let gateway = Plan::route("").section(&section).start();
    assert_eq!(wait_until(&gateway, &*address(&upstream), "healthy"), "passed");
    let check = &upstream.requests()[0];
    assert_eq!((&*check.method, &*check.path, check.complete), ("GET", "/health", true));
}

#[test]
fn a_server_of_http1_where_http2_is_configured_is_unhealthy() {
    let upstream = Upstream::start();
    let section = format!(
        "upstreams: {{service: {{endpoints: ['{}'], protocol: h2c, health: {{http: {{path: /health}}, timeout: 300ms, {FAST}}}}}}}",
        upstream.url()
    );
    let gateway = Plan::route("").section(&section).start();
    wait_until(&gateway, upstream.address(), "unhealthy");
}

#[test]
fn checks_need_no_traffic_and_wait_for_no_dead_endpoint() {
    let service = Service::healthy();
    let endpoints = [format!("http://{}", refused_address()), service.url()];
    let health = format!("health: {{http: {{path: /health}}, {FAST}}}");
    let gateway = Plan::route("").section(&upstream(&endpoints, &health)).start();
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200, "the dead one was found before the first request");
    }
}

#[test]
fn checks_leave_no_connection_behind() {
    let (one, other) = (Service::healthy(), H2Upstream::always(Reply::status(200)));
    let checked = |count: usize| {
        eventually("checks of both", || {
            (one.checks() >= count && other.count() >= count).then_some(())
        });
    };
    let yaml = format!(
        "upstreams:\n  service: {{endpoints: ['{}'], health: {{http: {{path: /health}}, {FAST}}}}}\n  \
         other: {{endpoints: ['{}'], protocol: h2c, health: {{http: {{path: /health}}, {FAST}}}}}\n",
        one.url(),
        other.url()
    );
    let gateway = Plan::route("").section(&yaml).start();
    checked(5);
    let before = gateway.descriptors();
    checked(60);
    let after = gateway.descriptors();
    assert!(after < before + 10, "{before} open files, and after 100 more checks {after}");
}
