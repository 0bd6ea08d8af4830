//! Endpoints from Eureka: what it says is followed, and what goes wrong with it changes nothing.

use serde_json::{Value, json};

use crate::support::discovered::{
    outlast, source, wait_for_endpoints, wait_for_error, wait_for_recovery,
};
use crate::support::documents::{Documents, Reply};
use crate::support::eureka::{Eureka, Mood, instance, with_status};
use crate::support::{Authority, Gateway, Plan, Upstream, eventually, watched};

const ORDERS: &str = "
upstreams:
  service:
    discover: {eureka: {service: orders, address: \"${EUREKA}\", allow: [127.0.0.0/8], every: 1s}}
    empty_after: 2s
    balance: round_robin
routes:
  all: {match: {path: /*}, upstream: service}
";

fn plan(eureka: &Eureka) -> Plan {
    Plan::new(ORDERS).env("EUREKA", &eureka.url())
}

/// With these keys besides.
fn plan_with(eureka: &Eureka, keys: &str) -> Plan {
    plan(eureka).replacing("every: 1s", &format!("every: 1s, {keys}"))
}

fn endpoints(gateway: &Gateway) -> Vec<Value> {
    gateway.status()["upstreams"]["service"]["endpoints"].as_array().expect("a list").clone()
}

#[test]
fn instances_that_are_up_are_used_from_the_start_and_followed() {
    let (one, two, three) = (Upstream::start(), Upstream::start(), Upstream::start());
    let eureka = Eureka::of(&[&one, &two]);
    let gateway = plan(&eureka).start();
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!([one.count(), two.count()], [2, 2]);
    let shown = source(&gateway);
    assert_eq!((&shown["source"], &shown["endpoints"]), (&json!("eureka ORDERS"), &json!(2)));
    eureka.put("orders-2", with_status(instance(&three), "STARTING"));
    eureka.wait_for_questions();
    wait_for_endpoints(&gateway, &[&one, &two]);
    eureka.put("orders-2", instance(&three));
    wait_for_endpoints(&gateway, &[&one, &two, &three]);
    for status in ["OUT_OF_SERVICE", "DOWN", "UNKNOWN"] {
        eureka.put("orders-0", with_status(instance(&one), status));
        wait_for_endpoints(&gateway, &[&two, &three]);
        eureka.put("orders-0", instance(&one));
        wait_for_endpoints(&gateway, &[&one, &two, &three]);
    }
    // Deregistered, both. The last one is not in a list then.
    eureka.remove("orders-0");
    eureka.remove("orders-1");
    wait_for_endpoints(&gateway, &[&three]);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!([one.count(), two.count(), three.count()], [2, 2, 1]);
    assert!(!gateway.log().contains("keeping the endpoints known so far"), "{}", gateway.log());
}

#[test]
fn it_is_asked_as_often_as_is_written() {
    let one = Upstream::start();
    let eureka = Eureka::of(&[&one]);
    let started = watched();
    let gateway = plan(&eureka).start();
    eventually("some questions", || (eureka.asked().len() >= 4).then_some(()));
    let took = started.elapsed().as_secs_f64();
    // Each up to a tenth early.
    assert!(took >= 2.6, "{took}");
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn an_application_that_is_not_known_is_believed_after_a_time() {
    let one = Upstream::start();
    let eureka = Eureka::of(&[&one]);
    let gateway = plan(&eureka).start();
    eureka.remove("orders-0");
    gateway
        .wait_for_log("Eureka does not know this application; keeping the endpoints known so far");
    assert_eq!(gateway.get("/").status, 200);
    gateway.wait_for_log("has had no endpoint for 2s");
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"));
    eureka.put("orders-0", instance(&one));
    wait_for_endpoints(&gateway, &[&one]);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_server_that_is_away_changes_nothing_and_is_left_alone() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let eureka = Eureka::of(&[&one]);
    let gateway = plan(&eureka).start();
    let (before, started) = (eureka.connections(), watched());
    eureka.mood(Mood::Away);
    wait_for_error(&gateway, "Eureka cannot be asked: ");
    outlast(&gateway);
    let tries = eureka.connections() - before;
    // After pauses of at least 0.5, 1, 2, 4 … s.
    let most = 3 + started.elapsed().as_secs_f64().log2() as usize;
    assert!((1..=most).contains(&tries), "{tries} in {:?}", started.elapsed());
    assert!(gateway.reload(&ORDERS.replace("every: 1s", "every: 2s")));
    assert_eq!((gateway.get("/").status, &source(&gateway)["endpoints"]), (200, &json!(1)));
    eureka.put("orders-1", instance(&two));
    eureka.mood(Mood::Well);
    wait_for_endpoints(&gateway, &[&one, &two]);
    wait_for_recovery(&gateway);
    assert!(gateway.reload(&ORDERS.replace("service: orders", "service: others")));
    let refused = gateway.get("/");
    assert_eq!((refused.status, refused.code().as_str()), (503, "no_endpoint"), "another one");
}

#[test]
fn the_second_server_is_asked_when_the_first_is_away_or_knows_of_nothing() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let (first, second) = (Eureka::of(&[&one]), Eureka::of(&[&one, &two]));
    let gateway = plan(&first)
        .replacing("\"${EUREKA}\"", "[\"${EUREKA}\", \"${SECOND}\"]")
        .env("SECOND", &second.url())
        .start();
    wait_for_endpoints(&gateway, &[&one]);
    first.wait_for_questions();
    assert_eq!(second.asked().len(), 0, "the first one answers");
    first.mood(Mood::Away);
    wait_for_endpoints(&gateway, &[&one, &two]);
    first.mood(Mood::Well);
    let count = first.asked().len();
    second.wait_for_questions();
    assert_eq!(first.asked().len(), count, "the second one answers");
    // It was started anew, and no instance has found it yet.
    second.mood(Mood::Empty);
    wait_for_endpoints(&gateway, &[&one]);
    assert!(!gateway.log().contains("keeping the endpoints known so far"), "{}", gateway.log());
    first.mood(Mood::Refuses(503, ""));
    second.mood(Mood::Refuses(403, ""));
    wait_for_error(
        &gateway,
        &format!("{}: Eureka answers 503; {}: Eureka answers 403", first.url(), second.url()),
    );
    // The one that is away may know instances.
    let before = second.asked().len();
    second.mood(Mood::Empty);
    eventually("its 404 is checked twice", || {
        let all = second.asked().into_iter().skip(before);
        (all.filter(|asked| asked.path == "/eureka/apps").count() >= 2).then_some(())
    });
    wait_for_error(&gateway, &format!("{}: Eureka answers 503", first.url()));
    assert!(!gateway.log().contains("giving up"), "{}", gateway.log());
    first.mood(Mood::Well);
    wait_for_recovery(&gateway);
    first.mood(Mood::Empty);
    gateway.wait_for_log("has had no endpoint for 2s");
}

#[test]
fn a_404_is_believed_only_of_a_server_that_answers_as_eureka_does() {
    let one = Upstream::start();
    let eureka = Eureka::of(&[&one]);
    let gateway = plan(&eureka).start();
    // A proxy before it, or another path.
    eureka.mood(Mood::Refuses(404, "<html>"));
    wait_for_error(&gateway, "Eureka answers 404, also when asked for all applications");
    outlast(&gateway);
    assert!(eureka.asked().iter().any(|asked| asked.path == "/eureka/apps"));
    eureka.mood(Mood::Well);
    wait_for_recovery(&gateway);
    let asked = eureka.asked().len();
    eureka.wait_for_questions();
    let after = &eureka.asked()[asked..];
    assert!(after.iter().all(|asked| asked.path != "/eureka/apps"), "while it knows instances");
}

#[test]
fn a_user_and_a_password_may_be_part_of_the_address() {
    let one = Upstream::start();
    let eureka = Eureka::of(&[&one]);
    // `portcullis:geheim:7f3a`
    eureka.expect("Basic cG9ydGN1bGxpczpnZWhlaW06N2YzYQ==");
    let url = format!("http://portcullis:${{PASSWORD}}@{}/eureka", eureka.authority());
    let plan = Plan::new(&ORDERS.replace("${EUREKA}", &url)).env("PASSWORD", "geheim%3A7f3a");
    let gateway = plan.start();
    assert_eq!(gateway.get("/").status, 200);
    eureka.expect("Basic b3RoZXI=");
    wait_for_error(&gateway, "Eureka answers 401: {\"status\":401");
    let shown = gateway.log() + &gateway.status().to_string();
    assert!(!shown.contains("7f3a") && !shown.contains("cG9ydG"), "{shown}");
}

#[test]
fn what_eureka_says_wrong_changes_nothing() {
    let one = Upstream::start();
    let eureka = Eureka::of(&[&one]);
    let gateway = plan(&eureka).start();
    for (mood, says) in [
        (Mood::Says("<application/>"), "the answer cannot be read"),
        (Mood::Says("{\"application\": {\"instance\": 7}}"), "expected an instance with `status`"),
        (Mood::Refuses(500, "<html>"), "Eureka answers 500"),
        (Mood::Refuses(302, ""), "Eureka answers 302; redirects are not followed"),
        (Mood::Babbles, "Eureka's answer is larger than 67108864 bytes"),
    ] {
        eureka.mood(mood);
        wait_for_error(&gateway, says);
        eureka.mood(Mood::Well);
        wait_for_recovery(&gateway);
    }
    wait_for_endpoints(&gateway, &[&one]);
    assert!(!gateway.log().contains("giving up"), "{}", gateway.log());
    assert!(eureka.asked().iter().all(|asked| asked.path != "/elsewhere"));
}

#[test]
fn an_instance_may_be_reached_by_its_name() {
    let one = Upstream::start();
    let eureka = Eureka::of(&[&one]);
    let plan = plan_with(&eureka, "prefer: host");
    let gateway =
        plan.replacing("empty_after: 2s", "empty_after: 2s\n    ip_family: prefer_ipv4").start();
    wait_for_endpoints(&gateway, &[&one]);
    assert_eq!(gateway.get("/").status, 200);
    let host = format!("localhost:{}", one.address().port());
    assert_eq!(one.only().header("host"), Some(host.as_str()));
}

#[test]
fn the_secure_port_is_spoken_to_over_tls_where_the_plain_one_is_not_enabled() {
    let (authority, plain) = (Authority::new(), Upstream::start());
    let leaf = authority.sign("127.0.0.1");
    let secure = Documents::serve(Some(&leaf), |_| Reply::of(200, "over TLS"));
    let eureka = Eureka::start();
    let mut both = instance(&plain);
    both["securePort"] = json!({"$": secure.port(), "@enabled": "true"});
    eureka.put("orders-0", both.clone());
    let gateway = plan(&eureka)
        .replacing("empty_after: 2s", "empty_after: 2s\n    tls: {ca: ca.pem}")
        .beside("ca.pem", &authority.pem())
        .start();
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(plain.count(), 1);
    both["port"]["@enabled"] = json!("false");
    eureka.put("orders-0", both);
    eventually("an answer over TLS", || (gateway.get("/").text() == "over TLS").then_some(()));
}

#[test]
fn a_weight_is_taken_from_metadata_and_an_instance_without_a_port_is_left_out() {
    let (one, two) = (Upstream::start(), Upstream::start());
    let eureka = Eureka::of(&[&one, &two]);
    let mut heavy = instance(&one);
    heavy["metadata"] = json!({"weight": "3"});
    eureka.put("orders-0", heavy);
    let mut without = instance(&two);
    without["port"]["@enabled"] = json!("false");
    eureka.put("orders-1", without);
    let gateway = plan(&eureka).start();
    wait_for_endpoints(&gateway, &[&one]);
    assert_eq!(endpoints(&gateway)[0]["weight"], 3);
    let told = "eureka ORDERS: the instance `orders-1`: neither of its ports is enabled; not used";
    gateway.wait_for_log(told);
    eureka.wait_for_questions();
    assert_eq!(gateway.log().matches(told).count(), 1, "{}", gateway.log());
}

#[test]
fn a_server_behind_tls_is_believed_if_the_authority_signed_it() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let one = Upstream::start();
    let eureka = Eureka::start_tls(&authority.sign("127.0.0.1"));
    eureka.put("orders-0", instance(&one));
    let plan = plan_with(&eureka, "ca: ca.pem").beside("ca.pem", &stranger.pem());
    let gateway = plan.start();
    eventually("the stranger is told", || {
        source(&gateway)["error"].as_str().filter(|error| error.contains("certificate")).map(drop)
    });
    assert_eq!(eureka.asked().len(), 0, "it was not even asked");
    std::fs::write(gateway.directory().join("ca.pem"), authority.pem()).expect("written");
    wait_for_endpoints(&gateway, &[&one]);
    assert_eq!(gateway.get("/").status, 200);
}
