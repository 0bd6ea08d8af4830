//! The process's own log: its form, its level while it runs, and what has a line.

use std::time::Duration;

use crate::support::{
    Answer, Call, Client, Gateway, Issuer, Plan, Port, Postgres, Redis, Store, Upstream,
    eventually, eventually_within, parsed,
};

const JSON: &str = "log: {format: json}";

#[test]
fn each_line_is_an_object_where_that_is_wanted() {
    let upstream = Upstream::start();
    let gateway = Plan::route("").section(JSON).upstream(&upstream).start();
    let log = eventually("a line after the file was read", || {
        gateway.log().contains("\"ready\"").then(|| gateway.log())
    });
    let first = log.lines().position(|line| line.starts_with('{')).expect("an object");
    let objects: String = log.lines().skip(first).map(|line| format!("{line}\n")).collect();
    let ready = parsed(&objects).into_iter().find(|line| line["message"] == "ready");
    let ready = ready.expect("the line that says ready");
    assert_eq!(
        (&ready["level"], &ready["target"]),
        (&"INFO".into(), &"portcullis::runtime::upgrade::begin".into())
    );
    assert!(ready["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{ready}");
}

#[test]
fn the_level_changes_while_it_runs_and_a_reload_takes_that_back() {
    let upstream = Upstream::start();
    let gateway = Plan::route("").upstream(&upstream).start();
    let reloads = || gateway.log().matches("reloaded, generation").count();
    let response = gateway.admin(Call::new("POST /log?level=warn"));
    assert_eq!((response.status, response.text().as_str()), (200, "{\"level\":\"warn\"}"));
    gateway.wait_for_log("the level is warn now, as ordered; it was info");
    // The line about this reload comes after the level is what the file says.
    assert!(gateway.reload_route("max_body: 1MiB"));
    eventually("the line about the reload", || (reloads() == 1).then_some(()));
    gateway.admin(Call::new("POST /log?level=error"));
    assert!(!gateway.reload("nonsense"), "an invalid file");
    gateway.wait_for_log("not reloaded");
    assert!(!gateway.log().contains("DEBUG"));
    gateway.admin(Call::new("POST /log?level=info,portcullis=debug"));
    gateway.wait_for_log("info,portcullis=debug");
}

#[test]
fn a_level_that_does_not_exist_is_refused_with_those_that_do() {
    let upstream = Upstream::start();
    let gateway = Plan::route("").upstream(&upstream).start();
    for path in ["/log?level=loud", "/log", "/log?level="] {
        let response = gateway.admin(Call::new(&format!("POST {path}")));
        assert_eq!((response.status, response.code().as_str()), (400, "invalid_level"), "{path}");
        assert!(response.text().contains("error, warn, info, debug, trace or off"), "{path}");
    }
    assert_eq!(gateway.admin("GET /log?level=debug").status, 405, "GET changes nothing");
}

#[test]
fn the_variable_counts_instead_of_the_file() {
    let upstream = Upstream::start();
    let plan = Plan::route("").section("log: {level: off}").env("RUST_LOG", "info");
    let gateway = plan.upstream(&upstream).start();
    gateway.wait_for_log("ready");
}

/// How often a line of the log says this.
fn times(gateway: &Gateway, part: &str) -> usize {
    gateway.log().lines().filter(|line| line.contains(part)).count()
}

#[test]
fn the_start_says_what_runs() {
    let (upstream, port) = (Upstream::start(), Port::reserve());
    let authority = crate::support::Authority::new();
    let leaf = authority.sign("one.test");
    let section = format!(
        "listeners:\n  public: {{address: \"127.0.0.1:${{PORT}}\"}}\n  secure: {{address: '{}', \
         tls: {{certificates: [{{certificate: one.pem, key: one.key}}]}}}}",
        port.address()
    );
    let plan = Plan::route("").section(&section).upstream(&upstream);
    let gateway = plan.beside("one.pem", &leaf.pem()).beside("one.key", &leaf.key_pem()).start();
    for line in [
        format!("portcullis {}: ", env!("CARGO_PKG_VERSION")),
        "portcullis.yaml".to_owned(),
        format!("listeners.public: {}, without TLS", gateway.address),
        format!("listeners.secure: {}, TLS with one.pem", port.address()),
        "routes: 1, upstreams: 1, authorities: 0; record store: SQLite at ".to_owned(),
        "rate limit stores: none".to_owned(),
    ] {
        assert_eq!(times(&gateway, &line), 1, "{line}:\n{}", gateway.log());
    }
}

#[test]
fn a_certificate_near_its_end_is_told_at_start_and_at_each_reload() {
    let authority = crate::support::Authority::new();
    let leaf = authority.sign_until("one.test", 3 * 24 * 60 * 60 + 60);
    let port = Port::reserve();
    let section = format!(
        "listeners:\n  public: {{address: \"127.0.0.1:${{PORT}}\"}}\n  secure: {{address: '{}', \
         tls: {{certificates: [{{certificate: one.pem, key: one.key}}]}}}}",
        port.address()
    );
    let plan = Plan::route("").section(&section);
    let gateway = plan.beside("one.pem", &leaf.pem()).beside("one.key", &leaf.key_pem()).start();
    assert_eq!(times(&gateway, "one.pem expires in 3 days"), 1, "{}", gateway.log());
    let config = std::fs::read_to_string(gateway.directory().join("portcullis.yaml"));
    let config = config.expect("the file");
    assert!(gateway.reload(&config));
    gateway.wait_for_log("reloaded, generation 2");
    assert_eq!(times(&gateway, "one.pem expires in 3 days"), 2, "{}", gateway.log());
    let others = "reload: listeners.secure.tls: other certificates or authorities";
    assert_eq!(times(&gateway, others), 0, "{}", gateway.log());
    let renewed = authority.sign("one.test");
    std::fs::write(gateway.directory().join("one.pem"), renewed.pem()).expect("written");
    std::fs::write(gateway.directory().join("one.key"), renewed.key_pem()).expect("written");
    assert!(gateway.reload(&config));
    gateway.wait_for_log(others);
    assert_eq!(times(&gateway, "one.pem expires in 3 days"), 2, "{}", gateway.log());
}

#[test]
fn a_reload_says_what_it_adds_removes_and_changes_and_what_begins_anew() {
    let upstream = Upstream::start();
    let route = |name: &str, more: &str| {
        format!("  {name}: {{match: {{path: /{name}}}, upstream: service{more}}}\n")
    };
    let breaker =
        |failures: u8| format!(", circuit_breaker: {{consecutive: {{failures: {failures}}}}}");
    let before =
        "routes:\n".to_owned() + &route("a", &breaker(5)) + &route("b", "") + &route("c", "");
    let gateway = Plan::new(&before).upstream(&upstream).start();
    let after = "log: {level: info}\naccess_log: {to: off}\nroutes:\n".to_owned()
        + &route("a", &breaker(6))
        + &route("c", "")
        + &route("d", "");
    assert!(gateway.reload(&after));
    gateway.wait_for_log("reloaded, generation 2");
    for line in [
        "reload: routes: added d; removed b; changed a",
        "reload: access_log: changed",
        "reload: state that begins anew: the circuit of routes.a",
    ] {
        assert_eq!(times(&gateway, line), 1, "{line}:\n{}", gateway.log());
    }
    assert_eq!(times(&gateway, "reload: "), 3, "{}", gateway.log());
    assert!(gateway.reload(&after));
    gateway.wait_for_log("reload: nothing has changed");
}

/// Sends requests until the log says this.
#[track_caller]
fn until_told(gateway: &Gateway, client: &mut Client, call: &Call, part: &str) {
    eventually(&format!("`{part}` in the log:\n{}", gateway.log()), || {
        client.call(call);
        gateway.log().contains(part).then_some(())
    });
}

#[test]
fn key_sets_and_collectors_that_go_and_come_back_are_one_line_at_each_edge() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let collector = Upstream::always(Answer::ok().body(""));
    let auth = "auth: {accounts: {jwt: {issuer: auth-service, audience: any, algorithms: [RS256], \
                jwks: {url: '${JWKS_URL}', refresh: 50ms, max_stale: 1h}}}}";
    let gateway = Plan::route("")
        .section(auth)
        .env("JWKS_URL", &issuer.url())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "50")
        .upstream(&upstream)
        .start();
    gateway.wait_for_log("1 keys from");
    eventually("an export", || (collector.count() > 0).then_some(()));
    for turn in 1..=2 {
        issuer.publish(Answer::from(500));
        collector.answer_always(Answer::close());
        let failed = |name: &str| gateway.metric(name, &[("result", "failed")]);
        let (fetches, exports) =
            ("portcullis_jwks_fetches_total", "portcullis_metric_exports_total");
        let before = (failed(fetches), failed(exports));
        eventually("failures, several", || {
            (failed(fetches) >= before.0 + 2.0 && failed(exports) >= before.1 + 3.0).then_some(())
        });
        issuer.recover();
        collector.answer_always(Answer::ok().body(""));
        eventually("both to be told of as back", || {
            let back =
                (times(&gateway, "passed over, again after"), times(&gateway, "is back after"));
            (back == (turn, turn)).then_some(())
        });
        assert_eq!(times(&gateway, "auth.accounts: no keys from"), turn, "{}", gateway.log());
        assert_eq!(times(&gateway, "is away, nothing is exported"), turn, "{}", gateway.log());
    }
}

#[test]
fn a_redis_that_goes_and_comes_back_is_one_line_at_each_edge() {
    let Some(mut redis) = Redis::start() else { return };
    let upstream = Upstream::start();
    let store = format!(
        "rate_limit_stores: {{shared: {{redis: {{url: '{}', timeout: 1s}}}}}}",
        redis.url()
    );
    let limit = "rate_limit: {fixed_window: {requests: 1000000, per: 1h}, \
                 shared: {store: shared, on_failure: open}}";
    let gateway = Plan::route(limit).section(&store).upstream(&upstream).start();
    gateway.wait_for_log(": reached");
    let (mut client, call) = (gateway.connect(), Call::new("GET /"));
    redis.stop();
    until_told(&gateway, &mut client, &call, "cannot be asked");
    (0..50).for_each(|_| _ = client.call(&call));
    redis.restart();
    until_told(&gateway, &mut client, &call, "answers again after");
    assert_eq!(times(&gateway, "cannot be asked"), 1, "{}", gateway.log());
    assert_eq!(times(&gateway, "answers again"), 1, "{}", gateway.log());
}

#[test]
fn a_database_that_goes_and_comes_back_is_one_line_at_each_edge() {
    let Some(server) = Postgres::start() else { return };
    let server = std::sync::Arc::new(server);
    let upstream = Upstream::start();
    let section = Store::on(server.clone()).section();
    let section = section.replace("record: {", "record: {commit_timeout: 2s, ");
    let route = "record: {mode: sync}\nidempotency: {}";
    let gateway = Plan::route(route).section(&section).upstream(&upstream).start();
    gateway.wait_for_log("record store: ready");
    let mut n = 0;
    let mut pay = |path: &str| {
        n += 1;
        let call =
            Call::new(&format!("POST {path}")).header("Idempotency-Key", &format!("key-{n}"));
        gateway.call(call.json("{}")).status
    };
    assert_eq!(pay("/"), 200);
    server.stop();
    for line in ["record store: unavailable", "idempotency keys: the store is unavailable"] {
        eventually(line, || {
            pay("/");
            gateway.get("/");
            gateway.log().contains(line).then_some(())
        });
    }
    for _ in 0..3 {
        pay("/");
        gateway.get("/");
    }
    server.restart();
    for line in ["record store: available again", "keys: the store is available again"] {
        eventually(line, || {
            pay("/");
            gateway.get("/");
            gateway.log().contains(line).then_some(())
        });
    }
    for line in [
        "record store: unavailable",
        "record store: available again after",
        "idempotency keys: the store is unavailable",
        "idempotency keys: the store is available again after",
    ] {
        assert_eq!(times(&gateway, line), 1, "{line}:\n{}", gateway.log());
    }
}

#[test]
fn a_retry_budget_that_is_used_up_is_one_line_with_the_number_and_one_when_it_is_over() {
    let upstream = Upstream::always(503);
    let section = "retry_budgets: {few: {token_bucket: {capacity: 1, refill_per_second: 0.001}}}";
    let retry = "retry: {max_retries: 1, on: [503], budget: few, backoff: {base: 0}}";
    let gateway = Plan::route(retry).section(section).upstream(&upstream).start();
    (0..9).for_each(|_| _ = gateway.get("/"));
    let used_up = "retry budget few: used up, ";
    gateway.wait_for_log(used_up);
    gateway.get("/");
    // A spell is over after ten seconds without another.
    for line in ["retry budget few: enough again after", "no more of these failures after"] {
        eventually_within(Duration::from_secs(20), line, || {
            gateway.log().contains(line).then_some(())
        });
    }
    assert_eq!(times(&gateway, used_up), 1, "{}", gateway.log());
    // Ten requests, of which the first one had its retry.
    assert_eq!(times(&gateway, "(9 times)"), 1, "{}", gateway.log());
    // And so is the upstream's failure.
    assert_eq!(times(&gateway, "cause=upstream_5xx"), 2, "{}", gateway.log());
    assert_eq!(times(&gateway, "no more of these failures after"), 1, "{}", gateway.log());
}

#[test]
fn open_files_near_their_limit_are_one_line_and_one_when_there_is_room_again() {
    let upstream = Upstream::start();
    let section = "server: {threads: 2, max_connections: 0}";
    let plan = Plan::route("").section(section).upstream(&upstream).limited("ulimit -n 160");
    let gateway = plan.start();
    let mut crowd: Vec<_> = (0..200).filter_map(|_| Client::try_connect(gateway.address)).collect();
    eventually("files near their limit in the log", || {
        // In place of what else the gateway had open meanwhile.
        crowd.extend(Client::try_connect(gateway.address));
        gateway.log().contains("open files: about ").then_some(())
    });
    drop(crowd);
    gateway.wait_for_log(" again, after ");
    assert_eq!(times(&gateway, "raise the limit, or lower"), 1, "{}", gateway.log());
}
