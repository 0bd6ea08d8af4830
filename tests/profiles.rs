//! The two systems that are shipped as configuration, run as their users run them: by
//! environment variables alone.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{
    Answer, Call, Dialect, Gateway, Issuer, Plan, Postgres, Response, Store, Upstream,
    assert_about, assert_within, eventually, timed,
};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name)
}

mod gateway_service {
    use super::*;

    const PATH: &str = "POST /gateway.v1.GatewayService/InvokeCustom";

    fn plan(upstream: &Upstream, issuer: &Issuer) -> Plan {
        Plan::file(shipped("gateway-service.yaml"))
            .env("CUSTOM_LANG_BASE_URL", &upstream.url())
            .env("JWKS_URL", &issuer.url())
    }

    fn start(upstream: &Upstream) -> (Gateway, Issuer) {
        let issuer = Issuer::start();
        (plan(upstream, &issuer).start(), issuer)
    }

    fn call(gateway: &Gateway, issuer: &Issuer, body: &str) -> Response {
        let call = Call::new(PATH).header("Connect-Protocol-Version", "1").json(body);
        gateway.call(call.bearer(&issuer.token("ada")))
    }

    fn hello() -> Answer {
        Answer::json(200, "{\"message\":\"Hello Ada from custom-lang-service!\"}")
    }

    #[test]
    fn a_call_becomes_a_post_to_invoke_and_a_row() {
        let upstream = Upstream::always(hello());
        let (gateway, issuer) = start(&upstream);
        let response = call(&gateway, &issuer, "{\"name\":\"Ada\"}");
        assert_eq!(response.json(), json!({"message": "Hello Ada from custom-lang-service!"}));
        let request = upstream.only();
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/invoke"));
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&request.body).ok(),
            Some(json!({"name": "Ada"}))
        );
        assert_eq!(request.header("authorization"), None);
        let row = &Store::Sqlite.wait_for_rows(&gateway, 1)[0];
        assert_eq!(row.text("name"), Some("Ada"));
        assert_eq!(row.text("result_message"), Some("Hello Ada from custom-lang-service!"));
        assert!(row.is_true("success"));
        assert_eq!(row.text("consumer"), Some("ada"));
    }

    #[test]
    fn a_row_behind_a_trusted_proxy_holds_the_client_and_the_token_goes_on_if_asked_for() {
        let upstream = Upstream::always(hello());
        let issuer = Issuer::start();
        let gateway = plan(&upstream, &issuer)
            .env("TRUSTED_PROXIES", "127.0.0.1/32")
            .env("FORWARD_CREDENTIALS", "true")
            .start();
        let token = issuer.token("ada");
        let call = Call::new(PATH).header("Connect-Protocol-Version", "1").json("{}");
        let call = call.header("X-Forwarded-For", "203.0.113.9");
        assert_eq!(gateway.call(call.bearer(&token)).status, 200);
        let bearer = format!("Bearer {token}");
        assert_eq!(upstream.only().header("authorization"), Some(bearer.as_str()));
        let row = &Store::Sqlite.wait_for_rows(&gateway, 1)[0];
        assert_eq!(row.text("client_address"), Some("203.0.113.9"));
        assert_eq!(gateway.get("/livez").status, 200);
    }

    #[test]
    fn nobody_in_particular_is_the_world() {
        let upstream = Upstream::always(hello());
        let (gateway, issuer) = start(&upstream);
        for body in ["{}", "{\"name\":\"\"}"] {
            assert_eq!(call(&gateway, &issuer, body).status, 200);
        }
        for request in upstream.wait_complete(2) {
            let body: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
            assert_eq!(body["name"], "World");
        }
    }

    #[test]
    fn every_dialect_is_served_recorded_and_given_its_answer_again() {
        let upstream = Upstream::always(hello());
        let (gateway, issuer) = start(&upstream);
        let token = format!("Bearer {}", issuer.token("ada"));
        for dialect in Dialect::ALL {
            let key = format!("{dialect:?}");
            for replayed in [None, Some("true")] {
                let headers = [("authorization", token.as_str()), ("idempotency-key", &key)];
                let told = dialect.call(&gateway, "Ada", &headers);
                assert_eq!(told.said(), ("ok", "Hello Ada from custom-lang-service!"));
                assert_eq!(told.header("idempotency-replayed"), replayed, "{dialect:?}");
            }
            assert_eq!(dialect.call(&gateway, "Ada", &[]).code, "unauthenticated");
        }
        for request in upstream.wait_complete(5) {
            assert_eq!(
                (request.target.as_str(), request.text()),
                ("/invoke", "{\"name\":\"Ada\"}".into())
            );
        }
        let rows = Store::Sqlite.wait_for_rows(&gateway, 15);
        for row in rows.iter().filter(|row| row.is_true("success")) {
            let said = (row.text("name"), row.text("result_message"));
            assert_eq!(said, (Some("Ada"), Some("Hello Ada from custom-lang-service!")));
        }
        assert_eq!(rows.iter().filter(|row| row.is_true("success")).count(), 10);
        assert_eq!(upstream.count(), 5);
    }

    #[test]
    fn without_a_token_nobody_gets_in() {
        let upstream = Upstream::start();
        let (gateway, _issuer) = start(&upstream);
        let response = gateway.call(Call::new(PATH).json("{}"));
        assert_eq!((response.status, response.code().as_str()), (401, "unauthenticated"));
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert_eq!(upstream.count(), 0);
    }

    #[test]
    fn a_restarted_auth_service_locks_nobody_out() {
        let upstream = Upstream::always(hello());
        let (gateway, mut issuer) = start(&upstream);
        assert_eq!(call(&gateway, &issuer, "{}").status, 200);
        issuer.rotate();
        assert_eq!(call(&gateway, &issuer, "{}").status, 200);
    }

    #[test]
    fn errors_of_the_service_become_connect_errors() {
        for (status, code, attempts) in [
            (400, "invalid_argument", 1),
            (401, "unauthenticated", 1),
            (403, "permission_denied", 1),
            (404, "not_found", 1),
            (409, "already_exists", 1),
            (429, "resource_exhausted", 2),
            (500, "internal", 1),
            (501, "internal", 1),
            (502, "unavailable", 2),
            (504, "deadline_exceeded", 2),
            (503, "unavailable", 2),
        ] {
            let upstream =
                Upstream::always(Answer::json(status, "{\"error\":\"as the service said\"}"));
            let (gateway, issuer) = start(&upstream);
            let response = call(&gateway, &issuer, "{\"name\":\"x\"}");
            assert_eq!(response.code(), code, "{status}");
            assert_eq!(response.json()["message"], "as the service said");
            assert_eq!(upstream.count(), attempts, "{status}");
            let row = &Store::Sqlite.wait_for_rows(&gateway, 1)[0];
            assert!(!row.is_true("success"));
            assert_eq!(row.text("result_message"), Some("as the service said"), "{status}");
        }
    }

    #[test]
    fn one_retry_mends_one_failure() {
        let upstream = Upstream::script([Answer::from(503), hello()]);
        let (gateway, issuer) = start(&upstream);
        assert_eq!(call(&gateway, &issuer, "{\"name\":\"Ada\"}").status, 200);
        assert_eq!(upstream.count(), 2);
        assert_eq!(Store::Sqlite.wait_for_rows(&gateway, 1)[0].number("attempts"), 2);
    }

    #[test]
    fn five_failed_attempts_in_a_row_open_the_circuit() {
        let upstream = Upstream::always(503);
        let (gateway, issuer) = start(&upstream);
        for _ in 0..3 {
            assert_eq!(call(&gateway, &issuer, "{}").code(), "unavailable");
        }
        assert_eq!(upstream.count(), 5);
        let open = call(&gateway, &issuer, "{}");
        assert_eq!((open.status, open.code().as_str()), (503, "unavailable"));
        assert!((1..=30).contains(&open.retry_after()));
        assert_eq!(upstream.count(), 5);
    }

    #[test]
    fn an_attempt_has_a_second_and_a_timeout_is_deadline_exceeded() {
        let upstream = Upstream::always(Answer::hang());
        let (gateway, issuer) = start(&upstream);
        let (response, took) = timed(|| call(&gateway, &issuer, "{}"));
        assert_eq!(response.code(), "deadline_exceeded");
        assert_eq!(upstream.count(), 2);
        // Two attempts and one delay of 100 to 150 ms.
        assert!(took >= std::time::Duration::from_millis(2080), "took {took:?}");
        assert_within(took, std::time::Duration::from_millis(2350));
    }

    #[test]
    fn a_browser_may_call_from_the_configured_origin_only() {
        let upstream = Upstream::always(hello());
        let issuer = Issuer::start();
        let gateway = plan(&upstream, &issuer).env("CORS_ORIGIN", "http://shop.test").start();
        let preflight = |origin: &str| {
            let call = Call::new("OPTIONS /gateway.v1.GatewayService/InvokeCustom")
                .header("Origin", origin)
                .header("Access-Control-Request-Method", "POST")
                .header("Access-Control-Request-Headers", "authorization,connect-protocol-version");
            gateway.call(call)
        };
        let allowed = preflight("http://shop.test");
        assert!(matches!(allowed.status, 200 | 204), "{}", allowed.status);
        assert_eq!(allowed.header("access-control-allow-origin"), Some("http://shop.test"));
        assert_eq!(allowed.header("access-control-max-age"), Some("7200"));
        let headers = allowed.header("access-control-allow-headers").unwrap_or_default();
        assert!(headers.to_lowercase().contains("idempotency-key"), "{headers}");
        let refused = preflight("http://evil.test");
        assert_eq!(refused.header("access-control-allow-origin"), None);
        assert_eq!(upstream.count(), 0);
        let actual = Call::new(PATH).header("Origin", "http://shop.test").json("{}");
        let answer = gateway.call(actual.bearer(&issuer.token("ada")));
        assert_eq!(answer.header("access-control-allow-origin"), Some("http://shop.test"));
        assert!(answer.header("vary").is_some_and(|vary| vary.contains("Origin")));
        let unauthenticated =
            gateway.call(Call::new(PATH).header("Origin", "http://shop.test").json("{}"));
        assert_eq!(unauthenticated.status, 401);
        assert_eq!(unauthenticated.header("access-control-allow-origin"), Some("http://shop.test"));
    }

    #[test]
    fn health_is_public() {
        let upstream = Upstream::start();
        let (gateway, _issuer) = start(&upstream);
        crate::support::eventually("a healthy store", || {
            (gateway.get("/healthz").status == 200).then_some(())
        });
    }

    #[test]
    fn with_a_database_url_the_rows_are_in_that_database() {
        let Some(server) = Postgres::shared() else { return };
        let store = Store::on(server);
        let Store::Postgres { url, .. } = &store else { return };
        let upstream = Upstream::always(hello());
        let issuer = Issuer::start();
        let gateway = plan(&upstream, &issuer).env("DATABASE_URL", url).start();
        assert_eq!(call(&gateway, &issuer, "{\"name\":\"Ada\"}").status, 200);
        assert_eq!(store.wait_for_rows(&gateway, 1)[0].text("name"), Some("Ada"));
        assert!(Store::Sqlite.rows(&gateway).is_empty());
    }

    #[test]
    fn with_its_database_stopped_calls_are_served_and_their_rows_arrive_later() {
        let Some(server) = Postgres::start() else { return };
        let server = std::sync::Arc::new(server);
        let store = Store::on(server.clone());
        let Store::Postgres { url, .. } = &store else { return };
        let upstream = Upstream::always(hello());
        let issuer = Issuer::start();
        let gateway = plan(&upstream, &issuer).env("DATABASE_URL", url).start();
        let healthz = |status| {
            eventually(&format!("{status} at /healthz"), || {
                (gateway.get("/healthz").status == status).then_some(())
            });
        };
        healthz(200);
        server.stop();
        assert_eq!(call(&gateway, &issuer, "{\"name\":\"Ada\"}").status, 200);
        healthz(503);
        assert_eq!(gateway.get("/livez").status, 200);
        assert_eq!(call(&gateway, &issuer, "{\"name\":\"Grace\"}").status, 200);
        server.restart();
        let rows = store.wait_for_rows(&gateway, 2);
        let names: Vec<_> = rows.iter().map(|row| row.text("name")).collect();
        assert_eq!(names, [Some("Ada"), Some("Grace")]);
        healthz(200);
        assert_eq!(upstream.count(), 2);
    }
}

mod mini_gateway {
    use super::*;

    const KEY: &str = "mini-gateway-key-0123456789";

    fn plan(a: &Upstream, b: &Upstream) -> Plan {
        Plan::file(shipped("mini-gateway.yaml"))
            .env("API_KEY", KEY)
            .env("UPSTREAM_SERVICE_A", &a.url())
            .env("UPSTREAM_SERVICE_B", &b.url())
    }

    fn get(gateway: &Gateway, path: &str) -> Response {
        gateway.call(Call::new(&format!("GET {path}")).header("X-Api-Key", KEY))
    }

    #[test]
    fn it_does_not_start_without_its_key() {
        let finished = Gateway::finish(
            &["run", "-c", &shipped("mini-gateway.yaml").to_string_lossy()],
            Path::new("."),
            &[],
        );
        assert_eq!(finished.code, Some(1));
        assert!(finished.stderr.contains("API_KEY"), "{}", finished.stderr);
    }

    #[test]
    fn each_prefix_goes_to_its_service_without_it() {
        let (a, b) = (Upstream::start(), Upstream::start());
        let gateway = plan(&a, &b).start();
        assert_eq!(get(&gateway, "/api/a/users?q=1").status, 200);
        assert_eq!(get(&gateway, "/api/b/orders").status, 200);
        assert_eq!(
            (a.only().target, b.only().target),
            ("/users?q=1".to_owned(), "/orders".to_owned())
        );
        assert_eq!(a.only().header("x-api-key"), None);
        assert_eq!(a.only().header("host"), Some(a.address().to_string().as_str()));
        assert_eq!(get(&gateway, "/api/apple").status, 404);
        assert_eq!(gateway.get("/healthz").status, 200);
    }

    #[test]
    fn only_health_is_open() {
        let (a, b) = (Upstream::start(), Upstream::start());
        let gateway = plan(&a, &b).start();
        assert_eq!(gateway.get("/api/a/health").status, 200);
        assert_eq!(gateway.get("/api/a/users").status, 401);
        assert_eq!(gateway.get("/api/a/healthX").status, 401);
        assert_eq!(a.only().target, "/health");
    }

    #[test]
    fn the_correlation_id_is_kept_or_made_and_echoed() {
        let (a, b) = (Upstream::start(), Upstream::start());
        let gateway = plan(&a, &b).start();
        let call =
            Call::new("GET /api/a/x").header("X-Api-Key", KEY).header("X-Correlation-Id", "c-1");
        assert_eq!(gateway.call(call).header("x-correlation-id"), Some("c-1"));
        assert!(get(&gateway, "/api/a/x").header("x-correlation-id").is_some());
        assert_eq!(a.requests()[0].header("x-correlation-id"), Some("c-1"));
    }

    #[test]
    fn a_row_behind_a_trusted_proxy_holds_the_client() {
        let (a, b) = (Upstream::start(), Upstream::start());
        for (trusted, expected) in
            [("127.0.0.1/32, 10.0.0.0/8", "203.0.113.9"), ("10.0.0.0/8", "127.0.0.1")]
        {
            let gateway = plan(&a, &b).env("TRUSTED_PROXIES", trusted).start();
            let call = Call::new("GET /api/a/x").header("X-Api-Key", KEY);
            let call = call.header("X-Forwarded-For", "203.0.113.9, 10.1.2.3");
            assert_eq!(gateway.call(call).status, 200);
            let row = &Store::Sqlite.wait_for_rows(&gateway, 1)[0];
            assert_eq!(row.text("client_address"), Some(expected), "{trusted}");
        }
    }

    #[test]
    fn the_rate_limit_is_per_route_and_says_when_to_come_back() {
        let (a, b) = (Upstream::start(), Upstream::start());
        let gateway = plan(&a, &b).env("RATE_LIMIT_API_A", "2").start();
        let statuses = [(); 3].map(|()| get(&gateway, "/api/a/x").status);
        assert_eq!(statuses, [200, 200, 429]);
        assert!((1..=60).contains(&get(&gateway, "/api/a/x").retry_after()));
        assert_eq!(get(&gateway, "/api/b/x").status, 200);
    }

    #[test]
    fn gets_are_tried_three_times_posts_once_and_the_answer_passed_on() {
        let (a, b) = (Upstream::always(500), Upstream::start());
        let gateway = plan(&a, &b).env("RETRY_DELAY_API_A_MS", "1").start();
        let response = get(&gateway, "/api/a/x");
        assert_eq!((response.status, response.text().as_str()), (500, "upstream 500"));
        assert_eq!(a.count(), 3);
        gateway.call(Call::new("POST /api/a/x").header("X-Api-Key", KEY).json("{}"));
        assert_eq!(a.count(), 4);
    }

    #[test]
    fn failed_requests_open_the_route_s_circuit_which_lets_one_through_later() {
        let (a, b) = (Upstream::script([500, 500]), Upstream::start());
        let gateway = plan(&a, &b)
            .env("CIRCUIT_THRESHOLD_API_A", "2")
            .env("CIRCUIT_COOLDOWN_API_A_MS", "300")
            .env("MAX_RETRIES_API_A", "0")
            .start();
        let statuses = [(); 3].map(|()| get(&gateway, "/api/a/x").status);
        assert_eq!(statuses, [500, 500, 503]);
        assert_eq!(a.count(), 2);
        assert_eq!(get(&gateway, "/api/b/x").status, 200);
        eventually("the one that is let through", || {
            let status = get(&gateway, "/api/a/x").status;
            assert!(matches!(status, 503 | 200), "{status}");
            (status == 200).then_some(())
        });
        assert_eq!(a.count(), 3, "nothing reached it meanwhile");
    }

    #[test]
    fn a_full_bulkhead_is_429_without_a_time() {
        let (a, b) = (Upstream::script([Answer::hold_body()]), Upstream::start());
        let gateway = plan(&a, &b).env("MAX_CONCURRENT_REQUESTS_API_A", "1").start();
        let mut client = gateway.connect();
        client.send(Call::new("GET /api/a/x").header("X-Api-Key", KEY).bytes());
        assert_eq!(client.receive_head().status, 200);
        let refused = get(&gateway, "/api/a/x");
        assert_eq!((refused.status, refused.header("retry-after")), (429, None));
    }

    #[test]
    fn timeouts_are_504_and_refused_connections_502() {
        let (a, b) = (Upstream::always(Answer::hang()), Upstream::start());
        let gateway = plan(&a, &b)
            .env("TIMEOUT_API_A_MS", "300")
            .env("MAX_RETRIES_API_A", "0")
            .env("MAX_RETRIES_API_B", "0")
            .env("UPSTREAM_SERVICE_B", "http://127.0.0.1:9")
            .start();
        let (response, took) = timed(|| get(&gateway, "/api/a/x"));
        assert_eq!(response.status, 504);
        assert_about(took, std::time::Duration::from_millis(300));
        assert_eq!(get(&gateway, "/api/b/x").status, 502);
    }

    #[test]
    fn the_status_page_shows_circuit_slots_and_counts() {
        let (a, b) = (Upstream::start(), Upstream::start());
        let gateway = plan(&a, &b).start();
        get(&gateway, "/api/a/x");
        let route = crate::support::eventually("a counted request", || {
            let route = gateway.status()["routes"]["api-a"].clone();
            (route["requests"] == 1 && route["bulkhead"]["free"] == 50).then_some(route)
        });
        assert_eq!(route["circuit"]["state"], "closed");
        assert_eq!(
            (&route["bulkhead"]["slots"], &route["bulkhead"]["free"]),
            (&json!(50), &json!(50))
        );
        assert_eq!(route["errors"], 0);
    }
}
