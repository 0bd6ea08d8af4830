//! A reload may change listeners: those that stay lose nothing, those that go finish what is under way.

use std::net::{SocketAddr, TcpListener, TcpStream};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

use crate::support::websocket::{self, echo, echoes};
use crate::support::{
    Answer, Authority, Call, Client, Gateway, H2Client, Plan, Port, Upstream, connect_tls,
    eventually, request, wait,
};

const PUBLIC: &str = "public: {address: '127.0.0.1:${PORT}'}";
const TLS: &str = "certificates: [{certificate: one.pem, key: one.key}]";

/// One route, and these entries of `listeners`.
fn plan(entries: &[&str]) -> Plan {
    Plan::route("").section(&format!("listeners: {{{}}}", entries.join(", ")))
}

fn start(entries: &[&str], upstream: &Upstream) -> Gateway {
    plan(entries).upstream(upstream).start()
}

#[track_caller]
fn reload(gateway: &Gateway, entries: &[&str]) {
    assert!(gateway.reload_plan(&plan(entries)), "the reload is taken:\n{}", gateway.log());
}

fn entry(name: &str, port: &Port, settings: &str) -> String {
    format!("{name}: {{address: '{}', {settings}}}", port.address())
}

/// The entry `public` with more settings.
fn public(settings: &str) -> String {
    format!("public: {{address: '127.0.0.1:${{PORT}}', {settings}}}")
}

fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

/// One request on a connection of its own.
fn status_at(address: SocketAddr) -> u16 {
    Client::connect(address).call(&"GET /".into()).status
}

/// A client that has had a response, and may send another request.
#[track_caller]
fn idle(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    assert_eq!(client.call(&"GET /".into()).status, 200);
    client
}

#[track_caller]
fn goes_on(client: &mut Client) {
    let response = client.call(&"GET /".into());
    assert_eq!((response.status, response.header("connection")), (200, Some("keep-alive")));
}

#[test]
fn one_that_is_added_serves_at_once() {
    let (upstream, port) = (Upstream::start(), Port::reserve());
    let gateway = start(&[PUBLIC], &upstream);
    let mut before = idle(gateway.address);
    assert!(refuses(port.address()));
    reload(&gateway, &[PUBLIC, &entry("other", &port, "")]);
    assert_eq!(status_at(port.address()), 200);
    goes_on(&mut before);
    assert_eq!(H2Client::connect(port.address()).get("/").status, 200);
    gateway.wait_for_log("reload: listeners: added other");
}

#[test]
fn one_that_is_removed_closes_its_idle_connections_and_finishes_its_requests() {
    let (upstream, port) = (Upstream::always(Answer::ok().held()), Port::reserve());
    let gateway = start(&[PUBLIC, &entry("other", &port, "")], &upstream);
    let mut idle = Client::connect(port.address());
    idle.send(b"\r\n");
    let (mut busy, mut of_public) = (Client::connect(port.address()), gateway.connect());
    busy.send(Call::new("GET /").bytes());
    of_public.send(Call::new("GET /").bytes());
    upstream.wait_for(2);
    reload(&gateway, &[PUBLIC]);
    assert!(refuses(port.address()), "the socket is closed once the reload is taken");
    assert!(idle.is_closed());
    upstream.release();
    let response = busy.receive();
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(response.header("connection"), Some("close"));
    assert!(busy.is_closed());
    assert_eq!(of_public.receive().header("connection"), Some("keep-alive"));
    gateway.wait_for_log("reload: listeners: removed other");
    gateway.wait_for_log("reload: listeners.other: 2 connections drain");
}

#[test]
fn one_that_is_removed_takes_no_more_streams_and_finishes_those_that_are_open() {
    let (upstream, port) = (Upstream::start(), Port::reserve());
    let gateway = start(&[PUBLIC, &entry("other", &port, "")], &upstream);
    let (h2, stays) = (H2Client::connect(port.address()), H2Client::connect(gateway.address));
    assert_eq!(stays.get("/").status, 200);
    let mut upload = h2.open(request("POST", "/upload").body(()).expect("a head"), false);
    upload.send(b"begun ", false);
    reload(&gateway, &[PUBLIC]);
    h2.is_told_to_go();
    upload.send(b"and ended", true);
    assert_eq!(upload.finish().status, 200);
    h2.wait_closed();
    let uploads = upstream.requests().into_iter().filter(|seen| seen.target == "/upload");
    assert_eq!(uploads.map(|seen| seen.text()).collect::<Vec<_>>(), ["begun and ended"]);
    assert_eq!(stays.get("/").status, 200, "that of the listener that stays goes on");
}

#[test]
fn a_websocket_goes_on_without_its_listener() {
    let ((upstream, _), port) = (echo(), Port::reserve());
    let with = |entries: &[&str]| {
        let upstreams = format!("upstreams: {{service: {{endpoints: ['http://{upstream}']}}}}");
        let listeners = format!("listeners: {{{}}}", entries.join(", "));
        Plan::route("websocket: {}").section(&upstreams).section(&listeners)
    };
    let gateway = with(&[PUBLIC, &entry("other", &port, "")]).start();
    let mut stream = websocket::open(port.address(), "/");
    assert!(gateway.reload_plan(&with(&[PUBLIC])));
    assert!(refuses(port.address()));
    for _ in 0..3 {
        assert!(echoes(&mut stream, "still here"));
    }
}

#[test]
fn one_that_moves_serves_at_its_new_address_and_drains_at_the_old_one() {
    let (upstream, old, new) = (Upstream::start(), Port::reserve(), Port::reserve());
    let gateway = start(&[&entry("public", &old, "")], &upstream);
    let mut before = idle(old.address());
    reload(&gateway, &[&entry("public", &new, "")]);
    assert_eq!(status_at(new.address()), 200);
    assert!(refuses(old.address()) && before.is_closed());
    reload(&gateway, &[&entry("public", &old, "")]);
    assert_eq!(status_at(old.address()), 200, "it may return");
    assert!(refuses(new.address()));
}

#[test]
fn two_may_change_places_and_no_socket_is_closed_for_it() {
    let (upstream, one, two) = (Upstream::start(), Port::reserve(), Port::reserve());
    let small = "max_path_bytes: 64B";
    let gateway = start(&[&entry("small", &one, small), &entry("large", &two, "")], &upstream);
    let status = |port: &Port| {
        let call = Call::new(&format!("GET /{}", "x".repeat(100)));
        Client::connect(port.address()).call(&call).status
    };
    assert_eq!((status(&one), status(&two)), (414, 200));
    reload(&gateway, &[&entry("small", &two, small), &entry("large", &one, "")]);
    assert_eq!((status(&one), status(&two)), (200, 414));
}

#[test]
fn another_name_at_the_same_address_changes_nothing_for_clients() {
    let (upstream, port) = (Upstream::start(), Port::reserve());
    let few = "max_connections_per_address: 2";
    let gateway = start(&[&entry("old", &port, few)], &upstream);
    let (mut first, second) = (idle(port.address()), idle(port.address()));
    reload(&gateway, &[&entry("new", &port, few)]);
    goes_on(&mut first);
    let mut third = Client::connect(port.address());
    assert!(third.is_closed(), "both are counted still");
    gateway.wait_for_log("listeners.new.max_connections_per_address: 127.0.0.1 has all 2 open");
    drop(second);
    eventually("the place of the second", || {
        let mut client = Client::connect(port.address());
        client.try_send(Call::new("GET /").bytes()).ok()?;
        client.try_receive("GET").ok()
    });
    assert!(!gateway.log().contains(" drain"), "{}", gateway.log());
}

#[test]
fn connections_keep_the_settings_that_they_were_accepted_with() {
    let upstream = Upstream::start();
    let gateway = start(&[&public("max_path_bytes: 64B")], &upstream);
    let mut before = idle(gateway.address);
    let long = Call::new(&format!("GET /{}", "x".repeat(100)));
    reload(&gateway, &[&public("max_path_bytes: 1KiB")]);
    assert_eq!(gateway.call(long.clone()).status, 200);
    goes_on(&mut before);
    assert_eq!(before.call(&long).status, 414);
    gateway.wait_for_log("reload: listeners: changed public");
}

#[test]
fn limits_on_connections_count_those_that_are_open() {
    let upstream = Upstream::start();
    let limited = |server: &str, listener: &str| {
        let listeners = format!("listeners: {{{}}}", public(listener));
        Plan::route("").section(&listeners).section(&format!("server: {{threads: 2, {server}}}"))
    };
    for (server, listener, reason) in
        [("", "max_connections: 2", "listener"), ("max_connections: 2", "", "server")]
    {
        let gateway = limited("", "max_connections: 9").upstream(&upstream).start();
        let mut open = [idle(gateway.address), idle(gateway.address)];
        assert!(gateway.reload_plan(&limited(server, listener)), "{}", gateway.log());
        assert!(gateway.connect().is_closed(), "{reason}: a third one");
        let refused = gateway.metric("portcullis_connections_refused_total", &[("reason", reason)]);
        assert_eq!(refused, 1.0);
        open.iter_mut().for_each(goes_on);
        assert!(gateway.reload_plan(&limited("", "max_connections: 3")), "{}", gateway.log());
        goes_on(&mut idle(gateway.address));
    }
}

#[test]
fn other_networks_may_connect_from_then_on_and_the_connections_of_before_drain() {
    let upstream = Upstream::start();
    let gateway = start(&[PUBLIC], &upstream);
    let (mut before, h2) = (idle(gateway.address), H2Client::connect(gateway.address));
    assert_eq!(h2.get("/").status, 200);
    reload(&gateway, &[&public("networks: {deny: [127.0.0.0/8]}")]);
    assert!(before.is_closed());
    h2.wait_closed();
    assert!(gateway.connect().is_closed(), "no more");
    gateway.wait_for_log("reload: listeners.public: 2 connections drain");
    reload(&gateway, &[PUBLIC]);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn the_proxy_protocol_counts_from_the_next_connection_on() {
    let upstream = Upstream::start();
    let gateway = start(&[PUBLIC], &upstream);
    let mut before = idle(gateway.address);
    reload(&gateway, &[&public("proxy_protocol: {from: [127.0.0.1]}")]);
    assert!(before.is_closed());
    let mut announced = gateway.connect();
    announced.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 40000 80\r\n");
    assert_eq!(announced.call(&"GET /".into()).status, 200);
    let seen = upstream.requests();
    assert_eq!(seen.last().and_then(|last| last.header("x-forwarded-for")), Some("192.0.2.7"));
}

/// What [`TLS`] and `client_ca` name.
fn with_certificates(plan: Plan, authority: &Authority) -> Plan {
    let one = authority.sign("one.test");
    plan.beside("one.pem", &one.pem())
        .beside("one.key", &one.key_pem())
        .beside("ca.pem", &authority.pem())
}

/// A request over TLS on a connection that goes on: the head of the response, empty if there is none.
fn ask(stream: &mut TlsStream<tokio::net::TcpStream>) -> String {
    wait("a response or the end", async {
        let request = b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n";
        let (mut seen, mut bytes) = (Vec::new(), [0; 4096]);
        if stream.write_all(request).await.is_ok() {
            while !seen.ends_with(b"ok") {
                match stream.read(&mut bytes).await {
                    Ok(read @ 1..) => seen.extend_from_slice(&bytes[..read]),
                    Ok(0) | Err(_) => break,
                }
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    })
}

fn over_tls(
    gateway: &Gateway,
    authority: &Authority,
    own: Option<&crate::support::Leaf>,
) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    connect_tls(gateway.address, "one.test", authority, own, "http/1.1")
}

#[test]
fn tls_comes_and_goes() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = with_certificates(plan(&[PUBLIC]), &authority).upstream(&upstream).start();
    let mut plain = idle(gateway.address);
    reload(&gateway, &[&public(&format!("tls: {{{TLS}}}"))]);
    assert!(plain.is_closed(), "what was in the clear ends");
    let mut secure = over_tls(&gateway, &authority, None).expect("TLS");
    assert!(ask(&mut secure).starts_with("HTTP/1.1 200"));
    let mut without = gateway.connect();
    without.send(Call::new("GET /").bytes());
    assert_eq!(without.receive().status, 400, "in the clear there is nothing else");
    reload(&gateway, &[PUBLIC]);
    assert_eq!(ask(&mut secure), "", "and what was not, too");
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn clients_that_need_a_certificate_now_are_asked_for_it_on_another_connection() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let tls = |more: &str| public(&format!("tls: {{{TLS}{more}}}"));
    let plan = with_certificates(plan(&[&tls("")]), &authority);
    let gateway = plan.upstream(&upstream).start();
    let mut before = over_tls(&gateway, &authority, None).expect("TLS");
    assert!(ask(&mut before).starts_with("HTTP/1.1 200"));
    // Certificates that are read again, and other settings, are no reason to end it.
    let renewed = authority.sign("one.test");
    std::fs::write(gateway.directory().join("one.pem"), renewed.pem()).expect("written");
    std::fs::write(gateway.directory().join("one.key"), renewed.key_pem()).expect("written");
    reload(&gateway, &[&tls(", tickets: off")]);
    assert!(ask(&mut before).contains("keep-alive"));
    reload(&gateway, &[&tls(", client_ca: ca.pem")]);
    assert_eq!(ask(&mut before), "");
    let refused = over_tls(&gateway, &authority, None).map(|mut stream| ask(&mut stream));
    assert!(refused.unwrap_or_default().is_empty());
    let own = authority.sign_for_clients("client");
    let mut known = over_tls(&gateway, &authority, Some(&own)).expect("TLS");
    assert!(ask(&mut known).starts_with("HTTP/1.1 200"));
    // Another authority in the same file.
    std::fs::write(gateway.directory().join("ca.pem"), Authority::new().pem()).expect("written");
    reload(&gateway, &[&tls(", client_ca: ca.pem")]);
    assert_eq!(ask(&mut known), "");
}

#[test]
fn an_address_in_use_refuses_the_whole_reload_and_nothing_changes() {
    let (upstream, free, port) = (Upstream::start(), Port::reserve(), Port::reserve());
    let taken = TcpListener::bind(port.address()).expect("a port");
    let gateway = start(&[PUBLIC], &upstream);
    let mut before = idle(gateway.address);
    let yaml = |entries: &[&str]| {
        let listeners = format!("listeners: {{{}}}\n", entries.join(", "));
        format!("{listeners}routes: {{new: {{match: {{path: /new}}, upstream: service}}}}")
    };
    let entries = [&*entry("aaa", &free, ""), &entry("other", &port, "")];
    assert!(!gateway.reload(&yaml(&entries)));
    gateway.wait_for_log("not reloaded, 1 error in the file; generation 1 goes on");
    let told = format!("listeners.other.address: cannot listen on {}: ", port.address());
    assert!(gateway.log().contains(&told), "{}", gateway.log());
    assert!(gateway.log().contains("portcullis.yaml:1:"), "with its line: {}", gateway.log());
    assert!(refuses(free.address()), "what could be bound is given back");
    goes_on(&mut before);
    assert_eq!(gateway.get("/new").status, 200, "by the earlier route");
    drop(taken);
    assert!(gateway.reload(&yaml(&[PUBLIC, entries[0], entries[1]])), "{}", gateway.log());
    assert_eq!((gateway.get("/").status, gateway.get("/new").status), (404, 200));
    for port in [free, port] {
        let response = Client::connect(port.address()).call(&"GET /new".into());
        assert_eq!(response.status, 200);
    }
}
