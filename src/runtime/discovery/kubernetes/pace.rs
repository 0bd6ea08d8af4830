//! How long to wait before the next request to the API server.

use std::time::Duration;

use crate::runtime::discovery::backoff::{Backoff, LONGEST};

/// Counts what brought nothing in a row: a failure, a watch that ended at once, a version that was too
/// old although it had just been listed.
#[derive(Default)]
pub(super) struct Pace {
    backoff: Backoff,
    failures: u32,
    /// A list was asked for, and no change or long watch has followed yet.
    has_just_listed: bool,
    pause: Duration,
}

impl Pace {
    /// How long to wait now.
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The server has told something new.
    pub(super) fn heard(&mut self) {
        self.backoff.reset();
        (self.failures, self.has_just_listed) = (0, false);
    }

    /// All was listed: the watch comes at once. That it succeeds is not known yet.
    pub(super) fn listed(&mut self) {
        (self.failures, self.has_just_listed) = (0, true);
        self.pause = Duration::ZERO;
    }

    /// A watch of `time` has ended after `age`. If it has told nothing and was short, the next one may be, too.
    pub(super) fn ended(&mut self, age: Duration, time: Duration) {
        if age >= LONGEST.min(time / 2) {
            self.heard();
        }
        self.wait(Duration::ZERO);
    }

    /// The version is too old: all is listed at once, unless that has just been done.
    pub(super) fn too_old(&mut self) {
        match self.has_just_listed {
            false => (self.pause, self.has_just_listed) = (Duration::ZERO, true),
            true => self.wait(Duration::ZERO),
        }
    }

    /// The server could not be asked, or wants to be left alone for `least`.
    pub(super) fn failed(&mut self, least: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.wait(least);
    }

    fn wait(&mut self, least: Duration) {
        self.pause = self.backoff.pause(least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(300);

    /// Whether the pause is at most `seconds`, and at least half of that.
    #[track_caller]
    fn assert_pause(pace: &Pace, seconds: u64) {
        let most = Duration::from_secs(seconds);
        assert!((most / 2..=most).contains(&pace.pause()), "{:?}, not {most:?}", pace.pause());
    }

    #[test]
    fn the_pause_grows_while_it_fails_and_is_short_again_afterwards() {
        let mut pace = Pace::default();
        assert_eq!(pace.pause(), Duration::ZERO);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            pace.failed(Duration::ZERO);
            assert_pause(&pace, seconds);
        }
        assert_eq!(pace.failures(), 7);
        pace.heard();
        pace.failed(Duration::ZERO);
        assert_pause(&pace, 1);
    }

    #[test]
    fn a_watch_that_ends_at_once_again_and_again_is_begun_less_and_less_often() {
        let mut pace = Pace::default();
        pace.listed();
        for seconds in [1, 2, 4, 8] {
            pace.ended(Duration::from_millis(1), TIME);
            assert_pause(&pace, seconds);
        }
        pace.ended(Duration::from_secs(30), TIME);
        assert_pause(&pace, 1);
        assert_eq!(pace.failures(), 0);
    }

    #[test]
    fn a_list_whose_version_is_too_old_at_once_is_not_asked_for_without_pause() {
        let mut pace = Pace::default();
        pace.listed();
        pace.ended(Duration::from_secs(300), TIME);
        pace.too_old();
        assert_eq!(pace.pause(), Duration::ZERO, "the first time");
        for seconds in [2, 4, 8] {
            pace.listed();
            pace.too_old();
            assert_pause(&pace, seconds);
        }
    }

    #[test]
    fn a_list_that_is_too_old_before_its_end_is_not_asked_for_without_pause() {
        let mut pace = Pace::default();
        pace.too_old();
        for seconds in [1, 2, 4] {
            pace.too_old();
            assert_pause(&pace, seconds);
        }
    }

    #[test]
    fn the_server_may_ask_for_a_longer_pause_within_bounds() {
        let mut pace = Pace::default();
        pace.failed(Duration::from_secs(20));
        assert_eq!(pace.pause(), Duration::from_secs(20));
        pace.failed(Duration::from_secs(9999));
        assert_eq!(pace.pause(), LONGEST);
    }
}
