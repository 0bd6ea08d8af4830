//! The one rule for what a source says: the last good answer is kept.
//!
//! A source that cannot be asked changes nothing, for ever. An empty answer is accepted only after
//! some time: registries and resolvers give one when they have just been started, or are cut off
//! themselves.
//!
//! ```text
//!            an answer                        nothing, for `empty_after`
//! nothing ──────────────> Good ────────────────────────────────────────> Emptied
//! known                    ^ │ nothing, or a failure: kept                  │
//!                          │ └──> Good                                      │
//!                          └──────────────── an answer ────────────────────┘
//! ```

use std::time::Duration;

use crate::time::Moment;

/// What a source says when it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said<T> {
    /// These, at least one.
    These(T),
    /// It names no endpoints, in these words.
    Nothing(String),
    /// It could not be asked, or its answer could not be read, for this reason.
    Failed(String),
}

impl<T> Said<Vec<T>> {
    /// These, or [`Said::Nothing`] in the words of `nothing` if there are none.
    pub fn of(these: Vec<T>, nothing: &str) -> Self {
        match these.is_empty() {
            true => Said::Nothing(nothing.to_owned()),
            false => Said::These(these),
        }
    }

    /// The same of what these are taken for.
    pub(in crate::upstream) fn map<U>(self, of: impl FnOnce(Vec<T>) -> Vec<U>) -> Said<Vec<U>> {
        match self {
            Said::These(these) => Said::These(of(these)),
            Said::Nothing(words) => Said::Nothing(words),
            Said::Failed(words) => Said::Failed(words),
        }
    }

    /// The same, unless there are more than `most`: that is a mistake of the source.
    #[must_use]
    pub fn at_most(self, most: u32, what: &str) -> Self {
        match self {
            Said::These(these) if these.len() > most as usize => Said::Failed(format!(
                "{} {what}, of which `max_endpoints` allows {most}",
                these.len()
            )),
            said => said,
        }
    }
}

/// What is known from a source.
#[derive(Debug, Clone)]
pub struct Known<T> {
    last: Option<T>,
    /// When the last good answer came.
    confirmed: Option<Moment>,
    /// Since when there has been no good answer.
    lacking_since: Option<Moment>,
    /// Since when the source names no endpoints, without the time in which it failed.
    empty_since: Option<Moment>,
    /// Since when it fails, while it does.
    failing_since: Option<Moment>,
    /// The source's empty answer has been accepted, and it has named no endpoints since.
    is_emptied: bool,
}

/// What has changed with an answer: for a line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edge {
    /// There is an answer again, after this long.
    Back(Duration),
    /// There is no good answer from now on, for this reason; what is known is kept.
    Lost(String),
    /// The source has named no endpoints for so long that its empty answer is accepted.
    Emptied,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Known {
            last: None,
            confirmed: None,
            lacking_since: None,
            empty_since: None,
            failing_since: None,
            is_emptied: false,
        }
    }
}

impl<T> Known<T> {
    /// What the source said last, if it said anything; `None` also after it was emptied.
    pub fn last(&self) -> Option<&T> {
        self.last.as_ref()
    }

    /// Whether it has answered, or was emptied: before, what others know is as good.
    pub fn is_decided(&self) -> bool {
        self.confirmed.is_some() || self.is_emptied
    }

    /// Whether it was asked at all, whatever came of it.
    pub fn is_asked(&self) -> bool {
        self.is_decided() || self.lacking_since.is_some()
    }

    /// When the last good answer came.
    pub fn confirmed(&self) -> Option<Moment> {
        self.confirmed
    }

    /// Since when the source has not answered.
    pub fn lacking_since(&self) -> Option<Moment> {
        self.lacking_since
    }

    /// Forgets the last answer: there are certainly no endpoints any more.
    pub fn forget(&mut self, now: Moment) {
        self.last = None;
        self.is_emptied = true;
        self.empty_since.get_or_insert(now);
        self.lacking_since.get_or_insert(now);
    }

    /// Takes in what the source said at `now`. It is emptied once the source has named no endpoints
    /// for `empty_after`; zero: never.
    pub fn take_in(&mut self, said: Said<T>, empty_after: Duration, now: Moment) -> Option<Edge> {
        let (reason, is_nothing) = match said {
            Said::These(these) => {
                self.last = Some(these);
                self.confirmed = Some(now);
                (self.empty_since, self.failing_since, self.is_emptied) = (None, None, false);
                return self.lacking_since.take().map(|since| Edge::Back(now.since(since)));
            }
            Said::Nothing(reason) => (reason, true),
            Said::Failed(reason) => (reason, false),
        };
        if is_nothing {
            let failed = self.failing_since.take().map(|since| now.since(since));
            let since = self.empty_since.map(|since| since + failed.unwrap_or_default());
            let since = since.unwrap_or(now);
            self.empty_since = Some(since);
            if !empty_after.is_zero() && now.since(since) >= empty_after {
                self.is_emptied = true;
                if self.last.take().is_some() {
                    self.lacking_since.get_or_insert(now);
                    return Some(Edge::Emptied);
                }
            }
        } else {
            self.failing_since.get_or_insert(now);
        }
        match self.lacking_since {
            Some(_) => None,
            None => {
                self.lacking_since = Some(now);
                Some(Edge::Lost(reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    fn nothing() -> Said<u32> {
        Said::Nothing("no such name".to_owned())
    }

    fn failed() -> Said<u32> {
        Said::Failed("no answer".to_owned())
    }

    /// What is known after each of these.
    fn known(story: &[(u64, Said<u32>)]) -> Vec<Option<u32>> {
        let mut known = Known::default();
        let told = story.iter().map(|(seconds, said)| {
            known.take_in(said.clone(), AFTER, at(*seconds));
            known.last().copied()
        });
        told.collect()
    }

    #[test]
    fn a_source_that_cannot_be_asked_changes_nothing_for_ever() {
        let story = [(0, Said::These(7)), (10, failed()), (100_000, failed())];
        assert_eq!(known(&story), [Some(7), Some(7), Some(7)]);
    }

    #[test]
    fn nothing_is_believed_after_some_time() {
        let story = [(0, Said::These(7)), (10, nothing()), (39, nothing()), (40, nothing())];
        assert_eq!(known(&story), [Some(7), Some(7), Some(7), None]);
    }

    #[test]
    fn an_answer_ends_the_time() {
        let story = [(0, Said::These(7)), (10, nothing()), (20, Said::These(8)), (45, nothing())];
        assert_eq!(known(&story), [Some(7), Some(7), Some(8), Some(8)]);
    }

    #[test]
    fn failures_meanwhile_do_not_empty_but_do_not_hide_it_either() {
        let story = [(0, Said::These(7)), (10, nothing()), (50, failed()), (60, nothing())];
        assert_eq!(known(&story), [Some(7), Some(7), Some(7), None]);
    }

    #[test]
    fn the_time_in_which_it_failed_does_not_count() {
        let story = [(0, Said::These(7)), (10, nothing()), (11, failed()), (600, failed())];
        let later = [(601, nothing()), (629, nothing()), (630, nothing())];
        let known = known(&[&story[..], &later[..]].concat());
        assert_eq!(known[4..], [Some(7), Some(7), None]);
    }

    #[test]
    fn what_has_said_nothing_else_for_long_enough_is_decided() {
        let mut source = Known::<u32>::default();
        source.take_in(nothing(), AFTER, at(0));
        assert!(!source.is_decided());
        source.take_in(nothing(), AFTER, at(30));
        assert!(source.is_decided());
    }

    #[test]
    fn what_is_forgotten_is_not_waited_for() {
        let mut source = Known::default();
        source.take_in(Said::These(7), AFTER, at(0));
        source.forget(at(10));
        assert_eq!((source.last(), source.lacking_since()), (None, Some(at(10))));
        assert_eq!(source.take_in(nothing(), AFTER, at(11)), None);
        let back = Some(Edge::Back(Duration::from_secs(2)));
        assert_eq!(
            (source.take_in(Said::These(8), AFTER, at(12)), source.last()),
            (back, Some(&8))
        );
    }

    #[test]
    fn each_edge_is_told_once() {
        let mut source = Known::default();
        let mut tell = |seconds, said| source.take_in(said, AFTER, at(seconds));
        assert_eq!(tell(0, Said::These(7)), None);
        assert_eq!(tell(10, nothing()), Some(Edge::Lost("no such name".to_owned())));
        assert_eq!(tell(20, failed()), None);
        assert_eq!(tell(40, nothing()), None);
        assert_eq!(tell(60, nothing()), Some(Edge::Emptied));
        assert_eq!(tell(70, nothing()), None);
        assert_eq!(tell(80, Said::These(8)), Some(Edge::Back(Duration::from_secs(70))));
        assert_eq!(tell(90, Said::These(8)), None);
    }

    #[test]
    fn with_zero_nothing_is_never_believed() {
        let mut source = Known::default();
        source.take_in(Said::These(7), Duration::ZERO, at(0));
        source.take_in(nothing(), Duration::ZERO, at(10));
        source.take_in(nothing(), Duration::ZERO, at(1_000_000));
        assert_eq!(source.last(), Some(&7));
    }
}
