//! Where attempts go: turns, names, sockets, the dead among the living.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{
    Answer, Call, Gateway, Plan, Upstream, assert_within, eventually, refused_address, timed,
};

const TWO: &str = "
upstreams: {service: {endpoints: ['${A}', '${B}']}}
routes: {all: {match: {path: /*}, upstream: service}}
";

fn two(a: &str, b: &str) -> Plan {
    Plan::new(TWO).env("A", a).env("B", b)
}

#[test]
fn endpoints_take_their_turns() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let turns = TWO.replace("]}", "], balance: round_robin}");
    let gateway = Plan::new(&turns).env("A", &a.url()).env("B", &b.url()).start();
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!((a.count(), b.count()), (5, 5));
}

#[test]
fn an_endpoint_may_be_a_name() {
    let upstream = Upstream::on_localhost();
    let url = format!("http://localhost:{}", upstream.address().port());
    let gateway = Plan::route("").env("UPSTREAM", &url).start();
    for _ in 0..3 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!(upstream.count(), 3);
    let host = upstream.requests()[0].header("host").map(str::to_owned);
    assert_eq!(host, Some(format!("localhost:{}", upstream.address().port())));
}

#[test]
fn a_dead_endpoint_costs_a_retry_and_no_answer() {
    let alive = Upstream::start();
    let retry = "
upstreams: {service: {endpoints: ['${A}', '${B}']}}
routes: {all: {match: {path: /*}, upstream: service, retry: {max_retries: 1, on: [connect_failure]}}}
";
    let dead = format!("http://{}", refused_address());
    let gateway = Plan::new(retry).env("A", &dead).env("B", &alive.url()).start();
    for _ in 0..6 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!(alive.count(), 6);
}

/// Of three endpoints one is dead, and the route has no `retry`.
#[test]
fn an_endpoint_that_cannot_be_connected_to_is_left_for_another_without_a_retry() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let yaml = format!(
        "upstreams: {{service: {{endpoints: ['${{A}}', '${{B}}', 'http://{}'], balance: round_robin}}}}
routes: {{all: {{match: {{path: /*}}, upstream: service}}}}",
        refused_address()
    );
    let gateway = Plan::new(&yaml).env("A", &a.url()).env("B", &b.url()).start();
    for _ in 0..30 {
        assert_eq!(gateway.post("/", "{}").status, 200);
    }
    assert_eq!(a.count() + b.count(), 30);
    let moved = gateway.metric("portcullis_upstream_moves_total", &[("upstream", "service")]);
    assert!(moved >= 5.0, "{moved}");
    gateway.expect_metric("portcullis_retries_total", &[("route", "all")], 0.0);
}

#[test]
fn moving_on_from_dead_endpoints_is_paid_from_the_budget() {
    let alive = Upstream::start();
    let yaml = format!(
        "retry_budgets: {{two: {{token_bucket: {{capacity: 2, refill_per_second: 0.001}}}}}}
upstreams: {{service: {{endpoints: ['${{A}}', 'http://{}'], balance: round_robin, ejection: off}}}}
routes: {{all: {{match: {{path: /*}}, upstream: service, retry: {{max_retries: 0, budget: two}}}}}}",
        refused_address()
    );
    let gateway = Plan::new(&yaml).env("A", &alive.url()).start();
    let statuses: Vec<_> = (0..10).map(|_| gateway.get("/").status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 502).count(), 4, "{statuses:?}");
    assert_eq!(alive.count(), 6);
}

#[test]
fn a_service_may_listen_on_a_unix_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("app.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        for _ in 0..2 {
            let mut head = [0; 4096];
            let read = stream.read(&mut head).expect("a request");
            let head = String::from_utf8_lossy(&head[..read]).to_lowercase();
            assert!(head.contains("host: localhost\r\n"), "{head}");
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("written");
        }
    });
    let yaml = format!(
        "upstreams: {{service: {{endpoints: ['unix:{}']}}}}
routes: {{all: {{match: {{path: /*}}, upstream: service}}}}",
        path.display()
    );
    let gateway = Plan::new(&yaml).start();
    assert_eq!((gateway.get("/").status, gateway.get("/").status), (204, 204));
    server.join().expect("one connection for both");
    std::fs::remove_file(&path).expect("removed");
    let response = gateway.get("/");
    assert_eq!((response.status, response.code().as_str()), (502, "connect_failed"));
}

#[test]
fn an_endpoint_with_all_the_connections_it_may_have_gets_no_more() {
    let upstream = Upstream::script([Answer::hang()]);
    let yaml = "upstreams: {service: {endpoints: ['${UPSTREAM}'], max_connections: 1}}
routes: {all: {match: {path: /*}, upstream: service, timeout: {attempt: 2s}}}";
    let gateway = Plan::new(yaml).env("UPSTREAM", &upstream.url()).start();
    std::thread::scope(|scope| {
        let held = scope.spawn(|| gateway.get("/held").status);
        eventually("the first request is there", || (upstream.count() == 1).then_some(()));
        let response = gateway.get("/");
        assert_eq!((response.status, response.code().as_str()), (503, "endpoints_full"));
        assert_eq!(response.header("retry-after"), Some("1"));
        assert_eq!(held.join().expect("answered"), 504);
    });
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(upstream.count(), 2);
}

#[test]
fn an_upstream_that_refuses_is_502_within_50_milliseconds() {
    let url = format!("http://{}", refused_address());
    let gateway = Plan::route("").env("UPSTREAM", &url).start();
    gateway.get("/warm");
    // The quickest of several: a machine that is busy for a moment is late with some of them.
    let times = (0..5).map(|_| {
        let (response, took) = timed(|| gateway.get("/"));
        assert_eq!((response.status, response.code().as_str()), (502, "connect_refused"));
        took
    });
    assert_within(times.min().expect("five of them"), Duration::from_millis(50));
}

#[test]
fn all_endpoints_dead_is_502() {
    let dead = || format!("http://{}", refused_address());
    let gateway = two(&dead(), &dead()).start();
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status, 502);
    }
}

#[test]
fn an_upstream_that_comes_back_is_used_at_once() {
    let address = refused_address();
    let gateway = Plan::route("").env("UPSTREAM", &format!("http://{address}")).start();
    assert_eq!(gateway.get("/").status, 502);
    let upstream = Upstream::listen(address);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_connection_the_upstream_has_closed_meanwhile_fails_no_get() {
    // At a port that no other test takes meanwhile.
    let upstream = Upstream::listen(refused_address());
    let address = upstream.address();
    let gateway =
        Gateway::route(&upstream, "retry: {max_retries: 1, on: [connect_failure, reset]}");
    assert_eq!(gateway.get("/").status, 200);
    drop(upstream);
    let upstream = Upstream::listen(address);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn connections_to_an_upstream_are_used_again() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    for _ in 0..5 {
        gateway.get("/");
    }
    let connections = upstream.requests().iter().map(|r| r.connection).max();
    assert!(connections < Some(2), "five requests one after the other took {connections:?}");
}

#[test]
fn a_name_that_cannot_be_resolved_is_503_and_stops_nothing_else() {
    let upstream = Upstream::start();
    let yaml = "
upstreams:
  lost: {endpoints: ['http://no-such-host.invalid:80']}
  service: {endpoints: ['${UPSTREAM}']}
routes:
  lost: {match: {path: /lost}, upstream: lost}
  all: {match: {path: /*}, upstream: service}
";
    let gateway = Plan::new(yaml).upstream(&upstream).start();
    let (response, took) = timed(|| gateway.get("/lost"));
    assert_eq!((response.status, response.code().as_str()), (503, "dns"));
    assert!(response.retry_after() >= 1);
    assert_within(took, Duration::from_millis(100));
    assert_eq!(gateway.get("/").status, 200);
    gateway.wait_for_log("no-such-host.invalid");
}

#[test]
fn the_upstream_sees_its_own_host_or_the_clients_as_configured() {
    let upstream = Upstream::start();
    let yaml = "
upstreams:
  service: {endpoints: ['${UPSTREAM}']}
  same: {endpoints: ['${UPSTREAM}'], host_header: client}
routes:
  client: {match: {path: /client}, upstream: same}
  all: {match: {path: /*}, upstream: service}
";
    let gateway = Plan::new(yaml).upstream(&upstream).start();
    gateway.get("/client");
    gateway.get("/endpoint");
    let hosts: Vec<_> =
        upstream.requests().iter().map(|r| r.header("host").map(str::to_owned)).collect();
    assert_eq!(hosts, [Some("gateway.test".to_owned()), Some(upstream.address().to_string())]);
}

#[test]
fn an_answer_that_is_no_http_is_502() {
    let upstream = Upstream::always(Answer::verbatim("SSH-2.0-OpenSSH\r\n\r\n"));
    let gateway = Gateway::route(&upstream, "");
    let response = gateway.get("/");
    assert_eq!(response.status, 502);
    assert!(!response.text().contains("SSH"), "{}", response.text());
}

#[test]
fn an_upstream_that_closes_or_resets_instead_of_answering_is_502() {
    for answer in [Answer::close(), Answer::reset()] {
        let upstream = Upstream::always(answer);
        assert_eq!(Gateway::route(&upstream, "").get("/").status, 502);
        assert_eq!(upstream.count(), 1, "sent once, and not again");
    }
}

#[test]
fn attempts_are_counted_by_what_became_of_them() {
    let upstream = Upstream::script([Answer::reset(), Answer::from(500)]);
    let gateway = Gateway::route(&upstream, "");
    for _ in 0..3 {
        gateway.get("/");
    }
    let attempts =
        |labels: &[(&str, &str)]| gateway.metric("portcullis_upstream_attempts_total", labels);
    eventually("three attempts counted", || {
        (attempts(&[("upstream", "service")]) == 3.0).then_some(())
    });
    for outcome in ["reset", "5xx", "2xx"] {
        assert_eq!(attempts(&[("outcome", outcome)]), 1.0, "{outcome}");
    }
}

/// Answers the first request of each connection, and only those; each further one it reads, and
/// closes the connection. Its address, and of each connection how many requests came in on it.
pub(crate) fn answering_once() -> (std::net::SocketAddr, Arc<Mutex<Vec<usize>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let counted = seen.clone();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            counted.lock().expect("counts").push(0);
            let mut bytes = [0; 4096];
            while let Ok(1..) = connection.read(&mut bytes) {
                let mut counts = counted.lock().expect("counts");
                let count = counts.last_mut().expect("a connection");
                *count += 1;
                if *count > 1 {
                    break;
                }
                drop(counts);
                connection
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .expect("sent");
            }
        }
    });
    (address, seen)
}

#[test]
fn a_connection_lost_in_reuse_has_a_cause_of_its_own_and_costs_only_what_may_not_be_sent_twice() {
    let (address, seen) = answering_once();
    let gateway = Plan::route("").env("UPSTREAM", &format!("http://{address}")).start();
    assert_eq!(gateway.post("/", "").status, 200);
    pooled(&gateway);
    let lost = gateway.post("/", "");
    assert_eq!((lost.status, lost.code().as_str()), (502, "stale_connection"));
    assert_eq!(*seen.lock().expect("counts"), [2], "it is not sent again");
    gateway.wait_for_log("cause=stale_connection");
    for _ in 0..3 {
        assert_eq!(gateway.get("/").status, 200);
        pooled(&gateway);
    }
    assert_eq!(*seen.lock().expect("counts"), [2, 2, 2, 1], "once on a connection that is new");
}

/// A client may have its response before the connection to the upstream is back in the pool.
fn pooled(gateway: &Gateway) {
    eventually("no request is in flight", || {
        (gateway.status()["requests_in_flight"] == 0).then_some(())
    });
}

#[test]
fn an_idle_connection_is_closed_after_4_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let idle = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().expect("a connection");
        assert!(connection.read(&mut [0; 4096]).expect("a request") > 0);
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("sent");
        timed(|| connection.read(&mut [0; 1]).expect("the end"))
    });
    let gateway = Plan::route("").env("UPSTREAM", &format!("http://{address}")).start();
    assert_eq!(gateway.get("/").status, 200);
    let (bytes, took) = idle.join().expect("no panic");
    assert_eq!(bytes, 0);
    assert!((3500..5000).contains(&took.as_millis()), "{took:?}");
}

/// Four endpoints, and requests that are told apart by `key`.
fn by_key(key: &str, path: &str) -> (Vec<Upstream>, Gateway) {
    let upstreams: Vec<_> = (0..4).map(|_| Upstream::start()).collect();
    let urls: Vec<_> = upstreams.iter().map(Upstream::url).collect();
    let yaml = format!(
        "upstreams: {{service: {{endpoints: {urls:?}, balance: {{hash: {{key: {key}}}}}}}}}
routes: {{all: {{match: {{path: {path}}}, upstream: service}}}}"
    );
    (upstreams, Plan::new(&yaml).start())
}

/// Which upstream got all of these calls; several must not.
fn one_got_all(upstreams: &[Upstream], send: impl Fn()) -> usize {
    let before: Vec<_> = upstreams.iter().map(Upstream::count).collect();
    (0..5).for_each(|_| send());
    let got = |(n, upstream): (usize, &Upstream)| upstream.count() == before[n] + 5;
    upstreams.iter().enumerate().position(|(n, upstream)| got((n, upstream))).expect("one got all")
}

#[test]
fn requests_with_one_key_go_to_one_endpoint_and_stay_there_over_a_reload() {
    let (upstreams, gateway) = by_key("{cookie: session}", "/*");
    let send = |user: usize| {
        let call = Call::new("GET /").header("cookie", &format!("a=b; session=user-{user}"));
        assert_eq!(gateway.call(call).status, 200);
    };
    let places: Vec<_> = (0..12).map(|user| one_got_all(&upstreams, || send(user))).collect();
    assert!(places.iter().any(|place| *place != places[0]), "{places:?}");
    gateway.signal("HUP");
    eventually("reloaded", || (gateway.generation() == 2).then_some(()));
    for (user, place) in places.iter().enumerate() {
        assert_eq!(one_got_all(&upstreams, || send(user)), *place);
    }
}

#[test]
fn the_key_may_be_a_parameter_of_the_path() {
    let (upstreams, gateway) = by_key("{path_parameter: id}", "/users/:id/*");
    let send = |user: usize, rest: &str| {
        assert_eq!(gateway.get(&format!("/users/{user}/{rest}")).status, 200);
    };
    let places: Vec<_> =
        (0..12).map(|user| one_got_all(&upstreams, || send(user, "orders"))).collect();
    assert!(places.iter().any(|place| *place != places[0]), "{places:?}");
    for (user, place) in places.iter().enumerate() {
        assert_eq!(one_got_all(&upstreams, || send(user, "carts/7")), *place);
    }
}
