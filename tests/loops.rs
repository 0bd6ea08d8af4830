//! Requests that come back to the gateway that has sent them, and those that pass through several.

use crate::support::{Answer, Call, Gateway, H2Client, Plan, Port, Upstream, eventually, request};

fn gateway(endpoint: &str, policies: &str) -> Plan {
    Plan::route(policies).env("UPSTREAM", endpoint)
}

fn url(gateway: &Gateway) -> String {
    format!("http://{}", gateway.address)
}

fn requests(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_requests_total", &[])
}

/// A circle of two gateways, the first of which is asked.
fn circle(policies: &str) -> (Gateway, Gateway) {
    let first = gateway("http://127.0.0.1:9", policies).start();
    let second = gateway(&url(&first), policies).start();
    let yaml = gateway("", policies)
        .section(&format!("upstreams: {{service: {{endpoints: ['{}']}}}}", url(&second)))
        .yaml();
    assert!(first.reload(&yaml), "it leads to the second one now");
    (first, second)
}

#[test]
fn a_circle_of_gateways_ends_after_one_turn() {
    // The policies that would make a storm of it.
    let (first, second) = circle("retry: {max_retries: 3, on: [5xx], budget: unlimited}");
    let refused = first.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (508, "loop"), "{refused:?}");
    eventually("all are counted", || {
        (requests(&first) >= 2.0 && requests(&second) >= 1.0).then_some(())
    });
    assert_eq!((requests(&first), requests(&second)), (2.0, 1.0));
    let told =
        "a request has come back to this gateway, by way of 127.0.0.1: an upstream leads here";
    first.wait_for_log(told);
    for _ in 0..3 {
        assert_eq!(first.get("/").status, 508);
    }
    assert_eq!(first.log().matches(told).count(), 1, "once per spell");
    assert!(!second.log().contains(told));
    eventually("the cause in the access log", || {
        first.access_lines().iter().any(|line| line["portcullis.cause"] == "loop").then_some(())
    });
}

#[test]
fn with_via_off_that_of_others_passes_as_it_is() {
    let off = "server: {threads: 2, via: false}";
    let upstream = Upstream::start();
    let plan = Plan::route("").section(off).upstream(&upstream);
    let quiet = plan.start();
    assert_eq!(quiet.call(Call::new("GET /").header("Via", "1.1 a, 1.1 b")).status, 200);
    assert_eq!(upstream.only().all("via"), ["1.1 a, 1.1 b"], "none is added");
}

#[test]
fn an_honest_chain_is_kept_in_its_order() {
    let upstream = Upstream::start();
    let second = gateway(&upstream.url(), "").start();
    let first = gateway(&url(&second), "").start();
    let mut client = first.connect();
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\nVia: 1.1 a (one), HTTP/1.0 b\r\nVia: 2 portcullis\r\n\r\n");
    assert_eq!(client.receive().status, 200);
    let received = upstream.only();
    let via = received.all("via").join(", ");
    let names: Vec<_> = via.split(", ").map(str::to_owned).collect();
    assert_eq!(names[..3], ["1.1 a (one)", "HTTP/1.0 b", "2 portcullis"], "{via}");
    let [one, two] = &names[3..] else { panic!("{via}") };
    let one = one.strip_prefix("1.0 portcullis-").expect("the first one, asked in HTTP/1.0");
    let two = two.strip_prefix("1.1 portcullis-").expect("the second one");
    assert!(one.len() == 16 && one.bytes().all(|b| b.is_ascii_hexdigit()) && one != two, "{via}");
    let other = H2Client::connect(second.address);
    assert_eq!(other.call(request("GET", "/").body(&b""[..]).expect("a request")).status, 200);
    let received = upstream.requests();
    let via = received.last().and_then(|r| r.header("via").map(str::to_owned));
    assert_eq!(via, Some(format!("2 portcullis-{two}")), "the same name, and the client's version");
}

#[test]
fn a_retry_names_the_gateway_once() {
    let upstream = Upstream::script([503, 200]);
    let retry = "retry: {max_retries: 1, on: [503], budget: unlimited}";
    let gateway = Gateway::route(&upstream, retry);
    assert_eq!(gateway.call(Call::new("GET /").header("Via", "1.1 a")).status, 200);
    let seen = upstream.requests();
    let via: Vec<_> = seen.iter().map(|request| request.all("via")).collect();
    assert_eq!((via.len(), via[0].len(), via[0][0]), (2, 2, "1.1 a"), "{via:?}");
    assert_eq!(via[0], via[1], "the same in both attempts");
}

#[test]
fn a_route_says_what_its_upstream_sees_of_it() {
    let upstream = Upstream::always(Answer::from(200));
    let gateway = Gateway::route(&upstream, "headers: {request: {remove: [Via]}}");
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(upstream.only().header("via"), None);
}

#[test]
fn an_endpoint_that_is_the_gateway_itself_is_refused_at_load() {
    let port = Port::reserve().number;
    let (_, log) = Plan::route("")
        .section(&format!("listeners: {{public: {{address: '0.0.0.0:{port}'}}}}"))
        .env("UPSTREAM", &format!("http://127.0.0.1:{port}"))
        .fails();
    assert!(log.contains("the endpoint is this gateway itself: listeners.public"), "{log}");
}
