//! `permit`: which callers may make which calls, by keys, tokens and certificates, in every protocol.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::callers::{Mesh, WEB, status};
use crate::support::{
    Call, Gateway, H2Client, H2Upstream, Issuer, Plan, Reply, Upstream, connect_tls, eventually,
    frame, request, wait,
};

const KEYS: &str =
    "auth: {partners: {api_key: {keys: {acme: acme-key-0123456789, umbra: umbra-key-0123456789}}}}";
const ACME: &str = "acme-key-0123456789";
const UMBRA: &str = "umbra-key-0123456789";

fn by_key(call: &str, key: &str) -> Call {
    Call::new(call).header("X-Api-Key", key)
}

fn permitting(permit: &str, more: &str) -> Plan {
    Plan::route(&format!("auth: {{require: partners, permit: {permit}}}\n{more}")).section(KEYS)
}

#[test]
fn a_caller_makes_the_calls_that_it_may_and_no_others() {
    let upstream = Upstream::start();
    let permit = "[{callers: acme, methods: [GET, POST], paths: ['/orders/*']}, {callers: umbra, paths: /admin/:x}]";
    let gateway = permitting(permit, "").upstream(&upstream).start();
    for (call, key, expected) in [
        ("GET /orders/7?x=/admin/y", ACME, 200),
        ("POST /orders", ACME, 200),
        ("HEAD /orders/7", ACME, 403),
        ("PUT /orders/7", ACME, 403),
        ("GET /admin/x", ACME, 403),
        ("GET /orders/7", UMBRA, 403),
        ("DELETE /admin/x", UMBRA, 200),
        // The path that is compared is the canonical one.
        ("DELETE /%61dmin/%78", UMBRA, 200),
        ("GET /%61dmin/x", ACME, 403),
        ("GET /admin/x/y", UMBRA, 403),
        ("GET /orders/7", "no-such-key", 401),
    ] {
        assert_eq!(gateway.call(by_key(call, key)).status, expected, "{call} {key}");
    }
    assert_eq!(upstream.count(), 4);
    let refused = gateway.call(by_key("PUT /orders/7", ACME));
    assert_eq!(
        (refused.code().as_str(), refused.header("www-authenticate")),
        ("call_denied", None)
    );
    let labels = [("route", "all"), ("code", "call_denied")];
    gateway.expect_metric("portcullis_rejections_total", &labels, 7.0);
}

#[test]
fn the_log_says_what_is_lacking_and_the_client_is_not_told() {
    let gateway = permitting("[{callers: acme, methods: GET, paths: /orders}]", "");
    let gateway = gateway.upstream(&Upstream::start()).start();
    let calls = [("GET /orders", UMBRA), ("GET /other", ACME), ("POST /orders", ACME)];
    for (number, (call, key)) in calls.into_iter().enumerate() {
        assert!(!gateway.call(by_key(call, key)).text().contains("permit"));
        // One after the other: threads write lines in whatever order.
        gateway.wait_for_access_lines(number + 1);
    }
    let lines = gateway.wait_for_access_lines(3);
    let said: Vec<_> = lines.iter().map(|line| &line["portcullis.error"]).collect();
    assert_eq!(said[0], "no entry of `auth.permit` is for this caller");
    assert_eq!(said[1], "the entries of `auth.permit` for this caller are for other paths");
    assert_eq!(
        said[2],
        "the entries of `auth.permit` for this caller and path are for other methods"
    );
    assert_eq!(lines[0]["portcullis.consumer"], "umbra");
}

#[test]
fn a_rewrite_changes_nothing_of_what_is_permitted() {
    let upstream = Upstream::start();
    let route = "rewrite: {path: /admin/all}";
    let gateway =
        permitting("[{callers: acme, paths: /orders}]", route).upstream(&upstream).start();
    assert_eq!(gateway.call(by_key("GET /orders", ACME)).status, 200);
    assert_eq!(upstream.only().target, "/admin/all");
    assert_eq!(gateway.call(by_key("GET /admin/all", ACME)).status, 403);
}

#[test]
fn open_paths_and_preflights_ask_for_no_permit() {
    let upstream = Upstream::start();
    let auth =
        "auth: {require: partners, anonymous: [/open], permit: [{callers: acme, paths: /orders}]}";
    let plan =
        Plan::route(&format!("{auth}\ncors: {{origins: ['https://shop.test'], methods: [PUT]}}"));
    let gateway = plan.section(KEYS).upstream(&upstream).start();
    assert_eq!(gateway.get("/open/door").status, 200);
    assert_eq!(gateway.call(by_key("GET /open/door", UMBRA)).status, 200);
    let preflight = Call::new("OPTIONS /elsewhere")
        .header("Origin", "https://shop.test")
        .header("Access-Control-Request-Method", "PUT");
    let answer = gateway.call(preflight);
    assert_eq!(answer.status, 204, "{}", answer.text());
    // The request that follows is asked, and its page can read the refusal.
    let call = by_key("PUT /elsewhere", ACME).header("Origin", "https://shop.test");
    let refused = gateway.call(call);
    assert_eq!((refused.status, refused.code().as_str()), (403, "call_denied"));
    assert!(refused.header("access-control-allow-origin").is_some());
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_kept_response_goes_to_no_caller_that_may_not_make_the_call() {
    let upstream = Upstream::start();
    let keys = "idempotency: {required: true}";
    let plan = |permit: &str| {
        let store = "record: {store: {sqlite: {path: \"${PORTCULLIS_DATA}/portcullis.db\"}}}";
        permitting(permit, keys).section(store).upstream(&upstream)
    };
    let gateway = plan("[{callers: acme, paths: /pay}]").start();
    let pay = || by_key("POST /pay", ACME).header("Idempotency-Key", "k").json("{}");
    assert_eq!(gateway.call(pay()).status, 200);
    let replayed = gateway.call(pay());
    assert_eq!((replayed.status, replayed.header("idempotency-replayed")), (200, Some("true")));
    assert!(gateway.reload_plan(&plan("[{callers: umbra, paths: /pay}]")));
    let refused = gateway.call(pay());
    assert_eq!((refused.status, refused.code().as_str()), (403, "call_denied"));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_dry_run_counts_what_it_would_deny() {
    let upstream = Upstream::start();
    let auth =
        "auth: {require: partners, enforce: false, permit: [{callers: acme, paths: /orders}]}";
    let gateway = Plan::route(auth).section(KEYS).upstream(&upstream).start();
    for (call, key) in [("GET /orders", ACME), ("GET /other", ACME), ("GET /orders", UMBRA)] {
        assert_eq!(gateway.call(by_key(call, key)).status, 200);
    }
    let labels = [("route", "all"), ("code", "call_denied")];
    eventually("two would be denied", || {
        let count = gateway.metric("portcullis_would_refuse_total", &labels);
        (count == 2.0).then_some(())
    });
    let named: Vec<_> =
        upstream.requests().iter().map(|r| r.header("x-consumer").map(str::to_owned)).collect();
    assert_eq!(named, [Some("acme".to_owned()), None, None]);
}

#[test]
fn a_service_in_the_mesh_makes_the_calls_that_its_name_may() {
    let (mesh, upstream) = (Mesh::new(), Upstream::start());
    let route = "auth: {require: mesh, permit: [{callers: ['spiffe://prod/ns/shop/*'], methods: GET, paths: ['/orders']}]}";
    let gateway = mesh.plan("", "", route).upstream(&upstream).start();
    let told = |uri: &str| {
        let answer = mesh.call(&gateway, Some(&mesh.of(uri)), "").expect("an answer");
        (status(&answer).to_owned(), answer.contains("call_denied"))
    };
    assert_eq!(told(WEB), ("200".to_owned(), false));
    for other in [
        "spiffe://prod/ns/shopping/sa/web",
        "spiffe://test/ns/shop/sa/web",
        "spiffe://prod/ns/shop",
    ] {
        assert_eq!(told(other), ("403".to_owned(), true), "{other}");
    }
    assert_eq!(upstream.count(), 1);
    let own = mesh.of(WEB);
    let mut stream = connect_tls(gateway.address, "one.test", &mesh.ours, Some(&own), "http/1.1")
        .expect("a handshake");
    let answer = wait("an answer", async {
        stream.write_all(b"POST /orders HTTP/1.1\r\nHost: one.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    });
    assert_eq!(status(&answer.expect("an answer")), "403");
}

/// The subject of a token is what its issuer lets a user choose.
#[test]
fn a_token_that_is_named_like_a_service_is_not_that_service() {
    let (issuer, upstream) = (Issuer::start(), Upstream::start());
    let start = |permit: &str| {
        let jwt = "jwt: {issuer: auth-service, audience: any, algorithms: [RS256], jwks: {url: '${JWKS_URL}'}}";
        let auth = format!(
            "auth: {{accounts: {{{jwt}}}, mesh: {{client_certificate: {{from_proxies: true}}}}}}"
        );
        let route = format!("auth: {{require: [mesh, accounts], permit: {permit}}}");
        let server = "client_address: {trusted_proxies: [127.0.0.0/8]}";
        let plan = Plan::route(&route).section(&auth).section(server).upstream(&upstream);
        plan.env("JWKS_URL", &issuer.url()).start()
    };
    let token = |name: &str| Call::new("GET /orders").bearer(&issuer.token(name));
    let service = |name: &str| {
        let field =
            if name.contains("://") { format!("URI={name}") } else { format!("DNS={name}") };
        Call::new("GET /orders").header("X-Forwarded-Client-Cert", &field)
    };
    let by_pattern = start("[{callers: ['spiffe://prod/*', '*.shop.internal']}]");
    for name in [WEB, "web.shop.internal"] {
        assert_eq!(by_pattern.call(service(name)).status, 200, "{name}");
        assert_eq!(by_pattern.call(token(name)).code(), "call_denied", "{name}");
    }
    let by_authority = start("[{callers: [{auth: accounts, name: web.shop.internal}, ada]}]");
    for (call, expected) in [
        (token("web.shop.internal"), 200),
        (service("web.shop.internal"), 403),
        (token("ada"), 200),
        (service("ada"), 403),
    ] {
        assert_eq!(by_authority.call(call).status, expected);
    }
}

#[test]
fn calls_of_grpc_are_permitted_by_their_method() {
    let mesh = Mesh::new();
    let upstream = H2Upstream::always(Reply::grpc(b"x", 0));
    let route = "auth: {require: mesh, permit: [{callers: ['spiffe://prod/ns/shop/*'], methods: POST, paths: [/shop.Orders/Get]}]}";
    let gateway = mesh.plan("", "", route).h2_upstream(&upstream).start();
    let call = |gateway: &Gateway, uri: &str, path: &str| {
        let own = mesh.of(uri);
        let stream = connect_tls(gateway.address, "one.test", &mesh.ours, Some(&own), "h2");
        let client = H2Client::over(async { stream.expect("a handshake") });
        let call = request("POST", path)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let body = frame(b"x");
        let answer = client.call(call.body(&body[..]).expect("a call"));
        answer.status_field("grpc-status").map(str::to_owned)
    };
    assert_eq!(call(&gateway, WEB, "/shop.Orders/Get").as_deref(), Some("0"));
    assert_eq!(call(&gateway, WEB, "/shop.Orders/Delete").as_deref(), Some("7"));
    assert_eq!(call(&gateway, "spiffe://prod/ns/ops", "/shop.Orders/Get").as_deref(), Some("7"));
}

#[test]
fn a_denial_is_written_in_the_callers_protocol() {
    let gateway = permitting("[{callers: acme, paths: /orders}]", "").upstream(&Upstream::start());
    let gateway = gateway.start();
    let unary = by_key("POST /s.S/M", ACME).header("Connect-Protocol-Version", "1").json("{}");
    let connect = gateway.call(unary);
    assert_eq!((connect.status, &connect.json()["code"]), (403, &"permission_denied".into()));
    let web = by_key("POST /s.S/M", ACME).header("Content-Type", "application/grpc-web+proto");
    let web = gateway.call(web.body(frame(b"x")));
    assert!(web.text().contains("grpc-status: 7"), "{}", web.text());
    let plain = gateway.call(by_key("POST /s.S/M", ACME));
    assert_eq!(plain.header("content-type"), Some("application/problem+json"));
}
