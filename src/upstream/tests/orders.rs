//! What follows from an operator's orders, for the endpoints and for what else takes them out.

use super::super::discovery::known::Said;
use super::super::ordering::Refused;
use super::super::orders::{Order, Wanted};
use super::*;
use crate::policy::outcome::Outcome;
use crate::policy::terms::Terms;

fn order(wanted: Wanted, seconds: Option<u64>) -> Order {
    let terms = Terms { since: at(0), until: seconds.map(at), author: None, reason: None };
    Order { wanted, terms }
}

fn give(upstream: &Upstream, port: u16, wanted: Wanted) -> Result<(), Refused> {
    upstream.order(&format!("127.0.0.1:{port}"), &order(wanted, None), at(1))
}

fn two() -> Upstream {
    in_turns(&["http://127.0.0.1:1", "http://127.0.0.1:2"])
}

#[test]
fn neither_an_operator_nor_a_registry_puts_back_what_the_other_has_taken_out() {
    let upstream = two();
    stand(&upstream, 0, Absence::Drained, true);
    give(&upstream, 1, Wanted::Drain).expect("carried out");
    stand(&upstream, 0, Absence::Drained, false);
    assert_eq!(ports_used(&upstream), [2]);
    stand(&upstream, 0, Absence::Drained, true);
    upstream.restore("127.0.0.1:1", at(2)).expect("known");
    assert_eq!(ports_used(&upstream), [2]);
    stand(&upstream, 0, Absence::Drained, false);
    assert_eq!(ports_used(&upstream), [1, 2]);
}

#[test]
fn a_check_that_passes_ends_no_order() {
    let upstream = two();
    give(&upstream, 1, Wanted::Eject).expect("carried out");
    stand(&upstream, 0, Absence::Unhealthy, true);
    stand(&upstream, 0, Absence::Unhealthy, false);
    assert_eq!(ports_used(&upstream), [2]);
}

#[test]
fn readmitting_does_not_overrule_a_check() {
    let upstream = two();
    stand(&upstream, 0, Absence::Unhealthy, true);
    give(&upstream, 1, Wanted::Eject).expect("carried out");
    upstream.readmit("127.0.0.1:1", at(2)).expect("known");
    assert_eq!(ports_used(&upstream), [2]);
}

#[test]
fn the_last_available_endpoint_is_not_ejected_whatever_took_the_others_out() {
    for reason in [Absence::Unhealthy, Absence::Ejected, Absence::Drained] {
        let upstream = two();
        stand(&upstream, 1, reason, true);
        assert_eq!(give(&upstream, 1, Wanted::Eject), Err(Refused::LastOne), "{reason:?}");
        assert_eq!(give(&upstream, 2, Wanted::Eject), Ok(()), "the other one may be: {reason:?}");
        assert_eq!(ports_used(&upstream), [1], "{reason:?}");
    }
    let one = in_turns(&["http://127.0.0.1:1"]);
    assert_eq!(give(&one, 1, Wanted::Eject), Err(Refused::LastOne));
    assert_eq!(give(&one, 3, Wanted::Drain), Err(Refused::UnknownAddress));
}

#[test]
fn an_endpoint_ejected_by_order_is_not_probed_though_its_own_ejection_is_over() {
    let upstream = upstream(
        "{endpoints: ['http://127.0.0.1:1', 'http://127.0.0.1:2'], balance: round_robin, \
         ejection: {consecutive_failures: 1, eject_for: 10s}}",
    );
    let mut first = taken(&upstream, &[], at(1));
    upstream.ended(&mut first, Outcome::Response(503), None, at(1));
    let out = port(first.endpoint());
    give(&upstream, out, Wanted::Eject).expect("carried out");
    for _ in 0..20 {
        let ticket = taken(&upstream, &[], at(1000));
        assert!(port(ticket.endpoint()) != out && !ticket.is_probe());
    }
    upstream.restore(&format!("127.0.0.1:{out}"), at(1000)).expect("known");
    assert!((0..20).any(|_| taken(&upstream, &[], at(1001)).is_probe()));
}

/// The bound on endpoints that are ejected at a time holds for all of them together.
#[test]
fn an_endpoint_ejected_by_order_counts_among_those_that_are_ejected() {
    let names: Vec<_> = (1..=4).map(|port| format!("http://127.0.0.1:{port}")).collect();
    let four = upstream(&format!("{{endpoints: {names:?}, ejection: {{max_ejected: 25%}}}}"));
    assert!(four.set().may_eject_any());
    give(&four, 1, Wanted::Eject).expect("carried out");
    assert_eq!(four.set().counts.ejected, 1);
    assert!(!four.set().may_eject_any());
}

#[test]
fn an_order_given_during_a_reload_holds_after_it_and_a_weight_outlives_a_new_configuration() {
    let old = Arc::new(two());
    give(&old, 1, Wanted::Weight(3)).expect("carried out");
    let yaml = "{endpoints: [{url: 'http://127.0.0.1:1', weight: 2}, 'http://127.0.0.1:2', \
                'http://127.0.0.1:3'], balance: round_robin}";
    let new = Upstream::reconfigured(&old, &serde_yaml::from_str(yaml).expect("valid"), at(1));
    // The new one is not in force yet.
    give(&old, 2, Wanted::Drain).expect("carried out");
    let ports: Vec<_> = (0..40).map(|_| port(&picked(&new, &[]))).collect();
    let count = |wanted| ports.iter().filter(|port| **port == wanted).count();
    assert_eq!((count(1), count(2), count(3)), (30, 0, 10));
    new.restore("127.0.0.1:1", at(2)).expect("known");
    let set = new.set();
    assert_eq!(set.members()[0].weight_in_force(), 2, "as it is configured now");
}

#[test]
fn an_order_ends_at_its_time_and_not_before() {
    let upstream = two();
    upstream.order("127.0.0.1:1", &order(Wanted::Drain, Some(10)), at(1)).expect("carried out");
    upstream.order("127.0.0.1:2", &order(Wanted::Weight(3), Some(20)), at(1)).expect("carried out");
    let (ended, next) = upstream.end_orders(at(9));
    assert!(ended.is_empty() && next == Some(at(10)), "{ended:?}, {next:?}");
    assert_eq!(ports_used(&upstream), [2]);
    let (ended, next) = upstream.end_orders(at(10));
    assert_eq!((ended.len(), next), (1, Some(at(20))));
    assert_eq!((&*ended[0].endpoint, ended[0].orders[0].wanted), ("127.0.0.1:1", Wanted::Drain));
    assert_eq!(ports_used(&upstream), [1, 2]);
    assert_eq!(upstream.end_orders(at(20)).1, None);
    assert_eq!(upstream.set().members()[1].weight_in_force(), 1);
}

#[test]
fn an_endpoint_that_comes_back_from_a_drain_starts_slowly() {
    let upstream = upstream(
        "{endpoints: ['http://127.0.0.1:1', 'http://127.0.0.1:2'], balance: round_robin, slow_start: 10s}",
    );
    let warming = || upstream.set().members()[0].endpoint.warming_since();
    give(&upstream, 1, Wanted::Drain).expect("carried out");
    assert_eq!(warming(), None);
    upstream.readmit("127.0.0.1:1", at(7)).expect("known");
    assert_eq!(warming(), Some(at(7)));
}

fn pair_at(v6: &str, v4: &str) -> Vec<std::net::SocketAddr> {
    [format!("[{v6}]:1"), format!("{v4}:1")].map(|at| at.parse().expect("an address")).to_vec()
}

/// What a name's answer says, which changes while an operator wants something of an endpoint.
#[test]
fn an_order_about_a_pair_goes_on_at_the_address_that_stays() {
    let named = upstream("{endpoints: ['http://a.test:1'], ip_family: both}");
    let url = named.config().endpoints[0].url.clone();
    let mut clock = 0;
    let mut answer = |addresses: Vec<std::net::SocketAddr>| {
        clock += 1;
        named.resolved(vec![(url.clone(), Said::These(addresses))], at(clock));
        let set = named.set();
        let shown = set.members().iter().map(|member| {
            let endpoint = &member.endpoint;
            (endpoint.label.to_string(), endpoint.standing.is_drained())
        });
        shown.collect::<Vec<_>>()
    };
    let stated = |label: &str, is_drained| (label.to_owned(), is_drained);
    assert_eq!(answer(pair_at("::5", "127.0.0.5")), [stated("[::5]:1,127.0.0.5:1", false)]);
    named.order("[::5]:1,127.0.0.5:1", &order(Wanted::Drain, None), at(1)).expect("drained");
    // Others come that would be sorted before it: the pair stays as it is.
    let both = [pair_at("::1", "127.0.0.1"), pair_at("::5", "127.0.0.5")].concat();
    assert_eq!(
        answer(both),
        [stated("[::1]:1,127.0.0.1:1", false), stated("[::5]:1,127.0.0.5:1", true)]
    );
    // One of its addresses is another one, then there is only one, then one more.
    assert_eq!(answer(pair_at("::5", "127.0.0.7")), [stated("[::5]:1,127.0.0.7:1", true)]);
    assert_eq!(answer(pair_at("::5", "127.0.0.7")[..1].to_vec()), [stated("[::5]:1", true)]);
    assert_eq!(answer(pair_at("::5", "127.0.0.8")), [stated("[::5]:1,127.0.0.8:1", true)]);
    let orders = named.set().members()[0].endpoint.orders.in_force();
    assert_eq!(orders.len(), 1, "{orders:?}");
    // Nothing of it is left.
    assert_eq!(answer(pair_at("::6", "127.0.0.6")), [stated("[::6]:1,127.0.0.6:1", false)]);
}

#[test]
fn an_ejected_pair_stays_ejected_at_the_address_that_stays() {
    let named = upstream("{endpoints: ['http://a.test:1'], ip_family: both, balance: round_robin}");
    let url = named.config().endpoints[0].url.clone();
    let answer = |addresses: Vec<std::net::SocketAddr>, now| {
        named.resolved(vec![(url.clone(), Said::These(addresses))], now);
    };
    answer([pair_at("::5", "127.0.0.5"), pair_at("::6", "127.0.0.6")].concat(), at(1));
    let is_bad = |endpoint: &Endpoint| endpoint.label.starts_with("[::5]");
    for _ in 0..20 {
        let mut ticket = taken(&named, &[], at(2));
        let outcome = Outcome::Response(if is_bad(ticket.endpoint()) { 503 } else { 200 });
        named.ended(&mut ticket, outcome, Some(Duration::from_millis(1)), at(2));
    }
    let state = || {
        let set = named.set();
        let bad = set.members().iter().find(|member| is_bad(&member.endpoint)).expect("there");
        let endpoint = &bad.endpoint;
        (endpoint.standing.is_available(), endpoint.ejection.shown(), endpoint.load.latency(at(2)))
    };
    let (is_available, shown, latency) = state();
    assert!(!is_available && latency.is_some(), "{shown:?}");
    answer([pair_at("::5", "127.0.0.4"), pair_at("::6", "127.0.0.6")].concat(), at(3));
    assert_eq!(state(), (false, shown, latency));
    // It is probed when its time has come.
    let until = shown.until.expect("ejected");
    let mut probe = taken(&named, &[], until);
    assert!(probe.is_probe() && is_bad(probe.endpoint()));
    named.ended(&mut probe, Outcome::Response(200), Some(Duration::from_millis(1)), until);
    assert!(state().0, "used again");
}
