//! A request with an idempotency key is executed once; a later request with the key gets the first
//! one's response, byte for byte, or is told why not. A request whose end is unknown is never
//! executed again in silence. What replicas share is in [`crate::idempotency_shared`].

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::support::{
    Answer, Blackhole, Call, Client, Ending, Gateway, H2Client, Issuer, Plan, Response, Store,
    Upstream, assert_within, at_once, eventually, pass, request, timed,
};

/// Quick enough to wait for: leases end after 1.8 s. A busy machine takes less than these limits.
const SHORT: &str = "timeout: {request: 300ms}";
const BRIEF_STORE: &str =
    "record: {store: {sqlite: {path: \"${PORTCULLIS_DATA}/portcullis.db\"}}, commit_timeout: 1s}";

fn gateway(upstream: &Upstream, idempotency: &str) -> Gateway {
    Gateway::route(upstream, &format!("idempotency: {idempotency}"))
}

/// With leases that end soon.
fn brief(upstream: &Upstream, idempotency: &str) -> Gateway {
    let route = format!("{SHORT}\nidempotency: {idempotency}");
    Plan::route(&route).section(BRIEF_STORE).upstream(upstream).start()
}

fn pay(key: &str) -> Call {
    Call::new("POST /pay").header("Idempotency-Key", key).json("{\"amount\":10}")
}

#[track_caller]
fn assert_refused(response: &Response, status: u16, code: &str) {
    assert_eq!((response.status, response.code().as_str()), (status, code));
}

/// The key `k` is refused as in flight until its lease is over, and then as undecided.
#[track_caller]
fn assert_becomes_undecided(gateway: &Gateway) {
    let undecided = eventually("the end of the lease", || {
        let response = gateway.call(pay("k"));
        assert_eq!(response.status, 409);
        (response.code() != "idempotency_in_flight").then_some(response)
    });
    assert_refused(&undecided, 409, "idempotency_undecided");
}

/// `again` is `first`, but for what belongs to the one exchange.
#[track_caller]
fn assert_replayed(again: &Response, first: &Response) {
    let of_the_exchange =
        ["connection", "date", "x-request-id", "content-length", "transfer-encoding"];
    let kept = |response: &Response| -> Vec<(String, String)> {
        let lower = response.headers.iter().map(|(n, v)| (n.to_lowercase(), v.clone()));
        let mut kept: Vec<_> = lower
            .filter(|(n, _)| !of_the_exchange.contains(&n.as_str()) && n != "idempotency-replayed")
            .collect();
        kept.sort();
        kept
    };
    assert_eq!(again.header("idempotency-replayed"), Some("true"), "{again:?}");
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(kept(again), kept(first));
}

#[test]
fn a_finished_request_is_answered_again_byte_for_byte() {
    let answers = [
        Answer::json(201, "{\"id\":7}").header("Location", "/orders/7").header("X-Tag", "a"),
        Answer::chunked("in pieces", 2).header("Content-Type", "text/plain"),
        Answer::from(204).body("").header("X-Tag", "nothing"),
        Answer::from(200).body(""),
        Answer::from(500).body("a failure is an answer as well"),
        Answer::from(409).body("conflict"),
    ];
    let upstream = Upstream::script(answers.clone());
    let gateway = gateway(&upstream, "{}");
    for (n, _) in answers.iter().enumerate() {
        let call = pay(&format!("key-{n}"));
        let first = gateway.call(call.clone());
        for _ in 0..2 {
            assert_replayed(&gateway.call(call.clone()), &first);
        }
    }
    assert_eq!(upstream.count(), answers.len());
}

#[test]
fn a_connection_goes_on_after_a_replay() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "{}");
    let mut client = gateway.connect();
    for key in ["a", "a", "b", "a", "b"] {
        assert_eq!(client.call(&pay(key)).status, 200, "{key}");
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn the_key_goes_upstream_as_it_came() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "{}");
    for key in ["\"quoted key\"", "bare-key"] {
        assert_eq!(gateway.call(pay(key)).status, 200);
    }
    let sent = upstream.wait_complete(2);
    let keys: Vec<_> = sent.iter().map(|r| r.header("idempotency-key")).collect();
    assert_eq!(keys, [Some("\"quoted key\""), Some("bare-key")]);
    assert!(sent.iter().all(|request| request.text() == "{\"amount\":10}"));
}

#[test]
fn while_the_first_is_in_flight_the_others_are_told_so() {
    let upstream = Upstream::always(Answer::ok().body("done").held());
    let gateway = gateway(&upstream, "{}");
    let mut first = gateway.connect();
    first.send(pay("k").bytes());
    upstream.wait_for(1);
    let second = gateway.call(pay("k"));
    assert_refused(&second, 409, "idempotency_in_flight");
    assert_eq!(second.retry_after(), 1);
    upstream.release();
    let first = first.receive();
    assert_eq!((first.status, first.text().as_str()), (200, "done"));
    assert_replayed(&gateway.call(pay("k")), &first);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn fifty_requests_at_once_are_one() {
    let upstream = Upstream::always(Answer::ok().held());
    let gateway = gateway(&upstream, "{}");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let call = || {
            let response = gateway.call(pay("k"));
            if response.status == 409 {
                assert_refused(&response, 409, "idempotency_in_flight");
            }
            response.status
        };
        let calls: Vec<_> = (0..50).map(|_| scope.spawn(call)).collect();
        eventually("49 refusals", || {
            (gateway.metric("portcullis_idempotency_keys_total", &[("result", "refused")]) == 49.0)
                .then_some(())
        });
        upstream.release();
        calls.into_iter().map(|call| call.join().expect("an answer")).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn another_request_with_the_key_is_refused() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "{}");
    let call = |line: &str, content_type: &str, body: &str| {
        let call = Call::new(line).header("Idempotency-Key", "k");
        gateway.call(call.header("Content-Type", content_type).body(body))
    };
    assert_eq!(call("POST /pay?a=1&b=2", "text/plain", "ten").status, 200);
    assert_eq!(call("POST /pay?b=2&a=1", "text/plain", "ten").status, 200, "the same request");
    for (line, content_type, body) in [
        ("POST /pay?a=1&b=2", "text/plain", "eleven"),
        ("POST /pay?a=1&b=2", "text/html", "ten"),
        ("POST /pay?a=1", "text/plain", "ten"),
        ("POST /refund?a=1&b=2", "text/plain", "ten"),
        ("PATCH /pay?a=1&b=2", "text/plain", "ten"),
    ] {
        let other = call(line, content_type, body);
        assert_refused(&other, 422, "idempotency_key_reused");
    }
    assert_eq!(upstream.count(), 1);
}

const TWO_ROUTES: &str = "
auth: {partners: {api_key: {header: X-Api-Key, keys: {acme: acme-key-0123456789, emca: emca-key-0123456789}}}}
routes:
  pay: {match: {path: /pay}, upstream: service, auth: {require: partners}, idempotency: {}}
  all: {match: {path: /*}, upstream: service, auth: {require: partners}, idempotency: {}}
";

#[test]
fn a_key_belongs_to_its_consumer_and_to_its_route() {
    let upstream = Upstream::start();
    let gateway = Plan::new(TWO_ROUTES).upstream(&upstream).start();
    let call = |path: &str, credentials: &str| {
        let call = Call::new(&format!("POST {path}")).header("Idempotency-Key", "k");
        gateway.call(call.header("X-Api-Key", credentials).body("x"))
    };
    for (path, credentials) in [
        ("/pay", "acme-key-0123456789"),
        ("/pay", "emca-key-0123456789"),
        ("/other", "acme-key-0123456789"),
    ] {
        let first = call(path, credentials);
        assert_replayed(&call(path, credentials), &first);
    }
    assert_eq!(upstream.count(), 3);
}

#[test]
fn callers_without_credentials_are_told_apart_by_address_unless_they_share() {
    for (anonymous, executed) in [("address", 2), ("shared", 1)] {
        let upstream = Upstream::start();
        let route = format!("idempotency: {{anonymous: {anonymous}}}");
        let trust = "client_address: {trusted_proxies: [127.0.0.0/8]}";
        let gateway = Plan::route(&route).section(trust).upstream(&upstream).start();
        for address in ["192.0.2.1", "192.0.2.2", "192.0.2.1"] {
            let response = gateway.call(pay("k").header("X-Forwarded-For", address));
            assert_eq!(response.status, 200);
        }
        assert_eq!(upstream.count(), executed, "{anonymous}");
    }
}

#[test]
fn a_route_may_require_a_key() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "{required: true}");
    assert_refused(&gateway.post("/pay", "{}"), 400, "idempotency_key_missing");
    assert_eq!(upstream.count(), 0);
    assert_eq!(gateway.get("/pay").status, 200, "GET executes nothing");
    assert_eq!(gateway.call(pay("k")).status, 200);
}

#[test]
fn without_a_key_nothing_is_kept() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "{}");
    for _ in 0..2 {
        assert_eq!(gateway.post("/pay", "{}").header("idempotency-replayed"), None);
    }
    let get = Call::new("GET /pay").header("Idempotency-Key", "k");
    for _ in 0..2 {
        assert_eq!(gateway.call(get.clone()).header("idempotency-replayed"), None);
    }
    assert_eq!(upstream.count(), 4);
}

#[test]
fn where_no_route_asks_the_header_is_one_like_any_other() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    for _ in 0..2 {
        assert_eq!(gateway.call(pay("two, keys")).status, 200);
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn what_is_no_key_is_refused() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "{}");
    for key in ["", "\"open", "a b", "a,b", &"k".repeat(256)] {
        assert_refused(&gateway.call(pay(key)), 400, "idempotency_key_invalid");
    }
    let twice = pay("a").header("Idempotency-Key", "b");
    assert_refused(&gateway.call(twice), 400, "idempotency_key_invalid");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_body_that_is_too_large_to_be_compared_is_refused() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "{max_body: 1KiB}");
    let call = |size: usize| {
        let call = Call::new("POST /pay").header("Idempotency-Key", &format!("k-{size}"));
        gateway.call(call.body("x".repeat(size)))
    };
    assert_eq!(call(1024).status, 200);
    assert_refused(&call(1025), 413, "body_too_large");
    assert_eq!(gateway.post("/pay", &"x".repeat(5000)).status, 200, "without a key");
    assert_eq!(upstream.count(), 2);
}

#[test]
fn bodies_in_chunks_and_no_body_at_all_are_bodies_too() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "{}");
    let chunked = |key: &str, body: &str| {
        let call = Call::new("POST /pay").header("Idempotency-Key", key);
        call.header("Transfer-Encoding", "chunked").body(body)
    };
    let calls = [
        chunked("a", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
        chunked("b", "0\r\n\r\n"),
        Call::new("POST /pay").header("Idempotency-Key", "c"),
        Call::new("POST /pay").header("Idempotency-Key", "d").header("Content-Length", "0"),
    ];
    for call in calls {
        let first = gateway.call(call.clone());
        assert_eq!(first.status, 200);
        assert_replayed(&gateway.call(call), &first);
    }
    let bodies: Vec<_> = upstream.wait_complete(4).iter().map(|r| r.text()).collect();
    assert_eq!(bodies, ["hello world", "", "", ""]);
}

#[test]
fn an_answer_that_is_too_large_reaches_its_client_and_is_not_executed_again() {
    for big in [Answer::ok().body(&"x".repeat(3000)), Answer::chunked(&"x".repeat(3000), 500)] {
        let upstream = Upstream::script([big]);
        let gateway = gateway(&upstream, "{max_response: 2KiB}");
        assert_eq!(gateway.call(pay("k")).body_length, 3000);
        assert_refused(&gateway.call(pay("k")), 409, "idempotency_answer_not_kept");
        assert_eq!(upstream.count(), 1);
    }
}

#[test]
fn a_refusal_of_our_own_leaves_the_key_free() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let route = "idempotency: {}\nbulkhead: {max_in_flight: 1}";
    let gateway = Gateway::route(&upstream, route);
    let mut other = gateway.connect();
    other.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    assert_refused(&gateway.call(pay("k")), 429, "bulkhead_full");
    upstream.release();
    other.receive();
    let first = eventually("a free slot", || {
        let response = gateway.call(pay("k"));
        (response.status != 429).then_some(response)
    });
    assert_eq!(first.status, 200, "{}", first.text());
    assert_replayed(&gateway.call(pay("k")), &first);
}

#[test]
fn what_was_provably_not_sent_leaves_the_key_free() {
    let address = Upstream::start().address();
    let url = format!("http://{address}");
    let gateway = Plan::route("idempotency: {}").env("UPSTREAM", &url).start();
    for _ in 0..2 {
        assert_refused(&gateway.call(pay("k")), 502, "connect_refused");
    }
    let upstream = Upstream::listen(address);
    let first = gateway.call(pay("k"));
    assert_eq!(first.status, 200);
    assert_replayed(&gateway.call(pay("k")), &first);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn an_upstream_that_says_come_again_leaves_the_key_free() {
    let upstream = Upstream::script([Answer::from(429), Answer::from(503).body("")]);
    let gateway = gateway(&upstream, "{release_on: [429, 503]}");
    assert_eq!([(); 3].map(|()| gateway.call(pay("k")).status), [429, 503, 200]);
    assert_eq!(gateway.call(pay("k")).header("idempotency-replayed"), Some("true"));
    assert_eq!(upstream.count(), 3);
}

#[test]
fn what_was_sent_and_not_answered_stays_undecided() {
    let answers = [Answer::hang(), Answer::reset(), Answer::close(), Answer::truncated("ha", 9)];
    at_once(answers, |answer| {
        let upstream = Upstream::script([answer]);
        let gateway = brief(&upstream, "{lease: 0}");
        let first = gateway.call(pay("k"));
        assert!(first.status >= 502 || first.text() == "ha", "{}", first.text());
        assert_refused(&gateway.call(pay("k")), 409, "idempotency_in_flight");
        assert_becomes_undecided(&gateway);
        assert_eq!(upstream.count(), 1, "never twice in silence");
    });
}

#[test]
fn where_the_route_says_so_the_undecided_is_executed_again_after_its_lease() {
    let upstream = Upstream::script([Answer::hang()]);
    let gateway = brief(&upstream, "{on_undecided: retry, lease: 0}");
    assert_eq!(gateway.call(pay("k")).status, 504);
    assert_refused(&gateway.call(pay("k")), 409, "idempotency_in_flight");
    let second = eventually("the end of the lease", || {
        let response = gateway.call(pay("k"));
        (response.status != 409).then_some(response)
    });
    assert_eq!(second.status, 200);
    assert_replayed(&gateway.call(pay("k")), &second);
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_key_is_new_again_when_its_time_is_over() {
    let upstream = Upstream::start();
    // As short as the lease of a request that may take this long allows: 2.5 s.
    let route = "timeout: {request: 1s}\nidempotency: {lease: 0, ttl: 3s}";
    let gateway = Plan::route(route).section(BRIEF_STORE).upstream(&upstream).start();
    assert_eq!(gateway.call(pay("k")).status, 200);
    assert_eq!(gateway.call(pay("k")).header("idempotency-replayed"), Some("true"));
    eventually("another execution", || {
        let response = gateway.call(pay("k"));
        assert_eq!(response.status, 200);
        (response.header("idempotency-replayed").is_none()).then_some(())
    });
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_client_that_left_finds_its_answer_when_it_comes_again() {
    let upstream = Upstream::always(Answer::json(201, "{\"id\":7}").held());
    let gateway = gateway(&upstream, "{}");
    for (key, ends) in [("reset", true), ("closed", false)] {
        let before = upstream.count();
        let mut client = gateway.connect();
        client.send(pay(key).bytes());
        upstream.wait_for(before + 1);
        if ends { client.vanish() } else { drop(client) }
    }
    // Its leaving must have been noticed, had anybody been looking.
    eventually("both are in flight", || {
        (gateway.status()["requests_in_flight"] == 2).then_some(())
    });
    upstream.release();
    for key in ["reset", "closed"] {
        let again = eventually("the answer", || {
            let response = gateway.call(pay(key));
            (response.status != 409).then_some(response)
        });
        assert_eq!((again.status, again.text().as_str()), (201, "{\"id\":7}"));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
    }
    assert_eq!(upstream.count(), 2);
    assert!(upstream.requests().iter().all(|request| !request.cancelled));
}

#[test]
fn a_client_that_left_before_its_request_was_whole_has_not_used_its_key() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "{}");
    let mut client = gateway.connect();
    let bytes = pay("k").bytes();
    client.send(&bytes[..bytes.len() - 1]);
    client.vanish();
    let first = gateway.call(pay("k"));
    assert_eq!((first.status, first.header("idempotency-replayed")), (200, None));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn the_deadline_of_a_request_that_goes_on_alone_holds() {
    let upstream = Upstream::always(Answer::hang());
    let route = "timeout: {request: 300ms}\nidempotency: {}";
    let gateway = Gateway::route(&upstream, route);
    let (response, took) = timed(|| gateway.call(pay("k")));
    assert_refused(&response, 504, "deadline_exceeded");
    assert_within(took, Duration::from_millis(500));
    let mut client = gateway.connect();
    client.send(pay("l").bytes());
    upstream.wait_for(2);
    client.vanish();
    let cancelled = timed(|| upstream.wait_cancelled(2));
    assert_within(cancelled.1, Duration::from_millis(500));
    upstream.answer_always(Answer::drip_body(Duration::from_millis(50)));
    let (cut, took) = timed(|| gateway.call(pay("m")));
    assert_eq!((cut.status, cut.ending), (200, Ending::Truncated));
    assert_within(took, Duration::from_millis(500));
}

#[test]
fn a_post_that_holds_a_key_is_tried_again_with_the_same_key() {
    for failure in [Answer::from(503), Answer::reset()] {
        let upstream = Upstream::script([failure]);
        let retry = "retry: {max_retries: 1, on: [503, reset], backoff: {base: 1ms, max: 1ms}}";
        let gateway = Gateway::route(&upstream, &format!("{retry}\nidempotency: {{}}"));
        let first = gateway.call(pay("k"));
        assert_eq!(first.status, 200);
        assert_replayed(&gateway.call(pay("k")), &first);
        let sent = upstream.wait_complete(2);
        assert!(sent.iter().all(|request| request.header("idempotency-key") == Some("k")));
        assert!(sent.iter().all(|request| request.text() == "{\"amount\":10}"));
        assert_eq!(upstream.count(), 2);
    }
}

#[test]
fn a_post_without_a_key_is_not_tried_again() {
    let upstream = Upstream::always(503);
    let retry = "retry: {max_retries: 1, on: [503], backoff: {base: 1ms, max: 1ms}}";
    let gateway = Gateway::route(&upstream, &format!("{retry}\nidempotency: {{}}"));
    assert_eq!(gateway.post("/pay", "{}").status, 503);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn retries_with_a_key_are_paid_for_by_the_budget() {
    let upstream = Upstream::always(503);
    let budget = "retry_budgets: {small: {token_bucket: {capacity: 1, refill_per_second: 0.001}}}";
    let route = "retry: {max_retries: 5, on: [503], budget: small, backoff: {base: 1ms, max: 1ms}}\nidempotency: {}";
    let gateway = Plan::route(route).section(budget).upstream(&upstream).start();
    assert_eq!([gateway.call(pay("a")).status, gateway.call(pay("b")).status], [503, 503]);
    assert_eq!(upstream.count(), 3, "two requests and the one retry there was a token for");
}

#[test]
fn an_open_circuit_costs_no_key_and_a_replay_no_probe() {
    let upstream = Upstream::script([Answer::ok(), Answer::from(503)]);
    let route = "idempotency: {}\ncircuit_breaker: {consecutive: {failures: 1}, open_for: 1m}";
    let gateway = Gateway::route(&upstream, route);
    let first = gateway.call(pay("done"));
    assert_eq!(gateway.get("/").status, 503);
    for _ in 0..2 {
        assert_refused(&gateway.call(pay("new")), 503, "circuit_open");
    }
    assert_replayed(&gateway.call(pay("done")), &first);
    assert_eq!(upstream.count(), 2);
}

#[test]
fn an_upstream_error_that_was_translated_is_answered_again_as_it_was() {
    let upstream = Upstream::script([Answer::json(404, "{\"error\":\"no such name\"}"), {
        Answer::from(404).body("")
    }]);
    let gateway = Gateway::route(&upstream, "idempotency: {}\nerrors: connect");
    for key in ["with-body", "without"] {
        let first = gateway.call(pay(key));
        assert_eq!((first.status, first.code().as_str()), (404, "not_found"));
        assert_replayed(&gateway.call(pay(key)), &first);
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_fallback_in_place_of_an_answer_is_answered_again_as_it_was() {
    let upstream = Upstream::always(503);
    let fallback = "fallback: {status: 503, json: {at: '{timestamp}', id: '{request_id}'}}";
    let gateway = Gateway::route(&upstream, &format!("idempotency: {{}}\n{fallback}"));
    let first = gateway.call(pay("k"));
    assert!(first.json()["at"].is_string(), "{}", first.text());
    assert_replayed(&gateway.call(pay("k")), &first);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_connect_client_reads_its_refusals_as_connect_errors() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let gateway = Gateway::route(&upstream, "errors: connect\nidempotency: {required: true}");
    let mut first = gateway.connect();
    first.send(pay("k").bytes());
    upstream.wait_for(1);
    for (call, status, code) in [
        (pay("k"), 409, "aborted"),
        (Call::new("POST /pay").json("{}"), 400, "invalid_argument"),
        (Call::new("POST /pay").header("Idempotency-Key", "k").json("{}"), 400, "invalid_argument"),
    ] {
        assert_refused(&gateway.call(call), status, code);
    }
    upstream.release();
    first.receive();
}

#[test]
fn defaults_of_a_json_body_are_filled_in_for_the_upstream_only() {
    let upstream = Upstream::start();
    let route = "json: {defaults: {name: World}}\nidempotency: {}";
    let gateway = Gateway::route(&upstream, route);
    let call =
        |body: &str| gateway.call(Call::new("POST /").header("Idempotency-Key", "k").json(body));
    let first = call("{}");
    assert_replayed(&call("{}"), &first);
    assert_refused(&call("{\"name\":\"World\"}"), 422, "idempotency_key_reused");
    assert_eq!(upstream.only().text(), "{\"name\":\"World\"}");
}

#[test]
fn a_replay_is_recorded_as_one() {
    let upstream = Upstream::script([Answer::json(200, "{\"message\":\"hi\"}")]);
    let record =
        "record: {mode: sync, capture: {name: request.name, result_message: response.message}}";
    let json = "json: {defaults: {name: World}}";
    let gateway = Gateway::route(&upstream, &format!("idempotency: {{}}\n{json}\n{record}"));
    let call =
        |body: &str| gateway.call(Call::new("POST /").header("Idempotency-Key", "k").json(body));
    for body in ["{}", "{}", "{\"name\":\"Eve\"}"] {
        call(body);
    }
    let rows = Store::Sqlite.wait_for_rows(&gateway, 3);
    let column = |name: &str| rows.iter().map(|row| row.text(name)).collect::<Vec<_>>();
    let codes = [None, Some("idempotent_replay"), Some("idempotency_key_reused")];
    assert_eq!(column("rejection"), codes);
    assert_eq!(column("attempts"), [Some("1"), Some("0"), Some("0")]);
    assert_eq!(column("status"), [Some("200"), Some("200"), Some("422")]);
    assert_eq!(column("name"), [Some("World"), Some("World"), Some("Eve")]);
    assert_eq!(column("result_message"), [Some("hi"), Some("hi"), None]);
    assert_eq!(column("bytes_in"), [Some("2"), Some("2"), Some("14")]);
    let succeeded: Vec<_> = rows.iter().map(|row| row.is_true("success")).collect();
    assert_eq!(succeeded, [true, true, false]);
}

/// Whether the gateway's end of a client's connection is open, as the system knows it.
fn is_established(gateway: SocketAddr, client: SocketAddr) -> bool {
    let connections = std::fs::read_to_string("/proc/net/tcp").expect("the connections in /proc");
    let [own, peer] = [gateway, client].map(|address| format!(":{:04X}", address.port()));
    connections.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let mut next = || fields.next().unwrap_or_default();
        let (local, remote, state) = (next(), next(), next());
        local.ends_with(&own) && remote.ends_with(&peer) && state == "01"
    })
}

#[test]
fn a_client_that_left_a_request_with_a_key_is_recorded_as_gone() {
    let upstream = Upstream::always(Answer::ok().held());
    let gateway = Gateway::route(&upstream, "idempotency: {}\nrecord: {mode: async}");
    let mut client = gateway.connect();
    client.send(pay("k").bytes());
    upstream.wait_for(1);
    let address = client.local_address();
    eventually("the connection in /proc", || {
        is_established(gateway.address, address).then_some(())
    });
    client.vanish();
    // A process that another test starts just now has a copy of the socket, until its program runs.
    eventually("the connection to be reset", || {
        (!is_established(gateway.address, address)).then_some(())
    });
    upstream.release();
    let row = &Store::Sqlite.wait_for_rows(&gateway, 1)[0];
    assert_eq!((row.text("status"), row.text("upstream_status")), (Some("499"), Some("200")));
    assert!(!row.is_true("success"));
}

#[test]
fn keys_outlast_a_reload() {
    let upstream = Upstream::always(Answer::ok().held());
    let gateway = gateway(&upstream, "{}");
    let mut first = gateway.connect();
    first.send(pay("k").bytes());
    upstream.wait_for(1);
    assert!(gateway.reload_route("idempotency: {ttl: 12h}"));
    assert_refused(&gateway.call(pay("k")), 409, "idempotency_in_flight");
    upstream.release();
    let first = first.receive();
    assert_replayed(&gateway.call(pay("k")), &first);
    assert_eq!(upstream.count(), 1);
}

/// A gateway on a file of the test's own, so that another may follow it.
fn on_file(directory: &Path, upstream: &Upstream, route: &str) -> Gateway {
    let path = directory.join("kept.db");
    let section = format!(
        "record: {{store: {{sqlite: {{path: \"{}\"}}}}, commit_timeout: 2s}}",
        path.display()
    );
    Plan::route(route).section(&section).upstream(upstream).start()
}

#[test]
fn a_gateway_killed_after_sending_leaves_the_key_undecided() {
    let upstream = Upstream::script([Answer::hang()]);
    let data = tempfile::tempdir().expect("a directory");
    let route = "timeout: {request: 1s}\nidempotency: {lease: 2s}";
    let mut killed = on_file(data.path(), &upstream, route);
    let mut client = killed.connect();
    client.send(pay("k").bytes());
    upstream.wait_complete(1);
    killed.kill();
    let gateway = on_file(data.path(), &upstream, route);
    assert_becomes_undecided(&gateway);
    assert_eq!(upstream.count(), 1, "never twice in silence");
}

#[test]
fn who_has_an_answer_gets_it_again_after_a_kill() {
    let upstream = Upstream::start();
    let data = tempfile::tempdir().expect("a directory");
    let mut killed = on_file(data.path(), &upstream, "idempotency: {}");
    let mut client = killed.connect();
    let keys: Vec<String> = (0..20).map(|n| format!("key-{n}")).collect();
    let first: Vec<Response> = keys.iter().map(|key| client.call(&pay(key))).collect();
    killed.kill();
    let gateway = on_file(data.path(), &upstream, "idempotency: {}");
    for (key, first) in keys.iter().zip(&first) {
        assert_replayed(&gateway.call(pay(key)), first);
    }
    assert_eq!(upstream.count(), 20);
}

#[test]
fn the_store_holds_no_key_and_no_cookie() {
    let upstream = Upstream::always(Answer::ok().header("Set-Cookie", "session=s3cret"));
    let gateway = gateway(&upstream, "{}");
    let first = gateway.call(pay("k3y-of-the-client"));
    assert_eq!(first.header("set-cookie"), Some("session=s3cret"));
    let again = gateway.call(pay("k3y-of-the-client"));
    assert_eq!((again.status, again.header("set-cookie")), (200, None));
    for file in ["portcullis.db", "portcullis.db-wal"] {
        let bytes = std::fs::read(gateway.directory().join("data").join(file)).expect("a file");
        for secret in ["s3cret", "k3y-of-the-client"] {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{secret} in {file}");
        }
    }
}

#[test]
fn what_became_of_keys_is_counted() {
    let upstream = Upstream::script([Answer::ok(), Answer::from(429), Answer::reset()]);
    let gateway = gateway(&upstream, "{}");
    // The last one comes on a connection used before, which is no reason to send it twice.
    for key in ["kept", "kept", "released", "undecided", "undecided"] {
        gateway.call(pay(key));
    }
    let count =
        |result: &str| gateway.metric("portcullis_idempotency_keys_total", &[("result", result)]);
    let results = ["leased", "kept", "replayed", "released", "undecided", "refused", "lost"];
    assert_eq!(results.map(count), [3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
}

#[test]
fn the_gateway_service_answers_a_repeated_call_from_its_store() {
    let upstream = Upstream::always(Answer::json(200, "{\"message\":\"Hello Ada\"}"));
    let issuer = Issuer::start();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/gateway-service.yaml");
    let plan = Plan::file(file).env("CUSTOM_LANG_BASE_URL", &upstream.url());
    let gateway = plan.env("JWKS_URL", &issuer.url()).start();
    let call = |consumer: &str| {
        let call = Call::new("POST /gateway.v1.GatewayService/InvokeCustom")
            .header("Connect-Protocol-Version", "1")
            .header("Idempotency-Key", "8e03978e-40d5-43e8-bc93-6894a57f9324");
        gateway.call(call.bearer(&issuer.token(consumer)).json("{\"name\":\"Ada\"}"))
    };
    let first = call("ada");
    assert_replayed(&call("ada"), &first);
    assert_eq!(call("eve").header("idempotency-replayed"), None);
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_deadline_that_passes_before_anything_is_sent_is_told_and_leaves_the_key_free() {
    let blackhole = Blackhole::start();
    let route = "timeout: {connect: 5s, request: 300ms}\nidempotency: {}";
    let gateway = Plan::route(route).env("UPSTREAM", &blackhole.url()).start();
    for _ in 0..2 {
        let (response, took) = timed(|| gateway.call(pay("k")));
        assert_refused(&response, 504, "deadline_exceeded");
        assert_within(took, Duration::from_millis(500));
    }
}

#[test]
fn the_last_byte_of_an_answer_waits_for_the_store() {
    let upstream = Upstream::always(Answer::ok().body("done").held());
    let section = BRIEF_STORE.replace("commit_timeout: 1s", "commit_timeout: 5s");
    let plan = Plan::route("idempotency: {}").section(&section);
    let gateway = plan.upstream(&upstream).start();
    let mut client = gateway.connect();
    client.send(pay("k").bytes());
    upstream.wait_complete(1);
    let mut other = rusqlite::Connection::open(gateway.store()).expect("the store");
    let lock = other.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive);
    let lock = lock.expect("no other writer");
    upstream.release();
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| client.receive());
        pass(Duration::from_millis(300));
        assert!(!answer.is_finished(), "the store is locked");
        drop(lock);
        assert_eq!(answer.join().expect("an answer").text(), "done");
    });
    assert_eq!(gateway.call(pay("k")).header("idempotency-replayed"), Some("true"));
}

/// What a client with this key was answered before its gateway was killed.
type Answered = (String, Option<Response>);

/// Send requests with keys of their own until the gateway is gone.
fn pay_until_it_ends(gateway: &Gateway, round: usize, client: usize) -> Vec<Answered> {
    let address = gateway.address;
    let mut sent = Vec::new();
    for n in 0.. {
        let key = format!("key-{round}-{client}-{n}");
        let Some(mut connection) = Client::try_connect(address) else { break };
        let written = connection.try_send(pay(&key).bytes());
        let answer = written.and_then(|()| connection.try_receive("POST")).ok();
        let answer = answer.filter(|answer| answer.ending == Ending::Complete);
        let ended = answer.is_none();
        sent.push((key, answer));
        if ended {
            break;
        }
    }
    sent
}

#[test]
fn over_kills_at_any_moment_nothing_is_executed_twice_and_no_answer_is_forgotten() {
    let upstream = Upstream::start();
    let data = tempfile::tempdir().expect("a directory");
    let mut sent: Vec<Answered> = Vec::new();
    for round in 0..8 {
        let mut gateway = on_file(data.path(), &upstream, "idempotency: {}");
        let started = upstream.count();
        std::thread::scope(|scope| {
            let gateway_ref = &gateway;
            let clients: Vec<_> = (0..4)
                .map(|client| scope.spawn(move || pay_until_it_ends(gateway_ref, round, client)))
                .collect();
            upstream.wait_for(started + 5 + round * 7);
            gateway.signal("KILL");
            sent.extend(clients.into_iter().flat_map(|client| client.join().expect("a client")));
        });
        gateway.kill();
    }
    let gateway = on_file(data.path(), &upstream, "idempotency: {}");
    let mut undecided = 0;
    for (key, answer) in &sent {
        let again = gateway.call(pay(key));
        match answer {
            Some(first) => assert_replayed(&again, first),
            None => undecided += usize::from(again.status == 409),
        }
    }
    let mut executed = std::collections::BTreeMap::new();
    for request in upstream.requests() {
        *executed.entry(request.header("idempotency-key").map(str::to_owned)).or_insert(0) += 1;
    }
    let twice: Vec<_> = executed.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(sent.len() > 100, "{} requests, {undecided} of them undecided", sent.len());
}

fn pay_over_h2(key: &str) -> http::Request<&'static [u8]> {
    let head = request("POST", "/pay").header("idempotency-key", key);
    head.header("content-type", "application/json")
        .body(&b"{\"amount\":10}"[..])
        .expect("a request")
}

#[test]
fn a_stream_of_http_2_gets_the_answer_of_the_first_as_well() {
    let upstream =
        Upstream::script([Answer::json(201, "{\"id\":7}"), Answer::chunked("pieces", 2)]);
    let gateway = gateway(&upstream, "{}");
    let client = H2Client::connect(gateway.address);
    for (key, status, body) in [("one", 201, "{\"id\":7}"), ("two", 200, "pieces")] {
        let first = client.call(pay_over_h2(key));
        let again = client.call(pay_over_h2(key));
        assert_eq!((first.status, first.text().as_str(), first.reset), (status, body, None));
        assert_eq!((again.status, again.text().as_str(), again.reset), (status, body, None));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_request_whose_stream_is_reset_is_executed_to_its_end() {
    let upstream = Upstream::script([Answer::json(201, "{\"id\":7}").held()]);
    let gateway = gateway(&upstream, "{}");
    let client = H2Client::connect(gateway.address);
    let (head, body) = pay_over_h2("left").into_parts();
    let mut first = client.open(http::Request::from_parts(head, ()), false);
    first.send(body, true);
    upstream.wait_for(1);
    first.reset(h2::Reason::CANCEL);
    // A request that comes meanwhile is told that the first is in flight.
    assert_eq!(client.call(pay_over_h2("left")).status, 409);
    upstream.release();
    let again = eventually("the answer of the first", || {
        Some(client.call(pay_over_h2("left"))).filter(|response| response.status != 409)
    });
    assert_eq!((again.status, again.text().as_str()), (201, "{\"id\":7}"));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_stream_of_messages_has_no_key() {
    let upstream = Upstream::start();
    let call = || {
        Call::new("POST /pay")
            .header("Idempotency-Key", "k")
            .header("Content-Type", "application/connect+json")
            .body(crate::support::frame(b"{}"))
    };
    let optional = gateway(&upstream, "{}");
    for _ in 0..2 {
        assert_eq!(optional.call(call()).header("idempotency-replayed"), None);
    }
    assert_eq!(upstream.count(), 2);
    let refused = gateway(&upstream, "{required: true}").call(call());
    assert!(refused.text().contains("invalid_argument"), "{}", refused.text());
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_replay_costs_of_a_limit_what_the_limit_says() {
    let upstream = Upstream::start();
    let route = |replays: &str| {
        format!(
            "idempotency: {{}}\nrate_limit: {{fixed_window: {{requests: 3, per: 1h}}, cost: 1, replays: {replays}}}"
        )
    };
    let headers = "rate_limit_headers: {on: always}";
    for (replays, remaining) in [("free", ["2", "2", "2", "2"]), ("counted", ["2", "1", "0", "0"])]
    {
        let plan = Plan::route(&route(replays)).section(headers).upstream(&upstream);
        let gateway = plan.start();
        let answers = [(); 4].map(|()| gateway.call(pay("one")));
        let told = answers.each_ref().map(|answer| answer.header("x-ratelimit-remaining"));
        assert_eq!(told, remaining.map(Some), "{replays}");
        let last = if replays == "free" { 200 } else { 429 };
        assert_eq!(answers[3].status, last);
        // What is no replay takes what it took.
        let others = ["two", "three", "four"].map(|key| gateway.call(pay(key)).status);
        assert_eq!(others, if replays == "free" { [200, 200, 429] } else { [429; 3] });
    }
    assert_eq!(upstream.count(), 4);
}

#[test]
fn free_replays_without_keys_or_in_a_shared_limit_are_refused() {
    let limit = "rate_limit: {fixed_window: {requests: 3, per: 1h}, replays: free}";
    let shared = "idempotency: {}\nrate_limit: {fixed_window: {requests: 3, per: 1h}, replays: free, shared: {store: s}}";
    for route in [limit, shared] {
        let (code, log) = Plan::route(route).fails();
        assert_eq!(code, Some(1));
        assert!(log.contains("routes.all.rate_limit") && log.contains("replays"), "{log}");
    }
}
