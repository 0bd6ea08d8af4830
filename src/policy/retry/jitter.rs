//! The random share of a wait before a retry.

use crate::policy::sync::{Mutex, PoisonError};

/// The source of randomness for one route's waits. With a seed, the same history of retries has the
/// same waits in every run.
#[derive(Debug)]
pub struct Jitter {
    /// A plain lock: taken only for retries, for a few instructions.
    seeded: Option<Mutex<fastrand::Rng>>,
}

impl Jitter {
    /// With a seed, the numbers are the same in every run; without one they are random.
    pub fn new(seed: Option<u64>) -> Self {
        Jitter { seeded: seed.map(|seed| Mutex::new(fastrand::Rng::with_seed(seed))) }
    }

    /// The next number, uniformly distributed over `[0, 1)`.
    pub fn draw(&self) -> f64 {
        match &self.seeded {
            // A panic cannot leave the generator in an invalid state.
            Some(seeded) => seeded.lock().unwrap_or_else(PoisonError::into_inner).f64(),
            None => fastrand::f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: Option<u64>) -> Vec<f64> {
        let jitter = Jitter::new(seed);
        (0..100).map(|_| jitter.draw()).collect()
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        assert_eq!(draws(Some(7)), draws(Some(7)));
        assert_ne!(draws(Some(7)), draws(Some(8)));
    }

    #[test]
    fn without_a_seed_no_two_runs_are_alike() {
        assert_ne!(draws(None), draws(None));
    }

    #[test]
    fn chance_is_spread_evenly() {
        for seed in [None, Some(0), Some(u64::MAX)] {
            let jitter = Jitter::new(seed);
            let mean = (0..10_000).map(|_| jitter.draw()).sum::<f64>() / 10_000.0;
            assert!((0.48..0.52).contains(&mean), "{mean}");
        }
    }
}
