//! Descriptors run out: what clients and upstreams may take, and what is kept.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::{
    Answer, Call, Client, Gateway, H2Client, Plan, Port, Upstream, eventually, request, timed,
};

/// Longer than any of this takes, and shorter than a probe's patience is on a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);

/// As many connections as that without a word; most of them are closed by the other side.
fn crowd(address: SocketAddr, size: usize) -> Vec<TcpStream> {
    (0..size).map(|_| TcpStream::connect(address).expect("a connection")).collect()
}

#[track_caller]
fn assert_administrable(gateway: &Gateway) {
    for path in ["/livez", "/readyz", "/metrics", "/livez"] {
        let (answer, took) = timed(|| gateway.admin(Call::new(&format!("GET {path}"))));
        assert_eq!(answer.status, 200, "{path}");
        assert!(took < PATIENCE, "{path} took {took:?}");
    }
}

fn answers(gateway: &Gateway) -> bool {
    let Some(mut client) = Client::try_connect(gateway.address) else { return false };
    let sent = client.try_send(Call::new("GET /").bytes());
    sent.and_then(|()| client.try_receive("GET")).is_ok_and(|answer| answer.status == 200)
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("portcullis_connections_refused_total", &[("reason", reason)])
}

#[test]
fn more_clients_than_descriptors_hold_up_neither_probes_nor_those_who_came_first() {
    let upstream = Upstream::start();
    let gateway = Plan::route("").upstream(&upstream).limited("ulimit -n 128").start();
    gateway.wait_for_log("raise the hard limit");
    let mut early = gateway.connect();
    assert_eq!(early.call(&"GET /".into()).status, 200);
    let crowd = crowd(gateway.address, 400);
    assert_administrable(&gateway);
    eventually("every connection taken or closed", || {
        let open = gateway.metric("portcullis_connections", &[]);
        (open + refused(&gateway, "server") >= 401.0).then_some(())
    });
    let most = gateway.metric("portcullis_connections_max", &[]);
    assert_eq!(most, 32.0, "one half of what is left beside the reserve");
    gateway.expect_metric("portcullis_connections", &[], most);
    assert_eq!(early.call(&"GET /".into()).status, 200, "with a connection to its upstream");
    assert_administrable(&gateway);
    assert!(!gateway.log().contains("Too many open files"));
    drop(crowd);
    eventually("an answer once they have left", || answers(&gateway).then_some(()));
}

#[test]
fn a_thousand_clients_that_all_ask_are_served_or_closed_and_leave_the_gateway_well() {
    let upstream = Upstream::always(Answer::ok().after(Duration::from_millis(20)));
    let gateway = Plan::route("").upstream(&upstream).limited("ulimit -n 128").start();
    for round in 0..2 {
        let call = Call::new("GET /").bytes();
        let clients = (0..1000).filter_map(|_| Client::try_connect(gateway.address));
        let mut clients: Vec<_> = clients.collect();
        assert!(clients.len() > 900, "the kernel takes them: {}", clients.len());
        for client in &mut clients {
            // Fails where the connection has been closed already.
            let _ = client.try_send(&call);
        }
        assert_administrable(&gateway);
        let answers: Vec<_> = clients.iter_mut().map(|client| client.try_receive("GET")).collect();
        let served = answers.iter().flatten().filter(|answer| answer.status == 200).count();
        assert!(served >= 16, "{served} are served in round {round}");
        for answer in answers.into_iter().flatten() {
            assert!([200, 502, 503].contains(&answer.status), "{answer:?}");
        }
        assert_administrable(&gateway);
        drop(clients);
        eventually("an answer once they have left", || self::answers(&gateway).then_some(()));
    }
    assert!(!gateway.log().contains("Too many open files"), "{}", gateway.log());
}

#[test]
fn a_burst_of_refused_connections_is_one_line_of_the_log() {
    let upstream = Upstream::start();
    let gateway = Plan::route("").upstream(&upstream).limited("ulimit -n 128").start();
    let _crowd = crowd(gateway.address, 300);
    eventually("refusals", || (refused(&gateway, "server") >= 268.0).then_some(()));
    gateway.wait_for_log("connections are closed on arrival");
    assert_eq!(gateway.log().matches("closed on arrival").count(), 1, "{}", gateway.log());
}

#[test]
fn streams_that_need_a_connection_each_leave_descriptors_to_the_admin_listener() {
    let upstream = Upstream::always(Answer::ok().held());
    let gateway = Plan::route("").upstream(&upstream).limited("ulimit -n 128").start();
    let client = H2Client::connect(gateway.address);
    let mut streams: Vec<_> = (0..100)
        .map(|_| client.open(request("GET", "/").body(()).expect("a request"), true))
        .collect();
    // What is refused is answered; the others wait for the upstream.
    eventually("a stream for which there is no connection", || {
        (gateway.metric("portcullis_rejections_total", &[("route", "all")]) >= 1.0).then_some(())
    });
    assert_administrable(&gateway);
    let waiting = upstream.wait_for(32).len();
    assert!(waiting < 96, "{waiting} connections to the upstream");
    upstream.release();
    let statuses: Vec<u16> = streams.iter_mut().map(|s| s.head().status().as_u16()).collect();
    assert!(statuses.contains(&200) && statuses.iter().all(|s| [200, 502, 503].contains(s)));
    assert!(!gateway.log().contains("Too many open files"));
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let upstream = Upstream::start();
    let limits = "ulimit -Sn 64 && ulimit -Hn 2048";
    let gateway = Plan::route("").upstream(&upstream).limited(limits).start();
    gateway.expect_metric("process_max_fds", &[], 2048.0);
    gateway.expect_metric("portcullis_connections_max", &[], 922.0);
    gateway.wait_for_log("at most 922 client connections");
    let crowd = crowd(gateway.address, 200);
    eventually("all of them", || {
        (gateway.metric("portcullis_connections", &[]) == 200.0).then_some(())
    });
    drop(crowd);
}

#[test]
fn all_listeners_together_hold_as_many_connections_as_the_server_may() {
    let upstream = Upstream::start();
    let other = Port::reserve();
    let sections = format!(
        "server: {{threads: 2, drain_timeout: 5s, max_connections: 3}}\n\
         listeners: {{public: {{address: '127.0.0.1:${{PORT}}'}}, other: {{address: '{}'}}}}",
        other.address()
    );
    let gateway = Plan::route("").section(&sections).upstream(&upstream).start();
    // Its own, by which it learns that it listens.
    eventually("its own connections to be over", || {
        (gateway.metric("portcullis_connections", &[]) == 0.0).then_some(())
    });
    let before = refused(&gateway, "server");
    let mut clients = [gateway.address, other.address(), other.address()].map(Client::connect);
    for client in &mut clients {
        assert_eq!(client.call(&"GET /".into()).status, 200);
    }
    for address in [gateway.address, other.address()] {
        assert!(Client::connect(address).is_closed());
    }
    assert_eq!(refused(&gateway, "server") - before, 2.0);
    assert_eq!(upstream.count(), 3);
    drop(clients);
    eventually("room for another", || answers(&gateway).then_some(()));
}
