//! Clients told apart by their address alone: how many connections one may hold, and which networks
//! may connect, or use a route.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{
    Call, Gateway, H2Client, H2Upstream, Plan, Reply, Upstream, eventually, frame, request, wait,
};

/// The beginning of HTTP/2, with empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const TRUSTED: &str = "client_address: {trusted_proxies: [127.0.0.0/8]}\n\
                       access_log: {keep: {success: 100%}}";

fn listener(keys: &str) -> String {
    format!("listeners: {{public: {{address: \"127.0.0.1:${{PORT}}\", {keys}}}}}")
}

fn gateway(upstream: &Upstream, keys: &str) -> Gateway {
    let plan = Plan::route("").section(&listener(keys));
    plan.section("access_log: {keep: {success: 100%}}").upstream(upstream).start()
}

/// A connection from another address of this machine.
fn connect_from(own: &str, address: SocketAddr) -> TcpStream {
    wait("a connection", async {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(own.parse().expect("an address"), 0)).expect("an own address");
        socket.connect(address).await.expect("the gateway accepts")
    })
}

/// The first line of the answer to a request over it; empty if the connection is closed.
fn ask(stream: &mut TcpStream) -> String {
    wait("an answer", async {
        let mut answer = vec![0; 64 * 1024];
        let sent = stream.write_all(&Call::new("GET /").bytes()).await;
        let read = if sent.is_ok() { stream.read(&mut answer).await.unwrap_or(0) } else { 0 };
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        answer.lines().next().unwrap_or_default().to_owned()
    })
}

fn answers(own: &str, gateway: &Gateway) -> bool {
    ask(&mut connect_from(own, gateway.address)).starts_with("HTTP/1.1 200")
}

/// A PROXY header for a client with this address.
fn announce(address: &str) -> String {
    format!("PROXY TCP6 {address} ::1 44364 443\r\n")
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("portcullis_connections_refused_total", &[("reason", reason)])
}

#[test]
fn an_address_that_takes_all_it_may_keeps_no_other_out() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "max_connections_per_address: 20");
    let mut held: Vec<_> = (0..20).map(|_| gateway.connect()).collect();
    for client in &mut held {
        assert_eq!(client.call(&"GET /".into()).status, 200);
    }
    // It goes on and on.
    for _ in 0..300 {
        assert!(gateway.connect().is_closed());
    }
    assert_eq!(refused(&gateway, "address"), 300.0);
    assert!(answers("127.0.0.2", &gateway), "another address");
    let open = gateway.metric("portcullis_connections", &[]);
    assert!(open <= 21.0, "{open}");
    assert_eq!(held[0].call(&"GET /".into()).status, 200, "who came first is served on");
    let log = gateway.log();
    let lines = log.matches("max_connections_per_address: 127.0.0.1 has all 20 open").count();
    assert_eq!(lines, 1, "{log}");
    let lines = gateway.wait_for_access_lines(22).len();
    assert_eq!(lines, 22, "refused connections have no line each");
    drop(held);
    eventually("room for it again", || answers("127.0.0.1", &gateway).then_some(()));
}

#[test]
fn places_of_an_address_are_given_back_however_its_connections_end() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "max_connections_per_address: 1, header_timeout: 2s");
    // An answer and an orderly end, an answer and a reset, nothing, half a head, a late one.
    for round in 0..5 {
        let mut client = eventually("the place of the connection before", || {
            let before = refused(&gateway, "address");
            let mut client = gateway.connect();
            if round < 2 {
                client.try_send(Call::new("GET /").bytes()).ok()?;
                client.try_receive("GET").ok()?;
            } else if round > 2 {
                client.try_send("GET / HT").ok()?;
            }
            // It is counted: the next one is closed, and it is not.
            let mut next = gateway.connect();
            let is_counted = next.is_closed() && client.is_open();
            (is_counted && refused(&gateway, "address") > before).then_some(client)
        });
        match round {
            1 => client.vanish(),
            4 => assert!(client.is_closed(), "its head is late"),
            _ => drop(client),
        }
    }
    eventually("the last place", || {
        let mut client = gateway.connect();
        client.try_send(PREFACE).ok()?;
        // The gateway's own settings: it is served, and not closed.
        let mut first = [0; 9];
        client.try_read(&mut first).ok()?;
        (first[3] == 4).then_some(())
    });
    eventually("the place of HTTP/2", || answers("127.0.0.1", &gateway).then_some(()));
}

#[test]
fn announced_addresses_are_counted_and_not_their_balancers() {
    let upstream = Upstream::start();
    let keys = "max_connections_per_address: 2, proxy_protocol: {from: [127.0.0.1]}";
    let gateway = gateway(&upstream, keys);
    let connect = |address: &str| {
        let mut client = gateway.connect();
        client.send(announce(address));
        client
    };
    // A /64 network is one address.
    let mut held = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(connect);
    for client in &mut held {
        assert_eq!(client.call(&"GET /".into()).status, 200);
    }
    assert!(connect("2001:db8::3").is_closed());
    assert_eq!(refused(&gateway, "address"), 1.0);
    assert_eq!(connect("2001:db8:0:1::2").call(&"GET /".into()).status, 200);
    // Of clients that the balancer does not know, and of itself, there are as many as it likes.
    let headers = ["PROXY UNKNOWN\r\n"; 5];
    let unknown: Vec<_> = headers
        .iter()
        .map(|header| {
            let mut client = gateway.connect();
            client.send(header);
            assert_eq!(client.call(&"GET /".into()).status, 200);
            client
        })
        .collect();
    assert_eq!(unknown.len(), 5);
    drop(held);
    eventually("a place of the announced address", || {
        let mut client = connect("2001:db8::3");
        client.try_send(Call::new("GET /").bytes()).ok()?;
        client.try_receive("GET").ok().filter(|answer| answer.status == 200)
    });
}

#[test]
fn a_listener_lets_in_whom_its_networks_allow_and_deny_wins() {
    let upstream = Upstream::start();
    let keys = "networks: {allow: [127.0.0.0/8], deny: [127.0.0.3, 127.1.0.0/16]}";
    let gateway = gateway(&upstream, keys);
    for (own, may) in [
        ("127.0.0.1", true),
        ("127.0.0.2", true),
        ("127.0.0.3", false),
        ("127.1.2.3", false),
        ("127.2.0.0", true),
    ] {
        assert_eq!(answers(own, &gateway), may, "{own}");
    }
    assert_eq!(refused(&gateway, "network"), 2.0);
    assert_eq!(upstream.count(), 3);
    gateway.wait_for_log("listeners.public.networks: 127.0.0.3: the address is in `networks.deny`");
}

#[test]
fn a_listeners_networks_judge_announced_clients_and_never_a_balancers_own_checks() {
    let upstream = Upstream::start();
    let keys = "networks: {allow: ['2001:db8::/32']}, proxy_protocol: {from: [127.0.0.1]}";
    let gateway = gateway(&upstream, keys);
    let connect = |header: &[u8]| {
        let mut client = gateway.connect();
        client.send(header);
        client
    };
    let status = |header: &[u8]| connect(header).call(&"GET /".into()).status;
    assert_eq!(status(announce("2001:db8::1").as_bytes()), 200);
    assert!(connect(announce("2001:db9::1").as_bytes()).is_closed());
    // LOCAL of version 2: a health check.
    assert_eq!(status(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"), 200);
    assert_eq!(status(b"PROXY TCP4 127.0.0.1 127.0.0.1 44364 443\r\n"), 200, "as HAProxy checks");
    // A client that is not known is not known to be allowed.
    assert!(connect(b"PROXY UNKNOWN\r\n").is_closed());
    assert_eq!(refused(&gateway, "network"), 2.0);
}

/// What a balancer sends for a client that it does not know: `UNKNOWN`, no family, a Unix socket.
fn unknown_clients() -> [Vec<u8>; 4] {
    let v2 = |rest: &[u8]| [b"\r\n\r\n\0\r\nQUIT\n\x21", rest].concat();
    let unix = v2(&[&[0x31, 0, 216][..], &[b'/'; 216]].concat());
    [b"PROXY UNKNOWN\r\n".to_vec(), v2(&[0, 0, 0]), v2(&[0, 0, 3, 9, 9, 9]), unix]
}

/// `LOCAL` of version 2, and what HAProxy sends for its own checks in version 1.
const BALANCERS_OWN: [&[u8]; 2] =
    [b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", b"PROXY TCP4 127.0.0.1 127.0.0.1 44364 443\r\n"];

#[test]
fn a_listener_that_allows_a_balancer_does_not_let_in_whom_the_balancer_does_not_know() {
    let upstream = Upstream::start();
    let keys = "networks: {allow: [127.0.0.1]}, proxy_protocol: {from: [127.0.0.1]}";
    let gateway = gateway(&upstream, keys);
    for header in unknown_clients() {
        let mut client = gateway.connect();
        client.send(&header);
        assert!(client.is_closed(), "{header:?}");
    }
    assert_eq!(refused(&gateway, "network"), 4.0);
    gateway.wait_for_log("listeners.public.networks: 127.0.0.1: the client's address is not known");
    for header in BALANCERS_OWN {
        let mut client = gateway.connect();
        client.send(header);
        assert_eq!(client.call(&"GET /".into()).status, 200, "a check of its own");
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_route_that_allows_a_balancer_refuses_whom_the_balancer_does_not_know() {
    let upstream = Upstream::start();
    let listener = listener("proxy_protocol: {from: [127.0.0.1]}");
    let plan = Plan::route("networks: {allow: [127.0.0.0/8]}").section(&listener);
    let gateway = plan.section(TRUSTED).upstream(&upstream).start();
    let ask = |header: &[u8], call: &Call| {
        let mut client = gateway.connect();
        client.send(header);
        client.call(call)
    };
    let plain = Call::new("GET /");
    let claims = Call::new("GET /").header("X-Forwarded-For", "127.0.0.9");
    for header in unknown_clients() {
        for call in [&plain, &claims] {
            let refused = ask(&header, call);
            assert_eq!((refused.status, refused.code().as_str()), (403, "address_denied"));
        }
    }
    assert_eq!(upstream.count(), 0);
    for header in BALANCERS_OWN {
        assert_eq!(ask(header, &plain).status, 200, "a check of its own");
    }
}

#[test]
fn networks_of_a_listener_that_are_not_enforced_count_and_close_nothing() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "networks: {allow: [10.0.0.0/8], enforce: false}");
    assert_eq!(gateway.get("/").status, 200);
    assert!(gateway.metric("portcullis_connections_would_refuse_total", &[]) >= 1.0);
    assert_eq!(refused(&gateway, "network"), 0.0);
}

fn route(networks: &str, upstream: &Upstream) -> Gateway {
    let policies = format!("networks: {networks}");
    Plan::route(&policies).section(TRUSTED).upstream(upstream).start()
}

fn from(gateway: &Gateway, address: &str) -> u16 {
    gateway.call(Call::new("GET /").header("X-Forwarded-For", address)).status
}

#[test]
fn a_route_refuses_clients_by_the_address_that_trusted_proxies_tell() {
    let upstream = Upstream::start();
    let gateway = route("{allow: [192.0.2.0/24, '2001:db8::/32'], deny: [192.0.2.66]}", &upstream);
    for (address, status) in [
        ("192.0.2.7", 200),
        ("192.0.2.66", 403),
        ("198.51.100.7", 403),
        ("2001:db8::7", 200),
        ("::ffff:192.0.2.7", 200),
        // Only what trusted proxies wrote is believed.
        ("192.0.2.7, 198.51.100.7", 403),
    ] {
        assert_eq!(from(&gateway, address), status, "{address}");
    }
    assert_eq!(upstream.count(), 3);
    let labels = [("route", "all"), ("code", "address_denied")];
    let refused = || gateway.metric("portcullis_rejections_total", &labels);
    eventually("three refusals", || (refused() == 3.0).then_some(()));
}

#[test]
fn bytes_that_are_no_text_do_not_make_a_client_the_proxy_that_relays_it() {
    let upstream = Upstream::start();
    let ask = |gateway: &Gateway, forwarded: &[u8]| {
        let mut client = gateway.connect();
        let head = b"GET / HTTP/1.1\r\nHost: gateway.test\r\nX-Forwarded-For: ";
        client.send([head, forwarded, b"\r\n\r\n"].concat());
        client.receive().status
    };
    let proxies = route("{allow: [127.0.0.0/8]}", &upstream);
    assert_eq!(ask(&proxies, b"\xff, 203.0.113.9"), 403);
    assert_eq!(ask(&proxies, b"\xff\r\nX-Forwarded-For: 203.0.113.9, 127.0.0.5"), 403);
    assert_eq!(upstream.count(), 0);
    let clients = route("{allow: [203.0.113.9]}", &upstream);
    assert_eq!(ask(&clients, b"\xff, 203.0.113.9"), 200);
    // The upstream is not told either that the client is the proxy.
    let told = upstream.only();
    let told = told.header("x-forwarded-for").expect("a list");
    assert!(told.ends_with(", 203.0.113.9, 127.0.0.1"), "{told}");
}

#[test]
fn an_untrusted_client_cannot_choose_its_address() {
    let upstream = Upstream::start();
    let gateway = Plan::route("networks: {allow: [192.0.2.0/24]}").upstream(&upstream).start();
    let refused = gateway.call(Call::new("GET /").header("X-Forwarded-For", "192.0.2.7"));
    assert_eq!((refused.status, refused.code().as_str()), (403, "address_denied"));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_refused_address_is_told_in_its_own_protocol() {
    let upstream = H2Upstream::always(Reply::grpc(b"ok", 0));
    let gateway = Plan::route("networks: {deny: [127.0.0.0/8]}").h2_upstream(&upstream).start();
    let call = request("POST", "/pkg.Service/Call").header("content-type", "application/grpc");
    let message = frame(b"x");
    let call = call.header("te", "trailers").body(&message[..]).expect("a request");
    let refused = H2Client::connect(gateway.address).call(call);
    assert_eq!((refused.status, refused.status_field("grpc-status")), (200, Some("7")));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn an_address_is_judged_before_floods_and_credentials_are() {
    let upstream = Upstream::start();
    let keys =
        "auth: {partners: {api_key: {header: X-Api-Key, keys: {acme: acme-key-0123456789}}}}";
    let policies = "networks: {deny: [127.0.0.1]}\nauth: {require: partners}";
    let guard = "flood_guard: {requests: 1, per: 1h}";
    let plan = Plan::route(policies).section(&format!("{keys}\n{guard}"));
    let gateway = plan.upstream(&upstream).start();
    assert_eq!([(); 3].map(|()| gateway.get("/").status), [403; 3]);
}

#[test]
fn networks_of_a_route_that_are_not_enforced_count_what_they_would_refuse() {
    let upstream = Upstream::start();
    let gateway = route("{allow: [192.0.2.0/24], enforce: false}", &upstream);
    assert_eq!(["192.0.2.7", "198.51.100.7"].map(|a| from(&gateway, a)), [200, 200]);
    let labels = [("route", "all"), ("code", "address_denied")];
    gateway.expect_metric("portcullis_would_refuse_total", &labels, 1.0);
    let lines = gateway.wait_for_access_lines(2);
    let dry = lines.iter().filter(|line| line["portcullis.would_refuse"] == "address_denied");
    assert_eq!(dry.count(), 1, "{lines:#?}");
}

#[test]
fn a_reload_changes_the_networks_of_a_route() {
    let upstream = Upstream::start();
    let gateway = Plan::route("").upstream(&upstream).start();
    assert_eq!(gateway.get("/").status, 200);
    assert!(gateway.reload_route("networks: {deny: [127.0.0.1]}"));
    assert_eq!(gateway.get("/").status, 403);
    assert!(gateway.reload_route("networks: {deny: [127.0.0.2]}"));
    assert_eq!(gateway.get("/").status, 200);
}
