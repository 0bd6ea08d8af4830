//! Why an invocation failed, as its row says it: the upstream's words, or else the gateway's.

use crate::support::{
    Answer, Call, Dialect, Gateway, H2Upstream, Plan, Reply, Row, Store, Upstream, eventually,
    refused_address,
};
use crate::transcode::mapped;

const SOURCES: &str = "capture: {name: request.name, result_message: [response.message, response.error, error.message]}";

fn recording(store: &Store, upstream: &Upstream, mode: &str, policies: &str) -> Gateway {
    let route = format!("record: {{mode: {mode}, {SOURCES}}}\n{policies}");
    Plan::route(&route).section(&store.section()).upstream(upstream).start()
}

fn results(rows: &[Row]) -> Vec<Option<&str>> {
    rows.iter().map(|row| row.text("result_message")).collect()
}

/// Success, the upstream's words, none, and what the gateway says where there is no answer.
fn promise(store: &Store, mode: &str) {
    let upstream = Upstream::script([
        Answer::json(200, "{\"message\":\"hi\"}"),
        Answer::json(404, "{\"error\":\"no such name\"}"),
        Answer::json(409, "{\"message\":\"taken\",\"error\":\"conflict\"}"),
        Answer::from(500).body("<html>"),
        Answer::reset(),
        Answer::hang(),
    ]);
    let gateway = recording(store, &upstream, mode, "timeout: {attempt: 300ms}");
    let statuses = [(); 6].map(|()| gateway.post("/", "{\"name\":\"Ada\"}").status);
    assert_eq!(statuses, [200, 404, 409, 500, 502, 504], "{mode}");
    let rows = store.wait_for_rows(&gateway, 6);
    let expected = [
        "hi",
        "no such name",
        "taken",
        "the upstream answered 500",
        "the upstream broke off",
        "the upstream did not answer in time",
    ];
    assert_eq!(results(&rows), expected.map(Some), "{mode}");
    assert!(rows.iter().all(|row| row.text("name") == Some("Ada")), "{rows:#?}");
}

#[test]
fn a_failed_invocation_says_why_in_every_mode() {
    for mode in ["async", "durable", "sync"] {
        promise(&Store::Sqlite, mode);
    }
}

#[test]
fn a_failed_invocation_says_why_in_every_mode_on_postgres() {
    for mode in ["async", "durable", "sync"] {
        if let Some(store) = Store::postgres() {
            promise(&store, mode);
        }
    }
}

#[test]
fn a_refusal_is_recorded_with_its_words_and_a_success_with_none() {
    let upstream = Upstream::always(Answer::json(200, "{\"other\":1}"));
    let limit = "rate_limit: {fixed_window: {requests: 1, per: 1m}}";
    let gateway = recording(&Store::Sqlite, &upstream, "sync", limit);
    let statuses = [(); 2].map(|()| gateway.post("/", "{\"name\":\"Ada\"}").status);
    assert_eq!(statuses, [200, 429]);
    let rows = Store::Sqlite.wait_for_rows(&gateway, 2);
    assert_eq!(results(&rows), [None, Some("the rate limit is used up")]);
}

#[test]
fn an_answer_that_broke_off_and_a_client_that_left_are_reasons_too() {
    let truncated = Answer::truncated("{\"message\":\"h", 100);
    let upstream = Upstream::script([truncated, Answer::hang()]);
    let gateway = recording(&Store::Sqlite, &upstream, "async", "");
    gateway.connect().try_send(Call::new("GET /").bytes()).expect("sent");
    upstream.wait_complete(1);
    eventually("its row", || (Store::Sqlite.rows(&gateway).len() == 1).then_some(()));
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(2);
    client.vanish();
    let rows = Store::Sqlite.wait_for_rows(&gateway, 2);
    assert!(rows.iter().all(|row| !row.is_true("success")), "{rows:#?}");
    assert_eq!(rows[1].text("result_message"), Some("the client went away"));
    assert!(rows[0].text("result_message").is_some());
}

#[test]
fn a_transcoded_call_that_failed_says_why_in_every_dialect() {
    let upstream = Upstream::start();
    let policies = format!("record: {{mode: sync, {SOURCES}}}\nidempotency: {{}}");
    let plan = mapped(&policies).section(&Store::Sqlite.section()).upstream(&upstream);
    let gateway = plan.start();
    let mut expected = Vec::new();
    for (answer, why) in [
        (Answer::json(200, "{\"message\":\"hi\"}"), "hi"),
        (Answer::json(404, "{\"error\":\"no such name\"}"), "no such name"),
        (Answer::from(503), "the upstream answered 503"),
        (Answer::json(200, "no JSON"), "the upstream's response cannot be read"),
    ] {
        upstream.answer_always(answer);
        for dialect in Dialect::ALL {
            dialect.call(&gateway, "Ada", &[]);
            expected.push(Some(why));
        }
    }
    // The error of the first is that of the second, which has its answer.
    upstream.answer_always(Answer::json(404, "{\"error\":\"gone\"}"));
    for dialect in Dialect::ALL {
        for _ in 0..2 {
            let key = format!("key-{dialect:?}");
            dialect.call(&gateway, "Ada", &[("idempotency-key", &key)]);
            expected.push(Some("gone"));
        }
    }
    let rows = Store::Sqlite.wait_for_rows(&gateway, expected.len());
    assert_eq!(results(&rows), expected);
    assert!(rows.iter().all(|row| row.text("name") == Some("Ada")), "{rows:#?}");
}

#[test]
fn an_error_that_is_translated_for_grpc_is_recorded_with_its_words() {
    let upstream = Upstream::always(Answer::json(404, "{\"error\":\"no such name\"}"));
    let gateway = recording(&Store::Sqlite, &upstream, "sync", "");
    for dialect in [Dialect::Grpc, Dialect::GrpcWeb, Dialect::ConnectProto] {
        assert_eq!(dialect.call(&gateway, "Ada", &[]).code, "not_found");
    }
    let rows = Store::Sqlite.wait_for_rows(&gateway, 3);
    assert_eq!(results(&rows), [Some("no such name"); 3]);
}

#[test]
fn what_an_upstream_of_grpc_says_of_its_error_is_recorded() {
    let upstream = H2Upstream::script([
        Reply::trailers_only(5).header("grpc-message", "no such %22name%22"),
        Reply::grpc(b"", 5).trailer("grpc-message", "no such %22name%22"),
    ]);
    let route = format!("record: {{mode: sync, {SOURCES}}}");
    let plan = Plan::route(&route).section(&Store::Sqlite.section()).h2_upstream(&upstream);
    let gateway = plan.start();
    for _ in 0..2 {
        assert_eq!(Dialect::Grpc.call(&gateway, "Ada", &[]).code, "not_found");
    }
    let rows = Store::Sqlite.wait_for_rows(&gateway, 2);
    assert_eq!(results(&rows), [Some("no such \"name\""); 2]);
}

#[test]
fn an_upstream_that_cannot_be_reached_is_a_reason() {
    let nowhere = format!("http://{}", refused_address());
    let route = format!("record: {{mode: durable, {SOURCES}}}");
    let plan = Plan::route(&route).section(&Store::Sqlite.section());
    let gateway = plan.env("UPSTREAM", &nowhere).start();
    assert_eq!(gateway.post("/", "{\"name\":\"Ada\"}").status, 502);
    let rows = Store::Sqlite.wait_for_rows(&gateway, 1);
    assert_eq!(results(&rows), [Some("the upstream could not be reached")]);
}
