//! The accounts of a budget by caller, in bounded memory.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};

use crossbeam_utils::CachePadded;

use crate::policy::sync::{Mutex, MutexGuard, PoisonError};
use crate::time::Moment;

/// Tables of this many callers and more are in parts, so that threads seldom wait for each other.
const LARGE: u32 = 1024;
const PARTS: usize = 16;
/// How many accounts are looked at to find one that makes room.
const LOOKS: usize = 8;

/// Where a request is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    caller: u64,
    /// It is one of those that have an account together.
    pub(super) is_rest: bool,
}

/// What is kept of a caller.
pub(super) trait Account: Default {
    type Rule;

    /// Whether a new account would do as well.
    fn is_as_new(&self, rule: &Self::Rule, now: Moment) -> bool;
}

#[derive(Debug)]
pub(super) struct Table<A: Account> {
    rule: A::Rule,
    /// Keyed at random, so that a client cannot choose names that collide.
    hasher: RandomState,
    /// Plain locks, held for a look into a table and a sum of ten numbers.
    parts: Box<[CachePadded<Mutex<Part<A>>>]>,
    /// The most accounts of a part.
    most: usize,
    /// The account of those that find no room. Never locked together with a part.
    rest: CachePadded<Mutex<A>>,
}

#[derive(Debug, Default)]
struct Part<A> {
    places: HashMap<u64, u32>,
    accounts: Vec<(u64, A)>,
    /// The account that is looked at next.
    hand: usize,
}

impl<A: Account> Table<A> {
    pub(super) fn new(rule: A::Rule, max_keys: u32) -> Self {
        let parts = if max_keys >= LARGE { PARTS } else { 1 };
        let part = || CachePadded::new(Mutex::new(Part::default()));
        Table {
            rule,
            hasher: RandomState::new(),
            parts: (0..parts).map(|_| part()).collect(),
            most: max_keys as usize / parts,
            rest: CachePadded::default(),
        }
    }

    pub(super) fn seat(&self, caller: &impl Hash) -> Seat {
        Seat { caller: self.hasher.hash_one(caller), is_rest: false }
    }

    fn part(&self, caller: u64) -> MutexGuard<'_, Part<A>> {
        let part = &self.parts[caller as usize & (self.parts.len() - 1)];
        // A panic cannot leave anything half-done under this lock.
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the account of the seat; of a caller that has none yet, a new one or that of the rest.
    pub(super) fn with<T>(
        &self,
        seat: Seat,
        now: Moment,
        change: impl FnOnce(&mut A, &A::Rule) -> T,
    ) -> (Seat, T) {
        if !seat.is_rest {
            let mut part = self.part(seat.caller);
            if let Some(place) = part.place(seat.caller, self.most, &self.rule, now) {
                return (seat, change(&mut part.accounts[place].1, &self.rule));
            }
        }
        (Seat { is_rest: true, ..seat }, change(&mut self.rest(), &self.rule))
    }

    fn rest(&self) -> MutexGuard<'_, A> {
        // The same.
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sum(&self, of: impl Fn(&A, &A::Rule) -> f64) -> f64 {
        let sum = |part: &CachePadded<Mutex<Part<A>>>| {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            part.accounts.iter().map(|(_, account)| of(account, &self.rule)).sum::<f64>()
        };
        self.parts.iter().map(sum).sum::<f64>() + of(&self.rest(), &self.rule)
    }

    pub(super) fn count(&self) -> usize {
        let count = |part: &CachePadded<Mutex<Part<A>>>| {
            part.lock().unwrap_or_else(PoisonError::into_inner).accounts.len()
        };
        self.parts.iter().map(count).sum()
    }
}

impl<A: Account> Part<A> {
    /// Where the caller's account is, if need be a new one; `None` if there is no room for one.
    fn place(&mut self, caller: u64, most: usize, rule: &A::Rule, now: Moment) -> Option<usize> {
        if let Some(place) = self.places.get(&caller) {
            return Some(*place as usize);
        }
        let place = if self.accounts.len() < most {
            self.accounts.push((caller, A::default()));
            self.accounts.len() - 1
        } else {
            let place = (0..LOOKS.min(most)).find_map(|_| {
                self.hand = (self.hand + 1) % most;
                self.accounts[self.hand].1.is_as_new(rule, now).then_some(self.hand)
            })?;
            self.places.remove(&self.accounts[place].0);
            self.accounts[place] = (caller, A::default());
            place
        };
        // At most a million.
        self.places.insert(caller, place as u32);
        Some(place)
    }
}
