//! WebSockets where a route allows them, and streams of events.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::{
    Answer, Call, Gateway, H2Client, Plan, Store, Upstream, assert_about, eventually, pass,
    request, timed,
};

/// Agrees to every upgrade, then says everything back that it is told; what it was sent first, the
/// heads, arrive at the receiver.
fn echo() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let (heads, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let heads = heads.clone();
            std::thread::spawn(move || {
                let head = read_head(&mut stream);
                let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
                let _ = stream.write_all(agreed.as_bytes());
                let _ = heads.send(head);
                let mut buffer = [0; 1024];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, received)
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}

fn handshake() -> Call {
    Call::new("GET /chat")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

fn open(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("an option");
    stream.write_all(&handshake().bytes()).expect("a handshake");
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream
}

#[track_caller]
fn assert_echo(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("an open socket");
    let mut heard = vec![0; text.len()];
    stream.read_exact(&mut heard).expect("an echo");
    assert_eq!(heard, text.as_bytes());
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
    assert_eq!(gateway.call(handshake()).status, 200);
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
    assert_eq!(client.call(&handshake()).status, 426);
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
    let limits = "timeout: {attempt: 300ms, request: 400ms, idle: 200ms}";
    let gateway = start(address, &format!("{limits}\nwebsocket: {{idle_timeout: 600ms}}"));
    let mut socket = open(&gateway);
    // Together longer than any limit, its own idle time among them.
    for _ in 0..2 {
        pass(Duration::from_millis(350));
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
    // The slot is free, the circuit closed: an idle end is nobody's failure.
    eventually("another websocket", || {
        let mut client = gateway.connect();
        client.send(handshake().bytes());
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
