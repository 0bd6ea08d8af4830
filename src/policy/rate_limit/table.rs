//! Stores the state of each key, in a table of bounded size. A flood of keys does not help any key
//! to get around its limit.
//!
//! A key may be in any of the seven slots of one set. A known key is found and updated by atomics
//! alone; a new one takes the lock. The table doubles while sets overflow, up to its bound of 56
//! bytes for each of `max_keys`. It grows in place: there is never a second copy.
//!
//! The states of a set share a cache line, and in a small table a few keys would all be on one. So
//! a small table doubles as soon as two keys would share a set, up to eight sets for each lane of
//! threads, so that keys in use at the same time are rarely neighbours.
//!
//! At the bound a new key takes the place of the key in its set with the least to lose (as in
//! Metwally et al., "Space-Saving", 2005). The set remembers, in one more state, the most that any
//! evicted key had used. A new key in the set is presumed to have used that much; if it is refused
//! for it, it evicts no other key. So a flood of fresh keys evicts itself, and not keys at their
//! limit, and an evicted key does not return with an empty count: counts only err upwards. The
//! price is that a table which is far too small for its clients refuses some of them early;
//! `evictions` shows that.

use std::sync::OnceLock;

use crossbeam_utils::CachePadded;

use crate::policy::sync::{
    AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError, lanes,
};
use crate::time::Moment;

/// The result for a state: a new state, or none if it stays unchanged.
pub(super) struct Step<A> {
    pub(super) next: Option<u64>,
    pub(super) answer: A,
}

/// What states mean. A state has 63 bits; 0 is that of an unknown key.
pub(super) trait States {
    type Answer;

    /// Counts one request, if there is room for it.
    fn step(&self, state: u64, now: Moment) -> Step<Self::Answer>;

    /// How much would be lost with a state: 0 if it means no more than an absent one.
    fn worth(&self, state: u64, now: Moment) -> u64;

    /// A state that refuses, now and later, all that either of the two would refuse.
    fn join(&self, one: u64, other: u64, now: Moment) -> u64;

    /// The state of a new key that is presumed to have used what `floor` says.
    fn begin(&self, floor: u64, now: Moment) -> u64;
}

/// The states of all keys.
pub(super) struct Table {
    first: Set,
    /// Each part has as many sets as all parts before it together; the number in use is a power of
    /// two.
    more: Box<[OnceLock<Box<[Set]>>]>,
    /// Sets in use.
    sets: AtomicUsize,
    /// Locked to add keys, once per key and per growth; a known key never takes it. Both fields are
    /// on cache lines apart from what known keys read.
    insertion: CachePadded<Mutex<()>>,
    evictions: CachePadded<AtomicU64>,
}

const WAYS: usize = 7;
/// Up to this many sets per lane, keys get a set of their own if possible.
const ROOMY: usize = 8;
const FREE: u64 = 0;
/// A bit beside the state in its word. It flips when the slot gets another key, so that a
/// concurrent update for the former key fails, even if both keys have the same state.
const TURN: u64 = 1 << 63;

/// Two cache lines.
#[derive(Default)]
#[repr(align(64))]
struct Set {
    keys: [AtomicU64; WAYS],
    /// The most that any key evicted from this set had used.
    floor: AtomicU64,
    words: [AtomicU64; WAYS],
}

impl Table {
    /// A table for `max_keys`, with some spare room, so that few sets overflow before.
    pub(super) fn new(max_keys: u32) -> Self {
        let slots = max_keys as usize + max_keys as usize / 2;
        let doublings = slots.div_ceil(WAYS).next_power_of_two().ilog2();
        Table {
            first: Set::default(),
            more: (0..doublings).map(|_| OnceLock::new()).collect(),
            sets: AtomicUsize::new(1),
            insertion: CachePadded::new(Mutex::new(())),
            evictions: CachePadded::default(),
        }
    }

    /// Counts a request of `key`, which must not be 0, if there is room for it.
    pub(super) fn count<S: States>(&self, key: u64, states: &S, now: Moment) -> S::Answer {
        loop {
            let known = self.set_of(key).update(key, |state| states.step(state, now));
            if let Some(answer) = known.or_else(|| self.insert(key, states, now)) {
                return answer;
            }
        }
    }

    /// What `count` would say, without counting.
    pub(super) fn look<S: States>(&self, key: u64, states: &S, now: Moment) -> S::Answer {
        let set = self.set_of(key);
        let state = match set.way_of(key) {
            Some(way) => set.state(way),
            None => states.begin(set.floor.load(Ordering::Relaxed), now),
        };
        states.step(state, now).answer
    }

    /// Changes the state of `key`, if it has one.
    pub(super) fn amend(&self, key: u64, change: impl Fn(u64) -> Option<u64>) {
        let change = |state| Step { next: change(state), answer: () };
        if self.set_of(key).update(key, change).is_none() {
            // The key is gone, or a growing table is moving it.
            let _turn = self.turn();
            self.set_of(key).update(key, change);
        }
    }

    /// Keys that were evicted while their counts still mattered.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Counts a request of a new key; `None` if another thread has added it meanwhile.
    fn insert<S: States>(&self, key: u64, states: &S, now: Moment) -> Option<S::Answer> {
        let turn = self.turn();
        loop {
            let set = self.set_of(key);
            if set.way_of(key).is_some() {
                return None;
            }
            let (way, loss) = set.cheapest(states, now);
            let crowded = loss > 0 || self.is_small() && set.is_in_use();
            if crowded && self.grow(&turn, states, now) {
                continue;
            }
            let presumed = states.begin(set.floor_with(set.state(way), states, now), now);
            let Step { next, answer } = states.step(presumed, now);
            if next.is_none() {
                return Some(answer);
            }
            self.evictions.fetch_add(u64::from(loss > 0), Ordering::Relaxed);
            return Some(set.replace(way, key, states, now));
        }
    }

    fn is_small(&self) -> bool {
        self.sets.load(Ordering::Relaxed) < ROOMY * lanes()
    }

    /// A panic cannot leave anything half-done under this lock.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.insertion.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Doubles the table; `false` at its bound. A thread that misses a key being moved waits for
    /// the lock, and then finds it in its new place.
    fn grow<S: States>(&self, _turn: &MutexGuard<'_, ()>, states: &S, now: Moment) -> bool {
        let sets = self.sets.load(Ordering::Relaxed);
        let Some(more) = self.more.get(sets.ilog2() as usize) else { return false };
        let upper = more.get_or_init(|| (0..sets).map(|_| Set::default()).collect());
        for (index, upper) in upper.iter().enumerate() {
            self.at(index).split(upper, |key| key as usize & sets != 0, states, now);
        }
        // Release: a thread that reads the number sees the sets.
        self.sets.store(sets * 2, Ordering::Release);
        true
    }

    /// Keys are hashes, so any of their bits will do.
    fn set_of(&self, key: u64) -> &Set {
        self.at(key as usize & (self.sets.load(Ordering::Acquire) - 1))
    }

    fn at(&self, index: usize) -> &Set {
        let Some(bit) = index.checked_ilog2() else { return &self.first };
        let part = self.more.get(bit as usize).and_then(OnceLock::get);
        // Sets in use have been created.
        part.and_then(|part| part.get(index - (1 << bit))).unwrap_or(&self.first)
    }
}

impl Set {
    fn state(&self, way: usize) -> u64 {
        self.words[way].load(Ordering::Relaxed) & !TURN
    }

    fn way_of(&self, key: u64) -> Option<usize> {
        // Relaxed: keys change only under the lock, and a key that is missed is searched again
        // there.
        self.keys.iter().position(|held| held.load(Ordering::Relaxed) == key)
    }

    /// Applies `step` to the state of `key`; `None` if it has none here.
    fn update<A>(&self, key: u64, step: impl Fn(u64) -> Step<A>) -> Option<A> {
        let way = self.way_of(key)?;
        let (held, word) = (&self.keys[way], &self.words[way]);
        loop {
            // Acquire: a thread that sees what `vacate` has written sees that the slot has another
            // key. Apart from that, the word is the whole state.
            let seen = word.load(Ordering::Acquire);
            if held.load(Ordering::Relaxed) != key {
                return None;
            }
            let Step { next, answer } = step(seen & !TURN);
            let Some(next) = next.map(|next| next | seen & TURN) else { return Some(answer) };
            let swapped =
                word.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed);
            if swapped.is_ok() {
                return Some(answer);
            }
        }
    }

    /// The slot with the least to lose, and how much that is.
    fn cheapest<S: States>(&self, states: &S, now: Moment) -> (usize, u64) {
        let losses = (0..WAYS).map(|way| (way, self.loss(way, states, now)));
        losses.min_by_key(|(_, loss)| *loss).unwrap_or((0, 0))
    }

    /// Whether any key is in this set. A key whose count is worth nothing now still counts, because
    /// it would be a neighbour when it returns.
    fn is_in_use(&self) -> bool {
        self.keys.iter().any(|key| key.load(Ordering::Relaxed) != FREE)
    }

    fn loss<S: States>(&self, way: usize, states: &S, now: Moment) -> u64 {
        match self.keys[way].load(Ordering::Relaxed) {
            FREE => 0,
            _taken => states.worth(self.state(way), now),
        }
    }

    /// The floor after a key with the state `evicted` has lost its place.
    fn floor_with<S: States>(&self, evicted: u64, states: &S, now: Moment) -> u64 {
        let floor = self.floor.load(Ordering::Relaxed);
        match states.worth(evicted, now) {
            0 => floor,
            _counts => states.join(floor, evicted, now),
        }
    }

    /// Gives a slot to a new key, and counts its first request. To be called under the lock.
    fn replace<S: States>(&self, way: usize, key: u64, states: &S, now: Moment) -> S::Answer {
        let floor = self.floor_with(self.vacate(way), states, now);
        self.floor.store(floor, Ordering::Relaxed);
        let start = states.begin(floor, now);
        let Step { next, answer } = states.step(start, now);
        self.occupy(way, key, next.unwrap_or(start));
        answer
    }

    /// Moves the keys that are `upper` to a new set. To be called under the lock.
    fn split<S: States>(&self, to: &Set, upper: impl Fn(u64) -> bool, states: &S, now: Moment) {
        to.floor.store(self.floor.load(Ordering::Relaxed), Ordering::Relaxed);
        for (way, held) in self.keys.iter().enumerate() {
            let key = held.load(Ordering::Relaxed);
            if key == FREE || !upper(key) {
                continue;
            }
            let state = self.vacate(way);
            if states.worth(state, now) > 0 {
                to.occupy(way, key, state);
            }
        }
    }

    /// Takes a slot from its key. A concurrent update either precedes the swap, and is in the
    /// returned state, or fails and finds that the slot has changed.
    fn vacate(&self, way: usize) -> u64 {
        if self.keys[way].load(Ordering::Relaxed) == FREE {
            // The bit was flipped when the slot became free. Flipping it back would make it look
            // untouched.
            return 0;
        }
        self.keys[way].store(FREE, Ordering::Relaxed);
        // Relaxed: the bit changes only under the lock.
        let turned = !self.words[way].load(Ordering::Relaxed) & TURN;
        self.words[way].swap(turned, Ordering::AcqRel) & !TURN
    }

    fn occupy(&self, way: usize, key: u64, state: u64) {
        let turn = self.words[way].load(Ordering::Relaxed) & TURN;
        self.words[way].store(turn | state, Ordering::Release);
        // Release: a thread that finds the key finds its state.
        self.keys[way].store(key, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Counts up to a limit. The worth of a state is its count.
    struct Counts(u64);

    impl States for Counts {
        type Answer = u64;

        fn step(&self, state: u64, _: Moment) -> Step<u64> {
            Step { next: (state < self.0).then_some(state + 1), answer: state + 1 }
        }

        fn worth(&self, state: u64, _: Moment) -> u64 {
            state
        }

        fn join(&self, one: u64, other: u64, _: Moment) -> u64 {
            one.max(other)
        }

        fn begin(&self, floor: u64, _: Moment) -> u64 {
            floor
        }
    }

    fn count(table: &Table, key: u64) -> u64 {
        table.count(key, &Counts(1000), Moment::ZERO)
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
    fn it_costs_at_most_56_bytes_a_key() {
        for max_keys in [1000, 100_000, 611_670, 700_000, 1_000_000, 10_000_000] {
            let bytes = (1 << Table::new(max_keys).more.len()) * size_of::<Set>();
            assert!(bytes <= 56 * max_keys as usize, "{max_keys}");
        }
    }

    #[test]
    fn a_few_keys_share_no_line_of_memory() {
        let table = Table::new(10_000);
        // Both are in the same set until there are 32 sets.
        let (one, other) = (1, 17);
        count(&table, one);
        // The first is worth nothing at the moment the other arrives.
        table.amend(one, |_| Some(0));
        count(&table, other);
        count(&table, one);
        assert!(!std::ptr::eq(table.set_of(one), table.set_of(other)));
    }

    #[test]
    fn it_stops_growing_at_its_bound() {
        let table = Table::new(100);
        (1..=100_000).for_each(|key| _ = count(&table, key));
        assert_eq!(table.sets.into_inner(), 32);
    }

    #[test]
    fn a_newcomer_goes_on_from_the_state_it_evicts() {
        let table = Table::new(1);
        (1..=7).for_each(|key| _ = count(&table, key));
        assert_eq!(count(&table, 8), 2);
        assert_eq!(table.evictions(), 1);
    }

    #[test]
    fn the_key_with_the_least_to_lose_is_evicted() {
        let table = Table::new(1);
        (1..=6).for_each(|key| _ = (count(&table, key), count(&table, key)));
        count(&table, 7);
        count(&table, 8);
        assert!((1..=6).all(|key| count(&table, key) == 3));
    }

    #[test]
    fn who_comes_back_has_used_what_it_had_used() {
        let table = Table::new(1);
        (1..=5).for_each(|_| _ = count(&table, 1));
        (2..=8).for_each(|key| (1..=6).for_each(|_| _ = count(&table, key)));
        assert_eq!(table.evictions(), 1);
        // Meanwhile the counts of the others are cleared.
        (2..=8).for_each(|key| table.amend(key, |_| Some(0)));
        assert_eq!(count(&table, 1), 6);
    }

    #[test]
    fn who_is_refused_takes_nobodys_place() {
        let table = Table::new(1);
        (1..=7).for_each(|key| (1..=1000).for_each(|_| _ = count(&table, key)));
        (8..=100).for_each(|key| _ = count(&table, key));
        assert_eq!(table.evictions(), 0);
    }

    #[test]
    fn a_look_leaves_no_trace() {
        let table = Table::new(1);
        assert!((1..=100).all(|key| table.look(key, &Counts(1000), Moment::ZERO) == 1));
        assert!((1..=7).all(|key| count(&table, key) == 1));
        assert!((1..=7).all(|key| table.look(key, &Counts(1000), Moment::ZERO) == 2));
        assert!((1..=7).all(|key| count(&table, key) == 2));
    }

    #[test]
    fn an_amendment_reaches_a_key_that_is_known_and_makes_none() {
        let table = Table::new(10_000);
        (1..=5000).for_each(|key| _ = count(&table, key));
        (1..=5000).for_each(|key| table.amend(key, |n| n.checked_sub(1)));
        table.amend(9999, |_| Some(7));
        assert!((1..=5000).chain([9999]).all(|key| count(&table, key) == 1));
    }

    #[test]
    fn no_race_of_evictions_makes_a_count_too_low() {
        const ROUNDS: u64 = 5000;
        let table = Table::new(1);
        // One key more than there are slots, each counted by a thread of its own.
        let table = &table;
        thread::scope(|scope| {
            for key in 1..=8 {
                scope.spawn(move || {
                    for before in 0..ROUNDS {
                        let seen = table.count(key, &Counts(u64::MAX), Moment::ZERO);
                        assert!(seen > before, "{seen} of {before} by {key}");
                    }
                });
            }
        });
        assert!(table.evictions() > 0);
    }

    #[test]
    fn a_worthless_state_is_replaced_before_the_table_grows() {
        struct Worthless;

        impl States for Worthless {
            type Answer = ();

            fn step(&self, _: u64, _: Moment) -> Step<()> {
                Step { next: Some(1), answer: () }
            }

            fn worth(&self, _: u64, _: Moment) -> u64 {
                0
            }

            fn join(&self, one: u64, _: u64, _: Moment) -> u64 {
                one
            }

            fn begin(&self, _: u64, _: Moment) -> u64 {
                0
            }
        }

        let table = Table::new(10_000);
        (1..=1000).for_each(|key| table.count(key, &Worthless, Moment::ZERO));
        // It only grows until keys have sets of their own.
        assert_eq!(table.sets.into_inner(), ROOMY * lanes());
    }
}
