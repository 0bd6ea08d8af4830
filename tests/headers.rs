//! What the gateway asserts about a request, what it passes on, and what it drops.

use crate::support::{
    Answer, Call, Gateway, H2Client, H2Upstream, Plan, Received, Reply, Upstream, request,
};

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
    assert!(log.contains("routes.all.headers.request.add.X-Took: "), "{log}");
}

/// Browsers send every cookie in a line of its own over HTTP/2 (pingora#892).
#[test]
fn cookies_of_http_2_reach_the_upstream_in_one_line() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    let cookies = |builder: http::request::Builder| {
        let builder = builder.header("cookie", "a=1").header("cookie", "b=2");
        builder.header("cookie", "c=3").body(&b""[..]).expect("a request")
    };
    let response = H2Client::connect(gateway.address).call(cookies(request("GET", "/")));
    assert_eq!(response.status, 200);
    assert_eq!(upstream.only().all("cookie"), ["a=1; b=2; c=3"]);
    let call = Call::new("GET /").header("Cookie", "a=1").header("Cookie", "b=2");
    let request_seen = seen(&gateway, &upstream, call);
    assert_eq!(request_seen.all("cookie"), ["a=1; b=2"]);
    let upstream = H2Upstream::always(Reply::status(200));
    let gateway = Plan::route("").h2_upstream(&upstream).start();
    H2Client::connect(gateway.address).call(cookies(request("GET", "/")));
    let lines: Vec<_> = upstream.only().headers.get_all("cookie").iter().cloned().collect();
    assert_eq!(lines, ["a=1; b=2; c=3"]);
}

#[test]
fn policies_see_the_cookies_as_one_line() {
    let upstream = Upstream::start();
    let limit = "rate_limit: {fixed_window: {requests: 1, per: 1h}, key: {header: Cookie}}";
    let gateway = Gateway::route(&upstream, limit);
    let h2 = H2Client::connect(gateway.address);
    let call = |second: &str| {
        let builder = request("GET", "/").header("cookie", "a=1").header("cookie", second);
        h2.call(builder.body(&b""[..]).expect("a request")).status
    };
    assert_eq!([call("b=1"), call("b=2"), call("b=1")], [200, 200, 429]);
}

#[test]
fn what_only_proxies_assert_is_dropped_from_strangers_in_every_spelling() {
    let upstream = Upstream::start();
    let strangers = plain(&upstream);
    let names = [
        "Forwarded",
        "X-Real-IP",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Forwarded-User",
        "X-Forwarded-Client-Cert",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Original-Host",
        "X-Client-IP",
        "X-Cluster-Client-IP",
    ];
    let mut call = Call::new("GET /").header("X-Mine", "1").header("X_Mine_Too", "1");
    for name in names {
        call = call.header(name, "evil").header(&name.replace('-', "_"), "evil");
        call = call.header(&name.replace('-', "."), "evil");
    }
    let request = seen(&strangers, &upstream, call);
    let evil: Vec<_> = request.headers.iter().filter(|(_, value)| value == "evil").collect();
    assert!(evil.is_empty(), "{evil:?}");
    assert_eq!(request.header("x-mine"), Some("1"));
    assert_eq!(request.header("x_mine_too"), Some("1"), "a name that no rule covers is passed on");
}

#[test]
fn a_trusted_proxy_asserts_in_the_one_spelling_that_is_its_own() {
    let upstream = Upstream::start();
    let mut call = Call::new("GET /");
    for name in ["X-Real-IP", "X-Forwarded-Port", "True-Client-IP", "X-Original-URL"] {
        call = call.header(name, "told").header(&name.replace('-', "_"), "evil");
    }
    let request = seen(&behind_proxy(&upstream), &upstream, call);
    assert!(request.headers.iter().all(|(_, value)| value != "evil"), "{request:?}");
    assert_eq!(request.headers.iter().filter(|(_, value)| value == "told").count(), 4);
}

/// "httpoxy", CVE-2016-5385.
#[test]
fn no_client_names_a_proxy_to_the_upstream() {
    let upstream = Upstream::start();
    for gateway in [plain(&upstream), behind_proxy(&upstream)] {
        let call = Call::new("GET /").header("Proxy", "http://evil.test");
        assert_eq!(seen(&gateway, &upstream, call).header("proxy"), None);
    }
}

#[test]
fn other_spellings_of_what_the_route_says_are_dropped() {
    let upstream = Upstream::start();
    let yaml = "
auth: {partners: {api_key: {header: X-Api-Key, keys: {acme: acme-key-0123456789}}}}
routes:
  all:
    match: {path: /*}
    upstream: service
    auth: {require: partners}
    headers: {request: {set: {X-Tenant-Id: ours}, remove: [X-Debug-Mode]}}
";
    let gateway = Plan::new(yaml).upstream(&upstream).start();
    let call = Call::new("GET /")
        .header("X-Api-Key", "acme-key-0123456789")
        .header("X_Api_Key", "evil")
        .header("X_Tenant_Id", "evil")
        .header("X-Debug_Mode", "evil");
    let request = seen(&gateway, &upstream, call);
    assert!(request.headers.iter().all(|(_, value)| value != "evil"), "{request:?}");
    assert_eq!(request.header("x-tenant-id"), Some("ours"));
}

#[test]
fn a_connection_header_that_names_what_is_the_upstreams_is_told_so() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    for (options, why) in [
        ("host", "the Connection header names host, which is not the connection's"),
        ("close, X-Forwarded-For", "names x-forwarded-for,"),
        ("Content-Length", "names content-length,"),
        ("authorization", "names authorization,"),
        ("\"x\"", "the Connection header is malformed"),
        ("a,b,c,d,e,f,g,h,i,j", "the Connection header names too many options"),
    ] {
        let response = gateway.call(Call::new("GET /").header("Connection", options));
        assert_eq!((response.status, response.code().as_str()), (400, "bad_request"), "{options}");
        let detail = response.json()["detail"].as_str().expect("words").to_owned();
        assert!(detail.contains(why), "{options}: {detail}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_length_is_forwarded_as_a_plain_number() {
    let upstream = Upstream::start();
    let gateway = plain(&upstream);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 03\r\n\r\nabc");
    assert_eq!(client.receive().status, 200);
    let request = upstream.only();
    assert_eq!((request.header("content-length"), request.text().as_str()), (Some("3"), "abc"));
}

#[test]
fn a_proxy_that_is_not_trusted_is_pointed_out_once() {
    let upstream = Upstream::start();
    let warning = "127.0.0.1, in a private network, sends X-Forwarded-For, and no proxy is trusted";
    let forwarded = || Call::new("GET /").header("X-Forwarded-For", "203.0.113.9");
    let gateway = Gateway::route(&upstream, "");
    gateway.get("/");
    assert!(!gateway.log().contains(warning), "a client that is no proxy");
    for _ in 0..3 {
        assert_eq!(gateway.call(forwarded()).status, 200);
    }
    gateway.wait_for_log(warning);
    assert_eq!(gateway.log().matches(warning).count(), 1);

    let trusting = "client_address: {trusted_proxies: [192.0.2.0/24]}";
    let gateway = Plan::route("").section(trusting).upstream(&upstream).start();
    assert_eq!(gateway.call(forwarded()).status, 200);
    assert!(!gateway.log().contains(warning), "the operator has said who is trusted");
}
