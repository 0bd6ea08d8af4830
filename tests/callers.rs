//! Clients that prove by a certificate who they are: what they are called, where they may go, and what
//! upstreams are told.

use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Authority, Call, Gateway, Leaf, Plan, Upstream, client_config, connect_tls, eventually, wait,
};

pub const WEB: &str = "spiffe://prod/ns/shop/sa/web";

pub struct Mesh {
    pub ours: Authority,
    server: Leaf,
}

impl Mesh {
    pub fn new() -> Self {
        let ours = Authority::new();
        let server = ours.sign("one.test");
        Mesh { ours, server }
    }

    /// A gateway whose listener takes clients of `ours` by the settings `tls`.
    pub fn plan(&self, tls: &str, auth: &str, route: &str) -> Plan {
        let listener = format!(
            "listeners: {{public: {{address: \"127.0.0.1:${{PORT}}\", tls: {{certificates: [{{certificate: one.pem, key: one.key}}], client_ca: ca.pem{tls}}}}}}}"
        );
        let auth = format!("auth: {{mesh: {{client_certificate: {{{auth}}}}}}}");
        Plan::route(route)
            .section(&auth)
            .section(&listener)
            .beside("one.pem", &self.server.pem())
            .beside("one.key", &self.server.key_pem())
            .beside("ca.pem", &self.ours.pem())
    }

    /// What a request over a connection of its own is answered, as text; an error without a handshake.
    pub fn call(
        &self,
        gateway: &Gateway,
        own: Option<&Leaf>,
        headers: &str,
    ) -> std::io::Result<String> {
        let stream = connect_tls(gateway.address, "one.test", &self.ours, own, "http/1.1")?;
        ask(stream, headers)
    }

    pub fn of(&self, uri: &str) -> Leaf {
        self.ours.sign_client(&[uri], &[], "")
    }
}

pub fn ask(
    mut stream: tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
    headers: &str,
) -> std::io::Result<String> {
    wait("an answer", async {
        let request =
            format!("GET /orders HTTP/1.1\r\nHost: one.test\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
}

pub fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn the_upstream_learns_who_calls_and_a_forged_name_never() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let plan = mesh.plan("", "allow: ['spiffe://prod/ns/shop/*']", "auth: {require: mesh}");
    let gateway = plan.upstream(&upstream).start();
    let forged = "X-Consumer: root\r\nX-Forwarded-Client-Cert: URI=spiffe://prod/root\r\n\
                  X_Forwarded_Client_Cert: URI=spiffe://prod/root\r\n";
    let answer = mesh.call(&gateway, Some(&mesh.of(WEB)), forged).expect("an answer");
    assert_eq!(status(&answer), "200", "{answer}");
    let received = upstream.only();
    assert_eq!(received.all("x-consumer"), [WEB]);
    let told = received.all("x-forwarded-client-cert");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("Hash=") && told[0].ends_with(&format!(";URI={WEB}")), "{told:?}");
    assert_eq!(received.header("x_forwarded_client_cert"), None);
}

#[test]
fn a_caller_that_is_not_allowed_is_told_so_and_named_in_the_log() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let plan = mesh.plan("", "allow: ['spiffe://prod/ns/shop/*']", "auth: {require: mesh}");
    let gateway = plan.upstream(&upstream).start();
    for (own, code) in [
        (mesh.of("spiffe://prod/ns/shopping/sa/web"), "caller_denied"),
        (mesh.of("spiffe://test/ns/shop/sa/web"), "caller_denied"),
        (mesh.ours.sign_client(&[], &["web.shop"], ""), "caller_denied"),
        (mesh.ours.sign_client(&[], &[], "spiffe-less"), "credentials_invalid"),
    ] {
        let answer = mesh.call(&gateway, Some(&own), "").expect("an answer");
        assert!(answer.contains(code), "{code}: {answer}");
        let expected = if code == "caller_denied" { "403" } else { "401" };
        assert_eq!(status(&answer), expected, "{answer}");
    }
    assert_eq!(upstream.count(), 0);
    let lines = gateway.wait_for_access_lines(4);
    assert_eq!(
        lines[0]["portcullis.error"],
        "auth.mesh allows no name of the client's certificate"
    );
}

#[test]
fn who_may_have_a_certificate_is_decided_by_the_route() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let route = "auth: {require: mesh, anonymous: [/public]}";
    let plan = mesh.plan(", client_auth: optional", "", route);
    let gateway = plan.upstream(&upstream).start();
    let missing = mesh.call(&gateway, None, "").expect("an answer");
    assert!(missing.contains("credentials_missing"), "{missing}");
    let named = mesh.call(&gateway, Some(&mesh.of(WEB)), "").expect("an answer");
    assert_eq!(status(&named), "200", "{named}");
    // A certificate that is not good is no better than with `required`.
    let stranger = Authority::new().sign_client(&[WEB], &[], "");
    assert!(mesh.call(&gateway, Some(&stranger), "").is_err());
    let expired = mesh.ours.sign_expired("one.test");
    assert!(mesh.call(&gateway, Some(&expired), "").is_err());
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_certificate_that_breaks_the_rules_of_spiffe_gets_no_connection() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let gateway = mesh.plan("", "", "auth: {require: mesh}").upstream(&upstream).start();
    for uris in [
        &[WEB, "spiffe://prod/ns/shop/sa/root"][..],
        &[WEB, "https://shop.internal/"],
        &["spiffe://prod/a/../b"],
        &["spiffe://prod:8080/a"],
    ] {
        let own = mesh.ours.sign_client(uris, &["web.shop"], "");
        assert!(mesh.call(&gateway, Some(&own), "").is_err(), "{uris:?}");
    }
    eventually("failures by their reason", || {
        let labels = [("listener", "public"), ("reason", "client_certificate")];
        (gateway.metric("portcullis_tls_handshakes_failed_total", &labels) >= 4.0).then_some(())
    });
    let good = mesh.call(&gateway, Some(&mesh.of(WEB)), "").expect("an answer");
    assert_eq!((status(&good), upstream.count()), ("200", 1));
}

#[test]
fn a_certificate_that_rustls_takes_and_the_reader_of_names_does_not_gets_no_connection() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let plan = mesh.plan("", "common_name: true", "auth: {require: mesh}");
    let gateway = plan.upstream(&upstream).start();
    // Its common name would do, if the names before it could be passed over.
    // A length beyond the end, a length without an end, and a DNS name that is no text.
    for names in [&b"\x30\x03\x82\x05a"[..], b"\x30\x02\x86\x80", b"\x30\x03\x82\x01\xff"] {
        let own = mesh.ours.sign_unreadable(names, "root");
        assert!(mesh.call(&gateway, Some(&own), "").is_err(), "{names:?}");
    }
    let labels = [("listener", "public"), ("reason", "client_certificate")];
    eventually("failures by their reason", || {
        (gateway.metric("portcullis_tls_handshakes_failed_total", &labels) >= 3.0).then_some(())
    });
    let good = mesh.call(&gateway, Some(&mesh.of(WEB)), "").expect("an answer");
    assert_eq!((status(&good), upstream.count()), ("200", 1));
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

#[test]
fn names_come_in_their_order_and_a_common_name_only_where_it_is_allowed() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let gateway = mesh.plan("", "common_name: true", "auth: {require: mesh}");
    let gateway = gateway.upstream(&upstream).start();
    for (own, name) in [
        (mesh.ours.sign_client(&[WEB], &["web.shop"], "Web"), WEB),
        (mesh.ours.sign_client(&["https://web.shop/"], &["Web.shop", "b"], "Web"), "web.shop"),
        (mesh.ours.sign_client(&[], &[], "Web"), "Web"),
    ] {
        let answer = mesh.call(&gateway, Some(&own), "").expect("an answer");
        assert_eq!(status(&answer), "200", "{answer}");
        let received = upstream.requests().pop().expect("a request");
        assert_eq!(received.header("x-consumer"), Some(name));
    }
}

#[test]
fn limits_and_keys_count_by_the_name_in_the_certificate() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let route =
        "auth: {require: mesh}\nrate_limit: {fixed_window: {requests: 2, per: 1h}, key: consumer}";
    let gateway = mesh.plan("", "", route).upstream(&upstream).start();
    let (web, other) = (mesh.of(WEB), mesh.of("spiffe://prod/ns/shop/sa/other"));
    // Another certificate of the same name is the same caller.
    let renewed = mesh.of(WEB);
    let statuses: Vec<String> = [&web, &renewed, &web, &other]
        .map(|own| mesh.call(&gateway, Some(own), "").expect("an answer"))
        .iter()
        .map(|answer| status(answer).to_owned())
        .collect();
    assert_eq!(statuses, ["200", "200", "429", "200"]);
}

#[test]
fn a_resumed_session_has_the_name_of_its_certificate() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let gateway = mesh.plan("", "", "auth: {require: mesh}").upstream(&upstream).start();
    for version in [&TLS12, &TLS13] {
        let client = crate::support::Returning::new(&mesh.ours, Some(&mesh.of(WEB)), version);
        client.visit(gateway.address).expect("a first visit");
        let again = client.visit(gateway.address).expect("a second visit");
        assert_eq!(again, rustls::HandshakeKind::Resumed);
        let received = upstream.requests().pop().expect("a request");
        assert_eq!(received.header("x-consumer"), Some(WEB));
    }
}

#[test]
fn streams_of_http2_have_the_name_of_their_connection() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let gateway = mesh.plan("", "", "auth: {require: mesh}").upstream(&upstream).start();
    let own = mesh.of(WEB);
    let stream = connect_tls(gateway.address, "one.test", &mesh.ours, Some(&own), "h2");
    let client = crate::support::H2Client::over(async { stream.expect("a handshake") });
    for _ in 0..2 {
        let answer =
            client.call(crate::support::request("GET", "/orders").body(&b""[..]).expect("a call"));
        assert_eq!(answer.status, 200);
    }
    for received in upstream.wait_for(2) {
        assert_eq!(received.header("x-consumer"), Some(WEB));
    }
}

#[test]
fn what_is_revoked_is_refused_and_a_new_list_counts_at_once() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let (good, bad) = (mesh.of(WEB), mesh.of("spiffe://prod/ns/shop/sa/bad"));
    let tls = ", client_crl: crl.pem";
    let plan =
        mesh.plan(tls, "", "auth: {require: mesh}").beside("crl.pem", &mesh.ours.revoke(&[]));
    let plan = plan.section("server: {threads: 2, drain_timeout: 5s, watch_certificates: 100ms}");
    let gateway = plan.upstream(&upstream).start();
    for own in [&good, &bad] {
        assert_eq!(status(&mesh.call(&gateway, Some(own), "").expect("an answer")), "200");
    }
    // Earlier sessions are not resumed.
    let client = crate::support::Returning::new(&mesh.ours, Some(&bad), &TLS13);
    client.visit(gateway.address).expect("a first visit");
    std::fs::write(gateway.directory().join("crl.pem"), mesh.ours.revoke(&[&bad])).expect("a file");
    eventually("the list is in force", || {
        mesh.call(&gateway, Some(&bad), "").is_err().then_some(())
    });
    assert!(client.visit(gateway.address).is_err());
    assert_eq!(status(&mesh.call(&gateway, Some(&good), "").expect("an answer")), "200");
}

#[test]
fn a_byte_order_mark_hides_neither_the_first_list_nor_the_first_authority() {
    let (mesh, other, upstream) = (Mesh::new(), Authority::named("another"), Upstream::start());
    let (good, bad) = (mesh.of(WEB), mesh.of("spiffe://prod/ns/shop/sa/bad"));
    let theirs = other.sign_client(&["spiffe://prod/ns/shop/sa/theirs"], &[], "");
    // The first list of an authority counts.
    let lists = format!("\u{feff}{}{}", mesh.ours.revoke(&[&bad]), mesh.ours.revoke(&[]));
    let authorities = format!("\u{feff}{}{}", mesh.ours.pem(), other.pem());
    let plan = mesh.plan(", client_crl: crl.pem", "", "auth: {require: mesh}");
    let plan = plan.beside("ca.pem", &authorities).beside("crl.pem", &lists);
    let gateway = plan.upstream(&upstream).start();
    for own in [&good, &theirs] {
        assert_eq!(status(&mesh.call(&gateway, Some(own), "").expect("an answer")), "200");
    }
    assert!(mesh.call(&gateway, Some(&bad), "").is_err());
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_trusted_proxy_that_ended_tls_is_believed_only_where_that_is_said() {
    let upstream = Upstream::start();
    let start = |more: &str, auth: &str| {
        let auth = format!("auth: {{mesh: {{client_certificate: {{{auth}}}}}}}");
        let plan = Plan::route("auth: {require: mesh}").section(&auth);
        plan.section(more).upstream(&upstream).start()
    };
    let trusting = "client_address: {trusted_proxies: [127.0.0.0/8]}";
    let call = |gateway: &Gateway| {
        let field = format!("By=spiffe://prod/edge;URI=spiffe://prod/first,URI={WEB}");
        gateway.call(Call::new("GET /orders").header("X-Forwarded-Client-Cert", &field))
    };
    for (server, auth) in [("", ""), ("", "from_proxies: true"), (trusting, "")] {
        let refused = call(&start(server, auth));
        assert_eq!(
            (refused.status, &*refused.code()),
            (401, "credentials_missing"),
            "{server} {auth}"
        );
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(call(&start(trusting, "from_proxies: true")).status, 200);
    let received = upstream.only();
    assert_eq!(received.all("x-consumer"), [WEB]);
    assert!(received.header("x-forwarded-client-cert").is_some_and(|told| told.ends_with(WEB)));
}

#[test]
fn an_expired_certificate_ends_what_it_began() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let gateway = mesh.plan("", "common_name: true", "auth: {require: mesh}");
    let gateway = gateway.upstream(&upstream).start();
    let own = mesh.ours.sign_until("web.shop", 6);
    let config = client_config(&mesh.ours, Some(&own), &[&TLS13]);
    let mut stream = crate::support::connect_tls_by(config, b"", gateway.address, "one.test")
        .expect("a handshake");
    let request = "GET /orders HTTP/1.1\r\nHost: one.test\r\n\r\n";
    let mut answered = 0;
    eventually("the certificate has expired, and the connection ends", || {
        let mut answer = [0; 1024];
        let read = wait("an answer or the end", async {
            stream.write_all(request.as_bytes()).await?;
            stream.read(&mut answer).await
        });
        let Ok(read @ 1..) = read else { return Some(()) };
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
        answered += 1;
        None
    });
    assert!(answered > 0, "it was good at first");
    assert_eq!(upstream.count(), answered);
}

/// A gateway that is a client of `inner`, by the certificate in `own.pem`.
fn beside(mesh: &Mesh, inner: &Gateway, own: &Leaf, protocol: &str) -> Plan {
    let tls = "{server_name: one.test, ca: ca.pem, client_certificate: {certificate: own.pem, key: own.key}}";
    let service =
        format!("{{endpoints: [\"https://{}\"], protocol: {protocol}, tls: {tls}}}", inner.address);
    Plan::route("")
        .section(&format!("upstreams: {{service: {service}}}"))
        .section("server: {threads: 2, drain_timeout: 5s, watch_certificates: 100ms}")
        .beside("ca.pem", &mesh.ours.pem())
        .beside("own.pem", &own.pem())
        .beside("own.key", &own.key_pem())
}

#[test]
fn a_gateway_proves_to_its_upstream_who_it_is_and_a_renewed_certificate_counts_by_itself() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let inner = mesh.plan("", "allow: ['spiffe://prod/*']", "auth: {require: mesh}");
    let inner = inner.upstream(&upstream).start();
    for protocol in ["http1", "h2", "auto"] {
        let outer = beside(&mesh, &inner, &mesh.of(WEB), protocol).start();
        let who = || {
            assert_eq!(outer.get("/orders").status, 200, "{protocol}");
            let received = upstream.requests().pop().expect("a request");
            received.header("x-consumer").map(str::to_owned)
        };
        assert_eq!(who().as_deref(), Some(WEB), "{protocol}");
        let renewed = mesh.of("spiffe://prod/renewed");
        let write = |name: &str, text: String| {
            std::fs::write(outer.directory().join(name), text).expect("a file");
        };
        write("own.pem", renewed.pem());
        outer.wait_for_log("upstreams.service.tls");
        // A certificate without its key is not taken.
        assert_eq!(who().as_deref(), Some(WEB), "{protocol}");
        write("own.key", renewed.key_pem());
        eventually("the renewed certificate is shown", || {
            (who().as_deref() == Some("spiffe://prod/renewed")).then_some(())
        });
    }
}

#[test]
fn an_upstream_that_wants_a_certificate_refuses_who_has_none_or_another() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let inner = mesh.plan("", "", "auth: {require: mesh}").upstream(&upstream).start();
    let stranger = Authority::new().sign_client(&[WEB], &[], "");
    let outer = beside(&mesh, &inner, &stranger, "http1").start();
    assert_eq!(outer.get("/orders").status, 502);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_session_that_was_begun_without_a_certificate_ends_where_one_is_wanted() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let plan = mesh.plan(", client_auth: optional", "", "").upstream(&upstream);
    let (yaml, gateway) = (plan.yaml(), plan.start());
    let clients: Vec<_> = [&TLS12, &TLS13]
        .into_iter()
        .map(|version| crate::support::Returning::new(&mesh.ours, None, version))
        .collect();
    for client in &clients {
        client.visit(gateway.address).expect("a first visit");
    }
    assert!(gateway.reload(&yaml.replace(", client_auth: optional", "")));
    for client in &clients {
        assert!(client.visit(gateway.address).is_err());
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_client_cannot_hide_what_a_believed_proxy_says_of_it() {
    let upstream = Upstream::start();
    let auth = "auth: {mesh: {client_certificate: {from_proxies: true}}}";
    let plan = Plan::route("auth: {require: mesh}").section(auth);
    let plan = plan.section("client_address: {trusted_proxies: [127.0.0.0/8]}");
    let gateway = plan.upstream(&upstream).start();
    let appended = ",By=spiffe://prod/edge;Hash=ab;URI=spiffe://prod/evil";
    for (field, code) in [
        (format!("URI=spiffe://prod/root;X=a\"{appended}"), "credentials_invalid"),
        (format!("URI=spiffe://prod/root;Subject=\"CN=a{appended}"), "credentials_invalid"),
        ("By=spiffe://prod/edge;Hash=ab".to_owned(), "credentials_invalid"),
    ] {
        let call = Call::new("GET /orders").header("X-Forwarded-Client-Cert", &field);
        assert_eq!(gateway.call(call).code(), code, "{field}");
    }
    let honest = format!("URI=spiffe://prod/root{appended}");
    let call = Call::new("GET /orders").header("X-Forwarded-Client-Cert", &honest);
    assert_eq!(gateway.call(call).status, 200);
    assert_eq!(upstream.only().all("x-consumer"), ["spiffe://prod/evil"]);
}

#[test]
fn a_route_can_be_for_certain_certificates_and_never_by_a_header() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let shop = "match: {path: /orders, client_certificate: ['spiffe://prod/ns/shop/*']}";
    let listener = "listeners: {public: {address: \"127.0.0.1:${PORT}\", tls: {certificates: [{certificate: one.pem, key: one.key}], client_ca: ca.pem, client_auth: optional}}}";
    let respond = |status: u16| format!("respond: {{status: {status}}}");
    let routes = format!(
        "client_address: {{trusted_proxies: [127.0.0.0/8]}}
routes:
  all: {{match: {{path: /orders}}, {}}}
  named: {{match: {{path: /orders, client_certificate: 'spiffe://prod/*'}}, {}}}
  shop: {{{shop}, {}}}
  web: {{match: {{path: /orders, client_certificate: '{WEB}', headers: {{X-New: 'yes'}}}}, {}}}
  dns: {{match: {{path: /orders, client_certificate: [a.internal, '*.shop']}}, {}}}
",
        respond(200),
        respond(201),
        respond(202),
        respond(203),
        respond(299),
    );
    let plan = Plan::new(&routes).section(listener);
    let plan = plan.beside("one.pem", &mesh.server.pem()).beside("one.key", &mesh.server.key_pem());
    let gateway = plan.beside("ca.pem", &mesh.ours.pem()).upstream(&upstream).start();
    let of = |uri: &str| mesh.of(uri);
    let dns = |names: &[&str]| mesh.ours.sign_client(&[], names, "b.shop");
    for (own, headers, expected) in [
        (None, "", "200"),
        (None, "X-Forwarded-Client-Cert: URI=spiffe://prod/ns/shop/sa/web\r\n", "200"),
        (Some(of("spiffe://prod/db")), "", "201"),
        (Some(of(WEB)), "", "202"),
        (Some(of(WEB)), "X-New: yes\r\n", "203"),
        (Some(of("spiffe://test/db")), "X-New: yes\r\n", "200"),
        (Some(dns(&["other", "b.shop"])), "", "299"),
        (Some(dns(&[])), "", "200"),
    ] {
        let answer = mesh.call(&gateway, own.as_ref(), headers).expect("an answer");
        assert_eq!(status(&answer), expected, "{headers}: {answer}");
    }
    // Whom a connection belongs to holds for HTTP/2 as well.
    let own = of(WEB);
    let stream = connect_tls(gateway.address, "one.test", &mesh.ours, Some(&own), "h2");
    let client = crate::support::H2Client::over(async { stream.expect("a handshake") });
    let call = crate::support::request("GET", "/orders").body(&b""[..]).expect("a call");
    assert_eq!(client.call(call).status, 202);
    let variables =
        [("PORT", "1"), ("ADMIN_ADDRESS", "127.0.0.1:2"), ("UPSTREAM", "http://10.0.0.1")];
    let arguments = ["routes", "-c", "portcullis.yaml"];
    let finished = Gateway::finish(&arguments, gateway.directory(), &variables);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let table = finished.stdout;
    let order = ["web", "shop", "named", "dns", "all"].map(|route| {
        let row = table.lines().position(|line| line.split("  ").any(|cell| cell.trim() == route));
        row.unwrap_or_else(|| panic!("{route}: {table}"))
    });
    assert!(order[0] < order[1] && order[1] < order[2] && order[2] < order[4], "{table}");
    assert!(order[3] < order[4], "{table}");
    assert!(table.contains("certificate of a.internal or *.shop"), "{table}");
}

#[test]
fn logs_name_the_clients_certificate_whatever_the_route_asks_for() {
    let (mesh, upstream) = (Mesh::new(), Upstream::script([200, 500]));
    let access = "access_log: {keep: {success: 100%}}";
    let start = |tls: &str, access: &str| {
        let plan = mesh.plan(tls, "", "").section(access);
        plan.upstream(&upstream).start()
    };
    let gateway = start(", client_auth: optional", access);
    let long = format!("spiffe://prod/{}", "a/".repeat(500) + "b");
    for own in
        [Some(mesh.of(WEB)), Some(mesh.of(&long)), None, Some(mesh.ours.sign_client(&[], &[], ""))]
    {
        mesh.call(&gateway, own.as_ref(), "").expect("an answer");
    }
    let lines = gateway.wait_for_access_lines(4);
    let named = |n: usize| lines[n]["portcullis.client_certificate"].as_str();
    assert_eq!((named(0), lines[0]["portcullis.outcome"].as_str()), (Some(WEB), Some("success")));
    assert_eq!(lines[0]["portcullis.consumer"], serde_json::Value::Null, "nothing was asked for");
    assert_eq!(lines[1]["http.response.status_code"], 500);
    assert!(
        named(1)
            .is_some_and(|name| name.len() < 300 && long.starts_with(name.trim_end_matches('…'))),
        "{:?}",
        named(1)
    );
    assert_eq!(named(2), None);
    // It has no name: its digest tells it from others.
    assert_eq!(named(3).map(str::len), Some(64));
    let masked = start("", "access_log: {keep: {success: 100%}, mask: [consumer]}");
    mesh.call(&masked, Some(&mesh.of(WEB)), "").expect("an answer");
    let line = &masked.wait_for_access_lines(1)[0];
    assert_eq!(line["portcullis.client_certificate"], serde_json::Value::Null);
}
