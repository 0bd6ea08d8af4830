//! HAProxy and NGINX as endpoints of one upstream: what they do to their connections, and to their
//! workers, costs no request.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{
    Call, Client, Ending, Gateway, Load, Plan, Response, Server, Upstream, at_once, eventually,
};

/// Both before one upstream, and a gateway before both.
struct Fleet {
    behind: Upstream,
    nginx: Server,
    haproxy: Server,
    gateway: Gateway,
}

fn fleet(route: &str) -> Option<Fleet> {
    let behind = Upstream::start();
    let (nginx, haproxy) = (Server::nginx(behind.address())?, Server::haproxy(behind.address())?);
    let health = "{http: {path: /health}, interval: 50ms, fast_interval: 20ms}";
    let yaml = format!(
        "
upstreams:
  service:
    endpoints: ['${{NGINX}}', '${{HAPROXY}}']
    balance: round_robin
    health: {health}
routes: {{all: {{match: {{path: /*}}, upstream: service, {route}}}}}
"
    );
    let plan = Plan::new(&yaml).env("NGINX", &nginx.url()).env("HAPROXY", &haproxy.url());
    let gateway = plan.start();
    let fleet = Fleet { behind, nginx, haproxy, gateway };
    fleet.wait_for(&fleet.nginx, "healthy");
    fleet.wait_for(&fleet.haproxy, "healthy");
    Some(fleet)
}

impl Fleet {
    /// Waits until its health checks say so.
    #[track_caller]
    fn wait_for(&self, server: &Server, state: &str) {
        let address = server.address().to_string();
        eventually(&format!("{address} that is {state}"), || {
            let status = self.gateway.status();
            let all = status["upstreams"]["service"]["endpoints"].as_array()?;
            let one = all.iter().find(|endpoint| endpoint["address"] == *address)?;
            (one["health"]["state"] == state).then_some(())
        });
    }

    /// Until a request was answered by it.
    #[track_caller]
    fn wait_to_be_served_by(&self, name: &str) {
        eventually(&format!("a response of {name}"), || {
            let response = self.gateway.get("/");
            assert_eq!(response.status, 200, "{}", response.text());
            (server(&response) == name).then_some(())
        });
    }
}

fn server(response: &Response) -> String {
    response.header("x-server").unwrap_or_default().to_owned()
}

#[test]
fn bodies_arrive_whole_and_connections_are_used_again() {
    let Some(fleet) = fleet("") else { return };
    let large = "0123456789".repeat(20_000);
    let chunked = Call::new("POST /chunked").header("Transfer-Encoding", "chunked");
    let chunked = chunked.body("5\r\nhello\r\n6\r\n again\r\n0\r\n\r\n");
    let mut client = fleet.gateway.connect();
    let mut servers = Vec::new();
    for _ in 0..10 {
        let calls = [
            (Call::new("POST /small").body("a small body"), "a small body"),
            (Call::new("POST /large").body(&large), large.as_str()),
            (chunked.clone(), "hello again"),
        ];
        for (call, body) in calls {
            let response = client.call(&call);
            assert_eq!(response.status, 200, "{}", response.text());
            servers.push(server(&response));
            let received = fleet.behind.requests().pop().expect("a request");
            assert!(received.body == body.as_bytes(), "{}", received.target);
        }
    }
    let of = |name: &str| servers.iter().filter(|server| *server == name).count();
    assert_eq!((of("nginx"), of("haproxy")), (15, 15));
    // One after the other, so one connection to each would do. The gateway may have the response before
    // the connection is back in its pool.
    let labels = [("upstream", "service")];
    let connects = fleet.gateway.metric("portcullis_upstream_connects_total", &labels);
    assert!((2.0..=6.0).contains(&connects), "{connects}");
}

/// Under load: requests without a body, and such with one.
#[test]
fn a_reload_and_a_kill_of_nginx_cost_no_request_with_retries() {
    let retry = "retry: {max_retries: 2, methods: any, budget: unlimited, backoff: {base: 1ms}}";
    let Some(mut fleet) = fleet(retry) else { return };
    let address = fleet.gateway.address;
    let load = Load::paced(address, 3, "servers", Duration::from_millis(5));
    let (stop, posted) = (AtomicBool::new(false), AtomicUsize::new(0));
    let body = "0123456789".repeat(500);
    std::thread::scope(|scope| {
        // However the test ends, the clients end.
        let _stop = Stop(&stop);
        for _ in 0..2 {
            scope.spawn(|| post(address, &body, &stop, &posted));
        }
        let go_on = || {
            let before = (load.answers(), posted.load(Ordering::Relaxed));
            eventually("more answers", || {
                let now = (load.answers(), posted.load(Ordering::Relaxed));
                (now.0 > before.0 + 50 && now.1 > before.1 + 50).then_some(())
            });
        };
        go_on();
        for round in 1..=3 {
            fleet.nginx.signal("HUP");
            eventually("other workers", || {
                let ended = fleet.nginx.log().matches("gracefully shutting down").count();
                (ended >= 2 * round).then_some(())
            });
            go_on();
        }
        fleet.wait_to_be_served_by("nginx");

        fleet.nginx.kill();
        fleet.wait_for(&fleet.nginx, "unhealthy");
        go_on();
        fleet.nginx.restart();
        fleet.wait_for(&fleet.nginx, "healthy");
        fleet.wait_to_be_served_by("nginx");
        go_on();

        // The other one, too: neither holds what the first has lost.
        fleet.haproxy.kill();
        fleet.wait_for(&fleet.haproxy, "unhealthy");
        go_on();
        fleet.haproxy.restart();
        fleet.wait_for(&fleet.haproxy, "healthy");
        fleet.wait_to_be_served_by("haproxy");
    });
    let answered = load.finish();
    let failed: Vec<_> = answered.iter().filter(|answer| answer.status != 200).collect();
    assert!(failed.is_empty(), "{failed:?}");
    println!(
        "{} requests without a body, {} with one; none failed",
        answered.len(),
        posted.load(Ordering::Relaxed)
    );
}

/// Posts until it is to stop. Each must be answered.
fn post(address: std::net::SocketAddr, body: &str, stop: &AtomicBool, posted: &AtomicUsize) {
    let mut client = Client::connect(address);
    let call = Call::new("POST /").body(body);
    while !stop.load(Ordering::Relaxed) {
        let response = client.call(&call);
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.ending, Ending::Complete);
        posted.fetch_add(1, Ordering::Relaxed);
        crate::support::pass(Duration::from_millis(5));
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// NGINX closes a connection after so many requests; HAProxy after a time. Many at once meet both.
#[test]
fn connections_that_the_server_closes_cost_no_request() {
    let Some(fleet) = fleet("") else { return };
    at_once(0..4, |_| {
        let mut client = fleet.gateway.connect();
        for _ in 0..300 {
            let response = client.call(&"GET /".into());
            assert_eq!((response.status, response.ending), (200, Ending::Complete));
        }
    });
}
