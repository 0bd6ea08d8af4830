//! `upstreams.NAME.tls.pins`: an upstream that shows another certificate gets no request.

use std::process::Command;

use crate::support::{Authority, Call, Gateway, Leaf, Plan, at_once, eventually};

/// A server that shows `leaf`, over HTTP/1.1 and HTTP/2.
pub(crate) fn behind(leaf: &Leaf) -> Gateway {
    let listener = "listeners: {public: {address: \"127.0.0.1:${PORT}\", tls: {certificates: [{certificate: one.pem, key: one.key}]}}}";
    let plan = Plan::new("routes: {all: {match: {path: /*}, serve: live}}").section(listener);
    plan.beside("one.pem", &leaf.pem()).beside("one.key", &leaf.key_pem()).start()
}

/// A gateway in front of it, which trusts `authority`; `tls` is more of that section.
pub(crate) fn in_front(
    behind: &Gateway,
    authority: &Authority,
    route: &str,
    protocol: &str,
    tls: &str,
) -> Plan {
    let service = format!(
        "upstreams: {{service: {{endpoints: ['https://{}'], protocol: {protocol}, tls: {{server_name: one.test, ca: ca.pem, {tls}}}}}}}",
        behind.address
    );
    Plan::route(route).section(&service).beside("ca.pem", &authority.pem())
}

/// The key `pins` with the digests that `openssl` prints of these.
fn pins(leaves: &[&Leaf]) -> String {
    let digests: Vec<_> = leaves.iter().map(|leaf| format!("\"{}\"", digest(leaf))).collect();
    format!("pins: [{}]", digests.join(", "))
}

/// By the command of the documentation.
fn digest(leaf: &Leaf) -> String {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/concepts/tls.md"));
    let page = page.expect("the page");
    let command = page.lines().find(|line| line.starts_with("openssl x509 -in app.pem"));
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("app.pem"), leaf.pem()).expect("written");
    let output = Command::new("sh")
        .args(["-c", command.expect("the command")])
        .current_dir(directory.path())
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).expect("text");
    let (_, digest) = printed.trim().split_once("ingerprint=").expect("a digest");
    digest.to_owned()
}

fn requests(behind: &Gateway) -> f64 {
    behind.metric("portcullis_requests_total", &[("route", "all")])
}

fn connections(behind: &Gateway) -> f64 {
    behind.metric("portcullis_connections", &[])
}

fn opened(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_upstream_connects_total", &[("upstream", "service")])
}

#[test]
fn another_certificate_gets_no_request_and_keeps_no_connection() {
    let ours = Authority::new();
    let (leaf, other) = (ours.sign("one.test"), ours.sign("one.test"));
    let behind = behind(&leaf);
    for protocol in ["http1", "h2", "auto"] {
        for verify in ["verify: true", "verify: false"] {
            let tls = format!("{verify}, {}", pins(&[&other]));
            let route = "retry: {max_retries: 1, on: [connect_failure], methods: any, backoff: {base: 1ms}}";
            let gateway = in_front(&behind, &ours, route, protocol, &tls).start();
            let answer = gateway.call(Call::new("POST /").json("{}"));
            let case = format!("{protocol}, {verify}");
            assert_eq!((answer.status, &*answer.code()), (502, "tls_unpinned"), "{case}");
            let line = &gateway.wait_for_access_lines(1)[0];
            let said = line["portcullis.error"].as_str().expect("words");
            assert!(said.contains(&digest(&leaf)), "{case}: {said}");
            let attempts = |outcome| {
                let labels = [("upstream", "service"), ("outcome", outcome)];
                gateway.metric("portcullis_upstream_attempts_total", &labels)
            };
            assert_eq!((attempts("tls_failure"), attempts("2xx")), (2.0, 0.0), "{case}");
            // Nor do those that come at once share it.
            let calls = (0..16).map(|_| Call::new("GET /"));
            at_once(calls, |call| assert_eq!(gateway.call(call).status, 502, "{case}"));
            eventually(&format!("closed connections: {case}"), || {
                (connections(&behind) == 0.0).then_some(())
            });
        }
    }
    assert_eq!(requests(&behind), 0.0, "not a byte of a request");
}

#[test]
fn the_pinned_certificate_is_enough_without_verification_and_its_connections_are_shared() {
    let (ours, stranger) = (Authority::new(), Authority::new());
    let leaf = ours.sign("another.test");
    let behind = behind(&leaf);
    for protocol in ["http1", "h2", "auto"] {
        let tls = format!("verify: false, {}", pins(&[&ours.sign("one.test"), &leaf]));
        let gateway = in_front(&behind, &stranger, "", protocol, &tls).start();
        for _ in 0..5 {
            assert_eq!(gateway.get("/").status, 200, "{protocol}\n{}", gateway.access());
        }
        // A client may be answered a moment before the connection is in the pool again.
        assert!(opened(&gateway) < 5.0, "{protocol}");
        // With verification, a pin does not help.
        let tls = pins(&[&leaf]);
        let gateway = in_front(&behind, &stranger, "", protocol, &tls).start();
        assert_eq!(gateway.get("/").code(), "tls_unknown_authority", "{protocol}");
    }
}

#[test]
fn a_reload_to_other_pins_leaves_the_connections_of_before() {
    let ours = Authority::new();
    let (leaf, next) = (ours.sign("one.test"), ours.sign("one.test"));
    let behind = behind(&leaf);
    for protocol in ["http1", "h2"] {
        let plan = |leaves: &[&Leaf]| in_front(&behind, &ours, "", protocol, &pins(leaves));
        let gateway = plan(&[&leaf]).start();
        assert_eq!(gateway.get("/").status, 200);
        let before = requests(&behind);
        assert!(gateway.reload_plan(&plan(&[&next])), "{}", gateway.log());
        assert_eq!(gateway.get("/").code(), "tls_unpinned", "{protocol}");
        assert_eq!(requests(&behind), before);
        // Both, while a certificate is renewed.
        assert!(gateway.reload_plan(&plan(&[&next, &leaf])), "{}", gateway.log());
        assert_eq!(gateway.get("/").status, 200, "{protocol}");
    }
}

#[test]
fn circuits_and_ejection_count_it_and_other_endpoints_are_used() {
    let ours = Authority::new();
    let (leaf, other) = (ours.sign("one.test"), ours.sign("one.test"));
    let (good, bad) = (behind(&leaf), behind(&other));
    for protocol in ["http1", "h2"] {
        let circuit = "circuit_breaker: {consecutive: {failures: 2}, open_for: 1m}";
        let alone = in_front(&bad, &ours, circuit, protocol, &pins(&[&leaf])).start();
        let codes = [(); 3].map(|()| alone.get("/").code());
        assert_eq!(codes, ["tls_unpinned", "tls_unpinned", "circuit_open"], "{protocol}");

        let both = format!(
            "upstreams: {{service: {{endpoints: ['https://{}', 'https://{}'], protocol: {protocol}, ejection: {{consecutive_failures: 3, eject_for: 1m}}, tls: {{server_name: one.test, ca: ca.pem, {}}}}}}}",
            good.address,
            bad.address,
            pins(&[&leaf])
        );
        let gateway = Plan::route("").section(&both).beside("ca.pem", &ours.pem()).start();
        for _ in 0..40 {
            assert_eq!(gateway.get("/").status, 200, "{protocol}");
        }
        let ejected = || gateway.metric("portcullis_upstream_ejected", &[("upstream", "service")]);
        eventually("an ejected endpoint", || (ejected() == 1.0).then_some(()));
    }
    assert_eq!(requests(&bad), 0.0);
}

#[test]
fn health_checks_go_by_the_same_pins() {
    let ours = Authority::new();
    let (leaf, other) = (ours.sign("one.test"), ours.sign("one.test"));
    let (good, bad) = (behind(&leaf), behind(&other));
    for (protocol, check) in
        [("http1", "http: {path: /}"), ("h2", "http: {path: /}"), ("h2", "tcp: {}")]
    {
        let health =
            format!("health: {{{check}, interval: 100ms, fast_interval: 50ms, unhealthy: 1}}");
        let service = format!(
            "upstreams: {{service: {{endpoints: ['https://{}', 'https://{}'], protocol: {protocol}, {health}, tls: {{server_name: one.test, ca: ca.pem, {}}}}}}}",
            good.address,
            bad.address,
            pins(&[&leaf])
        );
        let gateway = Plan::route("").section(&service).beside("ca.pem", &ours.pem()).start();
        let checks = |result| {
            let labels = [("upstream", "service"), ("result", result)];
            gateway.metric("portcullis_upstream_health_checks_total", &labels)
        };
        eventually(&format!("checks of both: {protocol}, {check}"), || {
            (checks("tls_unpinned") > 1.0 && checks("passed") > 1.0).then_some(())
        });
        let healthy =
            gateway.metric("portcullis_upstream_endpoints_healthy", &[("upstream", "service")]);
        assert_eq!(healthy, 1.0, "{protocol}, {check}");
    }
    assert_eq!(requests(&bad), 0.0);
}

#[test]
fn a_rejected_connection_of_http2_holds_no_descriptor() {
    let ours = Authority::new();
    let (leaf, other) = (ours.sign("one.test"), ours.sign("one.test"));
    let behind = behind(&leaf);
    let gateway = in_front(&behind, &ours, "", "h2", &pins(&[&other])).start();
    gateway.get("/");
    // Both connections of the first request are gone, and what else came with it stays.
    behind.expect_metric("portcullis_connections", &[], 0.0);
    gateway.expect_metric("portcullis_connections", &[], 0.0);
    let before = gateway.descriptors();
    for _ in 0..30 {
        assert_eq!(gateway.get("/").status, 502);
    }
    eventually("as many descriptors as before", || {
        (gateway.descriptors() <= before + 2).then_some(())
    });
}
