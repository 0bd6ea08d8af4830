//! Many connections: what idle ones cost, on both sides, and what is left when they have gone.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{Answer, Call, Client, Gateway, Plan, Upstream, eventually};

/// Connections of a kind.
const CROWD: usize = 1000;
const KIB: u64 = 1024;

fn connects(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_upstream_connects_total", &[("upstream", "service")])
}

/// One request of each client, all of them at once.
fn round(clients: &mut [Client]) {
    let call = Call::new("GET /").bytes();
    clients.iter_mut().for_each(|client| client.send(&call));
    for client in clients {
        assert_eq!(client.receive().status, 200);
    }
}

#[test]
fn a_connection_to_the_upstream_is_kept_for_every_client() {
    // Long enough for all to be under way at once.
    let upstream = Upstream::always(Answer::ok().after(Duration::from_secs(1)));
    let gateway = Gateway::route(&upstream, "");
    let mut clients: Vec<_> = (0..400).map(|_| gateway.connect()).collect();
    for _ in 0..3 {
        round(&mut clients);
    }
    assert_eq!(upstream.count(), 1200);
    let connects = connects(&gateway);
    assert!((1.0..=400.0).contains(&connects), "{connects} connections for 400 clients");
}

#[test]
fn the_pool_keeps_as_many_as_the_operator_wants_and_the_start_says_they_are_few() {
    let upstream = Upstream::always(Answer::ok().after(Duration::from_secs(1)));
    let server = "server: {threads: 2, drain_timeout: 5s, upstream_pool: 4}";
    let gateway = Plan::route("").section(server).upstream(&upstream).start();
    gateway.wait_for_log("server.upstream_pool: 4 idle connections are kept for");
    let before = gateway.descriptors();
    let mut clients: Vec<_> = (0..40).map(|_| gateway.connect()).collect();
    round(&mut clients);
    eventually("only four to be kept", || {
        (gateway.descriptors() <= before + clients.len() + 4 + 2).then_some(())
    });
    assert!(connects(&gateway) > 4.0);
}

#[test]
fn check_tells_a_pool_that_the_limit_of_open_files_has_no_room_for() {
    let directory = tempfile::tempdir().expect("a directory");
    for (pool, about) in [
        (100_000_000_000_u64, "warning: server.upstream_pool: no more than "),
        (1, "warning: server.upstream_pool: 1 idle connections are kept for "),
    ] {
        let listeners = "listeners: {public: {address: '127.0.0.1:0'}}";
        let yaml = format!("server: {{upstream_pool: {pool}}}\n{listeners}\nroutes: {{}}\n");
        std::fs::write(directory.path().join("c.yaml"), yaml).expect("a configuration");
        let checked = Gateway::finish(&["check", "-c", "c.yaml"], directory.path(), &[]);
        assert!(checked.stderr.contains(about), "{}", checked.stderr);
        assert_eq!(checked.code, Some(0), "it starts all the same");
    }
}

/// A thousand connections that `begin` brings to rest: none of them holds more than `most` KiB, and
/// all of it is given back when they have left.
#[track_caller]
fn assert_cheap(most: u64, begin: impl Fn(&mut TcpStream)) {
    let upstream = Upstream::start();
    let server = "server: {threads: 2, drain_timeout: 5s, upstream_pool: 8}";
    let gateway = Plan::route("").section(server).upstream(&upstream).start();
    // What the first request brings with it is not a connection's.
    for _ in 0..20 {
        assert_eq!(gateway.get("/").status, 200);
    }
    let before = gateway.memory("VmRSS");
    let mut crowd: Vec<_> =
        (0..CROWD).map(|_| TcpStream::connect(gateway.address).expect("a connection")).collect();
    crowd.iter_mut().for_each(begin);
    eventually("all of them", || {
        (gateway.metric("portcullis_connections", &[]) >= CROWD as f64).then_some(())
    });
    let each = gateway.memory("VmRSS").saturating_sub(before) / CROWD as u64;
    assert!(each <= most * KIB, "{each} bytes for each idle connection");
    drop(crowd);
    // Rest: what the allocator keeps at hand for each thread and size.
    let rest = before + 8 * KIB * KIB;
    eventually("the memory back", || (gateway.memory("VmRSS") <= rest).then_some(()));
}

#[test]
fn a_silent_connection_is_cheap() {
    assert_cheap(16, |_| {});
}

#[test]
fn a_connection_between_two_requests_is_cheap() {
    assert_cheap(16, |client| {
        client.write_all(&Call::new("GET /").bytes()).expect("room");
        let mut answer = [0; 4096];
        assert!(client.read(&mut answer).expect("an answer") > 0);
    });
}

#[test]
fn a_connection_with_half_a_head_is_cheap() {
    assert_cheap(16, |client| {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Ag").expect("room");
    });
}

#[test]
fn a_connection_of_http_2_without_streams_is_cheap() {
    // For debug builds, which hold more. What a release build takes, and the aim of 16, is in
    // `bench/README.md`.
    assert_cheap(32, |client| {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        client.write_all(preface).expect("room");
        client.read_exact(&mut [0; 9]).expect("its settings");
    });
}

/// The timer of each open connection from here to this port: what it is for, and how many hundredths of a
/// second are left (`tr tm->when` in proc_pid_net(5)).
fn timers(port: u16) -> Vec<(String, u64)> {
    let connections = std::fs::read_to_string("/proc/net/tcp").expect("the connections in /proc");
    let remote = format!(":{port:04X}");
    let lines = connections.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let open = lines.filter(|fields| fields[2].ends_with(&remote) && fields[3] == "01");
    let timer = |fields: Vec<&str>| {
        let (kind, left) = fields[5].split_once(':').expect("a timer");
        (kind.to_owned(), u64::from_str_radix(left, 16).expect("a number"))
    };
    open.map(timer).collect()
}

#[test]
fn an_idle_connection_to_an_upstream_is_probed_after_tcp_keepalive_or_not_at_all() {
    for (keys, after) in
        [("", Some(30)), (", tcp_keepalive: 5s", Some(5)), (", tcp_keepalive: 0s", None)]
    {
        let upstream = Upstream::start();
        let url = upstream.url();
        let service =
            format!("upstreams: {{service: {{endpoints: ['{url}'], idle_timeout: 1m{keys}}}}}");
        let gateway = Plan::route("").section(&service).start();
        assert_eq!(gateway.get("/").status, 200);
        let (kind, left) = eventually("a connection on which nothing is under way", || {
            // 01: something is to be acknowledged, and the timer is for that.
            timers(upstream.address().port()).pop().filter(|(kind, _)| kind != "01")
        });
        match after {
            // 02: the next probe. It would be in two hours if only the option were set.
            Some(after) => assert!(kind == "02" && left <= (after + 1) * 100, "{kind}: {left}"),
            None => assert_eq!(kind, "00", "no timer"),
        }
    }
}
