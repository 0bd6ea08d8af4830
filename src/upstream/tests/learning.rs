//! What answers of sources and of resolvers make of the endpoints, together.

use std::net::SocketAddr;

use super::super::config::{Listed, Url};
use super::super::discovery::known::Said;
use super::super::orders::{Order, Wanted};
use super::*;
use crate::policy::terms::Terms;

const FILE: &str = "{discover: {file: {path: a}}}";

fn url(text: &str) -> Url {
    text.parse().expect("a URL")
}

fn says(upstream: &Upstream, urls: &[Url], now: u64) {
    let entry = |url: &Url| Listed { url: url.clone(), weight: 1, backup: false };
    upstream.discovered(Said::These(urls.iter().map(entry).collect()), at(now));
}

fn addresses(all: &[&str]) -> Said<Vec<SocketAddr>> {
    Said::These(all.iter().map(|one| one.parse().expect("an address")).collect())
}

fn failed() -> Said<Vec<SocketAddr>> {
    Said::Failed("no answer".to_owned())
}

fn known(upstream: &Upstream) -> Vec<String> {
    let set = upstream.set();
    let mut all: Vec<_> =
        set.members().iter().map(|member| member.endpoint.label.to_string()).collect();
    all.sort();
    all
}

#[test]
fn a_name_that_cannot_be_resolved_does_not_keep_what_the_source_has_removed() {
    let form = url("http://orders.internal/api");
    let at_place = |text: &str| Url { place: url(text).place, ..form.clone() };
    // Where all have the same authority, too.
    for (yaml, made) in [
        (FILE, &url as &dyn Fn(&str) -> Url),
        (
            "{discover: {consul: {service: a}, as: 'http://orders.internal/api'}}",
            &at_place as &dyn Fn(&str) -> Url,
        ),
    ] {
        let [good, bad, gone] =
            ["http://good.test:1", "http://bad.test:1", "http://10.0.0.9:1"].map(made);
        let upstream = upstream(yaml);
        says(&upstream, &[good.clone(), gone.clone()], 1);
        upstream.resolved(vec![(good.clone(), addresses(&["10.0.0.1:1"]))], at(2));
        says(&upstream, &[good.clone(), bad.clone(), gone], 3);
        let answers = vec![(good.clone(), addresses(&["10.0.0.1:1"])), (bad.clone(), failed())];
        upstream.resolved(answers, at(4));
        assert_eq!(known(&upstream), ["10.0.0.1:1", "10.0.0.9:1"], "{yaml}");
        says(&upstream, &[good.clone(), bad.clone()], 5);
        assert_eq!(known(&upstream), ["10.0.0.1:1"], "{yaml}");
        upstream.resolved(vec![(bad.clone(), failed())], at(6));
        assert_eq!(known(&upstream), ["10.0.0.1:1"], "{yaml}");
    }
}

#[test]
fn what_a_source_named_before_stays_while_nothing_that_it_names_has_an_address() {
    let upstream = upstream(FILE);
    let (old, new) = (url("http://10.0.0.1:1"), url("http://new.test:1"));
    says(&upstream, &[old], 1);
    says(&upstream, std::slice::from_ref(&new), 2);
    assert_eq!(known(&upstream), ["10.0.0.1:1"], "it was not looked up yet");
    upstream.resolved(vec![(new.clone(), failed())], at(3));
    assert_eq!(known(&upstream), ["10.0.0.1:1"], "the resolver is away");
    upstream.resolved(vec![(new, addresses(&["10.0.0.2:1"]))], at(4));
    assert_eq!(known(&upstream), ["10.0.0.2:1"]);
}

#[test]
fn a_reload_keeps_the_addresses_of_names_though_the_resolver_fails_from_then_on() {
    let old = Arc::new(upstream(FILE));
    let name = url("http://a.test:1");
    says(&old, std::slice::from_ref(&name), 1);
    old.resolved(vec![(name.clone(), addresses(&["10.0.0.1:1"]))], at(2));
    let config = serde_yaml::from_str("{discover: {file: {path: a}}, balance: random}");
    let new = Upstream::reconfigured(&old, &config.expect("valid"), at(3));
    new.resolved(vec![(name, failed())], at(4));
    assert_eq!(known(&new), ["10.0.0.1:1"]);
}

fn order(wanted: Wanted) -> Order {
    Order { wanted, terms: Terms { since: at(0), until: None, author: None, reason: None } }
}

fn drained(upstream: &Upstream) -> Vec<(String, bool)> {
    let set = upstream.set();
    let endpoints = set.members().iter().map(|member| &member.endpoint);
    endpoints.map(|one| (one.label.to_string(), one.standing.is_drained())).collect()
}

#[test]
fn a_drained_pair_stays_drained_at_the_address_that_stays_while_another_name_is_waited_for() {
    let upstream = upstream(FILE);
    let (name, other) = (url("http://a.test:1"), url("http://b.test:1"));
    says(&upstream, std::slice::from_ref(&name), 1);
    upstream.resolved(vec![(name.clone(), addresses(&["[::5]:1", "127.0.0.5:1"]))], at(2));
    upstream.order("[::5]:1,127.0.0.5:1", &order(Wanted::Drain), at(3)).expect("drained");
    says(&upstream, &[name.clone(), other], 4);
    upstream.resolved(vec![(name, addresses(&["127.0.0.5:1"]))], at(5));
    assert_eq!(drained(&upstream), [("127.0.0.5:1".to_owned(), true)]);
}

#[test]
fn of_two_endpoints_that_become_a_pair_a_drain_holds_on_whatever_is_ordered_of_the_other() {
    for (first, second) in [(Wanted::Weight(3), Wanted::Drain), (Wanted::Drain, Wanted::Weight(3))]
    {
        let upstream = upstream("{endpoints: ['http://a.test:1']}");
        let name = upstream.config().endpoints[0].url.clone();
        let four = addresses(&["[::5]:1", "[::6]:1", "127.0.0.3:1", "127.0.0.5:1"]);
        upstream.resolved(vec![(name.clone(), four)], at(1));
        upstream.order("[::5]:1,127.0.0.3:1", &order(first), at(2)).expect("known");
        upstream.order("[::6]:1,127.0.0.5:1", &order(second), at(2)).expect("known");
        upstream.resolved(vec![(name, addresses(&["[::5]:1", "127.0.0.5:1"]))], at(3));
        assert_eq!(drained(&upstream), [("[::5]:1,127.0.0.5:1".to_owned(), true)], "{first}");
    }
}

#[test]
fn an_address_at_which_no_instance_may_be_is_not_used_of_a_name_either() {
    let upstream = upstream("{discover: {consul: {service: a}}}");
    let name = url("http://a.test:1");
    says(&upstream, std::slice::from_ref(&name), 1);
    let some = addresses(&["127.0.0.1:1", "169.254.169.254:1", "10.0.0.1:1"]);
    upstream.resolved(vec![(name.clone(), some)], at(2));
    assert_eq!(known(&upstream), ["10.0.0.1:1"]);
    upstream.resolved(vec![(name, addresses(&["127.0.0.1:1"]))], at(3));
    assert_eq!(known(&upstream), ["10.0.0.1:1"], "as if the resolver had failed");
    let error = upstream.lookups().error().expect("one");
    assert!(error.contains("a.test: 127.0.0.1 is a loopback"), "{error}");
}

#[test]
fn the_gateway_itself_is_left_out_of_every_source() {
    let mut config: Config = serde_yaml::from_str(FILE).expect("valid");
    let own = discovery::config::Own {
        whose: "admin".to_owned(),
        address: "127.0.0.1:9901".parse().expect("an address"),
    };
    config.discover.as_mut().expect("a source").own = vec![own];
    let upstream = Upstream::new("u", config, at(0));
    let (own, other) = (url("http://127.0.0.1:9901"), url("http://127.0.0.1:9902"));
    says(&upstream, &[own.clone(), other], 1);
    assert_eq!(known(&upstream), ["127.0.0.1:9902"]);
    says(&upstream, &[own], 2);
    assert_eq!(known(&upstream), ["127.0.0.1:9902"], "a mistake changes nothing");
    let Some(error) = upstream.lookups().source_error() else { panic!("one") };
    assert!(error.contains("is this gateway itself"), "{error}");
}

#[test]
fn a_reload_that_narrows_where_instances_may_be_takes_the_others_out_at_once() {
    let wide = "{discover: {consul: {service: a, allow: [10.0.0.0/8]}}}";
    let old = Arc::new(upstream(wide));
    says(&old, &[url("http://10.0.0.1:1"), url("http://10.1.0.1:1")], 1);
    let narrow = serde_yaml::from_str(&wide.replace("/8", "/16")).expect("valid");
    assert_eq!(known(&Upstream::reconfigured(&old, &narrow, at(2))), ["10.0.0.1:1"]);
}
