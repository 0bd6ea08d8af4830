//! Requests that a service is asked about: authorization servers (RFC 7662) and forward auth.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::{
    Answer, Call, Dialect, Gateway, Plan, Server, Upstream, eventually, refused_address, unix_now,
};

/// `service` answers questions of `auth.opaque`.
fn introspecting(service: &Upstream, more: &str) -> Plan {
    let url = format!("{}/introspect", service.url());
    let auth = format!(
        "auth: {{opaque: {{introspection: {{url: '{url}', client_id: gate, client_secret: s3cret{more}}}}}}}"
    );
    Plan::route("auth: {require: opaque}").section(&auth)
}

/// `service` answers questions of `auth.portal`.
fn forwarding(service: &Upstream, more: &str) -> Plan {
    let url = format!("{}/check?tenant=a", service.url());
    let auth = format!("auth: {{portal: {{forward: {{url: '{url}'{more}}}}}}}");
    Plan::route("auth: {require: portal}").section(&auth)
}

fn active(sub: &str) -> Answer {
    let exp = unix_now() + 600;
    Answer::json(200, &json!({"active": true, "sub": sub, "scope": "read", "exp": exp}).to_string())
}

fn inactive() -> Answer {
    Answer::json(200, r#"{"active": false}"#)
}

fn get(token: &str) -> Call {
    Call::new("GET /orders").bearer(token)
}

fn questions(gateway: &Gateway, auth: &str, result: &str) -> f64 {
    gateway.metric("portcullis_auth_questions_total", &[("auth", auth), ("result", result)])
}

#[test]
fn an_authorization_server_is_asked_once_and_tells_who_calls() {
    let (upstream, service) = (Upstream::start(), Upstream::always(active("ada")));
    let gateway = introspecting(&service, "").upstream(&upstream).start();
    for _ in 0..3 {
        assert_eq!(gateway.call(get("opaque/1+")).status, 200);
    }
    let asked = service.only();
    assert_eq!((&*asked.method, &*asked.target), ("POST", "/introspect"));
    assert_eq!(asked.text(), "token=opaque%2F1%2B&token_type_hint=access_token");
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(asked.header("authorization"), Some("Basic Z2F0ZTpzM2NyZXQ="));
    for received in upstream.wait_for(3) {
        assert_eq!(received.header("x-consumer"), Some("ada"));
        assert_eq!(received.header("authorization"), None, "the token stays here");
    }
    // Another token is another question.
    assert_eq!(gateway.call(get("opaque-2")).status, 200);
    assert_eq!(service.count(), 2);
    assert_eq!(questions(&gateway, "opaque", "passed"), 2.0);
    assert_eq!(questions(&gateway, "opaque", "remembered"), 2.0);
    let status = &gateway.status()["auth"]["opaque"];
    assert_eq!((&status["passed"], &status["in_flight"]), (&json!(2), &json!(0)), "{status}");
}

#[test]
fn a_token_that_is_not_active_is_refused_without_asking_each_time() {
    let (upstream, service) = (Upstream::start(), Upstream::always(inactive()));
    let gateway = introspecting(&service, "").upstream(&upstream).start();
    for _ in 0..5 {
        let refused = gateway.call(get("withdrawn"));
        assert_eq!((refused.status, &*refused.code()), (401, "credentials_invalid"));
        let challenge = refused.header("www-authenticate").expect("a challenge");
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    }
    assert_eq!((service.count(), upstream.count()), (1, 0));
    let line = &gateway.wait_for_access_lines(5)[0];
    let said = line["portcullis.error"].as_str().unwrap_or_default();
    assert_eq!(said, "auth.opaque: the server says that the token is not active");
    // Without a token, there is nothing to ask about.
    assert_eq!(gateway.get("/orders").code(), "credentials_missing");
    assert_eq!(service.count(), 1);
}

#[test]
fn an_answer_is_forgotten_when_its_time_or_the_tokens_is_over() {
    let exp = unix_now() + 4;
    let body = json!({"active": true, "sub": "ada", "exp": exp}).to_string();
    let (upstream, service) = (Upstream::start(), Upstream::always(Answer::json(200, &body)));
    let gateway = introspecting(&service, ", leeway: 0").upstream(&upstream).start();
    assert_eq!(gateway.call(get("short")).status, 200);
    eventually("a token that has expired is refused", || {
        let response = gateway.call(get("short"));
        (response.status == 401 && response.code() == "token_expired").then_some(())
    });
    let brief = introspecting(&service, ", leeway: 0, cache: {ttl: 50ms}");
    service.answer_always(active("ada"));
    let gateway = brief.upstream(&upstream).start();
    let before = service.count();
    eventually("two more questions", || {
        assert_eq!(gateway.call(get("long")).status, 200);
        (service.count() >= before + 2).then_some(())
    });
}

#[test]
fn requests_with_one_token_ask_once_between_them() {
    let slow = active("ada").after(Duration::from_millis(300));
    let (upstream, service) = (Upstream::start(), Upstream::always(slow));
    let gateway = introspecting(&service, "").upstream(&upstream).start();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(gateway.call(get("opaque")).status, 200));
        }
    });
    assert_eq!((service.count(), upstream.count()), (1, 20));
}

#[test]
fn an_authorization_server_that_is_slow_away_or_talks_nonsense_is_503() {
    let (upstream, service) = (Upstream::start(), Upstream::start());
    let gateway = introspecting(&service, ", timeout: 300ms").upstream(&upstream).start();
    for (what, answer) in [
        ("hangs", Answer::hang()),
        ("resets", Answer::reset()),
        ("closes", Answer::close()),
        ("fails", 500.into()),
        ("does not know the gateway", 401.into()),
        ("is moved", Answer::from(302).header("Location", "http://127.0.0.1:1/")),
        ("says nothing", Answer::json(200, "{}")),
        ("is no JSON", Answer::ok().body("<html>")),
        ("is cut off", Answer::truncated(r#"{"active": true"#, 100)),
        ("is endless", Answer::stream(10 << 20)),
    ] {
        service.answer_always(answer);
        let began = Instant::now();
        let refused = gateway.call(get("opaque"));
        assert_eq!((refused.status, &*refused.code()), (503, "auth_unavailable"), "{what}");
        assert!(refused.retry_after() > 0, "{what}");
        assert!(began.elapsed() < Duration::from_secs(2), "{what}: {:?}", began.elapsed());
    }
    assert_eq!(upstream.count(), 0);
    gateway.wait_for_log("requests that need its answer get 503 until it answers");
    let told = gateway.log().matches("until it answers").count();
    assert_eq!(told, 1, "once: {}", gateway.log());
    service.answer_always(active("ada"));
    assert_eq!(gateway.call(get("opaque")).status, 200);
    gateway.wait_for_log("answers again");
    assert!(questions(&gateway, "opaque", "failed") >= 10.0);
    // The gateway's own password is nowhere.
    assert!(!gateway.log().contains("s3cret") && !gateway.access().contains("s3cret"));
}

#[test]
fn a_service_that_is_nowhere_is_said_with_its_place() {
    let upstream = Upstream::start();
    let nowhere = refused_address();
    let auth = format!("auth: {{portal: {{forward: {{url: 'http://{nowhere}/check?key=k3y'}}}}}}");
    let plan = Plan::route("auth: {require: portal}").section(&auth);
    let gateway = plan.upstream(&upstream).start();
    assert_eq!(gateway.get("/orders").code(), "auth_unavailable");
    gateway.wait_for_log(&format!("auth.portal: http://{nowhere}/check cannot be reached"));
    assert!(!gateway.log().contains("k3y"), "the query may be a secret");
    let error = gateway.status()["auth"]["portal"]["error"].as_str().map(str::to_owned);
    assert!(error.is_some_and(|error| error.contains("cannot be reached")));
}

#[test]
fn questions_beyond_the_limit_wait_and_no_longer_than_their_time() {
    let (upstream, service) = (Upstream::start(), Upstream::always(Answer::hang()));
    let plan = introspecting(&service, ", timeout: 400ms, max_in_flight: 2");
    let gateway = plan.upstream(&upstream).start();
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for index in 0..8 {
            let (gateway, refused) = (&gateway, &refused);
            scope.spawn(move || {
                let began = Instant::now();
                let response = gateway.call(get(&format!("token-{index}")));
                assert_eq!(response.code(), "auth_unavailable");
                assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
                refused.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(refused.into_inner(), 8);
    let most = service.requests().len();
    assert!((2..=8).contains(&most), "{most} of 8 were asked");
    eventually("no question is under way", || {
        (gateway.metric("portcullis_auth_questions_in_flight", &[("auth", "opaque")]) == 0.0)
            .then_some(())
    });
}

#[test]
fn a_service_of_forward_auth_is_told_of_the_request_and_tells_the_upstream() {
    let said =
        Answer::from(204).header("X-User", "ada").header("X-Groups", "a,b").header("X-No", "1");
    let (upstream, service) = (Upstream::start(), Upstream::always(said));
    let more = ", response_headers: [X-User, X-Groups, X-Plan], consumer_header: X-User";
    let gateway = forwarding(&service, more).upstream(&upstream).start();
    let call = Call::new("POST /orders/%37?x=1")
        .to("shop.example")
        .bearer("t")
        .header("Cookie", "session=1")
        // Forged, or about this message alone.
        .header("X-User", "root")
        .header("X_User", "root")
        .header("X-Plan", "gold")
        .header("X-Forwarded-Uri", "/public")
        .header("X-Original-URL", "http://shop.example/public")
        .header("X-Forwarded-For", "10.9.9.9")
        .header("Range", "bytes=0-1")
        .header("If-None-Match", "*")
        .body("an order");
    assert_eq!(gateway.call(call).status, 200);
    let asked = service.only();
    assert_eq!((&*asked.method, &*asked.target), ("GET", "/check?tenant=a"));
    assert_eq!(asked.body_length, 0);
    for (name, value) in [
        ("x-forwarded-method", "POST"),
        ("x-original-method", "POST"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-uri", "/orders/7?x=1"),
        ("x-original-uri", "/orders/7?x=1"),
        ("x-original-url", "http://shop.example/orders/7?x=1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("authorization", "Bearer t"),
        ("cookie", "session=1"),
    ] {
        assert_eq!(asked.all(name), [value], "{name}");
    }
    for name in
        ["range", "if-none-match", "content-length", "transfer-encoding", "x-user", "x_user"]
    {
        assert_eq!(asked.header(name), None, "{name}");
    }
    assert!(asked.header("traceparent").is_some() && asked.header("x-request-id").is_some());
    let received = upstream.only();
    assert_eq!(received.text(), "an order");
    for (name, values) in [
        ("x-user", &["ada"][..]),
        ("x-groups", &["a,b"]),
        ("x-consumer", &["ada"]),
        ("x-plan", &[]),
        ("x_user", &[]),
        ("x-no", &[]),
        ("authorization", &[]),
        ("cookie", &["session=1"]),
    ] {
        assert_eq!(received.all(name), values, "{name}");
    }
}

#[test]
fn clients_get_what_the_service_says_in_their_own_protocol() {
    let (upstream, service) = (Upstream::start(), Upstream::start());
    let gateway = forwarding(&service, "").upstream(&upstream).start();
    let plain = |answer: Answer| {
        service.answer_always(answer);
        gateway.get("/orders")
    };
    let basic = plain(Answer::from(401).header("WWW-Authenticate", "Basic realm=\"shop\""));
    assert_eq!((basic.status, &*basic.code()), (401, "credentials_invalid"));
    assert_eq!(basic.header("www-authenticate"), Some("Basic realm=\"shop\""));
    let bare = plain(401.into());
    assert_eq!(bare.header("www-authenticate"), Some("Bearer realm=\"portcullis\""));
    let denied = plain(403.into());
    assert_eq!((denied.status, &*denied.code()), (403, "auth_denied"));
    assert_eq!(denied.header("www-authenticate"), None);
    let login = || {
        Answer::from(302)
            .header("Location", "https://login.example/?rd=%2Forders")
            .header("Set-Cookie", "state=1; HttpOnly")
    };
    let away = plain(login());
    assert_eq!((away.status, &*away.code()), (302, "auth_redirect"));
    assert_eq!(away.header("location"), Some("https://login.example/?rd=%2Forders"));
    assert_eq!(away.header("set-cookie"), Some("state=1; HttpOnly"));
    for dialect in Dialect::ALL {
        for (answer, code) in [
            (login(), "unauthenticated"),
            (401.into(), "unauthenticated"),
            (403.into(), "permission_denied"),
            (500.into(), "unavailable"),
        ] {
            service.answer_always(answer);
            let told = dialect.call(&gateway, "Ada", &[("connect-protocol-version", "1")]);
            assert_eq!(told.code, code, "{dialect:?}");
            assert_eq!(told.header("location"), None, "{dialect:?}");
            assert_eq!(told.header("set-cookie"), None, "{dialect:?}");
        }
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn nginx_decides_by_names_and_passwords() {
    let upstream = Upstream::start();
    let Some(nginx) = Server::nginx(upstream.address()) else { return };
    let auth = format!(
        "auth: {{portal: {{forward: {{url: '{}/guarded', consumer_header: X-User, response_headers: [X-User]}}}}}}",
        nginx.url()
    );
    let plan = Plan::route("auth: {require: portal}").section(&auth);
    let gateway = plan.upstream(&upstream).start();
    let call = |login: &str| {
        let login = format!("Basic {}", STANDARD.encode(login));
        gateway.call(Call::new("DELETE /orders/7").header("Authorization", &login))
    };
    for wrong in ["ada:wrong", "eve:secret", ":"] {
        let refused = call(wrong);
        assert_eq!((refused.status, &*refused.code()), (401, "credentials_invalid"), "{wrong}");
        assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"shop\""));
    }
    assert_eq!(call("ada:secret").status, 200);
    let received = upstream.only();
    assert_eq!(
        (received.header("x-user"), received.header("x-consumer")),
        (Some("ada"), Some("ada"))
    );
    assert_eq!(received.header("authorization"), None);
}

#[test]
fn a_request_that_may_pass_is_remembered_by_what_the_file_names() {
    let (upstream, service) = (Upstream::start(), Upstream::always(Answer::ok()));
    let more = ", cache: {by: [Authorization], ttl: 10m}";
    let gateway = forwarding(&service, more).upstream(&upstream).start();
    let ask = |line: &str, token: Option<&str>| {
        let call = Call::new(line);
        let call = token.map_or(call.clone(), |token| call.bearer(token));
        assert_eq!(gateway.call(call).status, 200);
        service.count()
    };
    assert_eq!(ask("GET /a", Some("one")), 1);
    assert_eq!(ask("GET /a", Some("one")), 1, "remembered");
    assert_eq!(ask("GET /b", Some("one")), 2, "another path");
    assert_eq!(ask("HEAD /a", Some("one")), 3, "another method");
    assert_eq!(ask("GET /a", Some("two")), 4, "another caller");
    assert_eq!(ask("GET /a", None), 5, "without the field");
    assert_eq!(ask("GET /a", None), 6, "each time");
    service.answer_always(Answer::ok().header("Cache-Control", "no-store"));
    assert_eq!(ask("GET /a", Some("three")), 7);
    assert_eq!(ask("GET /a", Some("three")), 8, "the service forbids it");
    service.answer_always(403);
    assert_eq!(gateway.call(Call::new("GET /a").bearer("four")).status, 403);
    service.answer_always(200);
    assert_eq!(ask("GET /a", Some("four")), 10, "a refusal is not remembered");
    assert_eq!(upstream.count(), 10, "all but the refused one");
}

#[test]
fn several_sources_are_tried_in_their_order() {
    let (upstream, service) = (Upstream::start(), Upstream::always(active("ada")));
    let (portal, url) = (Upstream::always(401), service.url());
    let auth = format!(
        "auth: {{partners: {{api_key: {{keys: {{acme: acme-key-0123456789}}}}}}, \
         opaque: {{introspection: {{url: '{url}/introspect'}}}}, \
         portal: {{forward: {{url: '{}/check', consumer_header: X-User}}}}}}",
        portal.url()
    );
    let plan = Plan::route("auth: {require: [partners, opaque, portal]}").section(&auth);
    let gateway = plan.upstream(&upstream).start();
    let who = |call: Call| {
        assert_eq!(gateway.call(call).status, 200);
        let last = upstream.requests().pop().expect("a request");
        last.header("x-consumer").map(str::to_owned)
    };
    let acme = Call::new("GET /").header("X-Api-Key", "acme-key-0123456789");
    assert_eq!(who(acme.clone().bearer("opaque")).as_deref(), Some("acme"));
    assert_eq!((service.count(), portal.count()), (0, 0), "the first has accepted it");
    assert_eq!(who(get("opaque")).as_deref(), Some("ada"));
    assert_eq!((service.count(), portal.count()), (1, 0), "the second has");
    service.answer_always(inactive());
    assert_eq!(gateway.call(get("withdrawn")).code(), "credentials_invalid");
    assert_eq!((service.count(), portal.count()), (2, 1), "none has");
    portal.answer_always(Answer::ok().header("X-User", "eve"));
    assert_eq!(who(Call::new("GET /").header("Cookie", "a=b")).as_deref(), Some("eve"));
    assert_eq!(service.count(), 2, "there was no token to ask about");
    // One that might have accepted it cannot be asked.
    service.answer_always(500);
    portal.answer_always(401);
    assert_eq!(gateway.call(get("other")).code(), "auth_unavailable");
}

#[test]
fn open_paths_scopes_and_dry_runs_are_as_with_every_authority() {
    let (upstream, service) = (Upstream::start(), Upstream::always(active("ada")));
    let route = "auth: {require: opaque, scopes: [write], anonymous: [/public]}";
    let auth = |url: &str| format!("auth: {{opaque: {{introspection: {{url: '{url}'}}}}}}");
    let plan = Plan::route(route).section(&auth(&service.url()));
    let gateway = plan.upstream(&upstream).start();
    assert_eq!(gateway.get("/public/a").status, 200);
    assert_eq!(service.count(), 0);
    let refused = gateway.call(get("reader"));
    assert_eq!((refused.status, &*refused.code()), (403, "scope_missing"));
    let line = gateway.wait_for_access_lines(1).pop().expect("a line");
    assert_eq!(line["portcullis.consumer"], "ada", "{line:#}");
    let dry = Plan::route("auth: {require: opaque, scopes: [write], enforce: false}");
    let gateway = dry.section(&auth(&service.url())).upstream(&upstream).start();
    assert_eq!(gateway.call(get("reader")).status, 200);
    assert_eq!(
        upstream.requests().pop().and_then(|r| r.header("x-consumer").map(str::to_owned)),
        None
    );
}

#[test]
fn a_reload_keeps_what_is_known_while_the_authority_stays_as_it_is() {
    let (upstream, service) = (Upstream::start(), Upstream::always(active("ada")));
    let plan = introspecting(&service, "").upstream(&upstream);
    let (yaml, gateway) = (plan.yaml(), plan.start());
    assert_eq!(gateway.call(get("opaque")).status, 200);
    assert!(gateway.reload(&yaml.replace("require: opaque", "require: opaque, scopes: [read]")));
    assert_eq!(gateway.call(get("opaque")).status, 200);
    assert_eq!(service.count(), 1);
    assert!(gateway.reload(&yaml.replace("s3cret", "an0ther")));
    assert_eq!(gateway.call(get("opaque")).status, 200);
    assert_eq!(service.count(), 2);
}

#[test]
fn a_service_is_asked_about_what_the_client_asked_for_and_not_what_the_route_makes_of_it() {
    let (upstream, service) = (Upstream::start(), Upstream::always(Answer::ok()));
    let auth = format!(
        "auth: {{portal: {{forward: {{url: '{}/check', cache: {{by: [Authorization], ttl: 10m}}}}}}}}",
        service.url()
    );
    let routes = "routes:
  admin: {match: {path: /admin/*}, upstream: service, rewrite: {strip_prefix: /admin}, auth: {require: portal}}
  app: {match: {path: /app/*}, upstream: service, rewrite: {strip_prefix: /app}, auth: {require: portal}}";
    let gateway = Plan::new(routes).section(&auth).upstream(&upstream).start();
    assert_eq!(gateway.call(Call::new("GET /app/users").bearer("t")).status, 200);
    service.answer_always(403);
    assert_eq!(gateway.call(Call::new("GET /admin/users").bearer("t")).status, 403);
    let asked: Vec<_> = service
        .wait_for(2)
        .iter()
        .map(|asked| asked.header("x-forwarded-uri").map(str::to_owned))
        .collect();
    assert_eq!(asked, [Some("/app/users".to_owned()), Some("/admin/users".to_owned())]);
    assert_eq!(upstream.only().target, "/users");
}

#[test]
fn the_host_that_is_asked_about_is_the_one_that_was_routed() {
    let (upstream, service) = (Upstream::start(), Upstream::always(Answer::ok()));
    let plan = forwarding(&service, "");
    let plan = plan.section("client_address: {trusted_proxies: [127.0.0.0/8]}");
    let gateway = plan.upstream(&upstream).start();
    let call = Call::new("GET /a")
        .to("Admin.Example.:8443")
        .header("X-Forwarded-Host", "public.example")
        .header("X-Forwarded-Proto", "http, https")
        .header("X-Forwarded-Uri", "/public");
    assert_eq!(gateway.call(call).status, 200);
    let asked = service.only();
    for (name, value) in [
        ("x-forwarded-host", "admin.example:8443"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-uri", "/a"),
        ("x-original-url", "https://admin.example:8443/a"),
    ] {
        assert_eq!(asked.all(name), [value], "{name}");
    }
}

#[test]
fn a_client_cannot_tell_the_service_who_it_is() {
    let said = Answer::ok().header("X-User", "ada");
    let (upstream, service) = (Upstream::start(), Upstream::always(said));
    let gateway = forwarding(&service, ", consumer_header: X-User").upstream(&upstream).start();
    let names = ["X-User", "X_User", "X-Consumer", "X_Consumer", "X-Envoy-Attempt-Count"];
    let call = names.iter().fold(Call::new("GET /a"), |call, name| call.header(name, "root"));
    assert_eq!(gateway.call(call).status, 200);
    let (asked, received) = (service.only(), upstream.only());
    for name in names {
        assert_eq!(asked.header(name), None, "{name}");
        assert!(received.all(name).iter().all(|value| *value != "root"), "{name}");
    }
}

#[test]
fn answers_that_may_not_be_kept_are_asked_for_side_by_side() {
    let slow = Answer::ok().header("Cache-Control", "no-store").after(Duration::from_millis(200));
    let (upstream, service) = (Upstream::start(), Upstream::always(slow));
    let more = ", timeout: 1500ms, cache: {by: [Authorization], ttl: 1m}";
    let gateway = forwarding(&service, more).upstream(&upstream).start();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(gateway.call(get("t")).status, 200));
        }
    });
    assert_eq!((service.count(), upstream.count()), (20, 20));
}

#[test]
fn a_callers_own_deadline_is_no_failure_of_the_service() {
    let (upstream, service) = (Upstream::start(), Upstream::always(Answer::hang()));
    let gateway = introspecting(&service, "").upstream(&upstream).start();
    let headers = [
        ("connect-protocol-version", "1"),
        ("connect-timeout-ms", "100"),
        ("authorization", "Bearer t"),
    ];
    let told = Dialect::ConnectJson.call(&gateway, "Ada", &headers);
    assert_eq!(told.code, "deadline_exceeded");
    assert_eq!(questions(&gateway, "opaque", "failed"), 0.0);
    assert!(!gateway.log().contains("until it answers"), "{}", gateway.log());
}

#[test]
fn a_verdict_does_not_wait_for_a_body_that_is_not_read() {
    let (upstream, service) = (Upstream::start(), Upstream::always(Answer::hold_body()));
    let gateway = forwarding(&service, "").upstream(&upstream).start();
    let began = Instant::now();
    assert_eq!(gateway.get("/a").status, 200);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_dry_run_sends_the_clients_credentials_on_whatever_the_service_says() {
    let (upstream, service) = (Upstream::start(), Upstream::always(401));
    let auth = format!(
        "auth: {{portal: {{forward: {{url: '{}', response_headers: [Authorization, X-User]}}}}}}",
        service.url()
    );
    let plan = Plan::route("auth: {require: portal, enforce: false}").section(&auth);
    let gateway = plan.upstream(&upstream).start();
    assert_eq!(gateway.call(get("t").header("X-User", "root")).status, 200);
    assert_eq!(service.only().header("authorization"), Some("Bearer t"));
    let received = upstream.only();
    assert_eq!(received.header("authorization"), Some("Bearer t"));
    assert_eq!(received.header("x-user"), None);
}
