//! Endpoints from Consul: changes are known by blocking queries, and what goes wrong with Consul changes
//! nothing.

use serde_json::{Value, json};

use crate::support::consul::{Consul, Mood, instance, with_status};
use crate::support::discovered::{
    outlast, source, wait_for_endpoints, wait_for_error, wait_for_recovery,
};
use crate::support::{Authority, Gateway, Plan, Upstream, eventually, watched};

/// A query waits for the longest time that there is: what is known earlier was not polled.
const ORDERS: &str = "
upstreams:
  service:
    discover: {consul: {service: orders, address: \"${CONSUL}\", allow: [127.0.0.0/8], wait: 10m}}
    empty_after: 2s
    balance: round_robin
routes:
  all: {match: {path: /*}, upstream: service}
";

fn plan(consul: &Consul) -> Plan {
    Plan::new(ORDERS).env("CONSUL", &consul.url())
}

/// With these keys besides.
fn plan_with(consul: &Consul, keys: &str) -> Plan {
    plan(consul).replacing("wait: 10m", &format!("wait: 10m, {keys}"))
}

/// Waits until a query is open that nothing has gone wrong before, and that waits from here on.
fn settle(gateway: &Gateway, consul: &Consul) {
    wait_for_recovery(gateway);
    let count = consul.asked().len();
    consul.touch();
    consul.wait_for_query(count);
}

fn weights(gateway: &Gateway) -> Vec<Value> {
    let status = gateway.status();
    let all = status["upstreams"]["service"]["endpoints"].as_array().expect("a list").clone();
    all.into_iter().map(|one| one["weight"].clone()).collect()
}

#[test]
fn a_change_is_known_at_once_and_nothing_is_asked_for_in_between() {
    let (one, two, three) = (Upstream::start(), Upstream::start(), Upstream::start());
    let consul = Consul::of(&[&one, &two]);
    let gateway = plan(&consul).start();
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!([one.count(), two.count()], [2, 2]);
    let shown = source(&gateway);
    assert_eq!((&shown["source"], &shown["endpoints"]), (&json!("consul orders"), &json!(2)));
    let waiting = consul.wait_for_query(0);
    assert_eq!((waiting.parameter("index"), waiting.parameter("wait")), ("102", "600s"));
    assert_eq!((waiting.parameter("passing"), waiting.header("x-consul-token")), ("1", None));
    consul.put("orders-2", instance(&three));
    wait_for_endpoints(&gateway, &[&one, &two, &three]);
    consul.put("orders-0", with_status(instance(&one), "critical"));
    wait_for_endpoints(&gateway, &[&two, &three]);
    // Deregistered.
    consul.remove("orders-1");
    wait_for_endpoints(&gateway, &[&three]);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!([one.count(), two.count(), three.count()], [2, 2, 1]);
    eventually("the next query", || (consul.indexes().len() == 5).then_some(()));
    assert_eq!(consul.indexes(), ["", "102", "103", "104", "105"]);
}

#[test]
fn an_index_that_goes_backwards_is_asked_for_anew() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let consul = Consul::of(&[&one]);
    let gateway = plan(&consul).start();
    consul.wait_for_query(0);
    consul.set_index(5);
    consul.wait_for_query(2);
    assert_eq!(consul.indexes(), ["", "101", "", "5"]);
    consul.put("orders-1", instance(&two));
    wait_for_endpoints(&gateway, &[&one, &two]);
    assert!(!gateway.log().contains("keeping the endpoints known so far"), "it is no failure");
}

#[test]
fn an_index_that_changes_all_the_time_is_not_followed_without_pause() {
    let one = Upstream::start();
    let consul = Consul::of(&[&one]);
    consul.mood(Mood::Spins);
    let started = watched();
    let gateway = plan(&consul).start();
    eventually("some queries", || (consul.asked().len() >= 5).then_some(()));
    let took = started.elapsed().as_secs_f64();
    // Two at once, then one a second.
    assert!(took >= 2.8, "{took}");
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_server_that_is_away_changes_nothing_and_is_left_alone() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let consul = Consul::of(&[&one]);
    let gateway = plan(&consul).start();
    consul.wait_for_query(0);
    let (before, started) = (consul.connections(), watched());
    consul.mood(Mood::Away);
    wait_for_error(&gateway, "Consul cannot be asked: ");
    outlast(&gateway);
    let tries = consul.connections() - before;
    // After pauses of at least 0.5, 1, 2, 4 … s.
    let most = 2 + started.elapsed().as_secs_f64().log2() as usize;
    assert!((1..=most).contains(&tries), "{tries} in {:?}", started.elapsed());
    assert!(gateway.reload(&ORDERS.replace("round_robin", "random")));
    assert_eq!((gateway.get("/").status, &source(&gateway)["endpoints"]), (200, &json!(1)));
    consul.put("orders-1", instance(&two));
    let asked = consul.asked().len();
    consul.mood(Mood::Well);
    wait_for_endpoints(&gateway, &[&one, &two]);
    wait_for_recovery(&gateway);
    assert_eq!(consul.indexes()[asked], "", "it may be another history");
    assert!(gateway.reload(&ORDERS.replace("service: orders", "service: others")));
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"), "another service");
}

#[test]
fn a_service_without_instances_is_believed_after_a_time() {
    let one = Upstream::start();
    let consul = Consul::of(&[&one]);
    let gateway = plan(&consul).start();
    consul.wait_for_query(0);
    consul.put("orders-0", with_status(instance(&one), "critical"));
    gateway
        .wait_for_log("no instance of this service is passing its checks; keeping the endpoints");
    assert_eq!(gateway.get("/").status, 200);
    gateway.wait_for_log("has had no endpoint for 2s");
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"));
    consul.put("orders-0", instance(&one));
    wait_for_endpoints(&gateway, &[&one]);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn an_answer_that_was_emptied_for_lack_of_rights_is_not_believed() {
    let one = Upstream::start();
    let consul = Consul::of(&[&one]);
    let gateway = plan(&consul).start();
    consul.wait_for_query(0);
    consul.mood(Mood::Filters);
    consul.touch();
    wait_for_error(&gateway, "the token may not read any instance of this service");
    outlast(&gateway);
}

#[test]
fn a_token_that_has_been_exchanged_is_read_again() {
    let one = Upstream::start();
    let consul = Consul::of(&[&one]);
    consul.expect_token("11111111-7f3a");
    let gateway =
        plan_with(&consul, "token_file: token").beside("token", "11111111-7f3a\n").start();
    assert_eq!(consul.wait_for_query(0).header("x-consul-token"), Some("11111111-7f3a"));
    consul.expect_token("22222222-7f3a");
    consul.touch();
    wait_for_error(&gateway, "Consul answers 403: ACL not found");
    std::fs::write(gateway.directory().join("token"), "22222222-7f3a").expect("written");
    settle(&gateway, &consul);
    for empty in ["", " \n", "a\nb"] {
        std::fs::write(gateway.directory().join("token"), empty).expect("written");
        consul.touch();
        wait_for_error(&gateway, "token holds no token");
        std::fs::write(gateway.directory().join("token"), "22222222-7f3a").expect("written");
        settle(&gateway, &consul);
    }
    let shown = gateway.log() + &gateway.status().to_string();
    assert!(!shown.contains("7f3a"), "{shown}");
}

#[test]
fn a_token_of_the_configuration_is_shown_to_consul_alone() {
    let one = Upstream::start();
    let consul = Consul::of(&[&one]);
    consul.expect_token("33333333-3333-7f3a");
    let plan = plan_with(&consul, "token: \"${TOKEN}\"").env("TOKEN", "33333333-3333-7f3a");
    let gateway = plan.start();
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(one.only().header("x-consul-token"), None);
    let shown = gateway.log() + &gateway.status().to_string();
    assert!(!shown.contains("7f3a"), "{shown}");
}

#[test]
fn what_consul_refuses_is_told_in_its_words() {
    let one = Upstream::start();
    let consul = Consul::of(&[&one]);
    let gateway = plan(&consul).start();
    consul.wait_for_query(0);
    for (status, text, says) in [
        (
            403,
            "Permission denied: lacks permission 'service:read'",
            "Consul answers 403: Permission denied",
        ),
        (404, "<html>not here</html>", "Consul answers 404"),
        (500, "No cluster leader", "Consul answers 500: No cluster leader"),
        (302, "", "Consul answers 302; redirects are not followed"),
    ] {
        consul.mood(Mood::Refuses(status, text));
        wait_for_error(&gateway, says);
        assert!(!source(&gateway)["error"].to_string().contains("html"));
        consul.mood(Mood::Well);
        settle(&gateway, &consul);
    }
    assert!(consul.asked().iter().all(|asked| asked.path != "/elsewhere"));
}

#[test]
fn nonsense_changes_nothing() {
    let one = Upstream::start();
    let consul = Consul::of(&[&one]);
    let gateway = plan(&consul).start();
    consul.wait_for_query(0);
    for (mood, says) in [
        (Mood::Says("<html>"), "the answer cannot be read"),
        (Mood::Says("{}"), "the answer cannot be read"),
        (Mood::Says("[{\"Node\": {}}]"), "the answer cannot be read"),
        (Mood::HasNoIndex, "the answer has no X-Consul-Index"),
        (Mood::Babbles, "Consul's answer is larger than 67108864 bytes"),
    ] {
        consul.mood(mood);
        consul.touch();
        wait_for_error(&gateway, says);
        consul.mood(Mood::Well);
        settle(&gateway, &consul);
    }
    wait_for_endpoints(&gateway, &[&one]);
    assert!(!gateway.log().contains("giving up"), "{}", gateway.log());
}

#[test]
fn more_instances_than_allowed_are_a_mistake_and_one_without_a_port_is_left_out() {
    let (one, two, three) = (Upstream::start(), Upstream::start(), Upstream::start());
    let consul = Consul::of(&[&one, &two]);
    let plan = plan(&consul).replacing("empty_after: 2s", "empty_after: 2s\n    max_endpoints: 2");
    let gateway = plan.start();
    consul.put("orders-2", instance(&three));
    wait_for_error(&gateway, "3 endpoints, of which `max_endpoints` allows 2");
    wait_for_endpoints(&gateway, &[&one, &two]);
    let mut without = instance(&three);
    without["Service"]["Port"] = json!(0);
    consul.put("orders-2", without);
    gateway
        .wait_for_log("consul orders: the instance `orders-2`: `127.0.0.1` has no port; not used");
    wait_for_recovery(&gateway);
    wait_for_endpoints(&gateway, &[&one, &two]);
}

#[test]
fn tags_choose_instances_and_weights_are_those_of_their_states() {
    let (one, two, three) = (Upstream::start(), Upstream::start(), Upstream::start());
    let consul = Consul::start();
    let heavy = |upstream: &Upstream, tags: Value| {
        let mut instance = instance(upstream);
        instance["Service"]["Weights"] = json!({"Passing": 7, "Warning": 3});
        instance["Service"]["Tags"] = tags;
        instance
    };
    consul.put("a", heavy(&one, json!(["v1", "canary"])));
    consul.put("b", with_status(heavy(&two, json!(["canary", "v1"])), "warning"));
    consul.put("c", heavy(&three, json!(["v1"])));
    let keys = "tags: [v1, canary], passing_only: false, datacenter: eu, namespace: shop, stale: true, \
                filter: 'Service.Meta.a == \"b\"'";
    let gateway = plan_with(&consul, keys).start();
    wait_for_endpoints(&gateway, &[&one, &two]);
    let mut found = weights(&gateway);
    found.sort_by_key(Value::as_u64);
    assert_eq!(found, [json!(3), json!(7)]);
    let query = consul.wait_for_query(0).query;
    let query: Vec<_> = query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let place = [("filter", "Service.Meta.a == \"b\""), ("dc", "eu"), ("ns", "shop")];
    assert_eq!(query[..3], [("stale", "1"), ("tag", "v1"), ("tag", "canary")]);
    assert_eq!(query[3..6], place);
}

#[test]
fn an_address_may_be_a_name_or_that_of_the_node_and_is_reached_as_is_written() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let consul = Consul::start();
    let mut named = instance(&one);
    named["Service"]["Address"] = json!("localhost");
    consul.put("a", named);
    let mut of_node = instance(&two);
    of_node["Service"]["Address"] = json!("");
    of_node["Node"]["Address"] = json!("127.0.0.1");
    consul.put("b", of_node);
    let gateway = plan(&consul)
        .replacing("wait: 10m}", "wait: 10m}, as: 'http://orders.internal/api'")
        .replacing("empty_after: 2s", "empty_after: 2s\n    ip_family: prefer_ipv4")
        .start();
    wait_for_endpoints(&gateway, &[&one, &two]);
    for _ in 0..2 {
        assert_eq!(gateway.get("/x").status, 200);
    }
    for upstream in [one, two] {
        let request = upstream.only();
        assert_eq!(request.target, "/api/x");
        assert_eq!(request.header("host"), Some("orders.internal"));
    }
}

#[test]
fn an_instance_at_the_gateways_own_machine_is_used_only_where_that_is_allowed() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let consul = Consul::of(&[&one]);
    let mut named = instance(&two);
    named["Service"]["Address"] = json!("localhost");
    consul.put("orders-1", named);
    let gateway = plan(&consul).replacing("allow: [127.0.0.0/8], ", "").start();
    gateway.wait_for_log("the instance `orders-0`: 127.0.0.1 is a loopback or link-local address");
    gateway.wait_for_log("upstreams.service: cannot resolve localhost: ");
    let refused = gateway.get("/");
    assert_eq!((refused.status, one.count(), two.count()), (503, 0, 0), "{}", refused.text());
    assert!(gateway.reload(ORDERS));
    wait_for_endpoints(&gateway, &[&one, &two]);
}

#[test]
fn an_instance_that_names_the_gateway_itself_is_left_out() {
    let one = Upstream::start();
    let consul = Consul::of(&[&one]);
    let gateway = plan(&consul).start();
    for own in [gateway.admin, gateway.address] {
        let mut itself = instance(&one);
        itself["Service"]["Port"] = json!(own.port());
        consul.put("orders-1", itself);
        gateway.wait_for_log(&format!("the instance `orders-1`: {own} is this gateway itself: "));
        wait_for_endpoints(&gateway, &[&one]);
    }
}

#[test]
fn a_server_behind_tls_is_believed_if_the_authority_signed_it() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let one = Upstream::start();
    let consul = Consul::start_tls(&authority.sign("127.0.0.1"));
    consul.put("orders-0", instance(&one));
    let plan = plan_with(&consul, "ca: ca.pem").beside("ca.pem", &stranger.pem());
    let gateway = plan.start();
    eventually("the stranger is told", || {
        source(&gateway)["error"].as_str().filter(|error| error.contains("certificate")).map(drop)
    });
    assert_eq!(consul.asked().len(), 0, "it was not even asked");
    std::fs::write(gateway.directory().join("ca.pem"), authority.pem()).expect("written");
    wait_for_endpoints(&gateway, &[&one]);
    assert_eq!(gateway.get("/").status, 200);
}
