//! Pages on other origins: a browser is told what they may do, whatever becomes of the call.

use crate::support::{Call, Gateway, Plan, Upstream};

const CORS: &str = "cors: {origins: ['https://*.shop.test', 'http://localhost:*'], credentials: true, request_headers: [X-Mine], expose: [X-Total]}";

fn preflight(origin: &str) -> Call {
    Call::new("OPTIONS /")
        .header("Origin", origin)
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "x-mine")
}

#[test]
fn a_pattern_of_origins_lets_in_what_it_covers_and_names_it() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, CORS);
    for origin in ["https://a.shop.test", "https://b.a.shop.test", "http://localhost:3000"] {
        let allowed = gateway.call(preflight(origin));
        assert_eq!(allowed.header("access-control-allow-origin"), Some(origin));
        assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(allowed.header("access-control-allow-headers"), Some("x-mine"));
        let answer = gateway.call(Call::new("GET /").header("Origin", origin));
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("access-control-expose-headers"), Some("x-total"));
    }
    assert_eq!(upstream.count(), 3, "preflights are answered here");
    for origin in ["https://shop.test", "https://evilshop.test", "http://a.shop.test", "null"] {
        for call in [preflight(origin), Call::new("GET /").header("Origin", origin)] {
            let answer = gateway.call(call);
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
            assert_eq!(answer.header("access-control-allow-credentials"), None, "{origin}");
            // What one origin is told is nothing a cache may tell another.
            assert!(answer.header("vary").is_some_and(|vary| vary.contains("Origin")), "{origin}");
        }
    }
}

#[test]
fn a_refusal_in_every_protocol_is_for_the_page_to_read() {
    let gateway = Plan::route(&format!("{CORS}\nmax_body: 1B")).start();
    for content_type in ["application/json", "application/proto", "application/grpc-web+proto"] {
        let call = Call::new("POST /s.S/M").header("Content-Type", content_type);
        let refused = gateway.call(call.header("Origin", "https://a.shop.test").body("too much"));
        let allowed = refused.header("access-control-allow-origin");
        assert_eq!(allowed, Some("https://a.shop.test"), "{content_type}: {refused:?}");
    }
}

#[test]
fn an_origin_that_no_browser_names_is_refused_at_load() {
    let route = "cors: {origins: ['https://shop.test/']}";
    let (_, log) = Plan::route(route).env("UPSTREAM", "http://127.0.0.1:9").fails();
    assert!(log.contains("routes.all.cors.origins[0]: https://shop.test/: expected"), "{log}");
}

#[test]
fn a_star_stands_for_what_the_page_asks_for_with_credentials_too() {
    let upstream = Upstream::start();
    for credentials in ["true", "false"] {
        let cors = format!(
            "cors: {{origins: ['*'], methods: ['*'], request_headers: ['*'], expose: ['*'], credentials: {credentials}}}"
        );
        let gateway = Gateway::route(&upstream, &cors);
        let asked = Call::new("OPTIONS /")
            .header("Origin", "https://a.test")
            .header("Access-Control-Request-Method", "PATCH")
            .header("Access-Control-Request-Headers", "authorization,x-mine")
            .header("Access-Control-Request-Headers", "x-b, b\u{e4}d");
        let allowed = gateway.call(asked);
        assert_eq!(allowed.status, 204);
        let named = allowed.header("access-control-allow-headers");
        assert_eq!(named, Some("authorization, x-mine, x-b"), "{credentials}");
        assert_eq!(allowed.header("access-control-allow-methods"), Some("PATCH"));
        let vary = allowed.header("vary").expect("Vary").to_owned();
        for name in ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"] {
            assert!(vary.contains(name), "{vary}");
        }
        let origin = if credentials == "true" { "https://a.test" } else { "*" };
        assert_eq!(allowed.header("access-control-allow-origin"), Some(origin));
        // Nothing was asked for.
        let bare = Call::new("OPTIONS /").header("Origin", "https://a.test");
        let bare = gateway.call(bare.header("Access-Control-Request-Method", "GET"));
        assert_eq!(bare.header("access-control-allow-headers"), None);
        let answer = gateway.call(Call::new("GET /").header("Origin", "https://a.test"));
        let exposed = answer.header("access-control-expose-headers").expect("names").to_owned();
        assert!(exposed.contains("x-request-id") && !exposed.contains('*'), "{exposed}");
    }
}
