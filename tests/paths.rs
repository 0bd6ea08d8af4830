//! Encoded slashes and empty segments: refused, unless a route says that its upstream tells them apart.

use crate::support::{Gateway, H2Client, Plan, Upstream};

/// A broker whose names may hold slashes, a store of objects, and what must not be reached through
/// either.
const ROUTES: &str = "
auth: {partners: {api_key: {header: X-Api-Key, keys: {acme: acme-key-0123456789}}}}
routes:
  queue: {match: {path: '/api/queues/:vhost/:name', slashes: as_sent}, upstream: service, headers: {response: {set: {X-Route: queue}}}}
  api: {match: {path: /api/*, slashes: as_sent}, upstream: service, headers: {response: {set: {X-Route: api}}}}
  files: {match: {path: /files/*, slashes: as_sent}, upstream: service, rewrite: {strip_prefix: /files}, headers: {response: {set: {X-Route: files}}}}
  named: {match: {path: '/named/:a/:b', slashes: as_sent}, upstream: service, rewrite: {path: '/x/{a}.{b}'}}
  plain: {match: {path: /plain/*}, upstream: service}
  admin: {match: {path: /admin/*}, upstream: service, auth: {require: partners}}
  hidden: {match: {path: /hidden/*, slashes: as_sent}, upstream: service, auth: {require: partners}}
  half: {match: {path: /half/*, slashes: as_sent}, upstream: service, auth: {require: partners, anonymous: [/half/open]}}
  inside: {match: {path: /inside/*, slashes: as_sent}, upstream: service, networks: {allow: [192.0.2.0/24]}}
  pages: {match: {path: /pages/*, slashes: as_sent}, upstream: service, cors: {origins: ['https://own.test']}}
  rest: {match: {path: /*, slashes: as_sent}, upstream: service, headers: {response: {set: {X-Route: rest}}}}
";

fn gateway(upstream: &Upstream) -> Gateway {
    Plan::new(ROUTES).upstream(upstream).start()
}

fn last(upstream: &Upstream) -> String {
    upstream.requests().pop().expect("a request").target
}

#[test]
fn slashes_are_forwarded_as_sent_where_the_route_says_so() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    for (asked, route, forwarded) in [
        ("/api/queues/%2F/q", "queue", "/api/queues/%2F/q"),
        ("/api/queues/a%2fb/q?x=%2f", "queue", "/api/queues/a%2Fb/q?x=%2f"),
        (
            "/api/v4/projects/group%2Fproject/issues",
            "api",
            "/api/v4/projects/group%2Fproject/issues",
        ),
        ("/files//a", "files", "//a"),
        ("/files/a//b%2F%2Fc/", "files", "/a//b%2F%2Fc/"),
        ("//other", "rest", "//other"),
    ] {
        let response = gateway.get(asked);
        assert_eq!((response.status, response.header("x-route")), (200, Some(route)), "{asked}");
        assert_eq!(last(&upstream), forwarded, "{asked}");
    }
    let h2 = H2Client::connect(gateway.address);
    assert_eq!(h2.get("/api/queues/%2F/q").status, 200);
    assert_eq!(last(&upstream), "/api/queues/%2F/q");
}

#[test]
fn slashes_are_refused_where_the_route_does_not_say_so() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    for path in ["/plain/a%2Fb", "/plain//a", "/plain/a//", "/admin/%2F"] {
        let response = gateway.get(path);
        assert_eq!((response.status, response.code().as_str()), (400, "bad_request"), "{path}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn no_path_reaches_one_route_by_one_reading_and_another_by_the_upstreams() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    for path in [
        // An upstream that merges or decodes would read all of these as below /admin or /hidden.
        "//admin/x",
        "/admin%2Fx",
        "/%2Fadmin/x",
        "//hidden/x",
        "/hidden%2Fx",
        "/%2F%2Fhidden%2F/x",
        // Nor below what only some addresses may use, or some origins.
        "//inside/users",
        "/inside%2Fusers",
        "//pages/x",
        // Nothing is let out of its place.
        "/files/..%2Fadmin",
        "/files/%2e%2e%2fadmin",
        "/files//../admin",
        "/files/a%2F..",
        "/files/a%2F.%2Fb",
        "/files/..;%2Fadmin",
        "/api/queues/%2F/..",
        "/files/a%5C..%2Fb",
        // Put together by the rewrite, they would hold a dot segment: /x/a%2F.%2Fb.
        "/named/a%2F/%2Fb",
    ] {
        let status = gateway.get(path).status;
        assert!(matches!(status, 400 | 401), "{path}: {status}");
    }
    assert_eq!(upstream.count(), 0, "{:?}", upstream.requests());
}

#[test]
fn open_prefixes_are_of_segments_as_they_were_sent() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    for (path, status) in [
        ("/half/open/a%2Fb", 200),
        ("/half/open//b", 200),
        ("/half/open%2Fb", 401),
        ("/half//open/b", 401),
        ("/half/%2Fopen/b", 401),
        ("/half/open/..%2Fsecret", 400),
        ("/half/open/%2e%2e/secret", 400),
    ] {
        assert_eq!(gateway.get(path).status, status, "{path}");
    }
    assert_eq!(upstream.count(), 2, "{:?}", upstream.requests());
}

#[test]
fn options_of_the_server_itself_go_nowhere() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    let mut client = gateway.connect();
    for _ in 0..2 {
        client.send("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let response = client.receive_to("OPTIONS");
        assert_eq!((response.status, response.text().as_str()), (204, ""));
        assert!(response.header("x-request-id").is_some());
    }
    client.send("GET * HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.receive().status, 400);
    let mut client = gateway.connect();
    client.send("OPTIONS * HTTP/1.1\r\n\r\n");
    assert_eq!(client.receive_to("OPTIONS").status, 400, "a request names its host");
    let h2 = H2Client::connect(gateway.address);
    let star = http::Uri::builder().scheme("http").authority("a.test").path_and_query("*");
    let head = http::Request::builder().method("OPTIONS").uri(star.build().expect("a target"));
    let response = h2.call(head.body(&b""[..]).expect("a request"));
    assert_eq!((response.status, response.body.len()), (204, 0));
    assert_eq!(upstream.count(), 0);
}
