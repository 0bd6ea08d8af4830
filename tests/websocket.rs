//! WebSockets where a route allows them, and streams of events.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::websocket::{self, echo, echoes, handshake};
use crate::support::{
    Answer, Call, Gateway, H2Client, Plan, Store, Upstream, assert_about, eventually, pass,
    request, timed,
};

fn open(gateway: &Gateway) -> TcpStream {
    websocket::open(gateway.address, "/chat")
}

#[track_caller]
fn assert_echo(stream: &mut TcpStream, text: &str) {
    assert!(echoes(stream, text), "{text}");
}

fn start(address: SocketAddr, policies: &str) -> Gateway {
    Plan::route(policies).env("UPSTREAM", &format!("http://{address}")).start()
}

#[test]
fn a_websocket_passes_both_ways_where_its_route_allows_it() {
    let (address, heads) = echo();
    let gateway = start(address, "websocket: {}");
    let mut socket = open(&gateway);
    for word in ["one", "two", "three"] {
        assert_echo(&mut socket, word);
    }
    let head = heads.recv().expect("a head").to_lowercase();
    for field in
        ["upgrade: websocket", "sec-websocket-key: dghlihnhbxbszsbub25jzq==", "x-request-id: "]
    {
        assert!(head.contains(field), "{field} in {head}");
    }
}

#[test]
fn a_websocket_that_the_drain_ends_has_not_failed() {
    let (address, _heads) = echo();
    let mut gateway = Plan::route("websocket: {}\nrecord: {mode: async}")
        .section("server: {drain_timeout: 300ms}")
        .section(&Store::Sqlite.section())
        .env("UPSTREAM", &format!("http://{address}"))
        .start();
    let mut socket = open(&gateway);
    assert_echo(&mut socket, "one");
    gateway.signal("TERM");
    assert_eq!(gateway.exit().code(), Some(0));
    let rows = Store::rows_in(&gateway.store());
    let [row] = &rows[..] else { panic!("{rows:#?}") };
    assert_eq!((row.text("status"), row.text("cause")), (Some("101"), None), "{row:#?}");
    assert!(row.is_true("success"), "{row:#?}");
}

#[test]
fn elsewhere_a_handshake_is_an_ordinary_request() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    assert_eq!(gateway.call(handshake("/chat")).status, 200);
    let seen = upstream.only();
    assert_eq!((seen.header("upgrade"), seen.header("connection")), (None, None));
}

#[test]
fn only_websockets_are_upgraded_to() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "websocket: {}");
    let call = Call::new("GET /").header("Connection", "Upgrade").header("Upgrade", "irc/6.9");
    assert_eq!(gateway.call(call).status, 200);
    assert_eq!(upstream.only().header("upgrade"), None);
}

#[test]
fn an_upstream_that_declines_is_passed_on_and_the_connection_stays() {
    let upstream = Upstream::script([Answer::from(426), Answer::ok()]);
    let gateway = Gateway::route(&upstream, "websocket: {}");
    let mut client = gateway.connect();
    assert_eq!(client.call(&handshake("/chat")).status, 426);
    assert_eq!(client.call(&Call::new("GET /")).status, 200);
}

#[test]
fn a_silent_websocket_is_closed_after_its_own_idle_time() {
    let (address, _heads) = echo();
    let gateway = start(address, "websocket: {idle_timeout: 400ms}");
    let mut socket = open(&gateway);
    assert_echo(&mut socket, "x");
    let (read, took) = timed(|| socket.read(&mut [0]));
    let closed = read.map_or_else(|e| e.kind() != ErrorKind::WouldBlock, |read| read == 0);
    assert!(closed);
    assert_about(took, Duration::from_millis(400));
}

#[test]
fn no_other_limit_ends_a_websocket_that_is_used() {
    let (address, _heads) = echo();
    let limits = "timeout: {attempt: 1s, request: 1500ms, idle: 1s}";
    let gateway = start(address, &format!("{limits}\nwebsocket: {{idle_timeout: 2s}}"));
    let mut socket = open(&gateway);
    // Together longer than any limit, its own idle time among them.
    for _ in 0..2 {
        pass(Duration::from_millis(1200));
        assert_echo(&mut socket, "still here");
    }
}

#[test]
fn a_websocket_holds_its_slot_and_counts_as_a_success() {
    let (address, _heads) = echo();
    let policies = "bulkhead: {max_in_flight: 1}\ncircuit_breaker: {consecutive: {failures: 1}}\nwebsocket: {idle_timeout: 300ms}";
    let gateway = start(address, policies);
    let mut socket = open(&gateway);
    assert_eq!(gateway.get("/").status, 429);
    let _ = socket.read(&mut [0]);
    // The slot is free, the circuit closed: an idle end is not a failure.
    eventually("another websocket", || {
        let mut client = gateway.connect();
        client.send(handshake("/chat").bytes());
        (client.receive_head().status == 101).then_some(())
    });
    let attempts = gateway.metric("portcullis_upstream_attempts_total", &[("outcome", "1xx")]);
    assert_eq!(attempts, 2.0);
}

#[test]
fn events_arrive_one_by_one_over_both_protocols() {
    let answer = || Answer::hold_body().header("Content-Type", "text/event-stream");
    let upstream = Upstream::script([answer(), answer()]);
    let gateway = Gateway::route(&upstream, "timeout: {request: 0}");
    let mut over_one = gateway.connect();
    over_one.send(Call::new("GET /events").bytes());
    assert_eq!(over_one.receive_head().header("content-type"), Some("text/event-stream"));
    assert_eq!(over_one.read_exact(), *b"1\r\no\r\n");
    let client = H2Client::connect(gateway.address);
    let mut over_two = client.open(request("GET", "/events").body(()).unwrap(), true);
    assert_eq!(over_two.head().headers()["content-type"], "text/event-stream");
    assert_eq!(&over_two.data().expect("the first byte")[..], b"o");
    upstream.release();
    assert_eq!(over_one.read_exact(), *b"1\r\nk\r\n");
    assert_eq!(over_two.finish().body, b"k");
}
