//! What the gateway asserts about a request, what it passes on, and what it drops.

use crate::support::{Answer, Call, Gateway, Plan, Received, Upstream};

fn plain(upstream: &Upstream) -> Gateway {
    Gateway::route(upstream, "")
}

/// Behind a proxy it trusts, as the tests are one.
fn behind_proxy(upstream: &Upstream) -> Gateway {
    let trusted = "client_address: {trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]}";
    Plan::route("").section(trusted).upstream(upstream).start()
}

/// What the upstream sees of a request.
fn seen(gateway: &Gateway, upstream: &Upstream, call: Call) -> Received {
    assert_eq!(gateway.call(call).status, 200);
    upstream.requests().pop().expect("a request")
}

#[test]
fn a_safe_request_id_is_kept_echoed_and_sent_on() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    let response = gateway.call(Call::new("GET /").header("X-Request-Id", "req-1:2/3+4=@a.b_c"));
    assert_eq!(response.header("x-request-id"), Some("req-1:2/3+4=@a.b_c"));
    assert_eq!(upstream.only().header("x-request-id"), Some("req-1:2/3+4=@a.b_c"));
}

#[test]
fn a_request_without_an_id_gets_one_of_its_own() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    let ids: Vec<_> = (0..2)
        .map(|_| gateway.get("/").header("x-request-id").expect("an id").to_owned())
        .collect();
    assert_ne!(ids[0], ids[1]);
    let sent: Vec<_> = upstream
        .requests()
        .iter()
        .map(|r| r.header("x-request-id").unwrap_or("").to_owned())
        .collect();
    assert_eq!(ids, sent);
}

#[test]
fn an_unsafe_request_id_is_replaced() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    for id in ["two words", "a\"b", "{\"json\":1}", "<script>", "%0d%0a", "a,b", &"x".repeat(129)] {
        let response = gateway.call(Call::new("GET /").header("X-Request-Id", id));
        let kept = response.header("x-request-id").expect("an id");
        assert_ne!(kept, id);
        assert!(kept.len() <= 128 && !kept.contains(id), "{kept}");
    }
    let longest = "x".repeat(128);
    let response = gateway.call(Call::new("GET /").header("X-Request-Id", &longest));
    assert_eq!(response.header("x-request-id"), Some(longest.as_str()));
}

#[test]
fn an_upstream_does_not_change_the_request_id() {
    let upstream = Upstream::always(Answer::ok().header("X-Request-Id", "theirs"));
    let response = plain(&upstream).call(Call::new("GET /").header("X-Request-Id", "ours"));
    assert_eq!(response.header("x-request-id"), Some("ours"));
}

#[test]
fn refusals_carry_the_request_id_too() {
    let upstream = Upstream::start();
    let gateway = Plan::new("routes: {a: {match: {path: /a}, upstream: service}}")
        .upstream(&upstream)
        .start();
    let response = gateway.call(Call::new("GET /b").header("X-Request-Id", "ours"));
    assert_eq!(response.status, 404);
    assert_eq!(response.header("x-request-id"), Some("ours"));
}

#[test]
fn the_names_of_the_ids_are_configurable() {
    let upstream = Upstream::start();
    let names = "identifiers: {request_id: X-Trace, correlation_id: X-Correlation-Id}";
    let gateway = Plan::route("").section(names).upstream(&upstream).start();
    let call = Call::new("GET /").header("X-Trace", "t-1").header("X-Correlation-Id", "c-1");
    let response = gateway.call(call);
    assert_eq!(response.header("x-trace"), Some("t-1"));
    assert_eq!(response.header("x-correlation-id"), Some("c-1"));
    let request = upstream.only();
    assert_eq!(request.header("x-trace"), Some("t-1"));
    assert_eq!(request.header("x-correlation-id"), Some("c-1"));
}

#[test]
fn a_missing_correlation_id_is_made() {
    let upstream = Upstream::start();
    let names = "identifiers: {correlation_id: X-Correlation-Id}";
    let gateway = Plan::route("").section(names).upstream(&upstream).start();
    let response = gateway.get("/");
    let made = response.header("x-correlation-id").expect("an id").to_owned();
    assert_eq!(upstream.only().header("x-correlation-id"), Some(made.as_str()));
}

#[test]
fn a_correlation_id_nobody_configured_is_passed_on_and_not_echoed() {
    let upstream = Upstream::start();
    let response = plain(&upstream).call(Call::new("GET /").header("X-Correlation-Id", "c-1"));
    assert_eq!(response.header("x-correlation-id"), None);
    assert_eq!(upstream.only().header("x-correlation-id"), Some("c-1"));
}

#[test]
fn what_a_stranger_says_about_itself_is_replaced() {
    let upstream = Upstream::start();
    let call = Call::new("GET /")
        .header("X-Forwarded-For", "203.0.113.9")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "evil.test");
    let request = seen(&plain(&upstream), &upstream, call);
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(request.header("x-forwarded-host"), Some("gateway.test"));
}

#[test]
fn a_trusted_proxy_s_word_is_taken_and_continued() {
    let upstream = Upstream::start();
    let call = Call::new("GET /")
        .header("X-Forwarded-For", "203.0.113.9, 198.51.100.7, 10.0.0.2")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "shop.test");
    let request = seen(&behind_proxy(&upstream), &upstream, call);
    let hops = request.all("x-forwarded-for").join(", ");
    assert!(hops.ends_with("198.51.100.7, 10.0.0.2, 127.0.0.1"), "{hops}");
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    assert_eq!(request.header("x-forwarded-host"), Some("shop.test"));
}

#[test]
fn host_is_the_upstreams_and_the_clients_is_forwarded() {
    let upstream = Upstream::start();
    let call = Call::new("GET /").header("Host", "shop.test:8080");
    let request = seen(&plain(&upstream), &upstream, call);
    assert_eq!(request.header("host"), Some(upstream.address().to_string().as_str()));
    assert_eq!(request.header("x-forwarded-host"), Some("shop.test:8080"));
}

#[test]
fn hop_by_hop_headers_of_a_request_stay_behind() {
    let upstream = Upstream::start();
    let call = Call::new("GET /")
        .header("Connection", "keep-alive, X-Nominated")
        .header("X-Nominated", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Authorization", "Basic x")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "trailers, deflate")
        .header("Trailer", "X-Late")
        .header("Upgrade", "h2c")
        .header("X-End-To-End", "1");
    let request = seen(&plain(&upstream), &upstream, call);
    for name in [
        "x-nominated",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
    ] {
        assert_eq!(request.header(name), None, "{name}");
    }
    assert_eq!(request.header("x-end-to-end"), Some("1"));
}

#[test]
fn hop_by_hop_headers_of_an_answer_stay_behind() {
    let answer = Answer::ok()
        .header("Connection", "X-Nominated")
        .header("X-Nominated", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Authenticate", "Basic")
        .header("Proxy-Connection", "keep-alive")
        .header("Trailer", "X-Late")
        .header("Upgrade", "h2c")
        .header("X-End-To-End", "1");
    let upstream = Upstream::always(answer);
    let response = plain(&upstream).get("/");
    for name in [
        "x-nominated",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "trailer",
        "upgrade",
    ] {
        assert_eq!(response.header(name), None, "{name}");
    }
    assert_eq!(response.header("x-end-to-end"), Some("1"));
}

#[test]
fn other_headers_pass_as_they_are_in_their_order() {
    let answer = Answer::ok().header("Set-Cookie", "a=1").header("Set-Cookie", "b=2");
    let upstream = Upstream::always(answer);
    let gateway = plain(&upstream);
    let call = Call::new("GET /")
        .header("Accept", "text/*;q=0.3, text/html;q=0.7")
        .header("X-Multi", "one")
        .header("X-Multi", "two")
        .header("X-Empty", "");
    let response = gateway.call(call);
    let request = upstream.only();
    assert_eq!(request.header("accept"), Some("text/*;q=0.3, text/html;q=0.7"));
    assert_eq!(request.all("x-multi"), ["one", "two"]);
    assert_eq!(request.header("x-empty"), Some(""));
    let cookies = response.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case("set-cookie"));
    assert_eq!(cookies.map(|(_, v)| v.as_str()).collect::<Vec<_>>(), ["a=1", "b=2"]);
}

#[test]
fn no_upgrade_is_negotiated_that_no_route_allows() {
    let upstream = Upstream::start();
    let call = Call::new("GET /")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Version", "13");
    let response = plain(&upstream).call(call);
    assert_eq!(response.status, 200);
    assert_eq!(upstream.only().header("upgrade"), None);
}

#[test]
fn a_request_cannot_say_how_long_its_answer_took() {
    let policies = "headers: {request: {add: {X-Took: '{response.duration_ms}'}}}";
    let (code, log) = Plan::route(policies).fails();
    assert_eq!(code, Some(1));
    assert!(log.contains("routes.all.headers.request.add: `x-took`"), "{log}");
}
