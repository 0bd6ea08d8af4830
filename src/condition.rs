//! Conditions that last: a line in the log when one begins, and one when it ends.
//!
//! A store that is away fails request after request. An operator needs to know when that began, when
//! it was over, and how often it was met, and nothing else in between. [`Condition`] is for what ends
//! by a success; [`Spell`] for what nothing ends, and which is over once it has not been met for a
//! while. Neither writes lines: only who meets a condition knows the words.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::time::{Clock, Moment};

/// A spell is over once its condition has not been met for so long.
pub const QUIET: Duration = Duration::from_secs(10);

/// Something that is met, possibly often, until it is over.
#[derive(Debug, Default)]
pub struct Condition(Option<Met>);

#[derive(Debug, Clone, Copy)]
struct Met {
    since: Moment,
    last: Moment,
    times: u64,
}

/// A condition that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// From when it was first met to its end; of a spell, to when it was last met.
    pub lasted: Duration,
    /// How often it was met.
    pub times: u64,
}

impl Condition {
    /// It is met at `now`. Whether it begins with that, so that there is something to log.
    pub fn met(&mut self, now: Moment) -> bool {
        self.met_times(1, now)
    }

    /// The same for several times at once.
    pub fn met_times(&mut self, times: u64, now: Moment) -> bool {
        match &mut self.0 {
            Some(met) => {
                met.times = met.times.saturating_add(times);
                met.last = now;
                false
            }
            None => {
                self.0 = Some(Met { since: now, last: now, times });
                true
            }
        }
    }

    /// It is not met any more. What it was, if that is news.
    pub fn over(&mut self, now: Moment) -> Option<Over> {
        let Met { since, times, .. } = self.0.take()?;
        Some(Over { lasted: now.since(since), times })
    }

    /// Ends it if it has not been met for `quiet`.
    pub fn over_after(&mut self, quiet: Duration, now: Moment) -> Option<Over> {
        self.0.filter(|met| now.since(met.last) >= quiet)?;
        self.stop()
    }

    /// Ends it with when it was last met.
    pub fn stop(&mut self) -> Option<Over> {
        let Met { since, last, times } = self.0.take()?;
        Some(Over { lasted: last.since(since), times })
    }

    /// Whether it has begun, and is not over.
    pub fn is_met(&self) -> bool {
        self.0.is_some()
    }
}

/// As it ends a sentence: `after 12.3 s (45 times)`.
impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Over { lasted, times } = self;
        let times = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
        write!(f, "after {:.1} s ({times})", lasted.as_secs_f64())
    }
}

/// A condition that nothing ends. Cheap to clone; clones are the same one.
#[derive(Debug, Clone)]
pub struct Spell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Locked briefly, by those who meet it.
    condition: Mutex<Condition>,
    quiet: Duration,
}

impl Default for Spell {
    fn default() -> Self {
        Spell::of(QUIET)
    }
}

impl Spell {
    fn of(quiet: Duration) -> Self {
        Spell(Arc::new(Inner { condition: Mutex::default(), quiet }))
    }

    /// It is met. `Some` if it begins with that, so that there is something to log.
    #[must_use = "what begins is logged"]
    pub fn met(&self) -> Option<Begun> {
        self.lock().met(Clock::now()).then(|| Begun(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Condition> {
        // Every change leaves it consistent, so a panic elsewhere does no harm.
        self.0.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it may be over; `None` if it is not met.
    fn due(&self) -> Option<Moment> {
        self.lock().0.map(|met| met.last + self.0.quiet)
    }

    fn over(&self) -> Option<Over> {
        self.lock().over_after(self.0.quiet, Clock::now())
    }
}

/// A spell that has begun.
#[must_use = "nothing else says that it is over"]
pub struct Begun(Spell);

impl Begun {
    /// Calls `ended` once the spell is over; not if its condition was met only once, of which
    /// everything has been said.
    pub fn until(self, ended: impl FnOnce(Over) + Send + 'static) {
        let Begun(spell) = self;
        let told = move |over: Over| {
            if over.times > 1 {
                ended(over);
            }
        };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                while let Some(due) = spell.due() {
                    tokio::time::sleep_until(Clock::instant(due).into()).await;
                    if let Some(over) = spell.over() {
                        return told(over);
                    }
                }
            });
            return;
        }
        // A thread that waits for files has no runtime. Without a thread there is no second line.
        let _ = std::thread::Builder::new().name("condition".to_owned()).spawn(move || {
            while let Some(due) = spell.due() {
                std::thread::sleep(due.since(Clock::now()));
                if let Some(over) = spell.over() {
                    return told(over);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_condition_begins_once_and_ends_once() {
        let mut condition = Condition::default();
        assert_eq!(condition.over(at(0)), None, "it has not begun");
        assert_eq!([100, 200, 300].map(|now| condition.met(at(now))), [true, false, false]);
        let over = Over { lasted: Duration::from_millis(400), times: 3 };
        assert_eq!(condition.over(at(500)), Some(over));
        assert_eq!(condition.over(at(600)), None);
        assert!(condition.met(at(700)), "it begins again");
        assert_eq!(over.to_string(), "after 0.4 s (3 times)");
    }

    #[test]
    fn a_quiet_condition_is_over_and_lasted_until_it_was_last_met() {
        let mut condition = Condition::default();
        condition.met(at(0));
        condition.met_times(5, at(4_000));
        assert_eq!(condition.over_after(QUIET, at(13_999)), None);
        let over = Over { lasted: Duration::from_secs(4), times: 6 };
        assert_eq!(condition.over_after(QUIET, at(14_000)), Some(over));
    }

    /// A spell that is met three times; what is told of its end.
    fn told_of(times: u64) -> Result<Over, RecvTimeoutError> {
        let spell = Spell::of(Duration::from_millis(50));
        let (tell, told) = channel();
        for n in 0..times {
            match spell.met() {
                Some(begun) => {
                    assert_eq!(n, 0, "it begins once");
                    let tell = tell.clone();
                    begun.until(move |over| tell.send(over).expect("a test that waits"));
                }
                None => assert!(n > 0),
            }
        }
        drop(tell);
        told.recv_timeout(Duration::from_secs(20))
    }

    #[test]
    fn the_end_of_a_spell_is_told_without_a_runtime() {
        assert_eq!(told_of(3).map(|over| over.times), Ok(3));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_end_of_a_spell_is_told_once_it_is_quiet() {
        let over = tokio::task::spawn_blocking(|| told_of(3)).await.expect("no panic");
        assert_eq!(over.map(|over| over.times), Ok(3));
    }

    #[test]
    fn what_was_met_once_has_no_second_line() {
        assert_eq!(told_of(1), Err(RecvTimeoutError::Disconnected));
    }
}
