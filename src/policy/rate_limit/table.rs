//! Where the state of each key is kept: a table of bounded size that no flood of keys gets a key
//! out of.
//!
//! A key may lie in the eight slots of one set. A known key is found and updated by atomics alone;
//! a new one takes the lock. The table doubles while sets overflow, up to its bound: at most 48
//! bytes for each of `max_keys`.
//!
//! At the bound a newcomer takes the place of the key in its set with the least to lose, *and
//! goes on from that key's state* (Metwally et al., "Space-Saving", 2005). So a flood of fresh
//! keys evicts itself and not those who are at their limit, and a key that lost its place does not
//! come back with a clean slate: counts err upwards only. The price is that a table which is far
//! too small for its clients refuses some of them early; `evictions` tells.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::policy::sync::{AtomicU64, Mutex, Ordering, PoisonError};

/// What becomes of a state: replaced, or left as it is without a write.
pub(super) struct Step<A> {
    pub(super) next: Option<u64>,
    pub(super) answer: A,
}

/// A state is the caller's own 63 bits; 0 is the state of a key never seen, worth 0.
pub(super) struct Table {
    grid: ArcSwap<Grid>,
    /// Held to add keys, which is once per key and growth; a known key never takes it.
    insertion: Mutex<()>,
    max_sets: usize,
    evictions: AtomicU64,
}

/// The sets, a power of two of them.
struct Grid {
    sets: Box<[Set]>,
}

const WAYS: usize = 8;
const FREE: u64 = 0;
/// Set in a state that has moved to a larger grid.
const MOVED: u64 = 1 << 63;

/// One line of keys, one of states.
#[derive(Default)]
#[repr(align(64))]
struct Set {
    keys: [AtomicU64; WAYS],
    states: [AtomicU64; WAYS],
}

impl Table {
    /// Holds `max_keys`, with some room to spare so that few sets overflow before.
    pub(super) fn new(max_keys: u32) -> Self {
        let slots = max_keys as usize + max_keys as usize / 2;
        Table {
            grid: ArcSwap::from_pointee(Grid::new(1)),
            insertion: Mutex::new(()),
            max_sets: slots.div_ceil(WAYS).next_power_of_two(),
            evictions: AtomicU64::new(0),
        }
    }

    /// Applies `step` to the state of `key`, which must not be 0. `worth` says how much would be
    /// lost with a state: 0 if it means no more than having none.
    pub(super) fn update<A>(
        &self,
        key: u64,
        worth: impl Fn(u64) -> u64,
        step: impl Fn(u64) -> Step<A>,
    ) -> A {
        loop {
            let grid = self.grid.load();
            let answer = grid.set(key).state(key).map(|state| advance(state, &step));
            if let Some(Some(answer)) = answer {
                return answer;
            }
            // New, or just moved: the lock is free again once the larger grid is in place.
            drop(grid);
            self.insert(key, &worth);
        }
    }

    /// Keys that lost their place to others while they still counted.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    fn insert(&self, key: u64, worth: &impl Fn(u64) -> u64) {
        // Nothing under this lock can be left half-done by a panic.
        let _turn = self.insertion.lock().unwrap_or_else(PoisonError::into_inner);
        let mut grid = self.grid.load_full();
        loop {
            let set = grid.set(key);
            if set.state(key).is_some() {
                return;
            }
            let (way, loss) = set.cheapest(worth);
            if loss > 0 && grid.sets.len() < self.max_sets {
                grid = Arc::new(grid.doubled(worth));
                self.grid.store(Arc::clone(&grid));
                continue;
            }
            // Relaxed: whoever misses the new key comes here and finds it under the lock. An
            // update by the old owner that is under way now counts for the new one.
            set.keys[way].store(key, Ordering::Relaxed);
            self.evictions.fetch_add(u64::from(loss > 0), Ordering::Relaxed);
            return;
        }
    }
}

impl Grid {
    fn new(sets: usize) -> Self {
        Grid { sets: (0..sets).map(|_| Set::default()).collect() }
    }

    /// Keys are hashes: any bits are as good as others.
    fn set(&self, key: u64) -> &Set {
        &self.sets[key as usize & (self.sets.len() - 1)]
    }

    /// A grid twice as large, with all that is worth anything. Every state here is marked as
    /// moved in the same step that reads it, so no count is lost: later ones wait for the lock.
    fn doubled(&self, worth: &impl Fn(u64) -> u64) -> Grid {
        let larger = Grid::new(self.sets.len() * 2);
        for (key, state) in self.sets.iter().flat_map(Set::entries) {
            // Relaxed: one word, totally ordered with every update of it.
            let state = state.fetch_or(MOVED, Ordering::Relaxed);
            if worth(state) > 0 {
                larger.set(key).adopt(key, state);
            }
        }
        larger
    }
}

impl Set {
    fn entries(&self) -> impl Iterator<Item = (u64, &AtomicU64)> {
        // Relaxed: keys change under the lock only, and one that is missed is looked for there.
        let keys = self.keys.iter().map(|key| key.load(Ordering::Relaxed));
        keys.zip(&self.states).filter(|(key, _)| *key != FREE)
    }

    fn state(&self, key: u64) -> Option<&AtomicU64> {
        self.entries().find(|(held, _)| *held == key).map(|(_, state)| state)
    }

    /// The way with the least to lose, and how much that is.
    fn cheapest(&self, worth: &impl Fn(u64) -> u64) -> (usize, u64) {
        let loss = |way: usize| match self.keys[way].load(Ordering::Relaxed) {
            FREE => 0,
            _taken => worth(self.states[way].load(Ordering::Relaxed)),
        };
        (0..WAYS).map(|way| (way, loss(way))).min_by_key(|(_, loss)| *loss).unwrap_or((0, 0))
    }

    /// Takes in a key while growing. All keys of a set fit into either half of it.
    fn adopt(&self, key: u64, state: u64) {
        let free =
            self.keys.iter().zip(&self.states).find(|(k, _)| k.load(Ordering::Relaxed) == FREE);
        if let Some((slot, kept)) = free {
            slot.store(key, Ordering::Relaxed);
            kept.store(state, Ordering::Relaxed);
        }
    }
}

/// Applies `step` to a state; `None` if it has moved.
fn advance<A>(state: &AtomicU64, step: &impl Fn(u64) -> Step<A>) -> Option<A> {
    // Relaxed throughout: the word is the whole state.
    let mut seen = state.load(Ordering::Relaxed);
    loop {
        if seen & MOVED != 0 {
            return None;
        }
        let Step { next, answer } = step(seen);
        let Some(next) = next else { return Some(answer) };
        match state.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some(answer),
            Err(changed) => seen = changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Counts, worth as much as they are.
    fn count(table: &Table, key: u64) -> u64 {
        table.update(key, |n| n, |n| Step { next: Some(n + 1), answer: n + 1 })
    }

    #[test]
    fn each_key_has_its_own_state_however_the_table_grows() {
        let table = Table::new(10_000);
        for round in 1..=3 {
            assert!((1..=5000).all(|key| count(&table, key * 0x9e37_79b9) == round));
        }
        assert_eq!(table.evictions(), 0);
    }

    #[test]
    fn no_count_is_lost_while_threads_make_it_grow() {
        let table = Table::new(100_000);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (1..=2000).for_each(|key| _ = count(&table, key)));
            }
        });
        assert!((1..=2000).all(|key| count(&table, key) == 9));
    }

    #[test]
    fn it_costs_at_most_48_bytes_a_key() {
        for max_keys in [1000, 100_000, 700_000, 1_000_000, 10_000_000] {
            let bytes = Table::new(max_keys).max_sets * size_of::<Set>();
            assert!(bytes <= 48 * max_keys as usize, "{max_keys}");
        }
    }

    #[test]
    fn it_stops_growing_at_its_bound() {
        let table = Table::new(100);
        (1..=100_000).for_each(|key| _ = count(&table, key));
        assert_eq!(table.grid.load().sets.len(), table.max_sets);
    }

    #[test]
    fn a_newcomer_goes_on_from_the_state_it_evicts() {
        let table = Table::new(1);
        (1..=8).for_each(|key| _ = count(&table, key));
        assert_eq!(count(&table, 9), 2);
        assert_eq!(table.evictions(), 1);
    }

    #[test]
    fn the_key_with_the_least_to_lose_is_evicted() {
        let table = Table::new(1);
        (1..=7).for_each(|key| _ = (count(&table, key), count(&table, key)));
        count(&table, 8);
        count(&table, 9);
        assert!((1..=7).all(|key| count(&table, key) == 3));
    }

    #[test]
    fn a_worthless_state_is_replaced_before_the_table_grows() {
        let table = Table::new(1000);
        let worthless = |_| 0;
        for key in 1..=1000 {
            table.update(key, worthless, |_| Step { next: Some(1), answer: () });
        }
        assert_eq!(table.grid.load().sets.len(), 1);
    }
}
