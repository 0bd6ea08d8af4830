//! Monotonic time as a number.
//!
//! Policies never read a clock: they are given a [`Moment`]. It is a plain count of nanoseconds, so
//! that a policy can keep one in an atomic and a test can make one up. Only the edges (`proxy`,
//! `runtime`, `upstream`) call [`Clock::now`].

use std::ops::Add;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// A point in monotonic time: nanoseconds since an arbitrary origin that is the same
/// for the whole process. Lasts 584 years. Steps of the wall clock do not move it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The origin; handy as the start of virtual time in tests.
    pub const ZERO: Moment = Moment(0);

    /// Nanoseconds since the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Moment(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    /// Saturates at the largest moment.
    fn add(self, by: Duration) -> Moment {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Moment(self.0.saturating_add(nanos))
    }
}

/// The process's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock;

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock {
    /// Reads the operating system's monotonic clock once.
    pub fn now() -> Moment {
        Moment(u64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// `moment` as an `Instant`, for the runtime's timers.
    pub fn instant(moment: Moment) -> Instant {
        *ORIGIN + Duration::from_nanos(moment.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_between_moments_never_goes_negative() {
        let early = Moment::from_nanos(5);
        let late = early + Duration::from_nanos(7);
        assert_eq!(late.since(early), Duration::from_nanos(7));
        assert_eq!(early.since(late), Duration::ZERO);
    }

    #[test]
    fn the_end_of_time_saturates() {
        assert_eq!(Moment::from_nanos(u64::MAX) + Duration::MAX, Moment::from_nanos(u64::MAX));
    }
}
