//! Clients that return: whose sessions go on, for how long, and what ends them.

use rustls::HandshakeKind::{Full, Resumed};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Authority, Gateway, H2Client, Leaf, Plan, Returning, Upstream, connect_tls, eventually, wait,
};

static VERSIONS: [(&str, &SupportedProtocolVersion); 2] = [("1.2", &TLS12), ("1.3", &TLS13)];

/// A gateway that is `one.test`; `more` of its `tls`.
fn plan(leaf: &Leaf, more: &str) -> Plan {
    let tls = format!("{{certificates: [{{certificate: one.pem, key: one.key}}], {more}}}");
    let listener =
        format!("listeners: {{public: {{address: \"127.0.0.1:${{PORT}}\", tls: {tls}}}}}");
    let plan = Plan::route("").section(&listener);
    plan.beside("one.pem", &leaf.pem()).beside("one.key", &leaf.key_pem())
}

fn start(leaf: &Leaf, more: &str, upstream: &Upstream) -> (Gateway, Plan) {
    (plan(leaf, more).upstream(upstream).start(), plan(leaf, more))
}

fn write(gateway: &Gateway, file: &str, text: &str) {
    std::fs::write(gateway.directory().join(file), text).expect("a file");
}

fn handshakes(gateway: &Gateway, version: &str, kind: &str) -> f64 {
    let labels = [("version", version), ("kind", kind)];
    gateway.metric("portcullis_tls_handshakes_total", &labels)
}

#[test]
fn a_client_that_returns_takes_up_its_session() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let (gateway, _) = start(&authority.sign("one.test"), "", &upstream);
    for (name, version) in VERSIONS {
        let client = Returning::new(&authority, None, version);
        let visit = || client.visit(gateway.address).expect("an answer");
        assert_eq!([visit(), visit(), visit()], [Full, Resumed, Resumed], "{name}");
        assert_eq!(handshakes(&gateway, name, "full"), 1.0, "{name}");
        assert_eq!(handshakes(&gateway, name, "resumed"), 2.0, "{name}");
    }
    assert_eq!(upstream.count(), 6);
}

#[test]
fn no_number_of_clients_makes_the_gateway_forget_one() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let (gateway, _) = start(&authority.sign("one.test"), "", &upstream);
    // More than the 256 sessions that rustls would remember by itself.
    let clients: Vec<_> = VERSIONS
        .iter()
        .map(|(_, version)| Returning::new(&authority, None, version))
        .flat_map(|first| std::iter::repeat_with(move || first.another()).take(200))
        .collect();
    let visits = || clients.iter().map(|client| client.visit(gateway.address).expect("an answer"));
    assert_eq!(visits().filter(|kind| *kind == Full).count(), 400);
    assert_eq!(visits().filter(|kind| *kind == Resumed).count(), 400);
}

#[test]
fn sessions_outlast_a_reload_that_changes_nothing_they_were_verified_by() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let friend = authority.sign("friend.test");
    let leaf = authority.sign("one.test");
    for more in ["", "client_ca: clients.pem"] {
        let start = plan(&leaf, more).beside("clients.pem", &authority.pem()).upstream(&upstream);
        let gateway = start.start();
        for (name, version) in VERSIONS {
            let client = Returning::new(&authority, Some(&friend), version);
            let visit = || client.visit(gateway.address).expect("an answer");
            assert_eq!(visit(), Full, "{name} {more}");
            // The files are read again, and hold the same.
            write(&gateway, "one.pem", &leaf.pem());
            let other = plan(&leaf, more).replacing("path: /*", "path: /x");
            assert!(gateway.reload_plan(&other));
            assert_eq!([visit(), visit()], [Resumed, Resumed], "{name} {more}");
        }
    }
}

#[test]
fn another_certificate_ends_the_sessions_of_the_one_before() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let keys = "k".repeat(32);
    for more in ["", "tickets: {keys: tickets.keys}"] {
        for (name, version) in VERSIONS {
            let start = plan(&authority.sign("one.test"), more).beside("tickets.keys", &keys);
            let config = start.yaml();
            let gateway = start.upstream(&upstream).start();
            let client = Returning::new(&authority, None, version);
            let visit = || client.visit(gateway.address).expect("an answer");
            assert_eq!([visit(), visit()], [Full, Resumed], "{name} {more}");
            let renewed = authority.sign("one.test");
            write(&gateway, "one.pem", &renewed.pem());
            write(&gateway, "one.key", &renewed.key_pem());
            assert!(gateway.reload(&config));
            assert_eq!([visit(), visit()], [Full, Resumed], "{name} {more}");
        }
    }
}

#[test]
fn other_authorities_of_clients_end_the_sessions_that_the_old_ones_vouched_for() {
    let (ours, theirs, upstream) = (Authority::new(), Authority::new(), Upstream::start());
    let (leaf, friend) = (ours.sign("one.test"), ours.sign("friend.test"));
    let keys = "k".repeat(32);
    for more in ["", ", tickets: {keys: tickets.keys}"] {
        for (name, version) in VERSIONS {
            let start = plan(&leaf, &format!("client_ca: clients.pem{more}"));
            let config = start.yaml();
            let start = start.beside("clients.pem", &ours.pem()).beside("tickets.keys", &keys);
            let gateway = start.upstream(&upstream).start();
            let client = Returning::new(&ours, Some(&friend), version);
            let visit = || client.visit(gateway.address);
            assert_eq!(visit().expect("an answer"), Full, "{name} {more}");
            assert_eq!(visit().expect("an answer"), Resumed, "{name} {more}");

            write(&gateway, "clients.pem", &format!("{}{}", ours.pem(), theirs.pem()));
            assert!(gateway.reload(&config));
            assert_eq!(visit().expect("an answer"), Full, "{name} {more}");
            assert_eq!(visit().expect("an answer"), Resumed, "{name} {more}");

            let served = upstream.count();
            write(&gateway, "clients.pem", &theirs.pem());
            assert!(gateway.reload(&config));
            assert!(visit().is_err(), "{name} {more}");
            assert_eq!(upstream.count(), served, "{name} {more}");
            assert_eq!(handshakes(&gateway, name, "resumed"), 2.0, "{name} {more}");
        }
    }
}

#[test]
fn replicas_that_share_a_key_take_up_each_others_sessions() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let (leaf, friend) = (authority.sign("one.test"), authority.sign("friend.test"));
    let stranger = Authority::new();
    let shared = "tickets: {keys: tickets.keys}";
    let replica = |more: &str, key: &str, clients: &str| {
        let plan = plan(&leaf, more).beside("tickets.keys", &key.repeat(32));
        plan.beside("clients.pem", clients).upstream(&upstream).start()
    };
    let (one, two) = (replica(shared, "a", ""), replica(shared, "a", ""));
    let (other_key, own_key) = (replica(shared, "b", ""), replica("", "a", ""));
    let checks = format!("{shared}, client_ca: clients.pem");
    let mutual = replica(&checks, "a", &authority.pem());
    let wider = replica(&checks, "a", &format!("{}{}", authority.pem(), stranger.pem()));
    for (name, version) in VERSIONS {
        let visits = |first: &Gateway, second: &Gateway| {
            let client = Returning::new(&authority, Some(&friend), version);
            [first, second].map(|gateway| client.visit(gateway.address).expect("an answer"))
        };
        assert_eq!(visits(&one, &two), [Full, Resumed], "{name}");
        assert_eq!(visits(&two, &one), [Full, Resumed], "{name}");
        assert_eq!(visits(&one, &other_key), [Full, Full], "{name}: another key");
        assert_eq!(visits(&one, &own_key), [Full, Full], "{name}: a key of its own");
        assert_eq!(visits(&one, &mutual), [Full, Full], "{name}: the client was not verified");
        assert_eq!(visits(&mutual, &wider), [Full, Full], "{name}: by other authorities");
    }
}

#[test]
fn a_shared_key_is_rotated_by_a_reload_without_an_end_of_sessions() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let (old, new) = ("o".repeat(32), "n".repeat(32));
    let start = plan(&authority.sign("one.test"), "tickets: {keys: tickets.keys}");
    let config = start.yaml();
    let gateway = start.beside("tickets.keys", &old).upstream(&upstream).start();
    for (name, version) in VERSIONS {
        let rotate = |keys: &str| {
            write(&gateway, "tickets.keys", keys);
            assert!(gateway.reload(&config));
        };
        rotate(&old);
        let (moved, late) =
            (Returning::new(&authority, None, version), Returning::new(&authority, None, version));
        let visit = |client: &Returning| client.visit(gateway.address).expect("an answer");
        assert_eq!([visit(&moved), visit(&late)], [Full, Full], "{name}");
        rotate(&format!("{new}\n{old}\n"));
        // Two tickets of TLS 1.3 came with the first visit, and are used up first.
        assert_eq!([visit(&moved), visit(&moved), visit(&moved)], [Resumed; 3], "{name}");
        rotate(&new);
        assert_eq!(visit(&moved), Resumed, "{name}: it has a ticket by the new key");
        assert_eq!(visit(&late), Full, "{name}: the key of its ticket is gone");
    }
}

#[test]
fn without_tickets_every_handshake_is_a_full_one() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let (gateway, _) = start(&authority.sign("one.test"), "tickets: off", &upstream);
    for (name, version) in VERSIONS {
        let client = Returning::new(&authority, None, version);
        let visit = || client.visit(gateway.address).expect("an answer");
        assert_eq!([visit(), visit()], [Full, Full], "{name}");
    }
}

/// A session that is taken up again is not verified again: its ticket ends with the certificate.
#[test]
fn a_client_whose_certificate_has_expired_is_not_served() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let leaf = authority.sign("one.test");
    let plan = plan(&leaf, "client_ca: clients.pem").beside("clients.pem", &authority.pem());
    let gateway = plan.upstream(&upstream).start();
    let short = authority.sign_until("friend.test", 6);
    let clients = VERSIONS.map(|(_, version)| Returning::new(&authority, Some(&short), version));
    for client in &clients {
        let visit = || client.visit(gateway.address).expect("an answer");
        assert_eq!([visit(), visit()], [Full, Resumed]);
    }
    let connect = |protocol| {
        connect_tls(gateway.address, "one.test", &authority, Some(&short), protocol).expect("TLS")
    };
    let mut kept = connect("http/1.1");
    let h2 = connect("h2");
    let h2 = H2Client::over(async { h2 });
    assert_eq!(h2.get("/x").status, 200);
    let mut ask = || {
        wait("an answer", async {
            kept.write_all(b"HEAD /x HTTP/1.1\r\nHost: one.test\r\n\r\n").await.ok()?;
            let mut answer = [0; 1024];
            kept.read(&mut answer).await.ok().filter(|length| *length > 0)
        })
    };
    assert!(ask().is_some());

    h2.is_told_to_go();
    let served = upstream.count();
    assert_eq!(ask(), None, "on an earlier connection");
    for client in &clients {
        assert!(client.visit(gateway.address).is_err(), "with an earlier ticket");
    }
    assert_eq!(upstream.count(), served);
    for (name, _) in VERSIONS {
        assert_eq!(handshakes(&gateway, name, "resumed"), 1.0, "{name}");
    }
    eventually("the refusals in the metrics", || {
        (gateway.metric("portcullis_tls_handshakes_failed_total", &[]) >= 2.0).then_some(())
    });
}

#[test]
fn a_shared_key_that_is_no_good_is_named_by_check() {
    let leaf = Authority::new().sign("one.test");
    let refused = |keys: &str| {
        let plan = plan(&leaf, "tickets: {keys: tickets.keys}").beside("tickets.keys", keys);
        let (code, log) = plan.fails();
        assert_eq!(code, Some(1), "{log}");
        assert!(
            log.contains("listeners.public.tls.tickets.keys: the file `tickets.keys` "),
            "{log}"
        );
        log
    };
    let log = refused("hunter2\n");
    assert!(log.contains("a key of 7 characters in line 1, which needs at least 32"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
    assert!(refused("\n").contains("holds no key"));
}
