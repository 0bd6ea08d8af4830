//! The profile of a sidecar, run as its users run it: one beside each of two services, by environment
//! variables alone.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Authority, Call, Client, Gateway, H2Client, H2Upstream, Leaf, Load, Plan, Port, Reply,
    Upstream, connect_tls, eventually, frame, request, timed, wait,
};

const A: &str = "spiffe://mesh/ns/shop/sa/a";
const OPS: &str = "spiffe://mesh/ns/ops/sa/admin";

/// A sidecar: what its service calls goes to `gateway.address`, what others call comes in at `inbound`.
struct Sidecar {
    gateway: Gateway,
    inbound: SocketAddr,
    folder: tempfile::TempDir,
    _port: Port,
}

impl Sidecar {
    /// Beside the service at `url`, as `own`; `vouched` is what it trusts.
    fn start(
        own: &Leaf,
        vouched: &Authority,
        url: &str,
        more: &[(&str, &str)],
        from: impl FnOnce() -> Plan,
    ) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), Port::reserve());
        vouched.put(own, folder.path());
        let mut plan = from()
            .after("export SIDECAR_OUTBOUND=127.0.0.1:$PORT")
            .env("SIDECAR_INBOUND", &port.address().to_string())
            .env("SIDECAR_NETWORKS", "127.0.0.0/8")
            .env("SIDECAR_CERTIFICATES", folder.path().to_str().expect("a path"))
            .env("SERVICE_URL", url)
            .env("RETRY_DELAY_MS", "1");
        for (name, value) in more {
            plan = plan.env(name, value);
        }
        Sidecar { gateway: plan.start(), inbound: port.address(), folder, _port: port }
    }

    /// Tells it where an instance of `target` is.
    fn knows(&self, target: &str, other: &Sidecar) {
        let call = Call::new(&format!("PUT /upstreams/{target}/endpoints/one"));
        let body = json!({"address": other.inbound.to_string(), "lease": "1h"});
        let told = self.gateway.admin(call.body(body.to_string()));
        assert_eq!(told.status / 100, 2, "{}", told.text());
    }

    fn call(&self, line: &str, host: &str) -> crate::support::Response {
        self.gateway.call(Call::new(line).header("Host", host))
    }
}

fn profile() -> Plan {
    Plan::file(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/sidecar.yaml"))
}

fn certificate(authority: &Authority, uri: &str, name: &str) -> Leaf {
    authority.sign_client(&[uri], &[name], "")
}

/// Two services, `a` and `b`, each beside its sidecar; `a` may call `b`.
struct Mesh {
    authority: Authority,
    service: Upstream,
    a: Sidecar,
    b: Sidecar,
}

impl Mesh {
    fn new() -> Self {
        Mesh::with(&[], &[])
    }

    /// With more in the environments of the two.
    fn with(of_a: &[(&str, &str)], of_b: &[(&str, &str)]) -> Self {
        let (authority, service) = (Authority::new(), Upstream::start());
        let (own_a, own_b) = (
            certificate(&authority, A, "a"),
            certificate(&authority, "spiffe://mesh/ns/shop/sa/b", "b"),
        );
        let of_a = [&[("SIDECAR_TARGETS", "b")][..], of_a].concat();
        let a = Sidecar::start(&own_a, &authority, "http://127.0.0.1:9", &of_a, profile);
        let b = Sidecar::start(&own_b, &authority, &service.url(), of_b, profile);
        a.knows("b", &b);
        Mesh { authority, service, a, b }
    }

    /// What `b` answers a call of `own` that comes from no sidecar; an error without a connection.
    fn direct(&self, own: Option<&Leaf>, line: &str, headers: &str) -> std::io::Result<String> {
        let mut stream = connect_tls(self.b.inbound, "b", &self.authority, own, "http/1.1")?;
        wait("an answer", async {
            let request = format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        })
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn a_service_is_called_by_its_name_and_learns_who_calls_from_the_certificate_alone() {
    let mesh = Mesh::new();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let call = Call::new("GET /orders/7?x=1")
        .header("Host", "b")
        .header("X-Source-Service", "root")
        .header("X_Source_Service", "root")
        .header("X-Forwarded-Client-Cert", "URI=spiffe://mesh/root")
        .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"));
    let answer = mesh.a.gateway.call(call);
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), mesh.a.gateway.log());
    let received = mesh.service.only();
    assert_eq!(received.target, "/orders/7?x=1");
    assert_eq!(received.all("x-source-service"), [A]);
    assert_eq!(received.header("x_source_service"), None);
    let told = received.all("x-forwarded-client-cert");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("Hash=") && told[0].ends_with(&format!(";URI={A}")), "{told:?}");
    assert!(received.header("traceparent").is_some_and(|it| it.contains(trace)), "{received:?}");
    assert_eq!(received.header("host"), Some("b"), "as it was called");
}

#[test]
fn each_way_of_writing_the_name_leads_to_the_same_service() {
    let mesh = Mesh::new();
    let hosts = ["b", "B", "b.", "b:80", "b.internal", "B.Internal.:8080", "b.svc.cluster.local"];
    for host in hosts {
        assert_eq!(mesh.a.call("GET /", host).status, 200, "{host}");
    }
    // As clients ask a proxy; the target counts, not the field (RFC 9112, section 3.2.2).
    for (line, host) in
        [("GET http://b/one", "b"), ("GET http://b.internal:80/two", "b.internal:80")]
    {
        assert_eq!(mesh.a.call(line, host).status, 200, "{line}");
    }
    assert_eq!(mesh.service.count(), hosts.len() + 2);
    let received = mesh.service.requests();
    let traced = received.iter().filter(|one| one.header("traceparent").is_some()).count();
    assert_eq!(traced, received.len(), "each is traced, though no client has begun it");
    // What the field said then is not passed on.
    let other = mesh.a.call("GET http://b/three", "c");
    let last = mesh.service.requests().pop().expect("a request");
    assert!(other.status == 400 || last.header("host") == Some("b"), "{}: {last:?}", other.status);
}

#[test]
fn nothing_is_sent_to_a_name_that_is_not_allowed() {
    let mesh = Mesh::new();
    // Where it would go if it were a proxy for anyone.
    let other = Upstream::start();
    let at = other.address().to_string();
    for (host, expected) in [
        ("c", 404),
        ("a", 404),
        ("service", 404),
        ("targets", 404),
        ("b.evil", 404),
        ("evil.b", 404),
        ("b.internal.evil", 404),
        ("b.internal.internal", 404),
        ("internal", 404),
        ("localhost", 404),
        ("127.0.0.1", 404),
        ("[::1]", 404),
        (&*at, 404),
        ("b@c", 400),
        ("c@b", 400),
        ("b%2einternal", 400),
        ("b c", 400),
        ("b,c", 400),
        ("b..", 400),
        (".internal", 400),
        ("b:0", 400),
    ] {
        let answer = mesh.a.call("GET /", host);
        assert_eq!(answer.status, expected, "{host}: {}", answer.text());
        if expected == 404 {
            assert_eq!(answer.code(), "no_route", "{host}");
        }
    }
    for target in [format!("http://{at}/"), "http://c/".to_owned(), format!("http://b@{at}/")] {
        for host in ["b", &*at] {
            let answer = mesh.a.call(&format!("GET {target}"), host);
            assert!([400, 404].contains(&answer.status), "{target} {host}: {}", answer.status);
        }
    }
    let mut twice = Client::connect(mesh.a.gateway.address);
    twice.send("GET / HTTP/1.1\r\nHost: b\r\nHost: c\r\n\r\n");
    assert_eq!(twice.receive().status, 400);
    assert_eq!(mesh.a.call(&format!("CONNECT {at}"), &at).status / 100, 4);
    assert_eq!((mesh.service.count(), other.count()), (0, 0));
}

#[test]
fn what_comes_in_never_goes_out_again_and_what_goes_out_never_comes_in() {
    let (authority, services) = (Authority::new(), [Upstream::start(), Upstream::start()]);
    let start = |name: &str, service: &Upstream, targets: &str| {
        let own = certificate(&authority, &format!("spiffe://mesh/{name}"), name);
        Sidecar::start(&own, &authority, &service.url(), &[("SIDECAR_TARGETS", targets)], profile)
    };
    let b = start("b", &services[0], "c");
    let c = start("c", &services[1], "");
    b.knows("c", &c);
    let mesh = Mesh { service: Upstream::start(), a: start("a", &services[0], ""), b, authority };
    let own = certificate(&mesh.authority, A, "a");
    for (line, host) in [("GET /in", "c"), ("GET http://c/in", "c"), ("GET /in", "c.internal")] {
        let answer = mesh.direct(Some(&own), line, &format!("Host: {host}\r\n"));
        assert_eq!(status(&answer.expect("an answer")), "200", "{line} {host}");
    }
    // The service beside it got them, whatever they name; the one that it may call has got nothing.
    assert_eq!((services[0].count(), services[1].count()), (3, 0));
    assert_eq!(mesh.b.call("GET /out", "c").status, 200);
    assert_eq!((services[0].count(), services[1].count()), (3, 1));
    // A service's own name is no target, so its sidecar is no way to itself.
    assert_eq!(mesh.b.call("GET /admin", "b").status, 404);
    // A service without targets calls none.
    assert_eq!(mesh.a.call("GET /", "c").status, 404);
    assert_eq!(services[0].count(), 3);
}

#[test]
fn a_caller_without_a_certificate_of_the_mesh_gets_no_connection() {
    let mesh = Mesh::new();
    let own = certificate(&mesh.authority, A, "a");
    let answer = mesh.direct(Some(&own), "GET /", "Host: b\r\nX-Source-Service: root\r\n");
    assert_eq!(status(&answer.expect("an answer")), "200");
    assert_eq!(mesh.service.only().all("x-source-service"), [A]);
    assert!(mesh.direct(None, "GET /", "Host: b\r\n").is_err());
    let stranger = Authority::new();
    let forged = certificate(&stranger, A, "a");
    assert!(mesh.direct(Some(&forged), "GET /", "Host: b\r\n").is_err());
    let expired = mesh.authority.sign_expired("a");
    assert!(mesh.direct(Some(&expired), "GET /", "Host: b\r\n").is_err());
    // Nor does a sidecar call one that it cannot verify, or that has another name.
    let fake = Sidecar::start(
        &certificate(&stranger, "spiffe://mesh/b", "b"),
        &mesh.authority,
        &mesh.service.url(),
        &[],
        profile,
    );
    mesh.a.knows("b", &fake);
    let lied_to = certificate(&mesh.authority, "spiffe://mesh/c", "c");
    assert_eq!(mesh.a.call("GET /", "b").status, 502);
    let misnamed = Sidecar::start(&lied_to, &mesh.authority, &mesh.service.url(), &[], profile);
    mesh.a.knows("b", &misnamed);
    assert_eq!(mesh.a.call("GET /", "b").status, 502);
    assert_eq!(mesh.service.count(), 1);
}

#[test]
fn admin_is_for_those_callers_alone_that_the_environment_names() {
    let allowed = [("SIDECAR_ADMIN_CALLERS", "spiffe://mesh/ns/ops/*, tools.mesh")];
    let mesh = Mesh::with(&[], &allowed);
    let (ops, tools) =
        (certificate(&mesh.authority, OPS, "ops"), mesh.authority.sign("tools.mesh"));
    for own in [&ops, &tools] {
        let answer = mesh.direct(Some(own), "GET /admin/users", "Host: b\r\n").expect("an answer");
        assert_eq!(status(&answer), "200", "{answer}");
    }
    for path in ["/admin", "/admin/", "/admin/users", "/%61dmin/users", "/x/../admin/users"] {
        let refused = mesh.a.call(&format!("GET {path}"), "b");
        assert!([400, 403].contains(&refused.status), "{path}: {}", refused.text());
    }
    let refused = mesh.a.gateway.call(
        Call::new("POST /admin/users")
            .header("Host", "b")
            .header("Content-Type", "application/grpc"),
    );
    assert!(refused.status == 403 || refused.header("grpc-status") == Some("7"), "{refused:?}");
    assert_eq!(mesh.a.call("GET /users", "b").status, 200);
    assert_eq!(mesh.service.count(), 3);
    // Without a list it is for none.
    let closed = Mesh::new();
    let ops = certificate(&closed.authority, OPS, "ops");
    let answer = closed.direct(Some(&ops), "GET /admin", "Host: b\r\n").expect("an answer");
    assert_eq!(status(&answer), "403", "{answer}");
    assert_eq!(closed.service.count(), 0);
}

#[test]
fn each_calling_service_has_a_limit_of_its_own() {
    let mesh = Mesh::with(&[], &[("RATE_LIMIT", "2"), ("RATE_WINDOW_MS", "3600000")]);
    let statuses = [(); 3].map(|()| mesh.a.call("GET /", "b").status);
    assert_eq!(statuses, [200, 200, 429]);
    let other = certificate(&mesh.authority, OPS, "ops");
    let answer = mesh.direct(Some(&other), "GET /", "Host: b\r\n").expect("an answer");
    assert_eq!((status(&answer), mesh.service.count()), ("200", 3));
}

#[test]
fn retries_stay_within_a_budget() {
    let of_a = [("CIRCUIT_FAILURES", "1000"), ("CIRCUIT_MINIMUM_CALLS", "1000")];
    let mesh = Mesh::with(&of_a, &[("RATE_LIMIT", "100000")]);
    mesh.service.answer_always(503);
    let (requests, took) = timed(|| {
        let statuses = [(); 60].map(|()| mesh.a.call("GET /", "b").status);
        assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
        statuses.len()
    });
    let retries = mesh.service.count() - requests;
    // Three a second, saved up for ten seconds; and a fifth of the requests.
    let granted = 30 + 3 * (took.as_secs() as usize + 1) + requests / 5;
    assert!(retries >= 3 && retries <= granted, "{retries} of {granted}");
    assert!(retries < 2 * requests, "not two for each");
}

#[test]
fn a_service_that_fails_is_left_alone_until_it_works_again() {
    let mesh = Mesh::with(&[("CIRCUIT_OPEN_MS", "1000"), ("MAX_RETRIES", "0")], &[]);
    mesh.service.answer_always(503);
    let codes = [(); 7].map(|()| {
        let answer = mesh.a.call("GET /", "b");
        (answer.status, answer.text().contains("circuit_open"))
    });
    assert_eq!(codes[..5], [(503, false); 5], "{codes:?}");
    assert_eq!(codes[5..], [(503, true); 2], "{codes:?}");
    assert_eq!(mesh.service.count(), 5);
    mesh.service.answer_always(200);
    eventually("a half-open circuit", || {
        let state = mesh.a.gateway.metric("portcullis_circuit_state", &[("name", "b")]);
        (state == 1.0).then_some(())
    });
    assert_eq!([(); 4].map(|()| mesh.a.call("GET /", "b").status), [200; 4]);
    eventually("a closed circuit", || {
        let state = mesh.a.gateway.metric("portcullis_circuit_state", &[("name", "b")]);
        (state == 0.0).then_some(())
    });
}

#[test]
fn calls_of_grpc_pass_both_sidecars_with_the_callers_name() {
    let service = H2Upstream::always(Reply::grpc(b"world", 0).trailer("x-cost", "7"));
    let authority = Authority::new();
    let (own_a, own_b) =
        (certificate(&authority, A, "a"), certificate(&authority, "spiffe://mesh/b", "b"));
    let targets = [("SIDECAR_TARGETS", "b")];
    let a = Sidecar::start(&own_a, &authority, "http://127.0.0.1:9", &targets, profile);
    let b = Sidecar::start(&own_b, &authority, &service.url(), &[], profile);
    a.knows("b", &b);
    let call = http::Request::builder()
        .method("POST")
        .uri("http://b/test.Service/Call")
        .header("content-type", "application/grpc")
        .header("x-source-service", "root")
        .header("te", "trailers");
    let client = H2Client::connect(a.gateway.address);
    let answer = client.call(call.body(&frame(b"hello")[..]).expect("a call"));
    assert_eq!((answer.status, &answer.body[..]), (200, &frame(b"world")[..]));
    let trailers = answer.trailers.expect("trailers");
    assert_eq!((&trailers["grpc-status"] == "0", &trailers["x-cost"] == "7"), (true, true));
    let seen = service.only();
    assert_eq!(seen.body, frame(b"hello"));
    assert_eq!(seen.headers.get_all("x-source-service").iter().collect::<Vec<_>>(), [A]);
    // To another name, in its own protocol.
    let call = request("POST", "/test.Service/Call").header("content-type", "application/grpc");
    let refused = client.call(call.body(&frame(b"hello")[..]).expect("a call"));
    assert_eq!(refused.status_field("grpc-status"), Some("12"));
    assert_eq!(service.count(), 1);
}

#[test]
fn renewed_certificates_are_taken_under_load_and_no_request_fails() {
    // As the profile, but it looks at the files more often than every 10 s.
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/sidecar.yaml"))
            .expect("the profile");
    let often = || {
        Plan::new(&text)
            .section("server: {threads: 2, drain_timeout: 5s, watch_certificates: 100ms}")
    };
    let (authority, service) = (Authority::new(), Upstream::start());
    let leaf = |name: &str| certificate(&authority, &format!("spiffe://mesh/{name}"), name);
    // The load asks for another host than `b`.
    let targets = [("SIDECAR_TARGETS", "gateway.test")];
    let a = Sidecar::start(&leaf("a"), &authority, "http://127.0.0.1:9", &targets, often);
    let limit = [("RATE_LIMIT", "1000000")];
    let b = Sidecar::start(&leaf("gateway.test"), &authority, &service.url(), &limit, often);
    a.knows("gateway.test", &b);
    let load = Load::paced(a.gateway.address, 4, "rotation", Duration::from_millis(5));
    let rotated = |sidecar: &Sidecar, parts: f64| {
        let labels = [("result", "ok")];
        let seen = || sidecar.gateway.metric("portcullis_tls_rotations_total", &labels);
        eventually("the files are in force", || (seen() >= parts).then_some(()));
    };
    for round in 1..=5 {
        authority.put(&leaf("a"), a.folder.path());
        authority.put(&leaf("gateway.test"), b.folder.path());
        let before = load.answers();
        // Listener and upstream.
        rotated(&a, f64::from(2 * round));
        rotated(&b, f64::from(round));
        eventually("answers", || (load.answers() > before + 20).then_some(()));
    }
    assert_eq!(load.broken(), 0);
    let answers = load.finish();
    let failed: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!(answers.len() > 100 && failed.is_empty(), "{} of {}", failed.len(), answers.len());
}

#[test]
fn each_target_is_an_upstream_of_its_own_with_its_name() {
    let (authority, service) = (Authority::new(), Upstream::start());
    let own = certificate(&authority, A, "a");
    let targets = [("SIDECAR_TARGETS", "orders, billing.shop")];
    let a = Sidecar::start(&own, &authority, &service.url(), &targets, profile);
    let status = a.gateway.status();
    for name in ["orders", "billing.shop"] {
        let circuit = &status["upstreams"][name]["circuit"];
        assert!(circuit.is_object(), "{name}: {status}");
        assert_eq!(a.gateway.metric("portcullis_circuit_state", &[("name", name)]), 0.0);
    }
    assert!(status["upstreams"]["targets"].is_null(), "{status}");
    // Known, but nowhere yet.
    let refused = a.call("GET /", "billing.shop.internal");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(service.count(), 0);
}

#[test]
fn what_is_made_of_the_targets_can_be_looked_at_and_a_wrong_name_is_shown() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    authority.put(&certificate(&authority, A, "a"), folder.path());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/sidecar.yaml");
    let run = |command: &str, targets: &str| {
        let certificates = folder.path().to_str().expect("a path");
        let environment = [("SIDECAR_CERTIFICATES", certificates), ("SIDECAR_TARGETS", targets)];
        let arguments = [command, "-c", file.to_str().expect("a path")];
        Gateway::finish(&arguments, folder.path(), &environment)
    };
    let right = run("check", "orders,billing");
    assert_eq!(right.code, Some(0), "{}", right.stderr);
    let shown = run("config", "orders,billing").stdout;
    for part in ["  orders:", "  billing:", "- https://billing:15006", "- orders  #"] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert!(!shown.contains("each"), "{shown}");
    let listed = run("routes", "orders,billing").stdout;
    // Once for each of the two routes, not for each target.
    assert_eq!(listed.matches("5 failures in a row").count(), 2, "{listed}");
    let rows: Vec<Vec<&str>> = listed.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..2], ["LISTENER", "HOST"], "{listed}");
    assert!(rows[1..].iter().all(|row| ["inbound", "outbound"].contains(&row[0])), "{listed}");
    assert!(listed.contains("orders, billing by host"), "{listed}");
    let wrong = run("check", "orders,Orders!");
    assert_eq!(wrong.code, Some(1));
    let told = "upstreams.targets.each[0]: `Orders!`, in ${SIDECAR_TARGETS}, is not a name";
    assert!(wrong.stderr.contains(told), "{}", wrong.stderr);
    let twice = run("check", "orders,service");
    assert!(twice.stderr.contains("`service` is already defined"), "{}", twice.stderr);
}
