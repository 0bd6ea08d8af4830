//! Shared state without contention for cache lines: each thread writes in its own lane.
//!
//! [`Lanes`] is state with a part in every lane; a reader of the whole adds up the parts.
//! [`Shared`] is one object that requests hold on to, each counted in the lane it came in by. A
//! plain `Arc` has a single count, which every request of every thread would write.

use std::ops::Deref;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::sync::{lane, lanes};

/// State in parts, one for each lane, each on cache lines of its own.
#[derive(Debug)]
pub(super) struct Lanes<T>(Box<[CachePadded<T>]>);

impl<T: Default> Default for Lanes<T> {
    fn default() -> Self {
        Lanes((0..lanes()).map(|_| CachePadded::default()).collect())
    }
}

impl<T> Lanes<T> {
    /// The part of the calling thread's lane.
    pub(super) fn mine(&self) -> &T {
        self.at(lane())
    }

    /// The part of lane number `lane`, modulo the number of lanes.
    pub(super) fn at(&self, lane: usize) -> &T {
        // The number of lanes is a power of two.
        &self.0[lane & (self.0.len() - 1)]
    }

    /// All parts.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.0.iter().map(|part| &**part)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

/// An object that requests on every thread hold.
#[derive(Debug)]
pub(super) struct Shared<T> {
    object: Arc<T>,
    lanes: Box<[Arc<Place<T>>]>,
}

/// Counts the holds of one lane. With its counts it takes two cache lines.
#[derive(Debug)]
#[repr(align(64))]
struct Place<T> {
    object: Arc<T>,
    lane: usize,
}

/// Keeps a shared object alive.
#[derive(Debug)]
pub(super) struct Hold<T>(Arc<Place<T>>);

/// The same object, held in the same lanes.
impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared { object: self.object.clone(), lanes: self.lanes.clone() }
    }
}

impl<T> Shared<T> {
    pub(super) fn new(object: T) -> Self {
        let object = Arc::new(object);
        let place = |lane| Arc::new(Place { object: Arc::clone(&object), lane });
        Shared { lanes: (0..lanes()).map(place).collect(), object }
    }

    /// In the calling thread's lane.
    pub(super) fn hold(&self) -> Hold<T> {
        self.hold_in(lane())
    }

    pub(super) fn hold_in(&self, lane: usize) -> Hold<T> {
        Hold(Arc::clone(&self.lanes[lane & (self.lanes.len() - 1)]))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T> Hold<T> {
    /// The lane in which it is counted.
    pub(super) fn lane(&self) -> usize {
        self.0.lane
    }
}

impl<T> Deref for Hold<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.object
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn nothing_is_lost_of_what_threads_add_in_their_lanes() {
        let lanes = Lanes::<AtomicU64>::default();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    (0..1000).for_each(|_| _ = lanes.mine().fetch_add(1, Ordering::Relaxed));
                });
            }
        });
        assert_eq!(lanes.iter().map(|part| part.load(Ordering::Relaxed)).sum::<u64>(), 8000);
    }

    #[test]
    fn no_two_lanes_share_a_line() {
        let lanes = Lanes::<AtomicU64>::default();
        let at: Vec<_> = lanes.iter().map(|part| std::ptr::from_ref(part) as usize / 64).collect();
        assert!(at.windows(2).all(|pair| pair[0] != pair[1]), "{at:?}");
    }

    #[test]
    fn an_object_lives_as_long_as_the_last_who_holds_it() {
        let object = Arc::new(());
        let shared = Shared::new(Arc::clone(&object));
        let holds: Vec<_> = (0..lanes()).map(|lane| shared.hold_in(lane)).collect();
        assert!(holds.iter().map(Hold::lane).eq(0..lanes()));
        drop(shared);
        assert_eq!(Arc::strong_count(&object), 2);
        drop(holds);
        assert_eq!(Arc::strong_count(&object), 1);
    }
}
