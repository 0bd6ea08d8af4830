//! Which route a request takes, and what of it goes upstream.

use crate::support::{Call, Gateway, Plan, Response, Upstream};

/// Routes that say their name in the answer.
const NAMED: &str = "
routes:
  exact: {match: {path: /users/me}, upstream: service, headers: {response: {set: {X-Route: exact}}}}
  one: {match: {path: '/users/:id', methods: [GET]}, upstream: service, headers: {response: {set: {X-Route: one}}}}
  rest: {match: {path: /users/*}, upstream: service, headers: {response: {set: {X-Route: rest}}}}
  host: {match: {host: api.test, path: /users/me}, upstream: service, headers: {response: {set: {X-Route: host}}}}
  any-host: {match: {host: '*.wild.test', path: /users/me}, upstream: service, headers: {response: {set: {X-Route: any-host}}}}
  orders: {match: {path: [/orders, /baskets], methods: [GET, POST]}, upstream: service, headers: {response: {set: {X-Route: orders}}}}
";

fn named(upstream: &Upstream) -> Gateway {
    Plan::new(NAMED).upstream(upstream).start()
}

#[track_caller]
fn route_of(response: &Response) -> &str {
    response.header("x-route").expect("a route answered")
}

#[test]
fn a_literal_beats_a_parameter_and_a_parameter_beats_a_wildcard() {
    let upstream = Upstream::start();
    let gateway = named(&upstream);
    for (path, route) in [
        ("/users/me", "exact"),
        ("/users/42", "one"),
        ("/users/42/orders", "rest"),
        ("/users/me/orders", "rest"),
    ] {
        assert_eq!(route_of(&gateway.get(path)), route, "{path}");
    }
}

#[test]
fn a_less_specific_route_serves_the_method_that_the_specific_one_lacks() {
    let upstream = Upstream::start();
    assert_eq!(route_of(&named(&upstream).call("DELETE /users/42")), "rest");
}

#[test]
fn the_host_chooses_before_the_path() {
    let upstream = Upstream::start();
    let gateway = named(&upstream);
    for (host, route) in [
        ("api.test", "host"),
        ("API.Test:8080", "host"),
        ("a.wild.test", "any-host"),
        ("wild.test", "exact"),
        ("other.test", "exact"),
    ] {
        let response = gateway.call(Call::new("GET /users/me").header("Host", host));
        assert_eq!(route_of(&response), route, "{host}");
    }
}

#[test]
fn one_route_may_have_several_paths() {
    let upstream = Upstream::start();
    let gateway = named(&upstream);
    assert_eq!(route_of(&gateway.get("/orders")), "orders");
    assert_eq!(route_of(&gateway.get("/baskets")), "orders");
}

#[test]
fn only_whole_segments_match() {
    let upstream = Upstream::start();
    let gateway = named(&upstream);
    assert_eq!(gateway.get("/usersme").status, 404);
    assert_eq!(gateway.get("/ordersX").status, 404);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn an_unknown_path_is_404_and_reaches_nobody() {
    let upstream = Upstream::start();
    let response = named(&upstream).get("/nowhere");
    assert_eq!((response.status, response.code().as_str()), (404, "no_route"));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_wrong_method_is_405_and_told_the_right_ones() {
    let upstream = Upstream::start();
    let response = named(&upstream).call("DELETE /orders");
    assert_eq!((response.status, response.code().as_str()), (405, "method_not_allowed"));
    let allow = response.header("allow").expect("Allow").to_owned();
    let mut methods: Vec<_> = allow.split(',').map(str::trim).collect();
    methods.retain(|method| *method != "HEAD");
    methods.sort_unstable();
    assert_eq!(methods, ["GET", "POST"]);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn the_canonical_path_is_the_one_that_is_routed_and_forwarded() {
    let upstream = Upstream::start();
    let gateway = named(&upstream);
    assert_eq!(route_of(&gateway.get("/%75sers/%6de?q=%6de&r=a%2Fb")), "exact");
    assert_eq!(route_of(&gateway.get("/users/a%7eb%c3%a9")), "one");
    let targets: Vec<_> = upstream.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(targets, ["/users/me?q=%6de&r=a%2Fb", "/users/a~b%C3%A9"]);
}

#[test]
fn an_ambiguous_path_is_400_and_reaches_nobody() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    for path in [
        "/a/%2e%2e/b",
        "/a/..%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a\\b",
        "/a/..;/b",
        "/a/.;x/b",
        "/a%00b",
        "/a%0ab",
        "/a/%zz",
        "/a/%4",
        "/a/../../b",
        "/%2e%2e",
    ] {
        let response = gateway.get(path);
        assert_eq!((response.status, response.code().as_str()), (400, "bad_request"), "{path}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn dot_segments_and_empty_segments_never_reach_an_upstream() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    for path in ["/a/../b", "/a/./b", "//a", "/a//b", "/a/.."] {
        gateway.get(path);
    }
    for request in upstream.requests() {
        let path = request.target;
        assert!(!path.contains("//") && !path.contains("/."), "{path} was forwarded");
    }
}

#[test]
fn a_rewrite_changes_what_is_forwarded_and_keeps_the_query() {
    let upstream = Upstream::start();
    let yaml = "
routes:
  strip: {match: {path: /api/a/*}, upstream: service, rewrite: {strip_prefix: /api/a}}
  count: {match: {path: /v1/old/*}, upstream: service, rewrite: {strip_segments: 2}}
  fixed: {match: {path: /Call}, upstream: service, rewrite: {path: /invoke}}
  moved: {match: {path: '/u/:id/o/:order'}, upstream: service, rewrite: {path: '/orders/{order}/of/{id}'}}
  under: {match: {path: /base/*}, upstream: service, rewrite: {add_prefix: /v2}}
";
    let gateway = Plan::new(yaml).upstream(&upstream).start();
    for (asked, forwarded) in [
        ("/api/a/x/y?q=1", "/x/y?q=1"),
        ("/api/a", "/"),
        ("/api/a?q=1", "/?q=1"),
        ("/v1/old/x", "/x"),
        ("/Call?a=b", "/invoke?a=b"),
        ("/u/7/o/a%20b", "/orders/a%20b/of/7"),
        ("/base/x", "/v2/base/x"),
    ] {
        assert_eq!(gateway.get(asked).status, 200, "{asked}");
        let requests = upstream.requests();
        assert_eq!(requests.last().map(|r| r.target.as_str()), Some(forwarded), "{asked}");
    }
}

#[test]
fn the_path_of_an_endpoint_goes_before_that_of_the_request() {
    let upstream = Upstream::start();
    let yaml = "
upstreams: {service: {endpoints: ['${UPSTREAM}/base']}}
routes: {all: {match: {path: /*}, upstream: service}}
";
    assert_eq!(Plan::new(yaml).upstream(&upstream).start().get("/x?q=1").status, 200);
    assert_eq!(upstream.only().target, "/base/x?q=1");
}

#[test]
fn request_headers_are_removed_set_and_added() {
    let upstream = Upstream::start();
    let edits =
        "headers: {request: {remove: [Cookie, X-Many], set: {X-One: new}, add: {X-Two: b}}}";
    let gateway = Gateway::route(&upstream, edits);
    let call = Call::new("GET /")
        .header("Cookie", "a=b")
        .header("X-Many", "1")
        .header("X-Many", "2")
        .header("X-One", "old")
        .header("X-Two", "a");
    gateway.call(call);
    let request = upstream.only();
    assert_eq!(request.all("cookie"), [""; 0]);
    assert_eq!(request.all("x-many"), [""; 0]);
    assert_eq!(request.all("x-one"), ["new"]);
    assert_eq!(request.all("x-two"), ["a", "b"]);
}

#[test]
fn response_headers_are_removed_set_and_added() {
    use crate::support::Answer;
    let answer =
        Answer::ok().header("Server", "secret/1").header("X-One", "old").header("X-Two", "a");
    let upstream = Upstream::always(answer);
    let edits = "headers: {response: {remove: [Server], set: {X-One: new}, add: {X-Two: b}}}";
    let response = Gateway::route(&upstream, edits).get("/");
    let all = |name: &str| -> Vec<String> {
        let same = response.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.clone()).collect()
    };
    assert_eq!(all("server"), [""; 0]);
    assert_eq!(all("x-one"), ["new"]);
    assert_eq!(all("x-two"), ["a", "b"]);
}
