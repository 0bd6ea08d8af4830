//! Turns by weight, spread as evenly as they can be: smooth weighted round robin.
//!
//! The order of one cycle is written down when the set changes, so that a turn is one look at a list.
//! The order is that of earliest deadline first: the turns of a place with weight `w` are due at `1/2w`,
//! `3/2w`, `5/2w` and so on. Each place has exactly its weight of turns in a cycle.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The most turns of a cycle. Weights are made smaller until they fit.
const LONGEST: u64 = 65_536;

/// The places of one cycle, in their order.
pub(super) fn cycle(weights: &[u32]) -> Box<[u32]> {
    let divisor = weights.iter().fold(0, |divisor, weight| gcd(divisor, *weight)).max(1);
    let sum: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
    // With more places than turns, each place still has one.
    let most = LONGEST.max(weights.len() as u64);
    let turns = |weight: u32| match u64::from(weight / divisor) {
        weight if sum <= most => weight,
        weight => (weight * most / sum).max(1),
    };
    let turns: Vec<u64> = weights.iter().map(|weight| turns(*weight)).collect();
    let length = turns.iter().sum::<u64>() as usize;
    // Deadlines are fractions: k-th turn of a place with n turns is due at (2k + 1) / 2n.
    let due = |place: usize, turn: u64| ((2 * turn + 1) << 40) / turns[place];
    let first = (0..turns.len()).map(|place| Reverse((due(place, 0), place, 0)));
    let mut next: BinaryHeap<Reverse<(u64, usize, u64)>> = first.collect();
    let mut order = Vec::with_capacity(length);
    while let Some(Reverse((_, place, turn))) = next.pop() {
        order.push(place as u32);
        if turn + 1 < turns[place] {
            next.push(Reverse((due(place, turn + 1), place, turn + 1)));
        }
    }
    order.into()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_weights_take_turns_in_their_order() {
        assert_eq!(*cycle(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(*cycle(&[700, 700]), [0, 1]);
    }

    #[test]
    fn a_heavy_place_does_not_have_its_turns_at_once() {
        assert_eq!(*cycle(&[5, 1, 1]), [0, 0, 0, 1, 2, 0, 0]);
        assert_eq!(*cycle(&[2, 1]), [0, 1, 0]);
    }

    #[test]
    fn a_cycle_is_bounded_whatever_the_weights() {
        let weights: Vec<u32> = (1..=3000).map(|n| if n % 2 == 0 { 999 } else { 1000 }).collect();
        let order = cycle(&weights);
        assert!(order.len() <= 70_000, "{}", order.len());
        assert!((0..3000).all(|place| order.contains(&place)));
    }

    proptest! {
        #[test]
        fn each_place_has_its_weight_of_turns_in_every_cycle(
            weights in prop::collection::vec(1_u32..50, 1..20),
        ) {
            let order = cycle(&weights);
            let divisor = weights.iter().fold(0, |d, w| gcd(d, *w));
            for (place, weight) in weights.iter().enumerate() {
                let turns = order.iter().filter(|turn| **turn == place as u32).count();
                prop_assert_eq!(turns as u32, weight / divisor);
            }
        }

        #[test]
        fn no_place_is_ever_more_than_one_turn_ahead_or_two_behind(
            weights in prop::collection::vec(1_u32..20, 1..8),
        ) {
            let order = cycle(&weights);
            let mut had = vec![0_f64; weights.len()];
            let sum: u32 = weights.iter().sum();
            for (done, place) in order.iter().enumerate() {
                had[*place as usize] += 1.0;
                for (place, weight) in weights.iter().enumerate() {
                    let fair = (done + 1) as f64 * f64::from(*weight) / f64::from(sum);
                    // Of n places with equal deadlines, the last waits for the others.
                    let places = weights.len() as f64;
                    prop_assert!((had[place] - fair).abs() <= 1.0 + places / 2.0);
                }
            }
        }
    }
}
