//! A call of gRPC with an idempotency key that goes to an upstream of gRPC is executed once. A client
//! that sends the key again gets the same head, messages and trailers.

use std::sync::Arc;

use h2::Reason;

use crate::support::{
    Answer, Call, Gateway, H2Client, H2Response, H2Upstream, Plan, Reply, Store, Upstream, at_once,
    eventually, frame, request,
};

const GRPC: &str = "application/grpc";

fn start(upstream: &H2Upstream, policies: &str) -> Gateway {
    Plan::route(policies).h2_upstream(upstream).start()
}

fn on(store: &Store, upstream: &H2Upstream, policies: &str) -> Gateway {
    // Patience for a busy machine.
    let section = store.section().replace("record: {", "record: {commit_timeout: 2s, ");
    Plan::route(policies).section(&section).h2_upstream(upstream).start()
}

/// The embedded store, and PostgreSQL where there is one.
fn stores() -> impl Iterator<Item = Store> {
    [Some(Store::Sqlite), Store::postgres()].into_iter().flatten()
}

fn head(key: &str) -> http::request::Builder {
    request("POST", "/test.Service/Pay")
        .header("content-type", GRPC)
        .header("te", "trailers")
        .header("idempotency-key", key)
}

#[track_caller]
fn send(gateway: &Gateway, key: &str, body: &[u8]) -> H2Response {
    H2Client::connect(gateway.address).call(head(key).body(body).expect("a call"))
}

#[track_caller]
fn pay(gateway: &Gateway, key: &str) -> H2Response {
    send(gateway, key, &frame(b"ten"))
}

/// The number of a status of gRPC.
#[track_caller]
fn status(response: &H2Response) -> &str {
    assert_eq!((response.status, response.reset), (200, None), "{response:?}");
    response.status_field("grpc-status").expect("a status")
}

#[track_caller]
fn assert_replayed(again: &H2Response, first: &H2Response) {
    let fields = |response: &H2Response| {
        let mut fields = response.headers.clone();
        for name in ["date", "x-request-id", "idempotency-replayed"] {
            fields.remove(name);
        }
        fields
    };
    assert_eq!(again.header("idempotency-replayed"), Some("true"), "{again:?}");
    assert_eq!(first.header("idempotency-replayed"), None, "{first:?}");
    assert_eq!((again.status, &again.body, again.reset), (first.status, &first.body, first.reset));
    assert_eq!((fields(again), &again.trailers), (fields(first), &first.trailers));
}

/// Until the lease of the key `k` is over, it is in flight.
#[track_caller]
fn assert_becomes_undecided(gateway: &Gateway) {
    let said = eventually("the end of the lease", || {
        let refused = pay(gateway, "k");
        assert_eq!(status(&refused), "10");
        let said = refused.header("grpc-message").expect("a message").to_owned();
        (!said.contains("in progress")).then_some(said)
    });
    assert!(said.contains("not known"), "{said}");
}

#[test]
fn an_answer_is_given_again_with_its_trailers() {
    let answers = [
        Reply::grpc(b"paid", 0).header("x-lead", "1").trailer("x-cost", "7"),
        Reply::grpc(b"", 0),
        Reply::grpc(b"half", 9)
            .trailer("grpc-message", "no%20funds")
            .trailer("grpc-status-details-bin", "CAkSCG5vIGZ1bmRz"),
        Reply::grpc(b"", 5).trailer("x-cost", "0"),
        Reply::trailers_only(7).header("grpc-message", "not%20yours"),
        Reply::grpc(b"", 0).body(&[frame(b"one"), frame(b"two")].concat()),
    ];
    for store in stores() {
        let upstream = H2Upstream::script(answers.clone());
        let gateway = on(&store, &upstream, "idempotency: {}");
        for (n, wanted) in ["0", "0", "9", "5", "7", "0"].into_iter().enumerate() {
            let key = format!("key-{n}");
            let first = pay(&gateway, &key);
            assert_eq!(status(&first), wanted);
            for _ in 0..2 {
                assert_replayed(&pay(&gateway, &key), &first);
            }
        }
        assert_eq!(upstream.count(), answers.len());
        let kept = gateway.metric("portcullis_idempotency_keys_total", &[("result", "kept")]);
        assert_eq!(kept, answers.len() as f64);
    }
}

#[test]
fn the_message_and_the_key_go_upstream_as_they_came() {
    let upstream = H2Upstream::always(Reply::grpc(b"", 0));
    let gateway = start(&upstream, "idempotency: {}");
    assert_eq!(status(&pay(&gateway, "k")), "0");
    let sent = upstream.only();
    assert_eq!(sent.body, frame(b"ten"));
    for (name, value) in [("idempotency-key", "k"), ("te", "trailers"), ("content-type", GRPC)] {
        assert_eq!(sent.headers[name], value);
    }
}

#[test]
fn a_key_is_for_one_message() {
    let upstream = H2Upstream::always(Reply::grpc(b"", 0));
    let gateway = start(&upstream, "idempotency: {}");
    let two = [frame(b"ten"), frame(b"ten")].concat();
    let mut flagged = frame(b"ten");
    flagged[0] = 2;
    for body in [&two[..], b"", &frame(b"ten")[..6], &flagged] {
        let refused = send(&gateway, "k", body);
        assert_eq!(status(&refused), "3", "{body:?}");
    }
    assert_eq!(upstream.count(), 0);
    let large = send(&gateway, "k", &frame(&vec![7; 65 * 1024]));
    assert_eq!(status(&large), "8");
    assert_eq!(upstream.count(), 0);
    // None of them has used the key.
    let first = pay(&gateway, "k");
    assert_replayed(&pay(&gateway, "k"), &first);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn without_a_key_a_stream_passes_unless_one_is_required() {
    let echo = Reply::echo().header("content-type", GRPC).trailer("grpc-status", "0");
    let upstream = H2Upstream::always(echo);
    for (required, seen) in [(false, 1), (true, 1)] {
        let gateway = start(&upstream, &format!("idempotency: {{required: {required}}}"));
        let mut plain = head("-").body(()).expect("a call");
        plain.headers_mut().remove("idempotency-key");
        let mut stream = H2Client::connect(gateway.address).open(plain, false);
        if required {
            assert_eq!(status(&stream.finish()), "3");
        } else {
            assert_eq!(stream.head().status(), 200);
            stream.send(&frame(b"one"), false);
            assert_eq!(stream.data().expect("an echo"), frame(b"one"));
            stream.send(b"", true);
            stream.finish();
        }
        assert_eq!(upstream.count(), seen);
    }
}

#[test]
fn refusals_are_statuses_of_grpc() {
    let upstream = H2Upstream::always(Reply::grpc(b"paid", 0).held());
    let gateway = start(&upstream, "idempotency: {required: true}");
    let client = H2Client::connect(gateway.address);
    let mut first = client.open(head("k").body(()).expect("a call"), false);
    first.send(&frame(b"ten"), true);
    upstream.wait_for(1);
    let in_flight = pay(&gateway, "k");
    assert_eq!((status(&in_flight), in_flight.body.len()), ("10", 0));
    assert_eq!(status(&send(&gateway, "k", &frame(b"eleven"))), "3", "another message");
    assert_eq!(status(&pay(&gateway, "two, keys")), "3", "no key");
    let message = frame(b"ten");
    let mut without = head("-").body(&message[..]).expect("a call");
    without.headers_mut().remove("idempotency-key");
    assert_eq!(status(&client.call(without)), "3", "none at all");
    upstream.release();
    let first = first.finish();
    assert_eq!(status(&first), "0");
    assert_replayed(&pay(&gateway, "k"), &first);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn what_was_provably_not_sent_leaves_the_key_free() {
    let refused = || Reply::reset(Reason::REFUSED_STREAM);
    let upstream = H2Upstream::script([refused(), refused(), Reply::grpc(b"paid", 0)]);
    let gateway = start(&upstream, "idempotency: {}");
    assert_eq!(status(&pay(&gateway, "k")), "14");
    let first = pay(&gateway, "k");
    assert_eq!((status(&first), first.header("idempotency-replayed")), ("0", None));
    assert_replayed(&pay(&gateway, "k"), &first);
    assert_eq!(upstream.count(), 3);
}

#[test]
fn what_was_sent_and_broke_off_stays_undecided() {
    let half = Reply::break_off().header("content-type", GRPC).body(&frame(b"half"));
    at_once([Reply::reset(Reason::INTERNAL_ERROR), half, Reply::hang()], |reply| {
        let upstream = H2Upstream::script([reply]);
        let policies = "timeout: {request: 1s}\nidempotency: {lease: 0}";
        let section = "record: {store: {sqlite: {path: \"${PORTCULLIS_DATA}/portcullis.db\"}}}";
        let plan = Plan::route(policies).section(section).h2_upstream(&upstream);
        let gateway = plan.start();
        assert_ne!(pay(&gateway, "k").status_field("grpc-status"), Some("0"));
        assert_becomes_undecided(&gateway);
        assert_eq!(upstream.count(), 1, "never twice in silence");
    });
}

#[test]
fn a_call_that_holds_a_key_is_tried_again_and_its_last_answer_is_kept() {
    for failure in [Reply::grpc(b"", 14), Reply::trailers_only(14)] {
        let upstream = H2Upstream::script([failure, Reply::grpc(b"paid", 0)]);
        let retry =
            "retry: {max_retries: 1, on: [grpc_unavailable], backoff: {base: 1ms, max: 1ms}}";
        let gateway = start(&upstream, &format!("{retry}\nidempotency: {{}}"));
        let first = pay(&gateway, "k");
        assert_eq!((status(&first), &first.body), ("0", &frame(b"paid")));
        assert_replayed(&pay(&gateway, "k"), &first);
        assert_eq!(upstream.count(), 2);
        assert!(upstream.requests().iter().all(|sent| sent.headers["idempotency-key"] == "k"));
    }
}

#[test]
fn a_plain_error_that_was_translated_is_given_again_as_it_was() {
    let bare = Reply::status(404).body(b"").header("content-length", "0");
    let upstream = H2Upstream::script([Reply::status(503), bare]);
    let gateway = start(&upstream, "idempotency: {}");
    for (key, wanted) in [("with-body", "14"), ("without", "5")] {
        let first = pay(&gateway, key);
        assert_eq!(status(&first), wanted);
        assert_replayed(&pay(&gateway, key), &first);
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_client_that_left_finds_its_answer_when_it_comes_again() {
    let upstream = H2Upstream::always(Reply::grpc(b"paid", 0).trailer("x-cost", "7").held());
    let gateway = start(&upstream, "idempotency: {}");
    let client = H2Client::connect(gateway.address);
    let mut left = client.open(head("k").body(()).expect("a call"), false);
    left.send(&frame(b"ten"), true);
    upstream.wait_for(1);
    left.reset(Reason::CANCEL);
    assert_eq!(status(&pay(&gateway, "k")), "10");
    upstream.release();
    let again = eventually("the answer of the first", || {
        Some(pay(&gateway, "k")).filter(|response| status(response) != "10")
    });
    assert_eq!((status(&again), &again.body), ("0", &frame(b"paid")));
    assert_eq!(again.trailers.as_ref().expect("trailers")["x-cost"], "7");
    assert_eq!((again.header("idempotency-replayed"), upstream.count()), (Some("true"), 1));
}

#[test]
fn of_many_calls_over_two_gateways_the_upstream_sees_one() {
    let Some(store) = Store::postgres() else { return };
    let reply = Reply::grpc(b"paid", 0).trailer("x-cost", "7").held();
    let upstream = Arc::new(H2Upstream::always(reply));
    let gateways = [(); 2].map(|()| on(&store, &upstream, "idempotency: {}"));
    let refused = |gateway| {
        Gateway::metric(gateway, "portcullis_idempotency_keys_total", &[("result", "refused")])
    };
    let answers = std::thread::scope(|scope| {
        let call = |n: usize| {
            let gateway = &gateways[n % 2];
            scope.spawn(move || pay(gateway, "k"))
        };
        let calls: Vec<_> = (0..20).map(call).collect();
        eventually("19 refusals", || {
            (gateways.iter().map(refused).sum::<f64>() == 19.0).then_some(())
        });
        upstream.release();
        calls.into_iter().map(|call| call.join().expect("an answer")).collect::<Vec<_>>()
    });
    let (first, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| status(a) == "0");
    assert_eq!((first.len(), others.len()), (1, 19));
    assert!(others.iter().all(|other| status(other) == "10"), "{others:?}");
    for gateway in &gateways {
        assert_replayed(&pay(gateway, "k"), &first[0]);
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_key_is_undecided_everywhere_when_its_gateway_is_killed() {
    let Some(store) = Store::postgres() else { return };
    let upstream = H2Upstream::script([Reply::hang()]);
    let policies = "timeout: {request: 1s}\nidempotency: {lease: 0}";
    let [other, mut killed] = [(); 2].map(|()| on(&store, &upstream, policies));
    let client = H2Client::connect(killed.address);
    let mut call = client.open(head("k").body(()).expect("a call"), false);
    call.send(&frame(b"ten"), true);
    eventually("the whole call", || upstream.requests().first()?.complete.then_some(()));
    killed.kill();
    assert_becomes_undecided(&other);
    assert_eq!(upstream.count(), 1, "never twice in silence");
}

#[test]
fn the_row_of_a_call_that_failed_and_that_of_its_replay_say_so() {
    let upstream =
        H2Upstream::script([Reply::grpc(b"", 5), Reply::trailers_only(5), Reply::grpc(b"", 0)]);
    let gateway = start(&upstream, "record: {mode: sync}\nidempotency: {}");
    for key in ["trailers", "head", "good"] {
        assert_eq!(status(&pay(&gateway, key)), status(&pay(&gateway, key)));
    }
    let rows = Store::Sqlite.wait_for_rows(&gateway, 6);
    let succeeded: Vec<_> = rows.iter().map(|row| row.is_true("success")).collect();
    assert_eq!(succeeded, [false, false, false, false, true, true]);
    assert_eq!(rows[1].text("rejection"), Some("idempotent_replay"));
}

#[test]
fn grpc_web_is_kept_with_the_trailers_in_its_body() {
    let web = "\0\0\0\0\u{2}hi\u{7f}";
    let upstream = Upstream::always(
        Answer::ok().header("Content-Type", "application/grpc-web+proto").body(web),
    );
    let gateway = Gateway::route(&upstream, "idempotency: {}");
    let one = frame(b"ten");
    let two = [frame(b"ten"), frame(b"ten")].concat();
    let in_base64 = |body: &[u8]| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(body).into_bytes()
    };
    for (content_type, one, two) in [
        ("application/grpc-web+proto", one.clone(), two.clone()),
        ("application/grpc-web-text", in_base64(&one), in_base64(&two)),
    ] {
        let before = upstream.count();
        let call = |body: &[u8]| {
            let call = Call::new("POST /test.Service/Pay").header("Content-Type", content_type);
            gateway.call(call.header("Idempotency-Key", content_type).body(body))
        };
        let refused = call(&two);
        assert_eq!((refused.status, refused.header("content-type")), (200, Some(content_type)));
        assert_eq!(upstream.count(), before, "a stream goes nowhere");
        let (first, again) = (call(&one), call(&one));
        assert_eq!((first.status, first.header("idempotency-replayed")), (200, None));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!((&first.body, &again.body), (&web.as_bytes().to_vec(), &first.body));
        assert_eq!(upstream.count(), before + 1);
    }
}

#[test]
fn grpc_over_http_1_cannot_have_a_key() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "idempotency: {}");
    let call = Call::new("POST /test.Service/Pay").header("Content-Type", GRPC);
    let refused = gateway.call(call.header("Idempotency-Key", "k").body(frame(b"ten")));
    assert_eq!(refused.header("grpc-status"), Some("3"));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn answers_of_http_2_that_are_no_calls_are_kept_however_they_end() {
    let length = Reply::status(200).header("content-length", "2");
    let replies = [
        // The head is the end.
        Reply::status(200).body(b""),
        // What follows the last byte of a known length.
        length.trailer("x-sum", "1"),
        Reply::status(201).trailer("x-sum", "2"),
    ];
    let plain = |key: &str| request("POST", "/pay").header("idempotency-key", key);
    for over_h2 in [true, false] {
        let upstream = H2Upstream::script(replies.clone());
        let gateway = start(&upstream, "idempotency: {}");
        for n in 0..replies.len() {
            let key = format!("key-{n}");
            // The client of HTTP/1.1 has its answer a moment before the first kind is known to be whole.
            let settled = || {
                eventually("an answer that is kept", || {
                    let kept = [("result", "kept")];
                    let kept = gateway.metric("portcullis_idempotency_keys_total", &kept);
                    (kept == (n + 1) as f64).then_some(())
                });
            };
            if over_h2 {
                let call = || {
                    let call = plain(&key).body(&b"ten"[..]).expect("a request");
                    H2Client::connect(gateway.address).call(call)
                };
                let first = call();
                settled();
                let again = call();
                assert_eq!(again.header("idempotency-replayed"), Some("true"), "{n}");
                assert_eq!((again.status, &again.body), (first.status, &first.body));
                assert_eq!(again.trailers, first.trailers);
            } else {
                let call = || {
                    let call = Call::new("POST /pay").header("Idempotency-Key", &key);
                    gateway.call(call.body("ten"))
                };
                let first = call();
                settled();
                let again = call();
                assert_eq!(again.header("idempotency-replayed"), Some("true"), "{n}");
                assert_eq!((again.status, &again.body), (first.status, &first.body));
            }
        }
        assert_eq!(upstream.count(), replies.len());
    }
}
