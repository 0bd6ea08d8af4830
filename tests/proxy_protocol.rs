//! Load balancers that announce, by the PROXY protocol, whose connections they relay.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use tokio::io::AsyncWriteExt;

use crate::support::{
    Authority, Call, Client, Gateway, H2Client, Plan, Upstream, connect_tls_after, eventually, wait,
};

const CLIENT: &str = "192.0.2.7";
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 44364 443\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 with this version and command, family and body.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a short body").to_be_bytes();
    [SIGNATURE, &[command, family], &length, body].concat()
}

/// One for a client with this address.
fn v2_of(address: &str) -> Vec<u8> {
    let (family, source) = match address.parse().expect("an address") {
        IpAddr::V4(address) => (0x11, address.octets().to_vec()),
        IpAddr::V6(address) => (0x21, address.octets().to_vec()),
    };
    // A checksum that nothing looks at.
    v2(0x21, family, &[&source[..], &source, &[1, 2, 3, 4], &[3, 0, 4, 9, 9, 9, 9]].concat())
}

fn listeners(keys: &str) -> String {
    format!("listeners: {{public: {{address: \"127.0.0.1:${{PORT}}\", {keys}}}}}")
}

/// Every request has a line.
const LOG: &str = "access_log: {keep: {success: 100%}}";

/// A gateway behind balancers of this machine.
fn behind(upstream: &Upstream, keys: &str) -> Gateway {
    let listeners = listeners(&format!("proxy_protocol: {{from: [127.0.0.0/8]}}, {keys}"));
    Plan::route("").section(&listeners).section(LOG).upstream(upstream).start()
}

/// A connection of which these bytes are sent first.
fn connect(address: SocketAddr, header: &[u8]) -> Client {
    let mut client = Client::connect(address);
    client.send(header);
    client
}

fn get(gateway: &Gateway, header: &[u8]) -> u16 {
    connect(gateway.address, header).call(&"GET /".into()).status
}

/// The addresses of the clients in the access log, once there are so many lines.
fn clients(gateway: &Gateway, count: usize) -> Vec<String> {
    let lines = gateway.wait_for_access_lines(count);
    lines.iter().map(|line| line["client.address"].as_str().unwrap_or("-").to_owned()).collect()
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("portcullis_proxy_headers_refused_total", &[("reason", reason)])
}

#[track_caller]
fn assert_refused(gateway: &Gateway, header: &[u8], reason: &str) {
    let before = refused(gateway, reason);
    assert!(connect(gateway.address, header).is_closed(), "{reason}");
    eventually(reason, || (refused(gateway, reason) > before).then_some(()));
}

#[test]
fn the_announced_client_is_the_one_that_is_logged_and_told_to_the_upstream() {
    let upstream = Upstream::start();
    let gateway = behind(&upstream, "");
    for header in [V1.to_vec(), v2_of(CLIENT), v2_of("2001:db8::7")] {
        assert_eq!(get(&gateway, &header), 200);
    }
    let all = [CLIENT, CLIENT, "2001:db8::7"];
    assert_eq!(clients(&gateway, 3), all);
    let told = upstream.requests().into_iter();
    let told: Vec<_> =
        told.filter_map(|r| r.header("x-forwarded-for").map(str::to_owned)).collect();
    assert_eq!(told, all);
}

#[test]
fn every_request_of_a_connection_is_the_announced_clients() {
    let upstream = Upstream::start();
    let gateway = behind(&upstream, "");
    let mut client = connect(gateway.address, V1);
    for _ in 0..3 {
        assert_eq!(client.call(&"GET /".into()).status, 200);
    }
    assert_eq!(clients(&gateway, 3), [CLIENT; 3]);
}

#[test]
fn a_header_may_come_in_any_two_pieces_or_byte_by_byte() {
    let upstream = Upstream::start();
    let gateway = behind(&upstream, "");
    let request = Call::new("GET /").bytes();
    let mut sent = 0;
    for header in [V1.to_vec(), v2_of(CLIENT)] {
        let bytes = [&header[..], &request].concat();
        // The second piece begins within the header, or within what follows it.
        for cut in 1..header.len() + 3 {
            let mut client = connect(gateway.address, &bytes[..cut]);
            std::thread::yield_now();
            client.send(&bytes[cut..]);
            assert_eq!(client.receive().status, 200, "cut at {cut}");
            sent += 1;
        }
        let mut client = Client::connect(gateway.address);
        for byte in &bytes {
            client.send([*byte]);
        }
        assert_eq!(client.receive().status, 200);
        sent += 1;
    }
    assert!(clients(&gateway, sent).iter().all(|client| client == CLIENT));
}

#[test]
fn a_large_request_right_behind_the_header_arrives_whole() {
    let upstream = Upstream::start();
    let gateway = behind(&upstream, "");
    let body = "x".repeat(200_000);
    let call = Call::new("POST /").body(&body);
    let mut client = connect(gateway.address, &[&v2_of(CLIENT)[..], &call.bytes()].concat());
    assert_eq!(client.receive().status, 200);
    assert_eq!(upstream.only().body.len(), body.len());
    assert_eq!(client.call(&"GET /".into()).status, 200, "and the next one on its connection");
}

#[test]
fn what_a_balancer_says_of_itself_or_does_not_know_leaves_the_sockets_address() {
    let upstream = Upstream::start();
    let gateway = behind(&upstream, "");
    let headers = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.7 192.0.2.7 1 2\r\n".to_vec(),
        v2(0x20, 0x00, &[]),
        v2(0x20, 0x11, &[192, 0, 2, 7, 192, 0, 2, 7, 0, 1, 0, 2]),
        v2(0x21, 0x31, &[b'/'; 216]),
        // Without a family, what follows has no form.
        v2(0x21, 0x00, &[1]),
    ];
    for header in &headers {
        assert_eq!(get(&gateway, header), 200);
    }
    assert!(clients(&gateway, headers.len()).iter().all(|client| client == "127.0.0.1"));
}

#[test]
fn the_header_comes_before_tls_and_before_http_2() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let leaf = authority.sign("one.test");
    let tls = "tls: {certificates: [{certificate: one.pem, key: one.key}]}";
    let plan = |keys: &str| {
        let keys = format!("proxy_protocol: {{from: [127.0.0.1]}}, {keys}");
        let plan = Plan::route("").section(&listeners(&keys)).section(LOG).upstream(&upstream);
        plan.beside("one.pem", &leaf.pem()).beside("one.key", &leaf.key_pem()).start()
    };
    let (secure, plain) = (plan(tls), plan(""));
    for header in [V1.to_vec(), v2_of(CLIENT)] {
        let stream = connect_tls_after(&header, secure.address, "one.test", &authority, None, "h2");
        let stream = stream.expect("a handshake");
        assert_eq!(H2Client::over(async { stream }).get("/").status, 200);
        let address = plain.address;
        let client = H2Client::over(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("accepts");
            stream.write_all(&header).await.expect("room");
            stream
        });
        assert_eq!(client.get("/").status, 200);
    }
    for gateway in [secure, plain] {
        assert_eq!(clients(&gateway, 2), [CLIENT; 2]);
    }
}

#[test]
fn a_handshake_in_the_same_packet_as_the_header_can_fail_and_is_told_of_the_client() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let leaf = authority.sign("one.test");
    let keys = "proxy_protocol: {from: [127.0.0.1]}, \
                tls: {certificates: [{certificate: one.pem, key: one.key}]}";
    let plan = Plan::route("").section(&listeners(keys)).upstream(&upstream);
    let plan = plan.beside("one.pem", &leaf.pem()).beside("one.key", &leaf.key_pem());
    let gateway = plan.start();
    let mut client = connect(gateway.address, &[V1, b"GET / HTTP/1.1\r\n\r\n"].concat());
    while !client.is_closed() {}
    let lines = gateway.wait_for_access_lines(1);
    assert_eq!(lines[0]["portcullis.cause"], "tls_handshake");
    assert_eq!(lines[0]["client.address"], CLIENT);
}

#[test]
fn x_forwarded_for_is_believed_of_the_announced_peer_and_not_of_its_balancer() {
    let upstream = Upstream::start();
    let listeners = listeners("proxy_protocol: {from: [127.0.0.0/8]}");
    let trusted = "client_address: {trusted_proxies: [192.0.2.0/24]}";
    let plan = Plan::route("").section(&format!("{listeners}\n{trusted}\n{LOG}"));
    let gateway = plan.upstream(&upstream).start();
    let call = Call::new("GET /").header("X-Forwarded-For", "203.0.113.9");
    for peer in ["192.0.2.7", "198.51.100.7"] {
        let status = connect(gateway.address, &v2_of(peer)).call(&call).status;
        assert_eq!(status, 200);
    }
    assert_eq!(clients(&gateway, 2), ["203.0.113.9", "198.51.100.7"]);
}

#[test]
fn nothing_is_believed_of_an_unknown_client_because_its_balancer_is_trusted() {
    let upstream = Upstream::start();
    let listeners = listeners("proxy_protocol: {from: [127.0.0.0/8]}");
    let trusted = "client_address: {trusted_proxies: [127.0.0.0/8]}";
    let plan = Plan::route("").section(&format!("{listeners}\n{trusted}\n{LOG}"));
    let gateway = plan.upstream(&upstream).start();
    let call = Call::new("GET /").header("X-Forwarded-For", "203.0.113.9");
    let call = call.header("X-Forwarded-Proto", "https").header("X-Forwarded-Host", "inside.test");
    let unix = v2(0x21, 0x31, &[b'/'; 216]);
    let unknown = [b"PROXY UNKNOWN\r\n".to_vec(), v2(0x21, 0, &[]), unix];
    for header in &unknown {
        assert_eq!(connect(gateway.address, header).call(&call).status, 200);
    }
    let (address, header) = (gateway.address, unknown[0].clone());
    let h2 = H2Client::over(async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("accepts");
        stream.write_all(&header).await.expect("room");
        stream
    });
    let head = crate::support::request("GET", "/").header("x-forwarded-for", "203.0.113.9");
    let head = head.header("x-forwarded-proto", "https").header("x-forwarded-host", "inside.test");
    assert_eq!(h2.call(head.body(&b""[..]).expect("a request")).status, 200);
    assert_eq!(clients(&gateway, 4), ["127.0.0.1"; 4]);
    for told in upstream.requests() {
        assert_eq!(told.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(told.header("x-forwarded-proto"), Some("http"));
        assert_ne!(told.header("x-forwarded-host"), Some("inside.test"));
    }
    // Its own connections are a trusted peer's.
    assert_eq!(connect(gateway.address, &v2(0x20, 0, &[])).call(&call).status, 200);
    assert_eq!(clients(&gateway, 5)[4], "203.0.113.9");
}

#[test]
fn a_balancer_that_ends_tls_tells_the_scheme_and_its_client_does_not() {
    let upstream = Upstream::start();
    let gateway = behind(&upstream, "");
    let of = |family: u8, addresses: &[u8], bits: Option<u8>| {
        let ssl = bits.map_or_else(Vec::new, |bits| vec![0x20, 0, 5, bits, 0, 0, 0, 0]);
        v2(0x21, family, &[addresses, &ssl[..]].concat())
    };
    let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0xad, 0x4c, 1, 0xbb];
    let local = v2(0x20, 0x11, &[&v4[..], &[0x20, 0, 5, 1, 0, 0, 0, 0]].concat());
    let cases = [
        (of(0x11, &v4, Some(1)), "http", "https"),
        (of(0x31, &[b'/'; 216], Some(7)), "http", "https"),
        (of(0x11, &v4, Some(6)), "https", "http"),
        (of(0x11, &v4, None), "https", "http"),
        (V1.to_vec(), "https", "http"),
        (local, "https", "http"),
    ];
    for (header, claimed, told) in &cases {
        let mut client = connect(gateway.address, header);
        for _ in 0..2 {
            let call = Call::new("GET /").header("X-Forwarded-Proto", claimed);
            assert_eq!(client.call(&call).status, 200);
            let last = upstream.requests().pop().expect("a request");
            assert_eq!(last.header("x-forwarded-proto"), Some(*told), "{header:?}");
        }
    }
    let (address, header) = (gateway.address, cases[0].0.clone());
    let h2 = H2Client::over(async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("accepts");
        stream.write_all(&header).await.expect("room");
        stream
    });
    assert_eq!(h2.get("/").status, 200);
    let last = upstream.requests().pop().expect("a request");
    assert_eq!(last.header("x-forwarded-proto"), Some("https"), "over HTTP/2");
}

#[test]
fn limits_count_announced_clients_apart() {
    let upstream = Upstream::start();
    let listeners = listeners("proxy_protocol: {from: [127.0.0.0/8]}");
    let guard = "flood_guard: {requests: 1, per: 1h}";
    let plan = Plan::route("").section(&format!("{listeners}\n{guard}"));
    let gateway = plan.upstream(&upstream).start();
    let statuses = ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(|a| get(&gateway, &v2_of(a)));
    assert_eq!(statuses, [200, 429, 200]);
}

#[test]
fn a_connection_without_a_valid_header_is_closed_counted_and_told_with_the_reason() {
    let upstream = Upstream::start();
    let gateway = behind(&upstream, "");
    let long = [&V1[..10], &[b'1'; 200]].concat();
    let bad: [(&[u8], &str); 8] = [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "absent"),
        (b"\x16\x03\x01\x00\x05hello", "absent"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n", "malformed"),
        (&v2(0x21, 0x11, &[0; 11]), "malformed"),
        (&v2(0x21, 0x11, &[0; 14]), "malformed"),
        (&v2(0x31, 0x11, &[0; 12]), "unsupported"),
        (&v2(0x21, 0x12, &[0; 12]), "unsupported"),
        (&long, "too_long"),
    ];
    for (header, reason) in &bad {
        assert_refused(&gateway, header, reason);
    }
    let lines = gateway.wait_for_access_lines(bad.len());
    for line in &lines {
        assert_eq!(line["portcullis.cause"], "proxy_header", "{line:#}");
        assert_eq!(line["client.address"], "127.0.0.1", "the balancer's");
        assert!(
            line["portcullis.error"].as_str().is_some_and(|said| said.contains("PROXY header"))
        );
    }
    let log = gateway.log();
    assert_eq!(log.matches("connections of 127.0.0.1 are closed").count(), 1, "{log}");
    assert_eq!(upstream.count(), 0);
    // The listener is as it was.
    assert_eq!(get(&gateway, V1), 200);
}

#[test]
fn a_header_must_come_in_time_and_whole() {
    let upstream = Upstream::start();
    let gateway = behind(&upstream, "header_timeout: 300ms");
    let mut slow = connect(gateway.address, &V1[..20]);
    let mut silent = Client::connect(gateway.address);
    assert!(slow.is_closed() && silent.is_closed());
    eventually("both to be late", || (refused(&gateway, "late") == 2.0).then_some(()));
    drop(connect(gateway.address, &V1[..20]));
    eventually("one to be cut off", || (refused(&gateway, "cut_off") == 1.0).then_some(()));
    let lines = gateway.wait_for_access_lines(3);
    let late = lines.iter().filter(|line| line["portcullis.limit"] == "header_timeout");
    assert_eq!(late.count(), 2, "{lines:#?}");
}

#[test]
fn a_balancer_that_only_looks_whether_the_port_is_open_is_not_told_of() {
    let upstream = Upstream::start();
    let gateway = behind(&upstream, "");
    for _ in 0..5 {
        drop(TcpStream::connect(gateway.address).expect("a connection"));
    }
    assert_eq!(get(&gateway, V1), 200);
    eventually("all to have left", || {
        (gateway.metric("portcullis_connections", &[]) == 0.0).then_some(())
    });
    assert_eq!(clients(&gateway, 1).len(), 1);
    assert!(!gateway.log().contains("PROXY"), "{}", gateway.log());
}

#[test]
fn a_header_from_any_other_peer_is_no_header() {
    let upstream = Upstream::start();
    let elsewhere = listeners("proxy_protocol: {from: [127.0.0.2, 10.0.0.0/8]}");
    for section in [elsewhere, listeners("")] {
        let gateway = Plan::route("").section(&section).upstream(&upstream).start();
        for header in [V1.to_vec(), v2_of(CLIENT)] {
            assert_eq!(get(&gateway, &header), 400);
        }
        assert!(clients(&gateway, 2).iter().all(|client| client == "127.0.0.1"));
        assert_eq!(gateway.get("/").status, 200, "it needs none");
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_second_header_is_no_header() {
    let upstream = Upstream::start();
    let gateway = behind(&upstream, "");
    for second in [V1.to_vec(), v2_of("192.0.2.8")] {
        assert_eq!(get(&gateway, &[&v2_of(CLIENT)[..], &second].concat()), 400);
    }
    assert_eq!(clients(&gateway, 2), [CLIENT; 2]);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn balancers_are_told_apart_by_their_address() {
    let upstream = Upstream::start();
    let gateway = {
        let keys = "proxy_protocol: {from: [127.0.0.2]}";
        Plan::route("").section(&listeners(keys)).section(LOG).upstream(&upstream).start()
    };
    // Another address of this machine, as a client has it.
    let address = gateway.address;
    let answer = wait("an answer", async {
        use tokio::io::AsyncReadExt;
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.2:0".parse().expect("an address")).expect("an address of its own");
        let mut stream = socket.connect(address).await.expect("the gateway accepts");
        let call = Call::new("GET /").header("Connection", "close").bytes();
        stream.write_all(&[V1, &call].concat()).await.expect("room");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    });
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(clients(&gateway, 1), [CLIENT]);
}

#[test]
fn a_drain_waits_for_no_header() {
    let upstream = Upstream::start();
    let mut gateway = behind(&upstream, "header_timeout: 60s");
    let _silent = Client::connect(gateway.address);
    eventually("the connection", || {
        (gateway.metric("portcullis_connections", &[]) == 1.0).then_some(())
    });
    gateway.signal("TERM");
    assert!(gateway.exit().success());
    assert!(TcpListener::bind(gateway.address).is_ok());
}
