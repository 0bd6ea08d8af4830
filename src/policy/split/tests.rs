//! What keys do when weights change, and how evenly they fall.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::config::MAX_WEIGHT;
use super::orders::Refused;
use super::*;
use crate::policy::rate_limit::Named;
use crate::policy::terms::Terms;
use crate::time::Moment;

/// Keys of one run; their shares are off by three parts in a thousand at most.
const KEYS: u32 = 100_000;

fn weighted(weights: &[(&str, u32)]) -> Vec<Weighted> {
    weights
        .iter()
        .map(|(name, weight)| Weighted { name: (*name).to_owned(), weight: *weight })
        .collect()
}

fn split(weights: &[(&str, u32)]) -> Split {
    let key = Key::Header(HeaderName::from_static("x-user"));
    Split::new(&weighted(weights), Some(key), None)
}

/// The name of the upstream that each of the keys goes to.
fn places(split: &Split) -> Vec<Arc<str>> {
    let of_key = |n: u32| split.place_of(hash::of(format!("user-{n}").as_bytes()));
    (0..KEYS).map(|n| split.shares[of_key(n)].name.clone()).collect()
}

/// How many keys went from one upstream to another, and how many of those for each pair of them.
fn moves(from: &Split, to: &Split) -> Vec<((String, String), f64)> {
    let mut moved = std::collections::BTreeMap::new();
    for (from, to) in places(from).into_iter().zip(places(to)) {
        if from != to {
            *moved.entry((from.to_string(), to.to_string())).or_insert(0.0) +=
                1.0 / f64::from(KEYS);
        }
    }
    moved.into_iter().collect()
}

fn close(share: f64, expected: f64) -> bool {
    (share - expected).abs() < 0.004
}

#[test]
fn moving_five_percent_to_a_canary_moves_five_percent_of_the_keys_and_no_others() {
    for (stable, canary) in [(100, 0), (95, 5), (50, 50), (5, 95)] {
        let before = split(&[("stable", stable), ("canary", canary)]);
        let after = split(&[("stable", stable - 5), ("canary", canary + 5)]);
        let moved = moves(&before, &after);
        let [((from, to), share)] = &moved[..] else { panic!("{moved:?}") };
        assert_eq!((&**from, &**to), ("stable", "canary"));
        assert!(close(*share, 0.05), "{share}");
    }
}

#[test]
fn a_third_upstream_takes_from_both_and_moves_nothing_between_them() {
    let before = split(&[("a", 60), ("b", 40)]);
    let after = split(&[("c", 25), ("b", 40), ("a", 60)]);
    let moved = moves(&before, &after);
    let [((a, to_c), of_a), ((b, also_to_c), of_b)] = &moved[..] else { panic!("{moved:?}") };
    assert_eq!([&**a, &**to_c, &**b, &**also_to_c], ["a", "c", "b", "c"]);
    assert!(close(*of_a, 0.6 * 0.2) && close(*of_b, 0.4 * 0.2), "{moved:?}");
}

#[test]
fn the_order_of_the_list_and_a_common_factor_move_nothing() {
    let before = split(&[("a", 1), ("b", 2), ("c", 3)]);
    assert_eq!(moves(&before, &split(&[("c", 300), ("a", 100), ("b", 200)])), []);
}

#[test]
fn keys_that_count_up_fall_by_weight() {
    let names = ["a", "b", "c", "d"];
    let weights = [1, 10, 100, 1000].map(f64::from);
    let split = split(&[("a", 1), ("b", 10), ("c", 100), ("d", 1000)]);
    let places = places(&split);
    for (name, weight) in names.into_iter().zip(weights) {
        let share =
            places.iter().filter(|place| ***place == *name).count() as f64 / f64::from(KEYS);
        // Four standard deviations.
        let expected = weight / 1111.0;
        let tolerance = 4.0 * (expected * (1.0 - expected) / f64::from(KEYS)).sqrt();
        assert!((share - expected).abs() < tolerance, "{name}: {share} of {expected}");
    }
}

/// If this fails, users of a release before would be sent to another upstream.
#[test]
fn a_key_goes_where_it_has_always_gone() {
    let split = split(&[("blue", 1), ("green", 1), ("red", 1)]);
    let names: Vec<_> = places(&split).into_iter().take(12).collect();
    assert_eq!(names.join(" "), "red blue blue blue green green red blue blue red blue blue");
    assert_eq!(hash::of(b"user-1"), 0xf16d_8d44_0fbb_25d5);
}

#[test]
fn a_request_without_its_key_is_drawn_by_weight() {
    let split = split(&[("stable", 3), ("off", 0), ("canary", 1)]);
    let headers = HeaderMap::new();
    let (consumer, claims, address) = (None, None, IpAddr::V4(Ipv4Addr::LOCALHOST));
    let requester = Requester { consumer, claims, address, headers: &headers };
    let draws = 20_000;
    for _ in 0..draws {
        split.draw(&requester);
    }
    let drawn: Vec<_> = split.standings().map(|standing| standing.drawn).collect();
    assert_eq!((drawn[1], drawn.iter().sum::<u64>()), (0, draws));
    // Six standard deviations: once in five hundred million runs.
    assert!(drawn[2].abs_diff(5000) < 368, "{drawn:?}");
}

#[test]
fn each_number_below_the_sum_falls_to_its_weight() {
    let split = split(&[("a", 2), ("b", 0), ("c", 3)]);
    let places: Vec<_> = (0..5)
        .map(|number| {
            split.place_at(|sum| {
                assert_eq!(sum, 5);
                number
            })
        })
        .collect();
    assert_eq!(places, [0, 0, 2, 2, 2]);
}

#[test]
fn a_key_is_what_the_request_has_under_its_name_and_an_empty_one_is_none() {
    let line = |name: &'static str, value: &'static str| {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
    };
    let hash = |key: &Key, consumer: Option<&str>, address: &str, headers: &HeaderMap| {
        let address = address.parse().expect("an address");
        let consumer = consumer.map(|name| Named { authority: None, name });
        key.hash(&Requester { consumer, claims: None, address, headers })
    };
    let none = HeaderMap::new();
    let of = |text: &str| Some(hash::of(text.as_bytes()));
    let (v4, header) = ("192.0.2.1", Key::Header(HeaderName::from_static("x-user")));
    let cookie = Key::Cookie("session".into());
    assert_eq!(hash(&Key::Consumer, Some("acme"), v4, &none), of("acme"));
    assert_eq!(hash(&Key::Consumer, None, v4, &none), None);
    assert_eq!(hash(&header, None, v4, &line("x-user", "7")), of("7"));
    assert_eq!(hash(&header, Some("acme"), v4, &line("x-user", "")), None);
    assert_eq!(hash(&cookie, None, v4, &line("cookie", "a=1; session=s7")), of("s7"));
    assert_eq!(hash(&cookie, None, v4, &line("cookie", "session=")), None);
    let of_address = |address| hash(&Key::ClientAddress, None, address, &none);
    assert_eq!(of_address("2001:db8:0:1::1"), of_address("2001:db8:0:1:ffff::2"));
    assert_ne!(of_address("2001:db8:0:1::1"), of_address("2001:db8:0:2::1"));
    assert_eq!(of_address("::ffff:192.0.2.1"), of_address("192.0.2.1"));
}

fn terms(seconds: Option<u64>) -> Terms {
    let until = seconds.map(|seconds| Moment::ZERO + Duration::from_secs(seconds));
    Terms { since: Moment::ZERO, until, author: None, reason: None }
}

fn order(split: &Split, weights: &[(&str, u32)]) -> Result<(), Refused> {
    let weights: Vec<_> = weights.iter().map(|(name, w)| ((*name).to_owned(), *w)).collect();
    split.order(&weights, terms(None))
}

fn weights(split: &Split) -> Vec<(u32, u32)> {
    split.standings().map(|s| (s.weight, s.configured)).collect()
}

#[test]
fn an_order_sets_weights_until_it_is_withdrawn_and_survives_a_reload() {
    let before = split(&[("stable", 95), ("canary", 5)]);
    assert_eq!(order(&before, &[("canary", 0)]), Ok(()));
    assert_eq!(weights(&before), [(95, 95), (0, 5)]);
    let upstreams = weighted(&[("canary", 20), ("next", 1), ("stable", 80)]);
    let after = Split::new(&upstreams, None, Some(&before));
    assert_eq!(weights(&after), [(0, 20), (1, 1), (80, 80)]);
    // Given to the generation that is about to be replaced.
    assert_eq!(order(&before, &[("canary", 30)]), Ok(()));
    assert_eq!(weights(&after), [(30, 20), (1, 1), (80, 80)]);
    assert_eq!(after.ordered().map(|order| order.weights), Some(vec![("canary".into(), 30)]));
    assert!(after.withdraw().is_some() && after.withdraw().is_none());
    assert_eq!(weights(&after), [(20, 20), (1, 1), (80, 80)]);
}

#[test]
fn an_order_takes_the_place_of_the_one_before_as_a_whole() {
    let split = split(&[("stable", 95), ("canary", 5)]);
    assert_eq!(order(&split, &[("canary", 50)]), Ok(()));
    assert_eq!(order(&split, &[("stable", 10)]), Ok(()));
    assert_eq!(weights(&split), [(10, 95), (5, 5)]);
}

/// Each request is drawn by the weights of one order, never by some of one and some of the next.
#[test]
fn an_order_takes_effect_at_once() {
    let split = split(&[("stable", 1), ("canary", 1)]);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..2_000 {
                let (stable, canary) = if n % 2 == 0 { (100, 0) } else { (0, 100) };
                order(&split, &[("stable", stable), ("canary", canary)]).expect("in order");
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let [stable, canary, ..] = split.weights();
            assert!([(1, 1), (100, 0), (0, 100)].contains(&(stable, canary)), "{stable}, {canary}");
        }
    });
}

#[test]
fn an_order_that_cannot_be_carried_out_changes_nothing() {
    let split = split(&[("stable", 95), ("canary", 5)]);
    assert_eq!(order(&split, &[("canary", 6)]), Ok(()));
    for (wrong, why) in [
        (&[][..], Refused::Empty),
        (&[("stable", 1), ("other", 1)], Refused::Unknown("other".to_owned())),
        (&[("stable", 1), ("stable", 2)], Refused::Twice("stable".to_owned())),
        (&[("stable", MAX_WEIGHT + 1)], Refused::TooMuch("stable".to_owned())),
        (&[("stable", 0), ("canary", 0)], Refused::NothingLeft),
    ] {
        assert_eq!(order(&split, wrong), Err(why));
    }
    assert_eq!(weights(&split), [(95, 95), (6, 5)]);
}

#[test]
fn an_order_ends_with_its_time_or_with_its_last_upstream() {
    let split = split(&[("stable", 95), ("canary", 5)]);
    split.order(&[("canary".to_owned(), 50)], terms(Some(10))).expect("in order");
    assert_eq!(split.end_order(Moment::ZERO + Duration::from_secs(9)), None);
    assert_eq!(weights(&split), [(95, 95), (50, 5)]);
    let without = Split::new(&weighted(&[("stable", 9), ("next", 1)]), None, Some(&split));
    assert_eq!(without.ordered(), None);
    let with_it_again = Split::new(&weighted(&[("canary", 9)]), None, Some(&without));
    assert_eq!((with_it_again.ordered(), weights(&with_it_again)), (None, vec![(9, 9)]));
    assert!(split.end_order(Moment::ZERO + Duration::from_secs(10)).is_some());
    assert_eq!((split.ordered(), weights(&split)), (None, vec![(95, 95), (5, 5)]));
}

#[test]
fn orders_that_a_reload_leaves_no_weight_count_for_nothing() {
    let before = split(&[("stable", 95), ("canary", 5)]);
    assert_eq!(order(&before, &[("canary", 0)]), Ok(()));
    let after = Split::new(&weighted(&[("stable", 0), ("canary", 5)]), None, Some(&before));
    assert_eq!(weights(&after), [(0, 0), (5, 5)]);
}

fn upstreams() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(0u32..=100, 1..=6)
        .prop_filter("no weight", |w| w.iter().any(|w| *w > 0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The promise of rendezvous hashing: one weight changes, and keys move from or to it only.
    #[test]
    fn keys_move_only_from_or_to_an_upstream_whose_weight_changes(
        weights in upstreams(), changed in any::<prop::sample::Index>(), weight in 0u32..=100,
    ) {
        let changed = changed.index(weights.len());
        let mut after = weights.clone();
        after[changed] = weight;
        prop_assume!(after.iter().any(|weight| *weight > 0));
        let names = ["a", "b", "c", "d", "e", "f"];
        let named = |weights: &[u32]| -> Vec<(&str, u32)> {
            names.into_iter().zip(weights.iter().copied()).collect()
        };
        let (before, now) = (split(&named(&weights)), split(&named(&after)));
        for n in 0..2000u64 {
            let key = hash::mix(n);
            let (from, to) = (before.place_of(key), now.place_of(key));
            prop_assert!(after[to] > 0);
            let allowed = match weight.cmp(&weights[changed]) {
                std::cmp::Ordering::Less => from == changed,
                std::cmp::Ordering::Equal => false,
                std::cmp::Ordering::Greater => to == changed,
            };
            prop_assert!(from == to || allowed, "{} from {from} to {to}", changed);
        }
    }

    #[test]
    fn every_number_is_within_the_list_and_has_a_weight(weights in upstreams(), number in any::<u64>()) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let named: Vec<_> = names.into_iter().zip(weights.iter().copied()).collect();
        let split = split(&named);
        let places = [split.place_at(|sum| number % sum), split.place_of(number)];
        prop_assert!(places.into_iter().all(|place| weights[place] > 0));
    }
}
