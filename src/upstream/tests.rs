mod ejection;
mod fleet;
mod learning;
mod orders;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::*;

pub(super) fn upstream(yaml: &str) -> Upstream {
    Upstream::new("u", serde_yaml::from_str(yaml).expect("valid"), Moment::ZERO)
}

fn in_turns(endpoints: &[&str]) -> Upstream {
    upstream(&format!("{{endpoints: {endpoints:?}, balance: round_robin}}"))
}

pub(super) fn at(seconds: u64) -> Moment {
    Moment::ZERO + Duration::from_secs(seconds)
}

/// Takes an endpoint for a request that has `tried` others.
fn taken(upstream: &Upstream, tried: &[Arc<Endpoint>], now: Moment) -> Ticket {
    upstream.pick(&ask(tried, None, now)).expect("an endpoint")
}

pub(super) fn ask(tried: &[Arc<Endpoint>], key: Option<u64>, now: Moment) -> Ask<'_> {
    Ask { tried, key, random: fastrand::u64(..), in_flight: 0, now }
}

fn picked(upstream: &Upstream, tried: &[Arc<Endpoint>]) -> Arc<Endpoint> {
    taken(upstream, tried, Moment::ZERO).endpoint().clone()
}

pub(super) fn port(endpoint: &Endpoint) -> u16 {
    match &endpoint.key.address {
        Address::Tcp(address) => address.port(),
        Address::Pair(_) | Address::Unix(_) => 0,
    }
}

#[test]
fn endpoints_take_turns() {
    let upstream = in_turns(&["http://127.0.0.1:1", "http://127.0.0.1:2"]);
    let ports: Vec<_> = (0..4).map(|_| port(&picked(&upstream, &[]))).collect();
    assert_eq!(ports, [1, 2, 1, 2]);
}

#[test]
fn a_retry_gets_another_endpoint_if_there_is_one() {
    for balance in ["round_robin", "least_request", "random", "peak_ewma"] {
        let two = upstream(&format!(
            "{{endpoints: ['http://127.0.0.1:1', 'http://127.0.0.1:2'], balance: {balance}}}"
        ));
        let first = picked(&two, &[]);
        for _ in 0..40 {
            assert_ne!(port(&picked(&two, std::slice::from_ref(&first))), port(&first));
        }
    }
    let one = upstream("{endpoints: ['http://127.0.0.1:1']}");
    let only = picked(&one, &[]);
    assert!(Arc::ptr_eq(&picked(&one, std::slice::from_ref(&only)), &only));
}

#[test]
fn endpoints_that_were_tried_are_avoided_while_others_are_left() {
    let names: Vec<_> = (1..=4).map(|port| format!("http://127.0.0.1:{port}")).collect();
    let four = in_turns(&names.iter().map(String::as_str).collect::<Vec<_>>());
    // Other requests advance the turn meanwhile.
    for others in 0..8 {
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        for _ in 0..8 {
            (0..others).for_each(|_| drop(picked(&four, &[])));
            let endpoint = picked(&four, &tried);
            assert!(tried.last().is_none_or(|last| !Arc::ptr_eq(last, &endpoint)));
            tried.push(endpoint);
        }
        for round in tried.chunks(4) {
            let mut round: Vec<_> = round.iter().map(|endpoint| port(endpoint)).collect();
            round.sort_unstable();
            round.dedup();
            assert_eq!(round.len(), 4);
        }
    }
}

#[test]
fn a_name_has_no_endpoint_before_it_is_resolved() {
    let unresolved = upstream("{endpoints: ['http://name.invalid:1']}");
    assert_eq!(unresolved.pick(&ask(&[], None, at(0))).expect_err("none"), Unavailable::Empty);
}

#[test]
fn an_attempt_is_in_flight_until_it_ends_or_is_dropped() {
    let upstream = upstream("{endpoints: ['http://127.0.0.1:1']}");
    let (mut one, other) = (taken(&upstream, &[], at(0)), taken(&upstream, &[], at(0)));
    let endpoint = one.endpoint().clone();
    assert_eq!(endpoint.in_flight(), 2);
    assert!(one.ended(Ended { failed: false, latency: None }, at(1)).is_some());
    assert!(one.ended(Ended { failed: false, latency: None }, at(1)).is_none());
    assert_eq!(endpoint.in_flight(), 1);
    drop((one, other));
    assert_eq!((endpoint.in_flight(), endpoint.attempts()), (0, 2));
}

#[test]
fn the_endpoint_with_fewer_requests_in_flight_gets_the_next_one() {
    let two = upstream("{endpoints: ['http://127.0.0.1:1', 'http://127.0.0.1:2']}");
    let held: Vec<_> = (0..100).map(|_| taken(&two, &[], at(0))).collect();
    let of_first = held.iter().filter(|ticket| port(ticket.endpoint()) == 1).count();
    assert!((49..=51).contains(&of_first), "{of_first}");
}

#[test]
fn a_backup_is_used_only_while_no_other_is_left() {
    let yaml = "{endpoints: ['http://127.0.0.1:1', {url: 'http://127.0.0.1:2', backup: true}]}";
    let upstream = upstream(yaml);
    (0..20).for_each(|_| assert_eq!(port(&picked(&upstream, &[])), 1));
    let first = picked(&upstream, &[]);
    assert_eq!(port(&picked(&upstream, &[first])), 2);
}

#[test]
fn no_endpoint_has_more_connections_than_it_may() {
    let urls = "endpoints: ['http://127.0.0.1:1', 'http://127.0.0.1:2'], max_connections: 3";
    let upstream = upstream(&format!("{{{urls}}}"));
    let mut held: Vec<_> = (0..6).map(|_| taken(&upstream, &[], at(0))).collect();
    assert_eq!(upstream.pick(&ask(&[], None, at(0))).expect_err("full"), Unavailable::Full);
    let freed = port(held.pop().expect("one").endpoint());
    assert_eq!(port(taken(&upstream, &[], at(0)).endpoint()), freed);
}

fn share_of_second(upstream: &Upstream, now: Moment) -> f64 {
    let picks = (0..20_000).filter(|_| port(taken(upstream, &[], now).endpoint()) == 2).count();
    picks as f64 / 20_000.0
}

#[test]
fn weights_decide_while_little_is_going_on() {
    for balance in ["round_robin", "least_request", "random", "peak_ewma"] {
        let urls = "['http://127.0.0.1:1', {url: 'http://127.0.0.1:2', weight: 3}]";
        let upstream = upstream(&format!("{{endpoints: {urls}, balance: {balance}}}"));
        let share = share_of_second(&upstream, at(0));
        assert!((share - 0.75).abs() < 0.02, "{balance}: {share}");
    }
}

#[test]
fn the_share_of_a_new_endpoint_grows() {
    for balance in ["round_robin", "least_request", "random", "peak_ewma"] {
        let first = format!("balance: {balance}, slow_start: 10s");
        let one = upstream(&format!("{{endpoints: ['http://127.0.0.1:1'], {first}}}"));
        let both = "['http://127.0.0.1:1', 'http://127.0.0.1:2']";
        let config = serde_yaml::from_str(&format!("{{endpoints: {both}, {first}}}")).expect("ok");
        let two = Upstream::reconfigured(&Arc::new(one), &config, at(100));
        // A share of s beside one of 1.
        for (after, share) in [(0, 0.1), (2, 0.2), (5, 0.5), (10, 1.0), (60, 1.0)] {
            let (seen, wanted) = (share_of_second(&two, at(100 + after)), share / (1.0 + share));
            assert!((seen - wanted).abs() < 0.03, "{balance} after {after}s: {seen} for {wanted}");
        }
    }
}

#[test]
fn endpoints_keep_their_state_over_changes_of_weight_and_of_other_endpoints() {
    let old = Arc::new(upstream("{endpoints: ['http://127.0.0.1:1', 'http://127.0.0.1:2']}"));
    let held = taken(&old, &[], at(0));
    let yaml = "{endpoints: [{url: 'http://127.0.0.1:1', weight: 5}, {url: 'http://127.0.0.1:2', \
                weight: 7}, 'http://127.0.0.1:3'], balance: random}";
    let new = Upstream::reconfigured(&old, &serde_yaml::from_str(yaml).expect("valid"), at(1));
    let set = new.set();
    let same = set.members().iter().find(|member| Arc::ptr_eq(&member.endpoint, held.endpoint()));
    assert_eq!(same.map(|member| member.endpoint.in_flight()), Some(1));
    assert_eq!(set.members().iter().map(|m| m.weight).collect::<Vec<_>>(), [5, 7, 1]);
}

#[test]
fn an_address_that_stands_twice_is_one_endpoint() {
    let upstream = upstream("{endpoints: ['http://127.0.0.1:1', 'http://127.0.0.1:1']}");
    assert_eq!(upstream.set().members().len(), 1);
}

fn hashed(count: u16, more: &str) -> Upstream {
    let urls: Vec<_> = (1..=count).map(|port| format!("http://127.0.0.1:{port}")).collect();
    let yaml = format!("{{endpoints: {urls:?}, balance: {{hash: {{key: client_address{more}}}}}}}");
    let from = serde_yaml::Deserializer::from_str(&yaml);
    let config = serde_yaml::with::singleton_map_recursive::deserialize(from).expect("valid");
    Upstream::new("u", config, Moment::ZERO)
}

#[test]
fn requests_of_one_key_go_to_one_endpoint_and_others_elsewhere() {
    let upstream = hashed(10, "");
    let of = |key: u64| port(upstream.pick(&ask(&[], Some(key), at(0))).expect("one").endpoint());
    let keys: Vec<u64> = (0..100).map(|key| balance::key::of_parameter(&key.to_string())).collect();
    let ports: HashSet<u16> = keys.iter().map(|key| of(*key)).collect();
    assert_eq!(ports.len(), 10);
    keys.iter().for_each(|key| (0..5).for_each(|_| assert_eq!(of(*key), of(*key))));
}

#[test]
fn a_key_with_more_than_its_share_goes_elsewhere_too() {
    for (bound, most) in [(", max_load: 1.25", 14), (", max_load: 0", 100)] {
        let upstream = hashed(10, bound);
        let held: Vec<_> =
            (0..100).map(|_| upstream.pick(&ask(&[], Some(7), at(0))).expect("one")).collect();
        let mut counts = HashMap::new();
        held.iter().for_each(|ticket| *counts.entry(port(ticket.endpoint())).or_insert(0) += 1);
        let fullest = counts.values().max().copied().unwrap_or_default();
        assert!(fullest <= most && (most < 100 || fullest == 100), "{bound}: {fullest}");
        drop(held);
        assert_eq!(upstream.in_flight.as_ref().map_or(0, |count| count.load(Ordering::Relaxed)), 0);
    }
}

#[test]
fn a_retry_of_a_key_goes_to_another_endpoint() {
    let upstream = hashed(3, "");
    let first = upstream.pick(&ask(&[], Some(7), at(0))).expect("one").endpoint().clone();
    let tried = [first.clone()];
    for _ in 0..20 {
        let second = upstream.pick(&ask(&tried, Some(7), at(0))).expect("another");
        assert_ne!(port(second.endpoint()), port(&first));
    }
}

#[test]
fn endpoints_that_come_and_go_are_told_by_address() {
    let set = |ports: &[u16]| {
        let urls: Vec<_> = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        in_turns(&urls.iter().map(String::as_str).collect::<Vec<_>>()).set()
    };
    let told = set(&[1, 2]).change(&set(&[2, 3]));
    let expected = "127.0.0.1:3 came; 127.0.0.1:1 left; endpoints now: 2";
    assert_eq!(told.as_deref(), Some(expected));
    assert_eq!(set(&[1]).change(&set(&[1])), None);
}

fn ports_used(upstream: &Upstream) -> Vec<u16> {
    let mut ports: Vec<_> = (0..200).map(|_| port(&picked(upstream, &[]))).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn stand(upstream: &Upstream, place: usize, reason: Absence, holds: bool) {
    let endpoint = upstream.set().members()[place].endpoint.clone();
    upstream.stand(&endpoint, reason, holds, Moment::ZERO);
}

#[test]
fn an_endpoint_is_used_again_once_no_reason_against_it_is_left() {
    let upstream = upstream("{endpoints: ['http://127.0.0.1:1', 'http://127.0.0.1:2']}");
    stand(&upstream, 0, Absence::Ejected, true);
    stand(&upstream, 0, Absence::Unhealthy, true);
    stand(&upstream, 0, Absence::Ejected, false);
    assert_eq!(ports_used(&upstream), [2]);
    stand(&upstream, 0, Absence::Unhealthy, false);
    assert_eq!(ports_used(&upstream), [1, 2]);
}

#[test]
fn with_none_available_all_are_used_that_are_not_drained() {
    let names: Vec<_> = (1..=3).map(|port| format!("http://127.0.0.1:{port}")).collect();
    let three = upstream(&format!("{{endpoints: {names:?}}}"));
    stand(&three, 0, Absence::Drained, true);
    (1..3).for_each(|place| stand(&three, place, Absence::Unhealthy, true));
    assert_eq!(ports_used(&three), [2, 3]);
    stand(&three, 2, Absence::Unhealthy, false);
    assert_eq!(ports_used(&three), [3]);
}

#[test]
fn what_an_old_request_learns_of_an_endpoint_holds_after_the_reload() {
    let old = Arc::new(upstream("{endpoints: ['http://127.0.0.1:1', 'http://127.0.0.1:2']}"));
    let yaml = "{endpoints: ['http://127.0.0.1:1', 'http://127.0.0.1:2'], balance: random}";
    let new = Upstream::reconfigured(&old, &serde_yaml::from_str(yaml).expect("valid"), at(1));
    stand(&old, 0, Absence::Ejected, true);
    assert_eq!((ports_used(&old), ports_used(&new)), (vec![2], vec![2]));
}
