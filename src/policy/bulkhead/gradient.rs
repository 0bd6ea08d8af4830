//! A limit that follows latency: Gradient2 of Netflix's concurrency-limits.
//!
//! The average latency of a short window is compared with a long-time average. While it is within
//! the tolerance, the limit grows by a small queue; beyond it the limit shrinks by the ratio of the
//! two. The long-time average adapts to a lasting load, so in the end only `max` bounds an upstream
//! that stays overloaded.

use std::time::Duration;

use super::config::Adaptive;

/// The limit and the data it is computed from. Updated once per window.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gradient {
    config: Adaptive,
    limit: f64,
    /// The long-time average, in seconds.
    long: f64,
    /// The number of windows in `long`, up to [`WARM_UP`].
    windows: u32,
}

/// For this many windows the average is the arithmetic mean; after that it is exponential.
const WARM_UP: u32 = 10;
/// The weight of a window in the exponential average: that of an average over 600.
const WEIGHT: f64 = 2.0 / 601.0;
/// If the long-time average is this many times the latest window, it reflects a load that is over,
/// and decays faster.
const RECOVERING: f64 = 2.0;
const RECOVERY: f64 = 0.95;
/// The smallest factor that one window applies to the limit, before smoothing.
const STEEPEST: f64 = 0.5;
/// Requests that may queue at the upstream; the limit tries to grow by this many.
const QUEUE: f64 = 4.0;
/// The weight of a window in the limit.
const SMOOTHING: f64 = 0.2;

impl Gradient {
    /// Starts from `slots`, clamped to the bounds.
    pub(super) fn new(config: &Adaptive, slots: u32) -> Self {
        let limit = slots.clamp(config.min(), config.max.get()).into();
        Gradient { config: config.clone(), limit, long: 0.0, windows: 0 }
    }

    pub(super) fn config(&self) -> &Adaptive {
        &self.config
    }

    /// The limit, in whole slots.
    pub(super) fn slots(&self) -> u32 {
        // The limit is within `min` and `max`, so the cast is exact enough.
        self.limit as u32
    }

    /// Takes a window into account: its average latency, and the most requests in flight.
    pub(super) fn update(&mut self, latency: Duration, peak: u32) {
        let short = latency.max(Duration::from_nanos(1)).as_secs_f64();
        self.average(short);
        // With more than half of the slots free, the latency says nothing about the limit.
        if f64::from(peak) < self.limit / 2.0 {
            return;
        }
        let gradient = (self.config.tolerance * self.long / short).clamp(STEEPEST, 1.0);
        let wanted = self.limit * gradient + QUEUE;
        let smoothed = self.limit + SMOOTHING * (wanted - self.limit);
        self.limit = smoothed.clamp(self.config.min().into(), self.config.max.get().into());
    }

    fn average(&mut self, short: f64) {
        if self.windows < WARM_UP {
            self.windows += 1;
            self.long += (short - self.long) / f64::from(self.windows);
        } else {
            self.long += WEIGHT * (short - self.long);
        }
        if self.long > RECOVERING * short {
            self.long *= RECOVERY;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gradient() -> Gradient {
        Gradient::new(&serde_yaml::from_str("{min: 10, max: 200}").expect("valid"), 20)
    }

    /// Updates `windows` times with every slot taken.
    fn saturate(gradient: &mut Gradient, windows: u32, millis: u64) -> u32 {
        for _ in 0..windows {
            gradient.update(Duration::from_millis(millis), gradient.slots());
        }
        gradient.slots()
    }

    #[test]
    fn the_limit_grows_while_the_latency_stays() {
        let mut gradient = gradient();
        let grown = saturate(&mut gradient, 10, 50);
        assert!(grown > 20, "{grown}");
        assert_eq!(saturate(&mut gradient, 1000, 50), 200);
    }

    #[test]
    fn the_limit_falls_while_the_latency_is_above_its_average() {
        let mut gradient = gradient();
        saturate(&mut gradient, 1000, 50);
        // Two seconds' worth of windows.
        let fallen = saturate(&mut gradient, 20, 500);
        assert!(fallen < 50, "{fallen}");
        assert_eq!(saturate(&mut gradient, 20, 500), 10);
    }

    #[test]
    fn the_limit_returns_with_the_latency() {
        let mut gradient = gradient();
        saturate(&mut gradient, 1000, 50);
        saturate(&mut gradient, 40, 500);
        assert_eq!(saturate(&mut gradient, 500, 50), 200);
    }

    #[test]
    fn a_rise_within_the_tolerance_takes_nothing_away() {
        let mut gradient = gradient();
        saturate(&mut gradient, 1000, 50);
        assert_eq!(saturate(&mut gradient, 100, 74), 200);
    }

    #[test]
    fn a_limit_that_is_not_used_does_not_move() {
        let mut gradient = gradient();
        for millis in [50, 50, 500, 5000] {
            gradient.update(Duration::from_millis(millis), 9);
        }
        assert_eq!(gradient.slots(), 20);
    }

    proptest! {
        #[test]
        fn the_limit_never_leaves_its_bounds(
            windows in prop::collection::vec((0..10_000_000_000_u64, 0..300_u32), 0..500),
        ) {
            let mut gradient = gradient();
            for (nanos, peak) in windows {
                gradient.update(Duration::from_nanos(nanos), peak);
                prop_assert!((10..=200).contains(&gradient.slots()));
            }
        }
    }
}
