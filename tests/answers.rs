//! Routes that answer by themselves: `respond` and `redirect`, instead of an upstream.

use crate::support::{
    Authority, Call, Client, Dialect, Gateway, H2Client, Plan, Store, Upstream, connect_tls,
    eventually, request,
};

const SECURED: &str = "
client_address: {trusted_proxies: [127.0.0.1]}
routes:
  to-tls: {match: {scheme: http}, redirect: {scheme: https}}
  challenge: {match: {scheme: http, path: /.well-known/acme-challenge/*}, upstream: service}
  users: {match: {path: /users/*}, upstream: service}
  all: {upstream: service}
";

fn location(gateway: &Gateway, call: Call) -> (u16, Option<String>) {
    let response = gateway.call(call);
    (response.status, response.header("location").map(str::to_owned))
}

fn to(url: &str) -> (u16, Option<String>) {
    (307, Some(url.to_owned()))
}

#[test]
fn one_line_sends_all_that_comes_in_the_clear_to_tls() {
    let upstream = Upstream::start();
    let gateway = Plan::new(SECURED).upstream(&upstream).start();
    for path in ["/", "/users/7", "/users/a%20b?x=1&y=%2F"] {
        let secured = (308, Some(format!("https://shop.test{path}")));
        let call = Call::new(&format!("POST {path}")).to("Shop.test:8080").body("kept");
        assert_eq!(location(&gateway, call), secured, "{path}");
    }
    assert_eq!(upstream.count(), 0, "what came in the clear is sent elsewhere");
    let trusted = Call::new("GET /users/7").header("X-Forwarded-Proto", "https");
    assert_eq!(gateway.call(trusted).status, 200, "the proxy in front has TLS");
    assert_eq!(gateway.get("/.well-known/acme-challenge/x").status, 200, "more specific");
    assert_eq!(upstream.count(), 2);
}

#[test]
fn what_comes_over_tls_is_served_and_not_sent_round() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let leaf = authority.sign("one.test");
    let address = "address: '127.0.0.1:${PORT}'";
    let tls = "tls: {certificates: [{certificate: one.pem, key: one.key}]}";
    let gateway = Plan::new(SECURED)
        .section(&format!("listeners: {{public: {{{address}, {tls}}}}}"))
        .beside("one.pem", &leaf.pem())
        .beside("one.key", &leaf.key_pem())
        .upstream(&upstream)
        .start();
    let h2 = connect_tls(gateway.address, "one.test", &authority, None, "h2").expect("TLS");
    assert_eq!(H2Client::over(async { h2 }).get("/users/7").status, 200);
    assert_eq!(upstream.count(), 1);
}

const ELSEWHERE: &str = "
routes:
  host: {match: {host: old.test}, redirect: {host: new.test, status: 301}}
  docs: {match: {path: '/docs/:version/*'}, redirect: {to: 'https://docs.test/v/{version}/{*}'}}
  moved: {match: {path: /api/v1/*}, redirect: {strip_prefix: /api/v1, add_prefix: /v2}}
  short: {match: {path: /s}, redirect: {path: /long, query: drop, status: 303}}
  loose: {match: {path: /l/*, slashes: as_sent}, redirect: {strip_prefix: /l}}
";

#[test]
fn a_redirect_names_only_hosts_that_are_written_or_the_requests_own() {
    let gateway = Plan::new(ELSEWHERE).start();
    let get = |path: &str| location(&gateway, Call::new(&format!("GET {path}")).to("a.test:81"));
    assert_eq!(get("/docs/7/a/b?q"), to("https://docs.test/v/7/a/b?q"));
    assert_eq!(get("/api/v1/users?x=1"), to("/v2/users?x=1"), "no host: the same one");
    assert_eq!(get("/s?x=1"), (303, Some("/long".to_owned())));
    // No path of a client names another host, however many slashes it begins with.
    assert_eq!(get("/l//evil.test/x"), to("/evil.test/x"));
    let old = location(&gateway, Call::new("GET /x?y").to("old.test:81"));
    assert_eq!(old, (301, Some("http://new.test/x?y".to_owned())));
    for host in ["evil.test/@old.test", "old.test@evil.test", "old.test:x", "old.test evil"] {
        let refused = gateway.call(Call::new("GET /s").to(host));
        assert_eq!((refused.status, refused.header("location")), (400, None), "{host}");
    }
}

#[test]
fn a_header_of_an_untrusted_peer_does_not_pass_for_tls() {
    let upstream = Upstream::start();
    let plan = Plan::new(SECURED).replacing("[127.0.0.1]", "[]");
    let gateway = plan.upstream(&upstream).start();
    let call = Call::new("GET /users/7").to("shop.test").header("X-Forwarded-Proto", "https");
    assert_eq!(location(&gateway, call), (308, Some("https://shop.test/users/7".to_owned())));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn of_several_schemes_the_one_that_the_trusted_proxy_appended_counts() {
    let upstream = Upstream::start();
    let gateway = Plan::new(SECURED).upstream(&upstream).start();
    let call = || Call::new("GET /users/7").to("shop.test");
    let secured = (308, Some("https://shop.test/users/7".to_owned()));
    // The first is what the client wrote, in front of the proxy.
    let appended = call().header("X-Forwarded-Proto", "https, http");
    assert_eq!(location(&gateway, appended), secured);
    let added =
        call().header("X-Forwarded-Proto", "https").header("X-Forwarded-Proto", "wss , http");
    assert_eq!(location(&gateway, added), secured);
    assert_eq!(upstream.count(), 0);
    let over_tls =
        call().header("X-Forwarded-Proto", "http").header("X-Forwarded-Proto", "http, https");
    assert_eq!(gateway.call(over_tls).status, 200);
    // The upstream is told what counted, and no more.
    assert_eq!(upstream.only().all("x-forwarded-proto"), ["https"]);
}

/// What `check` says of a route with these keys, on a listener without TLS.
fn checked(route: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let text = format!(
        "listeners: {{public: {{address: '127.0.0.1:8080'}}}}\nroutes: {{a: {{{route}}}}}\n"
    );
    std::fs::write(directory.path().join("c.yaml"), text).expect("a file");
    let finished = Gateway::finish(&["check", "-c", "c.yaml"], directory.path(), &[]);
    (finished.code, [finished.stdout, finished.stderr].concat())
}

#[test]
fn only_a_redirect_that_its_own_route_may_take_again_is_refused() {
    for sent_on in [
        "match: {scheme: http}, redirect: {scheme: https, port: 443}",
        "match: {scheme: http}, redirect: {port: 443}",
        // Nothing comes over TLS.
        "redirect: {port: 443}",
        "match: {host: a.test, scheme: http}, redirect: {to: 'https://a.test'}",
        "match: {host: a.test}, redirect: {to: 'https://a.test:8443'}",
        "match: {host: a.test}, redirect: {host: a.test, path: /x}",
        // The host itself may have a route.
        "match: {host: '*.a.test'}, redirect: {host: www.a.test}",
        "redirect: {host: a.test}",
    ] {
        let (code, told) = checked(sent_on);
        assert_eq!(code, Some(0), "{sent_on}: {told}");
    }
    for circle in [
        "redirect: {scheme: https, port: 443}",
        "match: {scheme: https}, redirect: {port: 443}",
        "redirect: {port: 80}",
        "match: {host: [b.test, a.test]}, redirect: {host: A.test}",
        "match: {host: a.test}, redirect: {to: 'https://a.test'}",
        "match: {host: a.test, scheme: https}, redirect: {to: 'https://a.test:443'}",
    ] {
        let (_, told) = checked(circle);
        assert!(told.contains("would be sent to itself"), "{circle}: {told}");
    }
}

const RESPONSES: &str = "
auth: {partners: {api_key: {keys: {acme: acme-key-0123456789}}}}
routes:
  robots: {match: {path: /robots.txt}, respond: {body: 'User-agent: *'}}
  gone: {match: {path: /old/*}, respond: {status: 410, body: <p>, content_type: text/html, headers: {X-Id: '{request.id}'}}}
  empty: {match: {path: /empty}, respond: {status: 204}}
  shut:
    match: {path: /gateway.v1.GatewayService/*}
    respond: {status: 503, body: '${file:shut.html}', content_type: text/html, headers: {Retry-After: '120'}}
    auth: {require: partners}
    rate_limit: {fixed_window: {requests: 12, per: 1h}}
    record: {mode: sync}
";

fn responses() -> Plan {
    Plan::new(RESPONSES).beside("shut.html", "<h1>Back soon</h1>")
}

#[test]
fn a_response_is_given_as_it_is_written() {
    let gateway = responses().start();
    let robots = gateway.get("/robots.txt");
    assert_eq!((robots.status, robots.text().as_str()), (200, "User-agent: *"));
    assert_eq!(robots.header("content-type"), Some("text/plain; charset=utf-8"));
    let gone = gateway.call(Call::new("GET /old/x").header("X-Request-Id", "r-1"));
    assert_eq!((gone.status, gone.text().as_str()), (410, "<p>"));
    assert_eq!(
        (gone.header("content-type"), gone.header("x-id")),
        (Some("text/html"), Some("r-1"))
    );
    let empty = gateway.get("/empty");
    assert_eq!((empty.status, empty.header("content-length"), empty.body_length), (204, None, 0));
    assert_eq!(empty.header("content-type"), None);
}

#[test]
fn the_connection_stays_in_order_whatever_the_client_sends() {
    let gateway = responses().start();
    let mut client = Client::connect(gateway.address);
    client.send("HEAD /robots.txt HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let head = client.receive_to("HEAD");
    assert_eq!((head.status, head.header("content-length")), (200, Some("13")));
    for _ in 0..3 {
        let response = client.call(&Call::new("POST /robots.txt").body("x".repeat(1000)));
        assert_eq!((response.status, response.text().as_str()), (200, "User-agent: *"));
    }
    let h2 = H2Client::connect(gateway.address);
    let head = h2.call(request("HEAD", "/robots.txt").body(&b""[..]).unwrap());
    assert_eq!((head.status, head.body.len(), head.reset), (200, 0, None));
    assert_eq!(h2.get("/robots.txt").text(), "User-agent: *");
    let large = h2.call(request("POST", "/old/x").body(&[b'x'; 60_000][..]).unwrap());
    assert_eq!((large.status, &large.body[..]), (410, &b"<p>"[..]));
    assert_eq!(h2.get("/robots.txt").status, 200);
}

#[test]
fn a_route_that_answers_itself_has_its_policies_and_its_row_and_is_no_failure() {
    let store = Store::Sqlite;
    let log = "access_log: {keep: {success: 100%}}";
    let gateway = responses().section(&store.section()).section(log).start();
    let call = || Call::new("POST /gateway.v1.GatewayService/X").header("X-Request-Id", "r-1");
    let refused = gateway.call(call());
    assert_eq!((refused.status, refused.code().as_str()), (401, "credentials_missing"));
    let shut = gateway.call(call().header("X-Api-Key", "acme-key-0123456789"));
    assert_eq!((shut.status, shut.text().as_str()), (503, "<h1>Back soon</h1>"));
    assert_eq!(shut.header("retry-after"), Some("120"));
    let row = store.rows(&gateway).pop().expect("committed before the response");
    assert_eq!((row.text("route"), row.text("cause")), (Some("shut"), None));
    let line = gateway.wait_for_access_lines(2).pop().expect("a line");
    assert_eq!(line["http.response.status_code"], 503);
    assert_eq!(
        (&line["portcullis.route"], &line["portcullis.outcome"]),
        (&"shut".into(), &"success".into())
    );
    let of_upstream = (line.get("portcullis.cause"), line.get("portcullis.upstream"));
    assert_eq!(of_upstream, (None, None), "{line}");
}

/// JSON is Connect only where this says so.
const CONNECT: (&str, &str) = ("connect-protocol-version", "1");

#[test]
fn callers_of_rpc_are_told_in_their_protocol() {
    let gateway = responses().start();
    for dialect in Dialect::ALL {
        let told = dialect.call(&gateway, "x", &[("x-api-key", "acme-key-0123456789"), CONNECT]);
        assert_eq!(told.said(), ("unavailable", "Service Unavailable"), "{dialect:?}");
    }
    for own in ["redirect: {scheme: https}\nmatch: {scheme: http}", "respond: {body: hello}"] {
        let gateway =
            Plan::new(&format!("routes:\n  all:\n    {}\n", own.replace('\n', "\n    "))).start();
        for dialect in Dialect::ALL {
            let told = dialect.call(&gateway, "x", &[CONNECT]);
            assert_eq!(told.code, "unimplemented", "{dialect:?} {own}");
            assert_eq!(told.header("location"), None, "no client of RPC follows it");
        }
        eventually("refusals in the metrics", || {
            let count = gateway.metric("portcullis_rejections_total", &[("code", "not_for_rpc")]);
            (count == Dialect::ALL.len() as f64).then_some(())
        });
    }
}

#[test]
fn a_route_that_writes_errors_as_connect_still_redirects_who_speaks_http() {
    let yaml = "routes: {all: {redirect: {to: 'https://b.test'}, errors: connect}}";
    let gateway = Plan::new(yaml).start();
    assert_eq!(location(&gateway, Call::new("GET /x")), to("https://b.test/x"));
}

#[test]
fn a_reload_opens_a_route_that_was_shut() {
    let upstream = Upstream::start();
    let plan = Plan::new("routes: {all: {respond: {status: 503}}}").upstream(&upstream);
    let gateway = plan.start();
    assert_eq!(gateway.get("/").status, 503);
    assert!(gateway.reload_route(""));
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn without_a_host_only_a_written_one_is_named() {
    let yaml = "routes: {all: {match: {scheme: http}, redirect: {scheme: https}}}";
    let gateway = Plan::new(yaml).start();
    let mut client = Client::connect(gateway.address);
    client.send("GET / HTTP/1.0\r\n\r\n");
    let refused = client.receive();
    assert_eq!((refused.status, refused.header("location")), (400, None));
}

#[test]
fn the_table_of_routes_begins_with_those_of_a_scheme_and_names_who_answers() {
    let directory = tempfile::tempdir().expect("a directory");
    let listeners = "listeners: {public: {address: '127.0.0.1:8080'}}\n";
    let routes = "routes:
  a: {match: {path: /a}, respond: {status: 503}}
  b: {match: {scheme: http}, redirect: {scheme: https}}\n";
    std::fs::write(directory.path().join("c.yaml"), [listeners, routes].concat()).expect("a file");
    let finished = Gateway::finish(&["routes", "-c", "c.yaml"], directory.path(), &[]);
    let lines: Vec<&str> = finished.stdout.lines().skip(1).collect();
    assert_eq!(lines.len(), 2, "{finished:?}");
    assert!(lines[0].starts_with("http://*") && lines[0].contains("(redirect 308)"), "{lines:?}");
    assert!(lines[1].starts_with('*') && lines[1].contains("(respond 503)"), "{lines:?}");
    let json =
        Gateway::finish(&["routes", "-c", "c.yaml", "--format", "json"], directory.path(), &[]);
    let first: serde_json::Value =
        serde_json::from_str(json.stdout.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["scheme"], &first["redirect"]), (&"http".into(), &308.into()));
}
