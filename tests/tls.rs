//! TLS towards clients: protocols agreed on, certificates by name, read again with every reload.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{
    Authority, Gateway, H2Client, Leaf, Plan, Upstream, assert_about, connect_tls, eventually,
    timed, wait,
};

const LISTENER: &str = "listeners: {public: {address: \"127.0.0.1:${PORT}\", tls: {certificates: [{certificate: one.pem, key: one.key}, {certificate: two.pem, key: two.key}]}}}";

fn plan(listener: &str, one: &Leaf, two: &Leaf) -> Plan {
    Plan::route("")
        .section(listener)
        .beside("one.pem", &one.pem())
        .beside("one.key", &one.key_pem())
        .beside("two.pem", &two.pem())
        .beside("two.key", &two.key_pem())
}

fn start(authority: &Authority, upstream: &Upstream) -> Gateway {
    let (one, two) = (authority.sign("one.test"), authority.sign("two.test"));
    plan(LISTENER, &one, &two).upstream(upstream).start()
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
}

fn get(mut stream: TlsStream<TcpStream>) -> std::io::Result<String> {
    wait("an answer", async {
        let request = b"GET /x HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
}

#[test]
fn clients_choose_their_protocol_in_the_handshake() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = start(&authority, &upstream);
    let h2 = connect_tls(gateway.address, "one.test", &authority, None, "h2").expect("TLS");
    assert_eq!(h2.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(H2Client::over(async { h2 }).get("/").status, 200);
    let h1 = connect_tls(gateway.address, "one.test", &authority, None, "http/1.1").expect("TLS");
    assert!(get(h1).expect("an answer").starts_with("HTTP/1.1 200"));
    let protocols: Vec<_> = upstream
        .requests()
        .iter()
        .map(|r| r.header("x-forwarded-proto").map(str::to_owned))
        .collect();
    assert_eq!(protocols, [Some("https".to_owned()), Some("https".to_owned())]);
}

#[test]
fn the_certificate_is_that_of_the_name_asked_for() {
    let authority = Authority::new();
    let gateway = start(&authority, &Upstream::start());
    let leaf =
        |name| shown(&connect_tls(gateway.address, name, &authority, None, "h2").expect("TLS"));
    // The client checks the name itself.
    assert_ne!(leaf("one.test"), leaf("two.test"));
    let unknown = connect_tls(gateway.address, "three.test", &authority, None, "h2");
    assert!(unknown.is_err(), "the first certificate, which is for another name");
    eventually("the failure in the metrics", || {
        (gateway.metric("portcullis_tls_handshakes_failed_total", &[]) >= 1.0).then_some(())
    });
}

#[test]
fn a_reload_shows_new_certificates_and_keeps_what_serves_if_they_are_bad() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = start(&authority, &upstream);
    let leaf =
        || shown(&connect_tls(gateway.address, "one.test", &authority, None, "h2").expect("TLS"));
    let kept = connect_tls(gateway.address, "one.test", &authority, None, "h2").expect("TLS");
    let kept = H2Client::over(async { kept });
    let before = leaf();
    let config = std::fs::read_to_string(gateway.directory().join("portcullis.yaml")).unwrap();
    let write =
        |name: &str, text: &str| std::fs::write(gateway.directory().join(name), text).unwrap();

    write("one.pem", "no certificate");
    assert!(!gateway.reload(&config));
    gateway.wait_for_log("listeners.public.tls.certificates[0]");
    assert_eq!(leaf(), before);

    let renewed = authority.sign("one.test");
    write("one.pem", &renewed.pem());
    assert!(!gateway.reload(&config), "a certificate without its key");
    write("one.key", &renewed.key_pem());
    assert!(gateway.reload(&config));
    assert_ne!(leaf(), before);
    assert_eq!(kept.get("/").status, 200, "a connection that was open stays so");
}

#[test]
fn who_has_no_certificate_of_the_authority_is_not_let_in() {
    let (ours, theirs, upstream) = (Authority::new(), Authority::new(), Upstream::start());
    let listener = LISTENER.replace("tls: {", "tls: {client_ca: clients.pem, ");
    let plan = plan(&listener, &ours.sign("one.test"), &ours.sign("two.test"));
    let gateway = plan.beside("clients.pem", &ours.pem()).upstream(&upstream).start();
    let (friend, stranger) = (ours.sign("friend.test"), theirs.sign("friend.test"));
    let call = |own| {
        let stream = connect_tls(gateway.address, "one.test", &ours, own, "http/1.1")?;
        get(stream)
    };
    assert!(call(Some(&friend)).expect("an answer").starts_with("HTTP/1.1 200"));
    assert!(call(None).is_err());
    assert!(call(Some(&stranger)).is_err());
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_handshake_that_stalls_is_cut_in_time() {
    use std::io::{Read, Write};
    let ours = Authority::new();
    let listener = LISTENER.replace("tls: {", "header_timeout: 400ms, tls: {");
    let gateway = plan(&listener, &ours.sign("one.test"), &ours.sign("two.test")).start();
    for beginning in [&b""[..], b"\x16\x03\x01"] {
        let mut stream = std::net::TcpStream::connect(gateway.address).expect("a connection");
        stream.write_all(beginning).expect("a few bytes");
        let (read, took) = timed(|| stream.read(&mut [0; 64]));
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        assert_about(took, Duration::from_millis(400));
    }
}

#[test]
fn a_file_that_is_no_certificate_is_named_by_check() {
    let authority = Authority::new();
    let (one, two) = (authority.sign("one.test"), authority.sign("two.test"));
    let (code, log) = plan(LISTENER, &one, &two).beside("two.pem", "nothing").fails();
    assert_eq!(code, Some(1));
    assert!(
        log.contains("listeners.public.tls.certificates[1]") && log.contains("two.pem"),
        "{log}"
    );
}

#[test]
fn upstreams_with_tls_speak_what_is_configured_or_agreed_on() {
    let authority = Authority::new();
    for (protocol, connections) in [("http1", 3.0), ("h2", 1.0), ("auto", 1.0)] {
        let upstream = Upstream::always(crate::support::Answer::ok().held());
        // A gateway with TLS is an upstream that speaks both.
        let inner = start(&authority, &upstream);
        let service = format!(
            "{{endpoints: [\"https://{}\"], protocol: {protocol}, tls: {{server_name: one.test, ca: ca.pem}}}}",
            inner.address
        );
        let outer = Plan::route("").section(&format!("upstreams: {{service: {service}}}"));
        let outer = outer.beside("ca.pem", &authority.pem()).start();
        let client = H2Client::connect(outer.address);
        let open = |count| {
            let stream = client.open(crate::support::request("GET", "/").body(()).unwrap(), true);
            upstream.wait_for(count);
            stream
        };
        let streams: Vec<_> = (1..=3).map(open).collect();
        assert_eq!(inner.metric("portcullis_connections", &[]), connections, "{protocol}");
        upstream.release();
        assert!(streams.into_iter().all(|stream| stream.finish().status == 200));
    }
}

#[test]
fn connections_that_other_authorities_vouched_for_are_not_used_after_a_reload() {
    let (before, after) = (Authority::new(), Authority::new());
    for protocol in ["http1", "h2"] {
        let upstream = Upstream::start();
        let inner = start(&before, &upstream);
        let service = format!(
            "{{endpoints: [\"https://{}\"], protocol: {protocol}, tls: {{server_name: one.test, ca: ca.pem}}}}",
            inner.address
        );
        let plan = Plan::route("").section(&format!("upstreams: {{service: {service}}}"));
        let config = plan.yaml();
        let outer = plan.beside("ca.pem", &before.pem()).start();
        assert_eq!(outer.get("/").status, 200, "{protocol}");
        let renew =
            |pem: &str| std::fs::write(outer.directory().join("ca.pem"), pem).expect("a file");

        renew(&before.pem());
        assert!(outer.reload(&config));
        assert_eq!(outer.get("/").status, 200);
        assert_eq!(inner.metric("portcullis_connections", &[]), 1.0, "the same one: {protocol}");

        renew(&after.pem());
        assert!(outer.reload(&config));
        assert_eq!(outer.get("/").status, 502, "{protocol}");
        assert_eq!(upstream.count(), 2, "nothing was sent over what is not trusted any more");
        renew(&format!("{}{}", after.pem(), before.pem()));
        assert!(outer.reload(&config));
        assert_eq!(outer.get("/").status, 200, "{protocol}");
    }
}
