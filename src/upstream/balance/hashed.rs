//! Which place a key belongs to: a table of places, made when the set changes.
//!
//! Up to 64 places by rendezvous (Thaler and Ravishankar, 1998): each slot of the table belongs to the
//! place with the highest score for it, so a place that comes takes its share of the keys, one that
//! goes leaves its own, and no other key moves. Above that Maglev (Eisenbud and others, NSDI 2016), which is
//! built in milliseconds for thousands of places, spreads keys more evenly, and moves a few keys more.
//! Scores depend on the endpoints' addresses alone, so all replicas agree.

use crate::policy::split::hash::{mix, of, uniform};

/// Up to so many places, rendezvous is affordable.
const RENDEZVOUS: usize = 64;
/// Its slots: some hundred for each place.
const SLOTS: usize = 8_192;
/// Maglev's: a prime, about a hundred for each of its "small" setups.
const MAGLEV: usize = 65_537;

/// The slots, each with the place its keys belong to.
#[derive(Debug)]
pub(super) struct Hashed(Box<[u32]>);

impl Hashed {
    /// For places with these names and weights.
    pub(super) fn new(places: &[(&str, u32)]) -> Self {
        let seeds: Vec<u64> = places.iter().map(|(name, _)| of(name.as_bytes())).collect();
        let weights: Vec<u32> = places.iter().map(|(_, weight)| *weight).collect();
        Hashed(match places.len() {
            0 => Box::default(),
            1..=RENDEZVOUS => (0..SLOTS).map(|slot| winner(slot, &seeds, &weights)).collect(),
            _ => maglev(&seeds, &weights),
        })
    }

    /// The place of a key; with `attempt` above 0 where its keys go instead, the same for the same key.
    pub(super) fn place(&self, key: u64, attempt: u64) -> usize {
        let hash = if attempt == 0 { key } else { mix(key ^ mix(attempt)) };
        let slot = (u128::from(hash) * self.0.len() as u128) >> 64;
        self.0[slot as usize] as usize
    }
}

/// The place with the highest score for a slot. With weights, the least `-ln(u) / weight` wins.
fn winner(slot: usize, seeds: &[u64], weights: &[u32]) -> u32 {
    let score = |place: &usize| {
        let word = mix(seeds[*place] ^ mix(slot as u64));
        -uniform(word).ln() / f64::from(weights[*place])
    };
    let equal = weights.iter().all(|weight| *weight == weights[0]);
    let place = match equal {
        // The order of the scores is that of the words.
        true => (0..seeds.len()).max_by_key(|place| mix(seeds[*place] ^ mix(slot as u64))),
        false => (0..seeds.len()).min_by(|a, b| score(a).total_cmp(&score(b))),
    };
    place.unwrap_or_default() as u32
}

/// Each place in turn takes the next free slot of its own permutation; one with more weight more often.
fn maglev(seeds: &[u64], weights: &[u32]) -> Box<[u32]> {
    const FREE: u32 = u32::MAX;
    let size = MAGLEV as u64;
    let steps: Vec<u64> = seeds.iter().map(|seed| mix(*seed) % (size - 1) + 1).collect();
    let mut next: Vec<u64> = seeds.iter().map(|seed| seed % size).collect();
    let heaviest = f64::from(weights.iter().copied().max().unwrap_or(1));
    let mut due = vec![0.0_f64; seeds.len()];
    let mut slots = vec![FREE; MAGLEV];
    let mut taken = 0;
    while taken < MAGLEV {
        for place in 0..seeds.len() {
            due[place] += f64::from(weights[place]) / heaviest;
            if due[place] < 1.0 {
                continue;
            }
            due[place] -= 1.0;
            while slots[next[place] as usize] != FREE {
                next[place] = (next[place] + steps[place]) % size;
            }
            slots[next[place] as usize] = place as u32;
            taken += 1;
            if taken == MAGLEV {
                break;
            }
        }
    }
    slots.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[String], weight: impl Fn(usize) -> u32) -> Hashed {
        let places = names.iter().enumerate().map(|(n, name)| (name.as_str(), weight(n)));
        Hashed::new(&places.collect::<Vec<_>>())
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("10.0.{}.{}:80", n / 250, n % 250)).collect()
    }

    const KEYS: u64 = 100_000;

    fn shares(table: &Hashed, places: usize) -> Vec<f64> {
        let mut counts = vec![0_u32; places];
        (0..KEYS).for_each(|key| counts[table.place(mix(key), 0)] += 1);
        counts.iter().map(|count| f64::from(*count) * places as f64 / KEYS as f64).collect()
    }

    #[test]
    fn keys_are_spread_evenly() {
        for (places, off) in [(3, 0.1), (30, 0.3), (300, 0.3), (3000, 0.8)] {
            let names = names(places);
            for share in shares(&table(&names, |_| 1), places) {
                assert!((share - 1.0).abs() < off, "{places}: {share}");
            }
        }
    }

    #[test]
    fn keys_are_spread_by_weight() {
        for places in [4, 100] {
            let names = names(places);
            let weight = |n: usize| if n == 0 { 3 } else { 1 };
            let heavy = shares(&table(&names, weight), places)[0];
            let wanted = 3.0 * places as f64 / (places as f64 + 2.0);
            assert!((heavy - wanted).abs() < 0.35, "{places}: {heavy} for {wanted}");
        }
    }

    /// The share of keys that belong to another place, by name, after a place has gone.
    fn moved(before: &[String], gone: usize) -> (f64, f64) {
        let mut after = before.to_vec();
        after.remove(gone);
        let (old, new) = (table(before, |_| 1), table(&after, |_| 1));
        let (mut needed, mut others) = (0, 0);
        for key in (0..KEYS).map(mix) {
            let (was, is) = (&before[old.place(key, 0)], &after[new.place(key, 0)]);
            match (was == is, *was == before[gone]) {
                (true, _) => {}
                (false, true) => needed += 1,
                (false, false) => others += 1,
            }
        }
        (f64::from(needed) / KEYS as f64, f64::from(others) / KEYS as f64)
    }

    #[test]
    fn no_key_moves_that_does_not_have_to() {
        let (needed, others) = moved(&names(30), 7);
        assert!((0.02..0.05).contains(&needed), "{needed}");
        assert_eq!(others, 0.0);
    }

    #[test]
    fn with_many_places_few_keys_move_that_do_not_have_to() {
        let (needed, others) = moved(&names(300), 7);
        assert!(needed < 0.006 && others < 0.03, "{needed} {others}");
    }

    #[test]
    fn the_order_in_which_places_are_listed_does_not_matter() {
        let names = names(20);
        let mut reversed = names.clone();
        reversed.reverse();
        let (one, other) = (table(&names, |_| 1), table(&reversed, |_| 1));
        for key in (0..1000).map(mix) {
            assert_eq!(names[one.place(key, 0)], reversed[other.place(key, 0)]);
        }
    }

    #[test]
    fn a_key_without_its_place_goes_always_to_the_same_others() {
        let names = names(10);
        let table = table(&names, |_| 1);
        for key in (0..100).map(mix) {
            let instead: Vec<_> = (1..16).map(|attempt| table.place(key, attempt)).collect();
            assert_eq!(
                instead,
                (1..16).map(|attempt| table.place(key, attempt)).collect::<Vec<_>>()
            );
            assert!(instead.iter().any(|place| *place != table.place(key, 0)));
        }
    }
}
