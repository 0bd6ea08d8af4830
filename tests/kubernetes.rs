//! Endpoints from the EndpointSlices of Kubernetes: a cluster's churn is followed, and what goes wrong
//! with its API server changes nothing.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use crate::support::discovered::{
    outlast, source, wait_for_endpoints as wait_for, wait_for_error, wait_for_recovery,
};
use crate::support::kubernetes::{ApiServer, Mood, conditions, slice};
use crate::support::{Authority, Gateway, Load, Plan, Upstream, eventually, watched};

const ORDERS: &str = "
upstreams:
  service:
    discover: {kubernetes: {service: orders, namespace: shop, port: http, api: \"${API}\", token_file: token}}
    empty_after: 2s
    balance: round_robin
routes:
  all: {match: {path: /*}, upstream: service}
";

fn plan(api: &ApiServer) -> Plan {
    Plan::new(ORDERS).env("API", &api.url()).beside("token", "uno-7f3a\n")
}

/// With watches that last a second, for what happens between them.
fn plan_of_short_watches(api: &ApiServer) -> Plan {
    plan(api).replacing("token_file: token", "token_file: token, watch_timeout: 1s")
}

fn ready() -> Value {
    conditions(true, true, false)
}

/// One slice with this upstream alone, because its port is its own.
fn of(upstream: &Upstream, conditions: Value) -> Value {
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    slice(upstream.address().port(), &[(ip, conditions)])
}

fn api_of(upstreams: &[&Upstream]) -> ApiServer {
    let api = ApiServer::start();
    for (number, upstream) in upstreams.iter().enumerate() {
        api.put(&format!("orders-{number}"), of(upstream, ready()));
    }
    api
}

/// Waits until the source answers again and a watch is open, and lets it bring something: what fails
/// after that is a first failure.
#[track_caller]
fn settle(gateway: &Gateway, api: &ApiServer) {
    wait_for_recovery(gateway);
    eventually("an open watch", || {
        let latest = api.asked().pop()?;
        (latest.is_watch() && latest.status == 200).then_some(())
    });
    api.bookmark();
}

#[test]
fn slices_are_listed_once_and_their_changes_are_followed() {
    let (one, two, three) = (Upstream::start(), Upstream::start(), Upstream::start());
    let api = api_of(&[&one, &two]);
    let gateway = plan(&api).start();
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!([one.count(), two.count()], [2, 2]);
    let shown = source(&gateway);
    assert_eq!(
        (&shown["source"], &shown["endpoints"]),
        (&json!("kubernetes shop/orders:http"), &json!(2))
    );
    assert!(shown["confirmed_seconds_ago"].is_f64() && shown["error"].is_null(), "{shown}");

    let watch = api.wait_for_watch(0);
    assert_eq!(watch.authorization.as_deref(), Some("Bearer uno-7f3a"));
    assert_eq!(watch.parameter("allowWatchBookmarks"), "true");
    assert_eq!(watch.parameter("resourceVersion"), "102");
    let seconds: u64 = watch.parameter("timeoutSeconds").parse().expect("a number");
    assert!((270..=300).contains(&seconds), "{seconds}");

    api.put("orders-2", of(&three, ready()));
    wait_for(&gateway, &[&one, &two, &three]);
    api.put("orders-0", of(&one, conditions(false, false, false)));
    wait_for(&gateway, &[&two, &three]);
    api.remove("orders-1");
    wait_for(&gateway, &[&three]);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!([one.count(), two.count(), three.count()], [2, 2, 1]);
    let left = two.address();
    gateway.wait_for_log(&format!("{left} left; endpoints now: 1, as its source says"));
    assert_eq!([api.lists().len(), api.watches().len()], [1, 1], "nothing was asked twice");
    assert_eq!(api.lists()[0].parameter("limit"), "500");
}

#[test]
fn the_api_server_of_the_environment_is_believed_if_the_authority_signed_it() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let one = Upstream::start();
    let api = ApiServer::start_tls(&authority.sign("127.0.0.1"));
    api.expect_token("uno-7f3a");
    api.put("orders-0", of(&one, ready()));
    let gateway = plan(&api)
        .replacing("api: \"${API}\"", "ca: authorities.pem")
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", &api.port().to_string())
        .beside("authorities.pem", &stranger.pem())
        .start();
    eventually("the stranger is told", || {
        source(&gateway)["error"].as_str().filter(|error| error.contains("certificate")).map(drop)
    });
    assert_eq!(api.asked().len(), 0, "it was not even asked, with the token");
    std::fs::write(gateway.directory().join("authorities.pem"), authority.pem()).expect("written");
    wait_for(&gateway, &[&one]);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(api.wait_for_watch(0).authorization.as_deref(), Some("Bearer uno-7f3a"));
}

#[test]
fn without_tls_no_token_is_sent_unless_it_is_meant_to_be() {
    let one = Upstream::start();
    let api = api_of(&[&one]);
    let gateway = plan(&api).replacing(", token_file: token", "").start();
    wait_for(&gateway, &[&one]);
    api.wait_for_watch(0);
    assert!(api.asked().iter().all(|asked| asked.authorization.is_none()), "{:?}", api.asked());
}

#[test]
fn outside_a_pod_what_is_missing_is_named() {
    for (less, says) in [
        (", api: \"${API}\"", "KUBERNETES_SERVICE_HOST is not set"),
        (", namespace: shop", "serviceaccount/namespace cannot be read"),
    ] {
        let api = ApiServer::start();
        let gateway = plan(&api).replacing(less, "").start();
        gateway.wait_for_log(says);
        let refused = gateway.get("/");
        assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"), "{says}");
        assert_eq!(api.connections(), 0);
    }
}

#[test]
fn pages_are_one_list() {
    let upstreams: Vec<_> = (0..5).map(|_| Upstream::start()).collect();
    let upstreams: Vec<_> = upstreams.iter().collect();
    let api = api_of(&upstreams);
    api.page(2);
    let gateway = plan(&api).start();
    wait_for(&gateway, &upstreams);
    let pages: Vec<_> =
        api.lists().iter().map(|list| list.parameter("continue").to_owned()).collect();
    assert_eq!(pages, ["", "from+/2=", "from+/4="]);
}

#[test]
fn a_watch_that_is_cut_in_the_middle_of_a_line_goes_on_from_the_last_version() {
    let (one, two, three) = (Upstream::start(), Upstream::start(), Upstream::start());
    let api = api_of(&[&one]);
    let gateway = plan(&api).start();
    api.wait_for_watch(0);
    api.put("orders-1", of(&two, ready()));
    wait_for(&gateway, &[&one, &two]);
    api.cut();
    // While no watch is open.
    api.put("orders-2", of(&three, ready()));
    assert_eq!(api.wait_for_watch(1).parameter("resourceVersion"), "102");
    wait_for(&gateway, &[&one, &two, &three]);
    assert_eq!(api.lists().len(), 1, "what is known was not asked for again");
    assert!(!gateway.log().contains("keeping the endpoints known so far"), "it is no failure");
}

#[test]
fn a_bookmark_says_where_to_go_on() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let api = api_of(&[&one]);
    let gateway = plan(&api).start();
    api.wait_for_watch(0);
    let version = api.bookmark().to_string();
    api.cut();
    assert_eq!(api.wait_for_watch(1).parameter("resourceVersion"), version);
    api.put("orders-1", of(&two, ready()));
    wait_for(&gateway, &[&one, &two]);
    assert_eq!(api.lists().len(), 1);
}

#[test]
fn a_version_that_is_too_old_is_listed_anew() {
    let (one, two, three) = (Upstream::start(), Upstream::start(), Upstream::start());
    let api = api_of(&[&one]);
    let gateway = plan(&api).start();
    api.wait_for_watch(0);
    // As an event of the stream.
    api.expire();
    api.wait_for_watch(1);
    assert_eq!(api.lists().len(), 2);
    api.put("orders-1", of(&two, ready()));
    wait_for(&gateway, &[&one, &two]);
    // As the status of the next watch. What has gone meanwhile no event tells any more.
    api.cut();
    api.remove("orders-0");
    api.put("orders-2", of(&three, ready()));
    api.forget();
    wait_for(&gateway, &[&two, &three]);
    api.wait_for_watch(2);
    assert_eq!(api.watches().iter().filter(|watch| watch.status == 410).count(), 1);
    assert_eq!(api.lists().len(), 3);
    assert!(!gateway.log().contains("keeping the endpoints known so far"), "it is no failure");
}

#[test]
fn a_token_that_has_been_exchanged_is_read_again() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let api = api_of(&[&one]);
    api.expect_token("uno-7f3a");
    let gateway = plan(&api).start();
    api.wait_for_watch(0);
    api.expect_token("dos-7f3a");
    api.cut();
    wait_for_error(&gateway, "the API server answers 401: Unauthorized");
    std::fs::write(gateway.directory().join("token"), "dos-7f3a").expect("written");
    settle(&gateway, &api);
    api.put("orders-1", of(&two, ready()));
    wait_for(&gateway, &[&one, &two]);
    for empty in ["", " \n", "a\nb"] {
        std::fs::write(gateway.directory().join("token"), empty).expect("written");
        api.cut();
        wait_for_error(&gateway, "token holds no token");
        std::fs::write(gateway.directory().join("token"), "dos-7f3a").expect("written");
        settle(&gateway, &api);
    }
    let shown = gateway.log() + &source(&gateway).to_string();
    assert!(!shown.contains("7f3a"), "{shown}");
}

#[test]
fn what_the_api_server_refuses_is_told_in_its_words() {
    let one = Upstream::start();
    let api = api_of(&[&one]);
    let gateway = plan(&api).start();
    api.wait_for_watch(0);
    let why = "endpointslices.discovery.k8s.io is forbidden: User \"system:serviceaccount:shop:default\" \
               cannot list resource";
    api.mood(Mood::Refuses(403, why));
    api.cut();
    wait_for_error(&gateway, &format!("the API server answers 403: {why}"));
    api.mood(Mood::Well);
    wait_for_recovery(&gateway);
}

#[test]
fn a_service_without_slices_is_believed_after_a_time() {
    let one = Upstream::start();
    let api = api_of(&[&one]);
    let gateway = plan(&api).start();
    api.wait_for_watch(0);
    api.remove("orders-0");
    gateway.wait_for_log(
        "there is no EndpointSlice of this service; keeping the endpoints known so far",
    );
    assert_eq!(gateway.get("/").status, 200);
    gateway.wait_for_log("has had no endpoint for 2s");
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"));
    api.put("orders-0", of(&one, ready()));
    wait_for(&gateway, &[&one]);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(api.lists().len(), 1);
}

#[test]
fn nonsense_changes_nothing() {
    let one = Upstream::start();
    let api = api_of(&[&one]);
    let gateway = plan(&api).start();
    api.wait_for_watch(0);
    // Lines of a watch, of which the last is a slice that says what cannot be.
    let mut wrong = of(&one, ready());
    wrong["metadata"] = json!({"name": "orders-0", "resourceVersion": "500"});
    wrong["endpoints"][0]["addresses"] = json!(["banana"]);
    let wrong = json!({"type": "MODIFIED", "object": wrong}).to_string();
    for (line, says) in [
        ("<html>", "a change cannot be read"),
        ("{\"type\":\"ADDED\",\"object\":{}}", "a change is not one of an EndpointSlice"),
        (wrong.as_str(), "orders-0: `banana` is not an IPv4 address"),
    ] {
        api.say(line);
        gateway.wait_for_log(says);
        assert_eq!(gateway.get("/").status, 200, "{says}");
        settle(&gateway, &api);
    }
    assert_eq!(api.lists().len(), 4, "after nonsense, all is listed");
    // Lists, of which none is an empty one.
    for (text, says) in [
        (
            "{\"kind\":\"EndpointSliceList\",\"metadata\":{},\"items\":[]}",
            "not a list of EndpointSlices",
        ),
        ("{}", "the list cannot be read"),
        ("", "the list cannot be read"),
    ] {
        api.mood(Mood::Says(text));
        api.expire();
        wait_for_error(&gateway, says);
        api.mood(Mood::Well);
        settle(&gateway, &api);
    }
    wait_for(&gateway, &[&one]);
    assert!(!gateway.log().contains("giving up"), "{}", gateway.log());
}

#[test]
fn endpoints_that_are_ending_get_requests_only_while_no_other_is_ready() {
    let (old, new) = (Upstream::start(), Upstream::start());
    let api = api_of(&[&old]);
    let gateway = plan(&api).start();
    api.wait_for_watch(0);
    api.put("orders-1", of(&new, conditions(false, false, false)));
    api.put("orders-0", of(&old, conditions(false, true, true)));
    let version = api.bookmark();
    api.cut();
    let watch = api.wait_for_watch(1);
    assert_eq!(watch.parameter("resourceVersion"), version.to_string(), "all is known");
    wait_for(&gateway, &[&old]);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!([old.count(), new.count()], [1, 0], "it still answers, and no other does");
    api.put("orders-1", of(&new, ready()));
    wait_for(&gateway, &[&new]);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!([old.count(), new.count()], [1, 1]);
    api.put("orders-1", of(&new, conditions(false, false, true)));
    wait_for(&gateway, &[&old]);
}

#[test]
fn three_thousand_endpoints_in_slices_of_a_thousand_are_followed() {
    let api = ApiServer::start();
    let thousand = |third: u8| -> Vec<(IpAddr, Value)> {
        let ip = |n: u16| Ipv4Addr::new(127, third, (n / 250) as u8, (n % 250) as u8 + 1).into();
        (0..1000).map(|n| (ip(n), ready())).collect()
    };
    for third in 1..=3 {
        api.put(&format!("orders-{third}"), slice(80, &thousand(third)));
    }
    let gateway = plan(&api).start();
    let count = |expected: usize| {
        eventually(&format!("{expected} endpoints"), || {
            (source(&gateway)["endpoints"] == expected).then_some(())
        });
    };
    count(3000);
    api.wait_for_watch(0);
    let mut fewer = thousand(2);
    fewer[7].1 = conditions(false, false, true);
    api.put("orders-2", slice(80, &fewer));
    count(2999);
    api.put("orders-4", slice(81, &thousand(1)));
    count(3999);
    assert_eq!([api.lists().len(), api.watches().len()], [1, 1]);
}

#[test]
fn a_server_that_is_away_changes_nothing_and_is_left_alone() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let api = api_of(&[&one]);
    let gateway = plan(&api).start();
    api.wait_for_watch(0);
    let before = api.connections();
    let started = watched();
    api.mood(Mood::Away);
    api.cut();
    wait_for_error(&gateway, "the API server cannot be asked");
    outlast(&gateway);
    let tries = api.connections() - before;
    // After pauses of at least 0.5, 0.5, 1, 2, 4 … s.
    let most = 3 + started.elapsed().as_secs_f64().log2() as usize;
    assert!((2..=most).contains(&tries), "{tries} in {:?}", started.elapsed());
    assert_eq!(gateway.get("/").status, 200);
    assert!(gateway.reload(&ORDERS.replace("round_robin", "random")));
    assert_eq!(gateway.get("/").status, 200, "the server is away, not the endpoints");
    assert_eq!(source(&gateway)["endpoints"], 1);
    api.put("orders-1", of(&two, ready()));
    api.mood(Mood::Well);
    wait_for(&gateway, &[&one, &two]);
    wait_for_recovery(&gateway);
    assert!(!gateway.log().contains("giving up"), "{}", gateway.log());
    assert!(gateway.reload(&ORDERS.replace("service: orders", "service: others")));
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"), "another service");
}

#[test]
fn a_stream_that_falls_silent_is_given_up_and_nothing_is_missed() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let api = api_of(&[&one]);
    let gateway = plan_of_short_watches(&api).start();
    api.mood(Mood::Hushed);
    let count = api.watches().len();
    api.put("orders-1", of(&two, ready()));
    // The first of them may have been open before.
    eventually("another watch", || (api.watches().len() >= count + 2).then_some(()));
    assert!(!gateway.log().contains("keeping the endpoints known so far"), "it is no failure");
    api.mood(Mood::Well);
    wait_for(&gateway, &[&one, &two]);
    assert_eq!(api.lists().len(), 1);
}

#[test]
fn each_watch_that_takes_over_confirms_what_is_known() {
    let one = Upstream::start();
    let api = api_of(&[&one]);
    let gateway = plan_of_short_watches(&api).start();
    api.wait_for_watch(3);
    let age = source(&gateway)["confirmed_seconds_ago"].as_f64().expect("a number");
    assert!(age < 4.0, "{age}");
    assert_eq!(api.lists().len(), 1);
    assert!(api.watches().iter().all(|watch| watch.parameter("timeoutSeconds") == "1"));
}

#[test]
fn an_endpoint_that_is_replaced_by_another_fails_no_request() {
    let mut current = Upstream::start();
    let api = api_of(&[&current]);
    let gateway = plan(&api).start();
    api.wait_for_watch(0);
    let load = Load::start(gateway.address, 4, "replaced");
    let mut ended = Vec::new();
    for _ in 0..5 {
        let next = Upstream::start();
        let goal = load.answers() + 50;
        eventually("some answers", || (load.answers() >= goal).then_some(()));
        // As a rolling update does it: the new pod is ready, then the old one is about to end.
        api.put("orders-1", of(&next, ready()));
        wait_for(&gateway, &[&current, &next]);
        api.put("orders-0", of(&current, conditions(false, true, true)));
        wait_for(&gateway, &[&next]);
        api.put("orders-0", of(&next, ready()));
        api.remove("orders-1");
        ended.push(std::mem::replace(&mut current, next));
    }
    let answered = load.finish();
    let failed: Vec<_> = answered.iter().filter(|answer| answer.status != 200).collect();
    assert!(failed.is_empty() && answered.len() >= 250, "{} {failed:?}", answered.len());
    assert!(ended.iter().all(|upstream| upstream.count() > 0));
    let before: Vec<_> = ended.iter().map(Upstream::count).collect();
    wait_for(&gateway, &[&current]);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(
        ended.iter().map(Upstream::count).collect::<Vec<_>>(),
        before,
        "they get nothing new"
    );
}

#[test]
fn a_thousand_endpoints_that_come_and_go_fail_no_request() {
    const CHANGES: u16 = 40;
    // On all addresses of the loopback network.
    let all = Upstream::listen((Ipv4Addr::UNSPECIFIED, 0).into());
    let hundred = |tenth: u8, turn: u16| {
        let ip = |n: u8| Ipv4Addr::new(127, tenth + 1, (turn % 250) as u8, n + 1).into();
        slice(all.address().port(), &(0..100).map(|n| (ip(n), ready())).collect::<Vec<_>>())
    };
    let name = |tenth: u8| format!("orders-{tenth}");
    let api = ApiServer::start();
    (0..10).for_each(|tenth| api.put(&name(tenth), hundred(tenth, 0)));
    let gateway = plan(&api).start();
    api.wait_for_watch(0);
    let load = Load::start(gateway.address, 4, "churn");
    for change in 0..CHANGES {
        let goal = load.answers() + 20;
        eventually("some answers", || (load.answers() >= goal).then_some(()));
        // A tenth of them leaves, and as many others come.
        api.put(&name((change % 10) as u8), hundred((change % 10) as u8, change + 1));
    }
    let last = format!("127.{}.{CHANGES}.100:", (CHANGES - 1) % 10 + 1);
    eventually("the last change", || gateway.status().to_string().contains(&last).then_some(()));
    assert_eq!(source(&gateway)["endpoints"], 1000);
    let answered = load.finish();
    let failed: Vec<_> = answered.iter().filter(|answer| answer.status != 200).collect();
    assert!(failed.is_empty() && answered.len() >= 20 * CHANGES as usize, "{failed:?}");
    assert_eq!([api.lists().len(), api.watches().len()], [1, 1]);
}

#[test]
fn a_port_that_is_not_there_or_not_chosen_is_told_by_its_name() {
    let one = Upstream::start();
    let api = ApiServer::start();
    let number = one.address().port();
    let mut several = of(&one, ready());
    several["ports"] = json!([
        {"name": "http", "protocol": "TCP", "port": number},
        {"name": "metrics", "protocol": "TCP", "port": 9090},
    ]);
    api.put("orders-0", several);
    for (port, says) in [
        (
            "",
            format!(
                "orders-0 has several ports: http ({number}), metrics (9090): choose one by `port`"
            ),
        ),
        (", port: web", format!("have no TCP port `web`: http ({number}), metrics (9090)")),
    ] {
        let gateway = plan(&api).replacing(", port: http", port).start();
        gateway.wait_for_log(&says);
        assert_eq!(gateway.get("/").status, 503);
    }
    let gateway = plan(&api).replacing("port: http", &format!("port: {number}")).start();
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn slices_of_names_are_told_once_and_not_used() {
    let one = Upstream::start();
    let api = api_of(&[&one]);
    let mut named = slice(80, &[]);
    named["addressType"] = json!("FQDN");
    named["endpoints"] = json!([{"addresses": ["orders.example"], "conditions": ready()}]);
    api.put("orders-named", named);
    let gateway = plan_of_short_watches(&api).start();
    wait_for(&gateway, &[&one]);
    api.wait_for_watch(2);
    let told = gateway.log().matches("names instead of addresses").count();
    assert_eq!(told, 1, "{}", gateway.log());
}

#[test]
fn addresses_are_reached_as_is_written() {
    let one = Upstream::start();
    let api = api_of(&[&one]);
    let yaml = "token_file: token}, as: 'http://orders.shop.svc/api'}";
    let gateway = plan(&api).replacing("token_file: token}}", yaml).start();
    assert_eq!(gateway.get("/x").status, 200);
    let request = one.only();
    assert_eq!(
        (request.target.as_str(), request.header("host")),
        ("/api/x", Some("orders.shop.svc"))
    );
}
