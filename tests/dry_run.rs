//! `enforce: false`: a gateway that only counts is compared with its twin, which enforces, on the same
//! requests. Nothing is refused by the one, and it counts exactly what the other refuses.

use std::path::Path;

use crate::support::{
    Answer, Call, Dialect, Gateway, INVOKE, Plan, Redis, Response, Store, Upstream, compress,
    eventually, frame,
};

const KEYS: &str = "auth: {partners: {api_key: {header: X-Api-Key, keys: {acme: {key: acme-key-0123456789, scopes: [read]}, umbra: {key: umbra-key-0123456789}}}}}";

/// A gateway for each value of `ENFORCE` in its configuration, with an upstream of its own.
struct Twins {
    enforcing: (Gateway, Upstream),
    dry: (Gateway, Upstream),
}

impl Twins {
    fn start(policies: &str, sections: &str) -> Self {
        let start = |enforce: &str| {
            let upstream = Upstream::start();
            let word = |text: &str| text.replace("ENFORCE", enforce);
            let plan = Plan::route(&word(policies)).section(&word(sections));
            (plan.upstream(&upstream).start(), upstream)
        };
        Twins { enforcing: start("true"), dry: start("false") }
    }

    fn both(&self) -> [&(Gateway, Upstream); 2] {
        [&self.enforcing, &self.dry]
    }

    fn upstreams_answer(&self, answer: impl Into<Answer> + Clone) {
        self.both().into_iter().for_each(|(_, upstream)| upstream.answer_always(answer.clone()));
    }

    /// The responses of the enforcing one and of the dry one.
    fn call(&self, call: Call) -> [Response; 2] {
        self.both().map(|(gateway, _)| gateway.call(call.clone()))
    }

    fn statuses(&self, call: Call) -> [u16; 2] {
        self.call(call).map(|response| response.status)
    }

    /// One refuses `count` requests with `code`; the other has refused none and counted as many.
    #[track_caller]
    fn assert_refused(&self, code: &str, count: u32) {
        let labels = [("code", code), ("route", "all")];
        let count = f64::from(count);
        let [(enforcing, _), (dry, _)] = self.both();
        eventually(&format!("{count} of {code}"), || {
            (enforcing.metric("portcullis_rejections_total", &labels) == count
                && dry.metric("portcullis_would_refuse_total", &labels) == count)
                .then_some(())
        });
        assert_eq!(dry.metric("portcullis_rejections_total", &[]), 0.0, "{code}");
        assert_eq!(enforcing.metric("portcullis_would_refuse_total", &[]), 0.0, "{code}");
    }
}

fn keyed(key: &str) -> Call {
    Call::new("GET /").header("X-Api-Key", key)
}

#[test]
fn a_dry_run_counts_each_request_that_its_enforcing_twin_refuses_and_refuses_none() {
    const REQUESTS: usize = 120;
    let policies = "auth: {require: partners, scopes: [read], enforce: ENFORCE}
        rate_limit: [{fixed_window: {requests: 40, per: 1h}, enforce: ENFORCE}, {token_bucket: {rate: 1, per: 1h, burst: 60}, key: route, enforce: ENFORCE}]
        circuit_breaker: {consecutive: {failures: 3}, open_for: 1h, enforce: ENFORCE}
        max_body: {size: 1KiB, enforce: ENFORCE}
        record: {mode: async}";
    let twins = Twins::start(policies, KEYS);
    // The same for every run: which key, which size, and how the upstream answers.
    let mut random = fastrand::Rng::with_seed(7);
    for n in 0..REQUESTS {
        let answer = if random.bool() { 503 } else { 200 };
        twins.upstreams_answer(answer);
        let key = ["acme-key-0123456789", "umbra-key-0123456789", "a-guess-0123456789", ""]
            [[0, 0, 0, 0, 0, 0, 0, 1, 2, 3][random.usize(0..10)]];
        let size = if random.u8(0..10) == 0 { 2000 } else { 10 };
        let mut call = Call::new("POST /").header("X-Request-Id", &format!("request-{n}"));
        if !key.is_empty() {
            call = call.header("X-Api-Key", key);
        }
        let [_, dry] = twins.call(call.body("x".repeat(size)));
        assert_eq!(dry.status, answer, "the upstream's response: {}", dry.text());
    }
    let [refused, counted] = [(&twins.enforcing, "rejection"), (&twins.dry, "would_refuse")].map(
        |((gateway, _), column)| {
            let rows = Store::Sqlite.wait_for_rows(gateway, REQUESTS);
            let told = rows.iter().map(|row| {
                let id = row.text("request_id").expect("each has one").to_owned();
                (id, row.text(column).map(str::to_owned))
            });
            told.collect::<std::collections::BTreeMap<_, _>>()
        },
    );
    assert_eq!((refused.len(), &refused), (REQUESTS, &counted));
    for code in [
        "credentials_missing",
        "credentials_invalid",
        "scope_missing",
        "body_too_large",
        "rate_limited",
        "circuit_open",
    ] {
        let of_code = refused.values().filter(|refused| refused.as_deref() == Some(code)).count();
        assert!(of_code > 1, "{code} is too rare to prove anything: {refused:?}");
        twins.assert_refused(code, of_code as u32);
    }
    assert_eq!(twins.dry.1.count(), REQUESTS);
    let rows = Store::Sqlite.rows(&twins.dry.0);
    assert!(rows.iter().all(|row| row.text("rejection").is_none()), "no cause is made up");
}

#[test]
fn a_dry_circuit_learns_nothing_from_calls_that_its_twin_would_not_make() {
    let breaker = "circuit_breaker: {consecutive: {failures: 1}, open_for: 2s, half_open_calls: 1, enforce: ENFORCE}";
    let twins = Twins::start(breaker, "");
    let get = || twins.statuses("GET /".into());
    let states = || {
        twins.both().map(|(gateway, _)| {
            let status = gateway.status();
            status["routes"]["all"]["circuit"]["state"].as_str().expect("a state").to_owned()
        })
    };
    let wait_for_probes = || {
        eventually("half-open circuits", || (states() == ["half_open"; 2]).then_some(()));
    };
    twins.upstreams_answer(500);
    assert_eq!(get(), [500, 500]);
    // Successes of an open circuit would close it, if it counted them as its probe's.
    twins.upstreams_answer(200);
    assert_eq!([get(), get()], [[503, 200]; 2]);
    assert_eq!(states(), ["open", "open"]);
    wait_for_probes();
    // The probe fails, and the calls after it do not count.
    twins.upstreams_answer(500);
    assert_eq!(get(), [500, 500]);
    assert_eq!(get(), [503, 500]);
    wait_for_probes();
    twins.upstreams_answer(200);
    assert_eq!([get(), get()], [[200, 200]; 2]);
    assert_eq!(states(), ["closed", "closed"]);
    twins.assert_refused("circuit_open", 3);
    twins.dry.0.wait_for_log("calls would be refused, if that were enforced, for 2s");
    twins.enforcing.0.wait_for_log("calls are refused for 2s");
}

#[test]
fn an_open_dry_circuit_neither_prevents_retries_nor_counts_them() {
    let policies = "circuit_breaker: {consecutive: {failures: 1}, open_for: 1h, enforce: ENFORCE}
        retry: {max_retries: 2, on: [503], backoff: {base: 1ms, max: 1ms}}";
    let twins = Twins::start(policies, "");
    twins.upstreams_answer(503);
    // The first attempt opens the circuit. The twin's request ends with it, and is not refused.
    assert_eq!(twins.statuses("GET /".into()), [503, 503]);
    assert_eq!(twins.both().map(|(_, upstream)| upstream.count()), [1, 3]);
    assert_eq!(twins.call("GET /".into())[0].code(), "circuit_open");
    twins.assert_refused("circuit_open", 1);
}

#[test]
fn a_dry_bulkhead_lets_pass_without_a_slot() {
    let twins = Twins::start("bulkhead: {max_in_flight: 1, enforce: ENFORCE}", "");
    twins.upstreams_answer(Answer::ok().held());
    let mut first = twins.both().map(|(gateway, upstream)| {
        let mut client = gateway.connect();
        client.send(Call::new("GET /").bytes());
        upstream.wait_for(1);
        client
    });
    twins.upstreams_answer(200);
    assert_eq!([(); 3].map(|()| twins.statuses("GET /".into())), [[429, 200]; 3]);
    assert_eq!(twins.dry.0.status()["routes"]["all"]["bulkhead"]["free"], 0);
    twins.both().into_iter().for_each(|(_, upstream)| upstream.release());
    first.iter_mut().for_each(|client| assert_eq!(client.receive().status, 200));
    for (gateway, _) in twins.both() {
        eventually("a free slot", || {
            (gateway.status()["routes"]["all"]["bulkhead"]["free"] == 1).then_some(())
        });
    }
    assert_eq!(twins.statuses("GET /".into()), [200, 200]);
    twins.assert_refused("bulkhead_full", 3);
}

#[test]
fn a_body_beyond_a_dry_limit_passes_whole_announced_or_not() {
    let policies = "max_body: {size: 1KiB, enforce: ENFORCE}
        bulkhead: {max_in_flight: 1, enforce: ENFORCE}
        record: {mode: sync}";
    let twins = Twins::start(policies, "");
    let large = "x".repeat(3000);
    assert_eq!(twins.statuses(Call::new("POST /").body(&large)), [413, 200]);
    let chunked = format!("BB8\r\n{large}\r\n0\r\n\r\n");
    let statuses = twins.both().map(|(gateway, _)| {
        let mut client = gateway.connect();
        client.send(Call::new("POST /").header("Transfer-Encoding", "chunked").bytes());
        let _ = client.try_send(&chunked);
        client.receive().status
    });
    assert_eq!(statuses, [413, 200]);
    assert_eq!(twins.statuses(Call::new("POST /").body("x".repeat(1024))), [200, 200]);
    twins.assert_refused("body_too_large", 2);
    let bodies: Vec<_> = twins.dry.1.wait_complete(3).iter().map(|got| got.text().len()).collect();
    assert_eq!(bodies, [3000, 3000, 1024]);
    // Of a body without a length, it is known only after the row's first write.
    let rows = Store::Sqlite.wait_for_rows(&twins.dry.0, 3);
    let words: Vec<_> = rows.iter().map(|row| row.text("would_refuse")).collect();
    assert_eq!(words, [Some("body_too_large"), Some("body_too_large"), None]);
    assert!(rows.iter().all(|row| row.is_true("success") && row.text("cause").is_none()));
}

#[test]
fn a_message_of_a_stream_and_a_body_that_is_read_first_are_measured_too() {
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(2000));
    let framed = frame(large.as_bytes());
    let connect =
        |body: &[u8]| (Call::new("POST /s.S/M"), "application/connect+json", body.to_vec());
    let json = (Call::new("POST /"), "application/json", large.clone().into_bytes());
    let (call, content_type, body) = json.clone();
    let keyed = (call.header("Idempotency-Key", "a"), content_type, body);
    for (policies, (call, content_type, body)) in [
        ("", connect(&framed)),
        ("json: {defaults: {name: World}}", json),
        ("idempotency: {}\nrecord: {mode: sync}", keyed),
    ] {
        let limit = "max_body: {size: 1KiB, enforce: ENFORCE}\nbulkhead: {max_in_flight: 1, enforce: ENFORCE}";
        let twins = Twins::start(&format!("{limit}\n{policies}"), "");
        let call = call.header("Content-Type", content_type).header("Transfer-Encoding", "chunked");
        for (gateway, _) in twins.both() {
            let mut client = gateway.connect();
            client.send(call.bytes());
            let _ = client.try_send(format!("{:x}\r\n", body.len()));
            let _ = client.try_send([&body[..], b"\r\n0\r\n\r\n"].concat());
            client.receive();
        }
        twins.assert_refused("body_too_large", 1);
        let got = twins.dry.1.wait_complete(1);
        assert!(got[0].text().len() > 2000, "{policies}: {}", got[0].text().len());
        assert!(twins.enforcing.1.requests().iter().all(|got| !got.complete), "{policies}");
    }
}

const TRANSCODE: &str = "transcode: {descriptors: gateway, method: gateway.v1.GatewayService/InvokeCustom, http: {path: /invoke, body: '*'}}";

fn descriptors() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/gateway.binpb");
    format!("descriptors: {{gateway: {{file: '{}'}}}}", file.display())
}

/// A call of RPC that asks for `name`.
fn invoke(dialect: Dialect, name: &str) -> Call {
    let call = Call::new(&format!("POST {INVOKE}"));
    call.header("Content-Type", dialect.content_type()).body(dialect.body(name))
}

#[test]
fn a_message_beyond_a_dry_limit_is_transcoded_whole_in_every_form() {
    let limit = "max_body: {size: 64B, enforce: ENFORCE}
        bulkhead: {max_in_flight: 1, enforce: ENFORCE}";
    let twins = Twins::start(&format!("{TRANSCODE}\n{limit}"), &descriptors());
    twins.upstreams_answer(Answer::json(200, "{\"message\":\"Hello!\"}"));
    let large = "x".repeat(120);
    let json = format!("{{\"name\":\"{large}\"}}");
    let typed = Call::new(&format!("POST {INVOKE}")).header("Content-Type", "application/json");
    let packed =
        typed.clone().header("Content-Encoding", "gzip").body(compress("gzip", json.as_bytes()));
    let calls = [
        invoke(Dialect::ConnectProto, &large),
        invoke(Dialect::GrpcWeb, &large),
        invoke(Dialect::GrpcWebText, &large),
        typed.body(&json),
        // Small as it is sent, large once it is unpacked.
        packed,
    ];
    for (n, call) in calls.into_iter().enumerate() {
        let [enforcing, dry] = twins.call(call);
        assert!(!enforcing.text().contains("Hello!"), "{n}: {}", enforcing.text());
        assert_eq!(dry.status, 200, "{n}: {}", dry.text());
        twins.assert_refused("body_too_large", n as u32 + 1);
        let got = twins.dry.1.wait_complete(n + 1);
        assert_eq!(got[n].text(), json, "{n}");
    }
    assert_eq!(twins.enforcing.1.requests().len(), 0, "no part of a message was sent");
    for dialect in [Dialect::ConnectProto, Dialect::GrpcWeb, Dialect::GrpcWebText] {
        assert_eq!(twins.statuses(invoke(dialect, "Ada")), [200, 200]);
    }
    twins.assert_refused("body_too_large", 5);
    assert_eq!(twins.both().map(|(_, upstream)| upstream.requests().len()), [3, 8]);
}

#[test]
fn a_grpc_web_message_beyond_a_dry_limit_passes_unchanged() {
    let limit = "max_body: {size: 64B, enforce: ENFORCE}";
    let twins = Twins::start(limit, "");
    let large = "x".repeat(120);
    for (n, dialect) in [Dialect::GrpcWeb, Dialect::GrpcWebText].into_iter().enumerate() {
        twins.call(invoke(dialect, &large));
        twins.assert_refused("body_too_large", n as u32 + 1);
        let got = twins.dry.1.wait_complete(n + 1);
        assert_eq!(got[n].body_length, dialect.body(&large).len() as u64, "{n}");
    }
    assert!(twins.enforcing.1.requests().iter().all(|got| !got.complete));
    twins.call(invoke(Dialect::GrpcWeb, "Ada"));
    twins.assert_refused("body_too_large", 2);
}

#[test]
fn a_body_that_only_the_record_reads_is_not_measured() {
    let policies = "max_body: {size: 64B, enforce: ENFORCE}
        rate_limit: {fixed_window: {requests: 1, per: 1h}, key: route}
        record: {mode: sync, capture: {name: request.name}}";
    let twins = Twins::start(&format!("{TRANSCODE}\n{policies}"), &descriptors());
    twins.upstreams_answer(Answer::json(200, "{\"message\":\"Hello!\"}"));
    twins.call(invoke(Dialect::GrpcWeb, "Ada"));
    // The limit refuses it before anyone knows how long its message is.
    twins.call(invoke(Dialect::GrpcWeb, &"x".repeat(120)));
    let rows = twins.both().map(|(gateway, _)| Store::Sqlite.wait_for_rows(gateway, 2));
    for rows in &rows {
        let refused: Vec<_> = rows.iter().filter_map(|row| row.text("rejection")).collect();
        assert_eq!(refused, ["rate_limited"]);
        assert!(rows.iter().all(|row| row.text("would_refuse").is_none()));
    }
    assert_eq!(twins.dry.0.metric("portcullis_would_refuse_total", &[]), 0.0);
}

#[test]
fn a_reload_that_only_begins_or_ceases_to_enforce_keeps_what_was_counted() {
    let policies = |enforce: bool| {
        format!(
            "rate_limit: {{fixed_window: {{requests: 3, per: 1h}}, key: route, enforce: {enforce}}}"
        )
    };
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, &policies(false));
    assert_eq!([(); 4].map(|()| gateway.get("/").status), [200; 4]);
    assert!(gateway.reload_route(&policies(true)));
    assert_eq!(gateway.get("/").status, 429, "three were counted");
    assert!(gateway.reload_route(&policies(false)));
    assert_eq!(gateway.get("/").status, 200);
    eventually("two that would have been refused", || {
        (gateway.metric("portcullis_would_refuse_total", &[]) == 2.0).then_some(())
    });
    assert!(gateway.reload_route(&policies(true).replace("3,", "4,")));
    assert_eq!(gateway.get("/").status, 200, "another limit begins anew");
}

#[test]
fn a_reload_that_only_enforces_a_circuit_keeps_it_open() {
    let route = |enforce: bool| {
        format!(
            "circuit_breaker: {{consecutive: {{failures: 2}}, open_for: 1h, enforce: {enforce}}}"
        )
    };
    let upstream = Upstream::always(503);
    let gateway = Gateway::route(&upstream, &route(false));
    assert_eq!([(); 3].map(|()| gateway.get("/").status), [503; 3]);
    assert_eq!(upstream.requests().len(), 3);
    assert!(gateway.reload_route(&route(true)));
    assert_eq!(gateway.get("/").status, 503);
    assert_eq!(upstream.requests().len(), 3, "the open circuit refuses");
    assert!(gateway.reload_route(&route(false)));
    gateway.get("/");
    assert_eq!(upstream.requests().len(), 4);

    // The same of an upstream's circuit.
    let upstream = Upstream::always(503);
    let of_upstream = |enforce: bool| {
        let service =
            format!("upstreams: {{service: {{endpoints: ['${{UPSTREAM}}'], {}}}}}", route(enforce));
        Plan::route("").section(&service)
    };
    let gateway = of_upstream(false).upstream(&upstream).start();
    (0..3).for_each(|_| drop(gateway.get("/")));
    assert!(gateway.reload_plan(&of_upstream(true)));
    gateway.get("/");
    assert_eq!(upstream.requests().len(), 3, "the open circuit refuses");
}

#[test]
fn a_reload_that_only_enforces_the_flood_guard_keeps_its_counts() {
    let upstream = Upstream::start();
    let plan = |enforce: bool| {
        Plan::route("")
            .section(&format!("flood_guard: {{requests: 20, per: 1h, enforce: {enforce}}}"))
    };
    let gateway = plan(false).upstream(&upstream).start();
    (0..30).for_each(|_| assert_eq!(gateway.get("/").status, 200));
    assert!(gateway.reload_plan(&plan(true)));
    assert_eq!(gateway.get("/").status, 429);
}

#[test]
fn who_would_be_refused_goes_on_without_an_identity_and_with_its_credentials() {
    let limit = "rate_limit: {fixed_window: {requests: 2, per: 1h}}";
    let auth = "auth: {require: partners, scopes: [read], enforce: false}";
    let upstream = Upstream::start();
    let plan = Plan::route(&format!("{auth}\n{limit}")).section(KEYS).upstream(&upstream);
    let gateway = plan.start();
    let guess = || gateway.call(keyed("a-guess-0123456789").header("X-Consumer", "acme")).status;
    let of_umbra = || gateway.call(keyed("umbra-key-0123456789")).status;
    // Neither has an identity: a limit for each consumer counts both by their address.
    assert_eq!([guess(), of_umbra(), guess(), of_umbra()], [200, 200, 429, 429]);
    assert_eq!(gateway.call(keyed("acme-key-0123456789")).status, 200);
    let seen = upstream.requests();
    let consumers: Vec<_> = seen.iter().map(|got| got.header("x-consumer")).collect();
    assert_eq!(consumers, [None, None, Some("acme")]);
    let keys: Vec<_> = seen.iter().filter_map(|got| got.header("x-api-key")).collect();
    assert_eq!(keys, ["a-guess-0123456789", "umbra-key-0123456789", "acme-key-0123456789"]);
    for (code, count) in [("credentials_invalid", 2.0), ("scope_missing", 2.0)] {
        eventually(code, || {
            let labels = [("code", code)];
            (gateway.metric("portcullis_would_refuse_total", &labels) == count).then_some(())
        });
    }
    gateway.expect_metric("portcullis_rejections_total", &[("code", "rate_limited")], 2.0);
}

#[test]
fn a_dry_flood_guard_counts_by_route() {
    let twins = Twins::start("", "flood_guard: {requests: 2, per: 1h, enforce: ENFORCE}");
    let statuses = [(); 4].map(|()| twins.statuses("GET /".into()));
    assert_eq!(statuses, [[200, 200], [200, 200], [429, 200], [429, 200]]);
    twins.assert_refused("flood", 2);
}

#[test]
fn a_replay_gets_nothing_back_of_a_dry_limit_that_did_not_count_it() {
    let policies = "idempotency: {}
        rate_limit: {fixed_window: {requests: 2, per: 1h}, replays: free, enforce: ENFORCE}
        record: {mode: sync}";
    let twins = Twins::start(policies, "");
    let post = |key: &str| Call::new("POST /").header("Idempotency-Key", key).body("x");
    let keys = ["a", "a", "b", "a", "c"];
    let statuses = keys.map(|key| twins.statuses(post(key)));
    let (passes, refused) = ([200, 200], [429, 200]);
    assert_eq!(statuses, [passes, passes, passes, refused, refused]);
    assert_eq!(twins.dry.1.count(), 3, "replays are not executed");
    twins.assert_refused("rate_limited", 2);
}

#[test]
fn a_client_is_told_nothing_of_a_limit_that_is_not_enforced() {
    let upstream = Upstream::start();
    let wanted = "rate_limit_headers: {on: always, token_bucket: true, ietf: true}";
    let bucket = "token_bucket: {rate: 1, per: 1h, burst: 1}, enforce: false";
    let window = "fixed_window: {requests: 9, per: 1h}";
    for (limits, told) in [
        (format!("{{{bucket}}}"), None),
        (format!("[{{{bucket}}}, {{{window}}}]"), Some("\"all-2\";q=9;w=3600")),
    ] {
        let plan = Plan::route(&format!("rate_limit: {limits}")).section(wanted);
        let gateway = plan.upstream(&upstream).start();
        for _ in 0..2 {
            let response = gateway.get("/");
            assert_eq!((response.status, response.header("ratelimit-policy")), (200, told));
            let limit = response.header("x-ratelimit-limit");
            assert_eq!(limit, told.map(|_| "9"), "of the enforced one alone");
            assert_eq!(response.header("x-ratelimit-burst-capacity"), None);
        }
    }
}

#[test]
fn a_dry_circuit_sends_no_request_to_the_fallback() {
    let policies = "circuit_breaker: {consecutive: {failures: 1}, open_for: 1h, enforce: false}
        fallback: {upstream: other}";
    let [upstream, other] = [(); 2].map(|()| Upstream::start());
    let others = format!(
        "upstreams: {{service: {{endpoints: ['{}']}}, other: {{endpoints: ['{}']}}}}",
        upstream.url(),
        other.url()
    );
    let gateway = Plan::route(policies).section(&others).start();
    upstream.answer_always(500);
    gateway.get("/");
    let asked = other.count();
    upstream.answer_always(200);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!((upstream.count(), other.count()), (2, asked));
}

/// The store counts for both at once: a limit of its own, and one beside it.
#[test]
fn dry_limits_in_redis_count_what_their_twins_refuse() {
    let Some(redis) = Redis::start() else { return };
    let store = format!(
        "rate_limit_stores: {{shared: {{redis: {{url: '{}', timeout: 1s, prefix: twin-ENFORCE}}}}}}",
        redis.url()
    );
    let policies = "auth: {require: partners, enforce: ENFORCE}
        rate_limit: [{fixed_window: {requests: 3, per: 1h}, key: consumer, shared: {store: shared}, enforce: ENFORCE}, {fixed_window: {requests: 7, per: 1h}, key: route, shared: {store: shared}, enforce: ENFORCE}, {fixed_window: {requests: 6, per: 1h}, key: route, enforce: ENFORCE}]";
    let twins = Twins::start(policies, &format!("{store}\n{KEYS}"));
    for (gateway, _) in twins.both() {
        eventually("the store", || {
            (gateway.metric("portcullis_rate_limit_store_up", &[]) > 0.0).then_some(())
        });
    }
    let [acme, umbra, guess] =
        ["acme-key-0123456789", "umbra-key-0123456789", "a-guess-0123456789"];
    let mut refused = 0;
    for key in [acme, guess, acme, acme, acme, umbra, guess, umbra, acme, umbra, umbra, acme] {
        let [enforcing, dry] = twins.statuses(keyed(key));
        assert_eq!(dry, 200);
        refused += u32::from(enforcing == 429);
    }
    assert_eq!(refused, 4, "3 of acme and 1 of umbra");
    twins.assert_refused("rate_limited", refused);
    twins.assert_refused("credentials_invalid", 2);
}

/// An enforced limit counts what passes; the dry one beside it, what passes it as well.
#[test]
fn an_enforced_limit_in_redis_counts_what_a_dry_one_lets_pass() {
    let Some(redis) = Redis::start() else { return };
    let store = format!(
        "rate_limit_stores: {{shared: {{redis: {{url: '{}', timeout: 1s}}}}}}",
        redis.url()
    );
    let limit = |requests: u32, enforce: bool| {
        format!(
            "{{fixed_window: {{requests: {requests}, per: 1h}}, key: route, shared: {{store: shared}}, enforce: {enforce}}}"
        )
    };
    let policies = format!("rate_limit: [{}, {}]", limit(1, false), limit(3, true));
    let upstream = Upstream::start();
    let gateway = Plan::route(&policies).section(&store).upstream(&upstream).start();
    eventually("the store", || {
        (gateway.metric("portcullis_rate_limit_store_up", &[]) > 0.0).then_some(())
    });
    assert_eq!([(); 5].map(|()| gateway.get("/").status), [200, 200, 200, 429, 429]);
    eventually("two that would have been refused", || {
        (gateway.metric("portcullis_would_refuse_total", &[]) == 2.0).then_some(())
    });
}

#[test]
fn the_status_names_what_is_not_enforced() {
    let upstream = Upstream::start();
    let policies = "bulkhead: {max_in_flight: 1, enforce: false}
        rate_limit: [{fixed_window: {requests: 1, per: 1h}}, {fixed_window: {requests: 1, per: 1h}, enforce: false}]";
    let gateway = Gateway::route(&upstream, policies);
    let named = gateway.status()["routes"]["all"]["not_enforced"].clone();
    assert_eq!(named, serde_json::json!(["rate_limit[1]", "bulkhead"]));
    assert!(gateway.reload_route("bulkhead: {max_in_flight: 1}"));
    assert_eq!(gateway.status()["routes"]["all"].get("not_enforced"), None);
}

#[test]
fn check_notes_what_is_not_enforced() {
    let directory = tempfile::tempdir().unwrap();
    let text = "listeners: {public: {address: '127.0.0.1:8080'}}
flood_guard: {requests: 9, enforce: false}
upstreams: {users: {endpoints: ['http://127.0.0.1:3000'], circuit_breaker: {consecutive: {failures: 1}, enforce: false}}}
routes: {users: {match: {path: /*}, upstream: users, max_body: {size: 1KiB, enforce: false}, bulkhead: {max_in_flight: 1}}}
";
    std::fs::write(directory.path().join("c.yaml"), text).unwrap();
    let finished = Gateway::finish(&["check", "-c", "c.yaml"], directory.path(), &[]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let notes = ["flood_guard", "upstreams.users.circuit_breaker", "routes.users.max_body"]
        .map(|path| format!("note: {path} is not enforced\n"));
    assert!(finished.stderr.ends_with(&notes.concat()), "{}", finished.stderr);
}

#[test]
fn enforce_is_true_or_false() {
    for (policy, told) in [
        ("bulkhead: {max_in_flight: 1, enforce: perhaps}", "routes.all.bulkhead"),
        ("max_body: {enforce: false}", "routes.all.max_body"),
        ("max_body: {size: 10, enforce: false}", "routes.all.max_body"),
    ] {
        let (code, log) = Plan::route(policy).fails();
        assert_eq!(code, Some(1), "{policy}");
        assert!(log.contains(told), "{log}");
    }
}

#[test]
fn a_request_that_would_have_been_refused_has_a_line_like_a_refusal() {
    let upstream = Upstream::start();
    let limit = "rate_limit: {fixed_window: {requests: 1, per: 1h}, enforce: false}";
    let log = "access_log: {keep: {refusals: 2/s}}";
    let gateway = Plan::route(limit).section(log).upstream(&upstream).start();
    (0..30).for_each(|_| assert_eq!(gateway.get("/").status, 200));
    let lines = eventually("a line", || {
        let lines = gateway.access_lines();
        (!lines.is_empty()).then_some(lines)
    });
    assert!(lines.len() < 29, "a flood of them is sampled, and what passes has none: {lines:#?}");
    for line in lines {
        assert_eq!(line["portcullis.would_refuse"], "rate_limited", "{line:#}");
        assert_eq!(line["portcullis.outcome"], "success", "{line:#}");
        assert_eq!(line.get("portcullis.cause"), None, "{line:#}");
    }
}
