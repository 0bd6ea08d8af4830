//! A call with an idempotency key is executed once, in whatever protocol it comes; who comes with
//! it again gets the same answer in the same protocol.

use crate::support::{Answer, Call, Dialect, Gateway, INVOKE, Store, Upstream, eventually};
use crate::transcode::{hello, mapped, start};

#[track_caller]
fn assert_replayed(dialect: Dialect, gateway: &Gateway, key: &str) {
    let header = [("idempotency-key", key)];
    let first = dialect.call(gateway, "Ada", &header);
    assert_eq!(first.header("idempotency-replayed"), None);
    for _ in 0..2 {
        let again = dialect.call(gateway, "Ada", &header);
        assert_eq!(again.header("idempotency-replayed"), Some("true"), "{dialect:?}: {again:?}");
        assert_eq!((again.status, again.said()), (first.status, first.said()), "{dialect:?}");
        assert_eq!(again.header("content-type"), first.header("content-type"));
    }
}

#[test]
fn an_answer_is_given_again_in_every_dialect() {
    let upstream = Upstream::always(hello());
    let gateway = start(&upstream, "idempotency: {}");
    for dialect in Dialect::ALL {
        assert_replayed(dialect, &gateway, &format!("{dialect:?}"));
        assert_eq!(
            dialect.call(&gateway, "Ada", &[("idempotency-key", "new")]).text,
            match dialect {
                // The first one's; to any other it is another request.
                Dialect::ConnectJson => "Hello!",
                _ => "this idempotency key was used for another request before",
            }
        );
    }
    assert_eq!(upstream.count(), 6);
}

#[test]
fn an_error_is_an_answer_as_well() {
    let upstream = Upstream::always(Answer::json(409, "{\"error\":\"taken\"}"));
    let gateway = start(&upstream, "idempotency: {}");
    for dialect in Dialect::ALL {
        assert_replayed(dialect, &gateway, &format!("{dialect:?}"));
    }
    upstream.answer_always(Answer::json(200, "<html>"));
    for dialect in Dialect::ALL {
        assert_replayed(dialect, &gateway, &format!("{dialect:?}-2"));
        let again =
            dialect.call(&gateway, "Ada", &[("idempotency-key", &format!("{dialect:?}-2"))]);
        assert_eq!(again.code, "internal");
    }
    assert_eq!(upstream.count(), 10);
}

#[test]
fn what_was_never_sent_leaves_the_key_free() {
    let upstream = Upstream::always(hello());
    let gateway = start(&upstream, "idempotency: {}");
    for dialect in Dialect::ALL {
        let key = format!("{dialect:?}");
        let header = [("idempotency-key", key.as_str())];
        assert_eq!(dialect.send(&gateway, b"\xff", &header).code, "invalid_argument");
        let told = dialect.call(&gateway, "Ada", &header);
        assert_eq!((told.code.as_str(), told.header("idempotency-replayed")), ("ok", None));
    }
    assert_eq!(upstream.count(), 5);
}

#[test]
fn the_rows_of_a_call_and_of_its_replay_say_the_same() {
    let upstream = Upstream::always(hello());
    let policies = "record: {mode: sync, capture: {name: request.name, result_message: response.message}}\nidempotency: {}";
    let gateway = mapped(policies).section(&Store::Sqlite.section()).upstream(&upstream).start();
    for dialect in Dialect::ALL {
        let key = format!("{dialect:?}");
        for _ in 0..2 {
            assert_eq!(dialect.call(&gateway, "Ada", &[("idempotency-key", &key)]).code, "ok");
        }
    }
    for row in Store::Sqlite.wait_for_rows(&gateway, 10) {
        assert_eq!((row.text("name"), row.text("result_message")), (Some("Ada"), Some("Hello!")));
        assert!(row.is_true("success"));
    }
    assert_eq!(upstream.count(), 5);
}

#[test]
fn a_client_that_left_finds_its_answer_when_it_comes_again() {
    let upstream = Upstream::always(hello().held());
    let gateway = start(&upstream, "idempotency: {}");
    let call = || Call::new(&format!("POST {INVOKE}")).json("{}").header("idempotency-key", "k");
    let mut client = gateway.connect();
    client.send(call().bytes());
    upstream.wait_for(1);
    client.vanish();
    upstream.release();
    let again = eventually("the answer", || {
        let response = gateway.call(call());
        (response.status != 409).then_some(response)
    });
    assert_eq!((again.status, again.text().as_str()), (200, "{\"message\":\"Hello!\"}"));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(upstream.count(), 1);
}
