//! Which endpoints fail a much greater share of their attempts than the others.

use super::config::Window;
use super::machine::Tally;

/// How many times the share of the others an outlier's share is, at least.
const TIMES: f64 = 2.0;

/// The places of the outliers, the worst first.
pub(in super::super) fn outliers(tallies: &[Tally], window: &Window) -> Vec<usize> {
    let sum = |part: fn(&Tally) -> u64| tallies.iter().map(part).sum::<u64>();
    let all = Tally { ended: sum(|tally| tally.ended), failed: sum(|tally| tally.failed) };
    let mut found: Vec<(usize, f64)> = Vec::new();
    for (place, tally) in tallies.iter().enumerate() {
        let others = Tally { ended: all.ended - tally.ended, failed: all.failed - tally.failed };
        let (Some(share), Some(of_others)) = (tally.share(), others.share()) else { continue };
        if tally.ended >= u64::from(window.minimum_calls)
            && share >= window.failure_rate.fraction()
            && share >= TIMES * of_others
        {
            found.push((place, share));
        }
    }
    found.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    found.into_iter().map(|(place, _)| place).collect()
}

impl Tally {
    /// `None` without attempts.
    fn share(self) -> Option<f64> {
        // A failure is counted a moment before its attempt counts as ended.
        (self.ended > 0).then(|| (self.failed as f64 / self.ended as f64).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tallies: &[(u64, u64)]) -> Vec<usize> {
        let tallies =
            tallies.iter().map(|(failed, ended)| Tally { ended: *ended, failed: *failed });
        outliers(&tallies.collect::<Vec<_>>(), &Window::default())
    }

    #[test]
    fn an_endpoint_that_fails_much_more_than_the_others_is_found() {
        assert_eq!(found(&[(60, 100), (1, 100), (0, 100)]), [0]);
        assert_eq!(found(&[(0, 100), (60, 100)]), [1]);
        assert_eq!(found(&[(60, 100), (0, 100), (90, 100), (0, 100), (0, 100)]), [2, 0]);
    }

    #[test]
    fn endpoints_that_all_fail_alike_are_not_outliers() {
        assert_eq!(found(&[(60, 100), (70, 100), (65, 100)]), [0_usize; 0]);
        assert_eq!(found(&[(100, 100), (100, 100)]), [0_usize; 0]);
    }

    #[test]
    fn few_attempts_few_failures_and_a_single_endpoint_say_nothing() {
        assert_eq!(found(&[(49, 49), (0, 1000)]), [0_usize; 0]);
        assert_eq!(found(&[(49, 100), (0, 1000)]), [0_usize; 0]);
        assert_eq!(found(&[(100, 100)]), [0_usize; 0]);
        assert_eq!(found(&[(100, 100), (0, 0)]), [0_usize; 0]);
    }
}
