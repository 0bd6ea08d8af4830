//! `listeners.NAME.tls`: which certificate a client gets, what it may speak, how many handshakes are under
//! way, and what a handshake that fails leaves behind.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as Socket};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, DEFAULT_VERSIONS, Error, ProtocolVersion};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{
    Authority, Client, Gateway, H2Client, Leaf, Plan, Upstream, assert_about, at_once,
    client_config, client_hello, connect_tls, connect_tls_by, eventually, pass, timed, wait,
};

/// A gateway with these certificates; `tls` is more of its section, `listener` of the listener.
fn plan(leaves: &[&Leaf], tls: &str, listener: &str) -> Plan {
    let pairs: Vec<_> =
        (0..leaves.len()).map(|n| format!("{{certificate: {n}.pem, key: {n}.key}}")).collect();
    let section = format!(
        "listeners: {{public: {{address: \"127.0.0.1:${{PORT}}\", {listener} tls: {{certificates: [{}], {tls}}}}}}}",
        pairs.join(", ")
    );
    let plan = Plan::route("").section(&section);
    leaves.iter().enumerate().fold(plan, |plan, (n, leaf)| {
        plan.beside(&format!("{n}.pem"), &leaf.pem()).beside(&format!("{n}.key"), &leaf.key_pem())
    })
}

/// The same with one certificate for `one.test`.
fn one(authority: &Authority, tls: &str, listener: &str) -> Plan {
    plan(&[&authority.sign("one.test")], tls, listener)
}

fn speaking(authority: &Authority, protocols: &[&str]) -> ClientConfig {
    let mut config = client_config(authority, None, DEFAULT_VERSIONS);
    config.alpn_protocols = protocols.iter().map(|one| one.as_bytes().to_vec()).collect();
    config
}

fn connect(
    config: ClientConfig,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_tls_by(config, b"", address, name)
}

/// What the gateway has told its client by an alert.
fn alert<T>(result: std::io::Result<T>) -> AlertDescription {
    let error = result.err().expect("no agreement");
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert: {error}"),
    }
}

#[track_caller]
fn counted(gateway: &Gateway, reason: &str, count: f64) {
    let labels = [("listener", "public"), ("reason", reason)];
    eventually(&format!("{reason} in the metrics:\n{}", gateway.access()), || {
        let seen = gateway.metric("portcullis_tls_handshakes_failed_total", &labels);
        (seen >= count).then(|| assert_eq!(seen, count, "{reason}"))
    });
}

/// The first line of its access log.
fn first_line(gateway: &Gateway) -> serde_json::Value {
    eventually("a line", || gateway.access_lines().into_iter().next())
}

#[test]
fn a_name_picks_its_certificate_before_a_wildcard_does_in_any_case() {
    let authority = Authority::new();
    let names: [&[&str]; 4] =
        [&["first.test"], &["*.wild.test"], &["api.wild.test", "bare.test"], &["*.wild.test"]];
    let leaves = names.map(|names| authority.sign_all(names));
    let gateway = plan(&leaves.each_ref(), "", "").start();
    let certificate = |name: &str| {
        let mut config = client_config(&authority, None, DEFAULT_VERSIONS);
        // Which one it is, is looked at here, whatever it is for.
        config.dangerous().set_certificate_verifier(std::sync::Arc::new(Any));
        let stream = connect(config, gateway.address, name).expect("TLS");
        let shown = stream.get_ref().1.peer_certificates().expect("a chain")[0].to_vec();
        leaves.iter().position(|leaf| leaf.der() == shown).expect("one of them")
    };
    for (name, expected) in [
        ("first.test", 0),
        ("api.wild.test", 2),
        ("API.Wild.Test", 2),
        ("bare.test", 2),
        ("www.wild.test", 1),
        ("WWW.wild.test", 1),
        ("a.b.wild.test", 0),
        ("wild.test", 0),
        ("unknown.test", 0),
    ] {
        assert_eq!(certificate(name), expected, "{name}");
    }
}

/// Takes any certificate.
#[derive(Debug)]
struct Any;

mod any {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    impl ServerCertVerifier for super::Any {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
}

#[test]
fn a_client_that_asks_for_no_name_gets_the_certificate_of_the_address() {
    let authority = Authority::new();
    let leaves = [authority.sign("one.test"), authority.sign_all(&["two.test", "127.0.0.1"])];
    for policy in ["default", "refuse"] {
        let gateway = plan(&leaves.each_ref(), &format!("unknown_name: {policy}"), "").start();
        // The client checks that the certificate is for that address.
        connect_tls(gateway.address, "127.0.0.1", &authority, None, "h2").expect("TLS");
        let gateway = plan(&[&leaves[0]], &format!("unknown_name: {policy}"), "").start();
        let error = connect_tls(gateway.address, "127.0.0.1", &authority, None, "h2");
        let error = error.expect_err("the first certificate, which is for a name").to_string();
        assert!(error.contains("not valid for name"), "{policy}: {error}");
    }
}

#[test]
fn a_name_that_no_certificate_has_is_refused_where_that_is_asked_for() {
    let authority = Authority::new();
    let leaves = [authority.sign("one.test"), authority.sign("*.wild.test")];
    let upstream = Upstream::start();
    let gateway = plan(&leaves.each_ref(), "unknown_name: refuse", "").upstream(&upstream).start();
    for version in [&TLS12, &TLS13] {
        let ask = |name: &str| {
            connect(client_config(&authority, None, &[version]), gateway.address, name)
        };
        assert_eq!(alert(ask("other.test")), AlertDescription::UnrecognisedName);
        assert_eq!(alert(ask("a.b.wild.test")), AlertDescription::UnrecognisedName);
        ask("one.test").expect("TLS");
        ask("ONE.test").expect("TLS");
        ask("a.wild.test").expect("TLS");
    }
    counted(&gateway, "unknown_name", 4.0);
    let line = first_line(&gateway);
    assert_eq!(line["portcullis.cause"], "tls_handshake", "{line}");
    assert_eq!(line["portcullis.error"], "no certificate is for the name other.test", "{line}");
}

#[test]
fn versions_older_than_the_oldest_are_not_spoken() {
    let authority = Authority::new();
    for (tls, speaks_12) in [("", true), ("min_version: 1.2", true), ("min_version: '1.3'", false)]
    {
        let gateway = one(&authority, tls, "").start();
        let ask = |version| {
            connect(client_config(&authority, None, &[version]), gateway.address, "one.test")
        };
        let version = |stream: TlsStream<TcpStream>| stream.get_ref().1.protocol_version();
        assert_eq!(ask(&TLS13).map(version).expect("TLS"), Some(ProtocolVersion::TLSv1_3));
        if speaks_12 {
            assert_eq!(ask(&TLS12).map(version).expect("TLS"), Some(ProtocolVersion::TLSv1_2));
        } else {
            assert_eq!(alert(ask(&TLS12)), AlertDescription::ProtocolVersion);
            counted(&gateway, "no_shared_version", 1.0);
        }
    }
}

#[test]
fn clients_choose_among_the_protocols_that_are_offered_in_their_order() {
    let authority = Authority::new();
    let both = ["http/1.1", "h2"];
    for (tls, offered, agreed) in [
        ("", &both[..], Some("h2")),
        ("alpn: [http/1.1, h2]", &both, Some("http/1.1")),
        ("alpn: [http/1.1]", &both, Some("http/1.1")),
        ("alpn: [h2]", &both, Some("h2")),
        ("alpn: [http/1.1]", &["h2"], None),
        ("alpn: [h2]", &["http/1.1"], None),
    ] {
        let upstream = Upstream::start();
        let gateway = one(&authority, tls, "").upstream(&upstream).start();
        let stream = connect(speaking(&authority, offered), gateway.address, "one.test");
        let Some(agreed) = agreed else {
            assert_eq!(alert(stream), AlertDescription::NoApplicationProtocol, "{tls}");
            counted(&gateway, "no_shared_protocol", 1.0);
            continue;
        };
        let stream = stream.expect("TLS");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(agreed.as_bytes()), "{tls}");
        if agreed == "h2" {
            assert_eq!(H2Client::over(async { stream }).get("/").status, 200, "{tls}");
        }
    }
}

/// A client that has sent its hello, and goes no further.
fn stalled(gateway: &Gateway, authority: &Authority) -> Socket {
    let mut socket = Socket::connect(gateway.address).expect("a connection");
    stall(&mut socket, authority);
    socket
}

fn stall(socket: &mut Socket, authority: &Authority) {
    let config = client_config(authority, None, DEFAULT_VERSIONS);
    socket.write_all(&client_hello(config, "one.test")).expect("sent");
}

fn waiting(gateway: &Gateway, count: f64) {
    eventually(&format!("{count} that wait"), || {
        (gateway.metric("portcullis_tls_handshakes_waiting", &[]) == count).then_some(())
    });
}

#[test]
fn no_more_handshakes_are_under_way_than_there_may_be_and_the_next_waits_in_line() {
    let authority = Authority::new();
    let gateway = one(&authority, "max_handshakes: 2", "").start();
    // Clients that say nothing, or only half of their hello, are not counted.
    let _silent: Vec<_> =
        (0..4).map(|_| Socket::connect(gateway.address).expect("a connection")).collect();
    let mut half = Socket::connect(gateway.address).expect("a connection");
    half.write_all(b"\x16\x03\x01").expect("sent");
    let held: Vec<_> = (0..2)
        .map(|_| {
            let mut held = stalled(&gateway, &authority);
            held.read_exact(&mut [0; 5]).expect("the gateway's part of the handshake");
            held
        })
        .collect();
    std::thread::scope(|scope| {
        let ask = || connect_tls(gateway.address, "one.test", &authority, None, "h2");
        let next = scope.spawn(ask);
        waiting(&gateway, 1.0);
        assert!(!next.is_finished());
        drop(held);
        next.join().expect("no panic").expect("its turn");
    });
    waiting(&gateway, 0.0);
    counted(&gateway, "closed", 2.0);
    // Who has agreed is not under way any more.
    let kept: Vec<_> = (0..5)
        .map(|_| connect_tls(gateway.address, "one.test", &authority, None, "h2").expect("TLS"))
        .collect();
    drop(kept);
}

#[test]
fn a_client_whose_turn_does_not_come_in_time_is_closed() {
    let authority = Authority::new();
    let gateway = one(&authority, "max_handshakes: 1", "header_timeout: 1s,").start();
    let mut early = Socket::connect(gateway.address).expect("a connection");
    let (_, took) = timed(|| {
        pass(Duration::from_millis(400));
        let mut held = stalled(&gateway, &authority);
        held.read_exact(&mut [0; 5]).expect("the gateway's part of the handshake");
        stall(&mut early, &authority);
        waiting(&gateway, 1.0);
        assert!(matches!(early.read(&mut [0; 8]), Ok(0) | Err(_)));
    });
    assert_about(took, Duration::from_secs(1));
    counted(&gateway, "queue_timeout", 1.0);
    counted(&gateway, "closed", 1.0);
    waiting(&gateway, 0.0);
    let line = first_line(&gateway);
    assert_eq!(line["portcullis.limit"], "header_timeout", "{line}");
}

#[test]
fn plain_http_is_answered_in_words() {
    let authority = Authority::new();
    let gateway = one(&authority, "", "").start();
    let large = "x".repeat(20_000);
    let requests = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n{large}"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    let count = requests.len() + 1;
    for request in &requests {
        let mut client = gateway.connect();
        client.send(request);
        let response = client.receive();
        assert_eq!(response.status, 400, "{request}");
        assert!(response.text().contains("this port takes HTTPS"), "{}", response.text());
        assert_eq!(response.header("connection"), Some("close"));
        assert!(response.header("date").is_some());
        assert!(client.is_closed(), "{request}");
    }
    let mut client = gateway.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.receive_to("HEAD").status, 400);
    assert!(client.is_closed(), "no body follows");
    drop::<Client>(client);
    counted(&gateway, "not_tls", count as f64);
    let line = first_line(&gateway);
    assert_eq!(line["portcullis.error"], "plain HTTP on a port that takes HTTPS", "{line}");
    assert_eq!(line["http.response.status_code"], 400, "{line}");
    connect_tls(gateway.address, "one.test", &authority, None, "h2").expect("TLS");
}

#[test]
fn plain_http_behind_a_load_balancer_is_answered_too() {
    let authority = Authority::new();
    let gateway = one(&authority, "", "proxy_protocol: {from: [127.0.0.1]},").start();
    let mut client = gateway.connect();
    client.send("PROXY TCP4 192.0.2.7 10.0.0.1 44364 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.receive().status, 400);
    counted(&gateway, "not_tls", 1.0);
    let line = first_line(&gateway);
    assert_eq!(line["client.address"], "192.0.2.7", "{line}");
}

#[test]
fn a_client_of_plain_http_keeps_no_connection() {
    let authority = Authority::new();
    let gateway = one(&authority, "", "header_timeout: 2s,").start();
    // It goes on to send, and does not close.
    let (_, took) = timed(|| {
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\n");
        assert_eq!(client.receive().status, 400);
        eventually("its connection is closed", || {
            (gateway.metric("portcullis_connections", &[]) == 0.0).then_some(())
        });
    });
    assert!(took < Duration::from_secs(2), "{took:?}");
    // Half a request line is waited for no longer than a handshake.
    let mut client = gateway.connect();
    client.send("GET /");
    let (closed, took) = timed(|| client.is_closed());
    assert!(closed);
    assert_about(took, Duration::from_secs(2));
    counted(&gateway, "timeout", 1.0);
}

#[test]
fn a_handshake_that_fails_is_counted_by_its_reason() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let friend = ours.sign("friend.test");
    let expired = ours.sign_expired("friend.test");
    let stranger = theirs.sign("friend.test");
    for version in [&TLS12, &TLS13] {
        let plan = one(&ours, "client_ca: clients.pem", "");
        let gateway = plan.beside("clients.pem", &ours.pem()).start();
        let visit = |name: &str, own: Option<&Leaf>| {
            let stream = connect(client_config(&ours, own, &[version]), gateway.address, name);
            // With TLS 1.3 a client believes in an agreement until it reads.
            stream.and_then(|mut stream| wait("the end", async move { stream.read_u8().await }))
        };
        assert!(visit("one.test", None).is_err());
        counted(&gateway, "no_client_certificate", 1.0);
        assert!(visit("one.test", Some(&stranger)).is_err());
        counted(&gateway, "unknown_authority", 1.0);
        assert!(visit("one.test", Some(&expired)).is_err());
        counted(&gateway, "client_certificate_expired", 1.0);
        assert!(visit("two.test", Some(&friend)).is_err());
        counted(&gateway, "certificate_refused", 1.0);
    }
    let gateway = one(&ours, "", "header_timeout: 2s,").start();
    at_once(
        [
            ("closed", &b"\x16\x03\x01"[..]),
            ("malformed", b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"),
            ("malformed", b"EHLO a.test\r\n"),
        ],
        |(_, bytes)| {
            let mut client = gateway.connect();
            client.send(bytes);
            if bytes.len() > 3 {
                let _ = client.try_read(&mut [0; 64]);
            }
        },
    );
    counted(&gateway, "closed", 1.0);
    counted(&gateway, "malformed", 2.0);
    let _stalls = stalled(&gateway, &ours);
    counted(&gateway, "timeout", 1.0);
    // A client that leaves without a byte only looked whether someone listens.
    drop(gateway.connect());
    let mut old = client_config(&ours, None, &[&TLS12]);
    old.alpn_protocols = vec![b"h3".to_vec()];
    let _ = connect(old, gateway.address, "one.test");
    counted(&gateway, "no_shared_protocol", 1.0);
    counted(&gateway, "closed", 1.0);
    let sum = gateway.metric("portcullis_tls_handshakes_failed_total", &[]);
    assert_eq!(sum, 5.0, "each is counted once");
}

fn without_space(text: &str) -> String {
    text.split_whitespace().collect()
}

/// What `openssl s_client` says of a handshake, and whether it ended well.
fn openssl(gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &gateway.address.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn openssl_agrees_on_what_is_configured() {
    let authority = Authority::new();
    let leaves = [authority.sign("one.test"), authority.sign("*.wild.test")];
    let gateway = plan(&leaves.each_ref(), "unknown_name: refuse, alpn: [http/1.1]", "").start();
    let name = "a.wild.test";
    let shows = |said: &str, leaf: &Leaf| without_space(said).contains(&without_space(&leaf.pem()));
    for (version, label) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let asked = ["-servername", name, "-alpn", "h2,http/1.1", version];
        let (well, said) = openssl(&gateway, &asked);
        assert!(well && said.contains("ALPN protocol: http/1.1"), "{said}");
        assert!(said.contains(label) && shows(&said, &leaves[1]), "{said}");
    }
    let (well, said) = openssl(&gateway, &["-servername", "other.test"]);
    assert!(!well && said.contains("unrecognized name"), "{said}");
    let (well, said) = openssl(&gateway, &["-servername", name, "-alpn", "h2"]);
    assert!(!well && said.contains("no application protocol"), "{said}");
    let (well, said) = openssl(&gateway, &["-noservername"]);
    assert!(well && shows(&said, &leaves[0]), "{said}");
    counted(&gateway, "unknown_name", 1.0);
    counted(&gateway, "no_shared_protocol", 1.0);
}

#[test]
fn a_reload_changes_what_new_connections_agree_on_and_leaves_the_others() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let leaf = authority.sign("one.test");
    let gateway = plan(&[&leaf], "", "").upstream(&upstream).start();
    let old = client_config(&authority, None, &[&TLS12]);
    let mut h2 = old.clone();
    h2.alpn_protocols = vec![b"h2".to_vec()];
    let kept = connect(h2.clone(), gateway.address, "one.test").expect("TLS");
    let kept = H2Client::over(async { kept });
    assert_eq!(kept.get("/").status, 200);
    let next = "min_version: 1.3, unknown_name: refuse, alpn: [http/1.1], max_handshakes: 7";
    assert!(gateway.reload_plan(&plan(&[&leaf], next, "")), "{}", gateway.log());
    assert_eq!(alert(connect(old, gateway.address, "one.test")), AlertDescription::ProtocolVersion);
    let ask = |name| connect(speaking(&authority, &["h2"]), gateway.address, name);
    assert_eq!(alert(ask("two.test")), AlertDescription::UnrecognisedName);
    assert_eq!(alert(ask("one.test")), AlertDescription::NoApplicationProtocol);
    assert_eq!(kept.get("/").status, 200, "a connection that was open stays so");
}
