use std::time::Duration;

use proptest::prelude::*;

use super::super::{Budget, Config, Stake};
use super::*;

const NOW: Moment = Moment::ZERO;

fn parse(text: &str) -> Config {
    serde_yaml::with::singleton_map::deserialize(serde_yaml::Deserializer::from_str(text))
        .expect("valid")
}

/// Each caller's own, and one that all have together, of the same kind.
fn both(kind: &str, max_keys: u32) -> (Budget, Budget) {
    let own = parse(&format!("{{{kind}, per: consumer, max_keys: {max_keys}}}"));
    (Budget::new(own, NOW), Budget::new(parse(&format!("{{{kind}}}")), NOW))
}

fn at(millis: u64) -> Moment {
    NOW + Duration::from_millis(millis)
}

/// Retries of a request until there are none.
fn spent(stake: &mut Stake, now: Moment) -> usize {
    (0..1000).take_while(|_| stake.withdraw(now)).count()
}

const KINDS: [&str; 3] = [
    "token_bucket: {capacity: 3, refill_per_second: 10}",
    "ratio: {share: 50%, min_per_second: 2, ttl: 1s}",
    "concurrency: {share: 50%, min: 2}",
];

#[test]
fn one_caller_cannot_use_up_what_another_has() {
    for (kind, granted) in KINDS.iter().zip([3, 2, 2]) {
        let (budget, _) = both(kind, 10);
        let mut busy: Vec<_> = (0..granted).map(|_| budget.enter_as(&"busy", NOW)).collect();
        let taken: usize = busy.iter_mut().map(|stake| usize::from(stake.withdraw(NOW))).sum();
        let mut last = budget.enter_as(&"busy", NOW);
        let more = (0..9).take_while(|_| !kind.starts_with("concurrency") && last.withdraw(NOW));
        assert!(taken + more.count() >= granted, "{kind}");
        assert!(!last.withdraw(NOW), "{kind}: nothing is left");
        assert!(budget.enter_as(&"other", NOW).withdraw(NOW), "{kind}");
        assert!(budget.refused() > 0 && budget.callers() == 2, "{kind}");
    }
}

#[test]
fn callers_beyond_the_table_have_one_account_together() {
    for kind in KINDS {
        let (budget, _) = both(kind, 1);
        let mut known = budget.enter_as(&"a", NOW);
        assert!(known.withdraw(NOW), "{kind}");
        let mut others: Vec<_> = (0..100).map(|n| budget.enter_as(&n, NOW)).collect();
        let granted: usize = others.iter_mut().map(|stake| usize::from(stake.withdraw(NOW))).sum();
        // As one caller with a hundred requests.
        let alone = both(kind, 1).0;
        let mut of_one: Vec<_> = (0..100).map(|_| alone.enter_as(&"x", NOW)).collect();
        let expected: usize = of_one.iter_mut().map(|stake| usize::from(stake.withdraw(NOW))).sum();
        assert_eq!((granted, budget.callers()), (expected, 1), "{kind}");
    }
}

#[test]
fn an_account_that_is_as_good_as_new_makes_room_and_no_other_does() {
    for kind in KINDS {
        let (budget, _) = both(kind, 1);
        let mut first = budget.enter_as(&"a", NOW);
        assert!(first.withdraw(NOW));
        let is_rest = |stake: &Stake| stake.seat().is_some_and(|seat| seat.is_rest);
        let mut second = budget.enter_as(&"b", at(50));
        assert!(second.withdraw(at(50)));
        assert!(is_rest(&second), "{kind}");
        drop((first, second));
        let mut third = budget.enter_as(&"c", at(2000));
        assert!(third.withdraw(at(2000)));
        assert!(!is_rest(&third), "{kind}");
        assert_eq!(budget.callers(), 1, "{kind}");
    }
}

#[test]
fn a_request_that_outlives_its_account_is_counted_once_more_and_no_less() {
    let (budget, _) = both("ratio: {share: 0%, min_per_second: 1, ttl: 1s}", 1);
    let mut old = budget.enter_as(&"a", NOW);
    let mut new = budget.enter_as(&"b", at(1500));
    assert_eq!(spent(&mut new, at(1500)), 1);
    // Its caller has no account any more, and b's is in use.
    assert_eq!(spent(&mut old, at(1500)), 1);
    assert_eq!(spent(&mut budget.enter_as(&"c", at(1500)), at(1500)), 0, "that was the rest's");
}

#[test]
fn a_hundred_thousand_callers_stay_within_the_bound() {
    for kind in KINDS {
        let (budget, _) = both(kind, 2000);
        let stakes: Vec<_> = (0..100_000)
            .map(|n| {
                let mut stake = budget.enter_as(&n, NOW);
                stake.withdraw(NOW);
                stake
            })
            .collect();
        assert_eq!(budget.callers(), 2000, "{kind}");
        drop(stakes);
    }
}

#[test]
fn requests_that_leave_leave_nothing_behind() {
    let (budget, _) = both("concurrency: {share: 0%, min: 1}", 1);
    for round in 0..3 {
        let mut stakes: Vec<_> = (0..20).map(|n| budget.enter_as(&n, at(round))).collect();
        let granted: usize = stakes.iter_mut().map(|s| usize::from(s.withdraw(at(round)))).sum();
        assert_eq!(granted, 2, "one of its own and one of the rest");
    }
    assert_eq!(budget.tokens(NOW), 2.0);
}

proptest! {
    /// The same arithmetic: a single caller is granted what it would be if the budget were common.
    #[test]
    fn one_caller_alone_gets_what_a_common_budget_grants(
        kind in prop::sample::select(KINDS.to_vec()),
        steps in prop::collection::vec((0..250_u64, 0..4_usize), 1..200),
    ) {
        let (own, common) = both(kind, 100);
        let (mut now, mut pairs) = (0, Vec::<(Stake, Stake)>::new());
        for (pause, step) in steps {
            now += pause;
            match step {
                0 => pairs.push((own.enter_as(&"a", at(now)), common.enter(at(now)))),
                1 if !pairs.is_empty() => drop(pairs.swap_remove(now as usize % pairs.len())),
                _ => {
                    let Some((one, other)) = pairs.last_mut() else { continue };
                    prop_assert_eq!(one.withdraw(at(now)), other.withdraw(at(now)), "at {}", now);
                }
            }
        }
    }
}
