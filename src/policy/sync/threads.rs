//! Assigns threads to lanes: few enough that every shared object can have a part for each, and
//! enough that threads running at once rarely share one.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

const MOST: usize = 8;

/// The number of lanes: a power of two, one for each core that the process may use, at most
/// [`MOST`].
pub(crate) fn lanes() -> usize {
    // Read once: asking the system takes some microseconds.
    static LANES: OnceLock<usize> = OnceLock::new();
    *LANES.get_or_init(|| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // The same number on every machine in unit tests.
        let cores = if cfg!(test) { 4 } else { cores };
        cores.next_power_of_two().min(MOST)
    })
}

/// The lane of the calling thread.
pub(crate) fn lane() -> usize {
    // A thread that is shutting down may still give something back.
    MINE.try_with(|mine| mine.0).unwrap_or(0)
}

thread_local! {
    static MINE: Place = Place::take();
}

/// How many threads are in each lane. Process-wide, because threads are. Locked once at a thread's
/// first use, and once at its end.
static THREADS: Mutex<[usize; MOST]> = Mutex::new([0; MOST]);

/// A thread's place in a lane, freed when the thread ends.
struct Place(usize);

impl Place {
    /// Takes a place in the lane with the fewest threads.
    fn take() -> Self {
        let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = (0..lanes()).min_by_key(|lane| threads[*lane]).unwrap_or(0);
        threads[lane] += 1;
        Place(lane)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        THREADS.lock().unwrap_or_else(PoisonError::into_inner)[self.0] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_to_one_of_the_lanes() {
        let (first, again) = (lane(), lane());
        assert_eq!(first, again);
        assert!(first < lanes());
    }

    #[test]
    fn lanes_are_a_power_of_two() {
        assert!(lanes().is_power_of_two() && lanes() <= MOST);
    }

    #[test]
    fn a_place_is_in_a_lane_with_the_fewest_threads_and_free_again_afterwards() {
        // More than all other threads of these tests together, which come and go meanwhile.
        let places: Vec<_> = (0..4000).map(|_| Place::take()).collect();
        let mut held = [0_usize; MOST];
        places.iter().for_each(|place| held[place.0] += 1);
        assert!(held[..lanes()].iter().all(|held| held.abs_diff(1000) < 500), "{held:?}");
        drop(places);
        let threads = *THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(threads.iter().sum::<usize>() < 4000, "{threads:?}");
    }
}
