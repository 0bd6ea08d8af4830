//! gRPC through the gateway, HTTP/2 on both sides: streams, trailers, statuses.

use std::time::Duration;

use h2::Reason;

use crate::support::{
    Gateway, H2Client, H2Response, H2Upstream, Plan, Reply, Row, Store, assert_about, eventually,
    frame, request, timed,
};

fn start(upstream: &H2Upstream, policies: &str) -> Gateway {
    Plan::route(policies).h2_upstream(upstream).start()
}

fn grpc() -> http::request::Builder {
    request("POST", "/test.Service/Call")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

#[track_caller]
fn call(client: &H2Client, message: &[u8]) -> H2Response {
    client.call(grpc().body(&frame(message)[..]).unwrap())
}

#[test]
fn a_unary_call_passes_with_its_trailers() {
    let reply = Reply::grpc(b"world", 0).trailer("x-cost", "7").header("x-lead", "1");
    let upstream = H2Upstream::always(reply);
    let gateway = start(&upstream, "");
    let response = call(&H2Client::connect(gateway.address), b"hello");
    assert_eq!((response.status, &response.body[..]), (200, &frame(b"world")[..]));
    assert_eq!(response.header("x-lead"), Some("1"));
    let trailers = response.trailers.expect("trailers");
    assert_eq!(
        (trailers["grpc-status"].as_bytes(), trailers["x-cost"].as_bytes()),
        (&b"0"[..], &b"7"[..])
    );
    let seen = upstream.only();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/test.Service/Call"));
    assert_eq!(seen.headers["te"], "trailers");
    assert_eq!(seen.body, frame(b"hello"));
    assert!(upstream.url().ends_with(&seen.authority), "{}", seen.authority);
}

#[test]
fn a_status_without_a_message_passes_as_it_came() {
    let upstream = H2Upstream::always(Reply::trailers_only(5));
    let gateway = start(&upstream, "");
    let response = call(&H2Client::connect(gateway.address), b"hello");
    assert_eq!((response.status, response.header("grpc-status")), (200, Some("5")));
    assert_eq!((response.body.len(), response.reset), (0, None));
}

#[test]
fn both_sides_of_a_stream_pass_as_they_come() {
    let upstream = H2Upstream::always(
        Reply::echo().header("content-type", "application/grpc").trailer("grpc-status", "0"),
    );
    let gateway = start(&upstream, "");
    let client = H2Client::connect(gateway.address);
    let mut stream = client.open(grpc().body(()).unwrap(), false);
    // The head comes before the client has sent anything.
    assert_eq!(stream.head().status(), 200);
    for message in [&b"one"[..], b"two", b"three"] {
        stream.send(&frame(message), false);
        assert_eq!(stream.data().expect("an echo"), frame(message));
    }
    stream.send(b"", true);
    let end = stream.finish();
    assert_eq!(end.trailers.expect("trailers")["grpc-status"], "0");
}

#[test]
fn streams_share_one_connection_to_the_upstream() {
    let upstream = H2Upstream::always(Reply::echo().trailer("grpc-status", "0"));
    let gateway = start(&upstream, "");
    let client = H2Client::connect(gateway.address);
    // One after the other: those that come at once may each begin a connection.
    let open = |count| {
        let stream = client.open(grpc().body(()).unwrap(), false);
        upstream.wait_for(count);
        stream
    };
    let mut streams: Vec<_> = (1..=20).map(open).collect();
    for stream in &mut streams {
        stream.send(&frame(b"x"), true);
    }
    assert!(streams.into_iter().all(|stream| stream.finish().body == frame(b"x")));
    assert!(upstream.requests().iter().all(|r| r.connection == 0));
}

#[test]
fn http_1_clients_reach_an_upstream_of_http_2() {
    let upstream = H2Upstream::script([Reply::status(200), Reply::status(404)]);
    let gateway = start(&upstream, "");
    let response = gateway.post("/plain?x=1", "{}");
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(gateway.get("/").status, 404);
    let seen = &upstream.requests()[0];
    assert_eq!((seen.path.as_str(), &seen.body[..]), ("/plain?x=1", &b"{}"[..]));
    assert_eq!(seen.headers["x-forwarded-host"], "gateway.test");
    assert!(!seen.headers.contains_key("te"));
}

#[test]
fn the_clients_host_goes_on_where_the_upstream_wants_it() {
    let upstream = H2Upstream::always(Reply::status(200));
    let service =
        format!("{{endpoints: [\"{}\"], protocol: h2c, host_header: client}}", upstream.url());
    let gateway = Plan::route("").section(&format!("upstreams: {{service: {service}}}")).start();
    H2Client::connect(gateway.address).get("/");
    gateway.get("/");
    assert!(upstream.requests().iter().all(|r| r.authority == "gateway.test"));
}

#[test]
fn a_refused_stream_is_sent_again_whatever_its_method() {
    let upstream =
        H2Upstream::script([Reply::reset(Reason::REFUSED_STREAM), Reply::grpc(b"ok", 0)]);
    let gateway = start(&upstream, "");
    let response = call(&H2Client::connect(gateway.address), b"hello");
    assert_eq!((response.status, &response.body[..]), (200, &frame(b"ok")[..]));
    assert_eq!(upstream.requests()[1].body, frame(b"hello"));
}

#[test]
fn a_stream_reset_for_any_other_reason_is_not_sent_again() {
    let upstream = H2Upstream::always(Reply::reset(Reason::INTERNAL_ERROR));
    let gateway = start(&upstream, "retry: {max_retries: 2}");
    let response =
        H2Client::connect(gateway.address).call(request("POST", "/").body(&b"x"[..]).unwrap());
    assert_eq!((response.status, &response.json()["code"]), (502, &"reset".into()));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_status_without_a_message_is_retried_in_the_head_or_after_it() {
    for reply in [Reply::trailers_only(14), Reply::grpc(b"", 14)] {
        let upstream = H2Upstream::script([reply, Reply::grpc(b"ok", 0)]);
        let gateway =
            start(&upstream, "retry: {max_retries: 1, methods: any, on: [grpc_unavailable]}");
        let response = call(&H2Client::connect(gateway.address), b"hello");
        assert_eq!(&response.body[..], &frame(b"ok")[..]);
        assert_eq!(response.status_field("grpc-status"), Some("0"));
        assert_eq!(upstream.count(), 2);
    }
}

#[test]
fn a_status_after_a_message_counts_but_is_not_retried() {
    let upstream = H2Upstream::always(Reply::grpc(b"half", 14));
    let gateway = start(&upstream, "retry: {max_retries: 1, methods: any, on: [grpc_unavailable]}");
    let response = call(&H2Client::connect(gateway.address), b"hello");
    assert_eq!(response.status_field("grpc-status"), Some("14"));
    eventually("the attempt to be counted by its trailers", || {
        let labels = [("outcome", "grpc_unavailable")];
        (gateway.metric("portcullis_upstream_attempts_total", &labels) >= 1.0).then_some(())
    });
}

#[test]
fn an_answer_that_breaks_off_is_never_passed_off_as_whole() {
    let upstream = H2Upstream::always(Reply::break_off());
    let gateway = start(&upstream, "");
    let response = H2Client::connect(gateway.address).get("/");
    assert_eq!(response.status, 200);
    assert!(response.reset.is_some(), "{response:?}");
    assert_eq!(gateway.get("/").ending, crate::support::Ending::Truncated);
}

#[test]
fn the_deadline_holds_and_cancels_the_stream_upstream() {
    for reply in [Reply::hang(), Reply::stall()] {
        let upstream = H2Upstream::always(reply);
        let gateway = start(&upstream, "timeout: {request: 400ms}");
        let client = H2Client::connect(gateway.address);
        let (_, took) = timed(|| client.get("/"));
        assert_about(took, Duration::from_millis(400));
        upstream.wait_cancelled(1);
        let (response, took) = timed(|| gateway.get("/"));
        assert!(response.status == 504 || response.ending == crate::support::Ending::Truncated);
        assert_about(took, Duration::from_millis(400));
        upstream.wait_cancelled(2);
    }
}

#[test]
fn a_client_that_resets_its_stream_cancels_the_one_upstream() {
    let upstream = H2Upstream::script([Reply::hang()]);
    let gateway = start(&upstream, "bulkhead: {max_in_flight: 1}");
    let client = H2Client::connect(gateway.address);
    let mut stream = client.open(grpc().body(()).unwrap(), true);
    upstream.wait_for(1);
    stream.reset(Reason::CANCEL);
    upstream.wait_cancelled(1);
    eventually("the slot to be free", || (client.get("/").status == 200).then_some(()));
    assert!(upstream.requests().iter().all(|r| r.connection == 0), "the connection is kept");
}

#[test]
fn a_protocol_that_does_not_fit_its_endpoints_is_an_error() {
    for (url, protocol) in [("https://127.0.0.1:1", "h2c"), ("http://127.0.0.1:1", "h2")] {
        let service =
            format!("upstreams: {{service: {{endpoints: [\"{url}\"], protocol: {protocol}}}}}");
        let (code, log) = Plan::route("").section(&service).fails();
        assert_eq!(code, Some(1));
        assert!(log.contains("upstreams.service.protocol"), "{log}");
    }
}

#[test]
fn the_record_says_how_a_call_of_grpc_ended() {
    let failures = [Reply::grpc(b"", 5), Reply::trailers_only(5), Reply::status(503)];
    let retried = [Reply::grpc(b"", 14), Reply::grpc(b"ok", 0)];
    let upstream = H2Upstream::script(failures.into_iter().chain(retried));
    let policies = "
record: {mode: sync}
retry: {max_retries: 1, methods: any, on: [grpc_unavailable]}
rate_limit: {fixed_window: {requests: 4, per: 1h}, key: route}";
    let gateway = start(&upstream, policies);
    let client = H2Client::connect(gateway.address);
    let statuses: Vec<_> = (0..5)
        .map(|_| call(&client, b"x").status_field("grpc-status").expect("a status").to_owned())
        .collect();
    assert_eq!(statuses, ["5", "5", "14", "0", "8"]);
    let rows = Store::Sqlite.wait_for_rows(&gateway, 5);
    let said = |row: &Row| {
        assert_eq!((row.text("protocol"), row.number("status")), (Some("grpc"), 200));
        (row.is_true("success"), row.number("attempts"), row.text("rejection").map(str::to_owned))
    };
    let limited = Some("rate_limited".to_owned());
    assert_eq!(
        rows.iter().map(said).collect::<Vec<_>>(),
        [
            (false, 1, None),
            (false, 1, None),
            (false, 1, None),
            (true, 2, None),
            (false, 0, limited)
        ]
    );
}
