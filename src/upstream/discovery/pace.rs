//! When a source is asked again that says for how long its answers hold.

use std::time::Duration;

use crate::time::Moment;

/// An answer is asked for again after this time at the earliest, however short it holds.
const LEAST: Duration = Duration::from_secs(1);
/// The longest pause before a question is repeated that had no answer.
const LONGEST: Duration = Duration::from_secs(5);

/// What was learned from asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// Everything, for so long.
    All(Duration),
    /// Only a part, for so long.
    Part(Duration),
    /// Nothing.
    Nothing,
}

/// The pauses between questions.
#[derive(Debug)]
pub struct Pace {
    /// The longest one.
    every: Duration,
    /// The one after a question that was not answered as a whole, which grows.
    retry: Duration,
}

impl Pace {
    /// At most `every`, and at least a second.
    pub fn new(every: Duration) -> Self {
        Pace { every: every.max(LEAST), retry: LEAST }
    }

    /// How long to wait before the next question.
    pub fn after(&mut self, learned: Learned) -> Duration {
        let (longest, is_whole) = match learned {
            Learned::All(ttl) => (ttl, true),
            Learned::Part(ttl) => (ttl, false),
            Learned::Nothing => (LONGEST, false),
        };
        let longest = longest.clamp(LEAST, self.every);
        if is_whole {
            self.retry = LEAST;
            return longest;
        }
        let pause = self.retry.min(longest);
        self.retry = (self.retry * 2).min(LONGEST);
        pause
    }
}

/// Keeps apart questions whose answers come at once, however often: two may follow each other, then there
/// is one in each `LEAST`.
#[derive(Debug, Default)]
pub struct Spacing {
    /// When the time of the questions so far is over.
    due: Moment,
}

impl Spacing {
    /// How long to wait before the question that is due now.
    pub fn pause(&mut self, now: Moment) -> Duration {
        let begins = self.due.max(now);
        self.due = begins + LEAST;
        begins.since(now).saturating_sub(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn an_answer_is_asked_for_again_when_it_holds_no_longer() {
        let mut pace = Pace::new(seconds(10));
        for (ttl, pause) in [(0, 1), (1, 1), (7, 7), (10, 10), (3600, 10)] {
            assert_eq!(pace.after(Learned::All(seconds(ttl))), seconds(pause), "{ttl}");
        }
        assert_eq!(Pace::new(Duration::ZERO).after(Learned::All(seconds(7))), seconds(1));
    }

    #[test]
    fn a_question_without_an_answer_is_repeated_after_a_pause_that_grows() {
        let mut pace = Pace::new(seconds(10));
        let mut pauses =
            |count| (0..count).map(|_| pace.after(Learned::Nothing).as_secs()).collect();
        let first: Vec<_> = pauses(6);
        assert_eq!(first, [1, 2, 4, 5, 5, 5]);
        pace.after(Learned::All(seconds(7)));
        assert_eq!(pace.after(Learned::Nothing), seconds(1), "from the beginning");
    }

    #[test]
    fn the_rest_of_an_answer_is_asked_for_soon_and_never_later_than_what_is_known_holds() {
        let mut pace = Pace::new(seconds(60));
        let pauses = [9, 9, 9, 9, 2].map(|ttl| pace.after(Learned::Part(seconds(ttl))).as_secs());
        assert_eq!(pauses, [1, 2, 4, 5, 2]);
    }

    #[test]
    fn two_questions_may_follow_each_other_and_then_there_is_one_a_second() {
        let mut spacing = Spacing::default();
        let mut now = Moment::ZERO + seconds(100);
        let mut pauses = Vec::new();
        for _ in 0..5 {
            let pause = spacing.pause(now);
            pauses.push(pause.as_secs());
            // It is answered at once.
            now = now + pause;
        }
        assert_eq!(pauses, [0, 0, 1, 1, 1]);
        assert_eq!(spacing.pause(now + seconds(60)), Duration::ZERO, "after a silence");
    }
}
