//! Logs the state of a collector: one line when it becomes unreachable and one when it is back,
//! however much is lost meanwhile.
//!
//! Spans and metrics usually go to the same collector. That it is unreachable is logged once for
//! both; that it refuses one of them is logged for that signal.

use std::sync::{Arc, Mutex, PoisonError};

use super::sender::{Accepted, Failure, Kind};
use crate::condition::{Condition, Over};
use crate::config::otlp::environment::Signal;
use crate::config::otlp::telemetry::Destination;
use crate::time::{Clock, Moment};

/// A collector, and its state at the last export.
pub(super) struct Collector {
    /// The collector's name in the log.
    name: String,
    /// Locked briefly, once per export.
    seen: Mutex<Seen>,
}

/// Logs the results of one signal.
#[derive(Clone)]
pub(super) struct Reporter {
    collector: Arc<Collector>,
    signal: Signal,
}

/// What is wrong with the collector.
#[derive(Debug, Default)]
struct Seen {
    away: Condition,
    /// By signal.
    refusing: [Condition; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Taking,
    Refusing,
    Away,
}

/// What is logged.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Away,
    Back(Over),
    Refuses,
    TakesAgain(Over),
}

impl Collector {
    pub(super) fn new(name: String) -> Self {
        Collector { name, seen: Mutex::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// A collector's name. Omits the path, which differs between signals.
pub(super) fn name(destination: &Destination) -> String {
    let scheme = destination.uri.scheme_str().unwrap_or_default();
    let authority = destination.uri.authority().map_or("", |authority| authority.as_str());
    format!("{scheme}://{authority} ({})", destination.protocol)
}

impl Reporter {
    pub(super) fn new(collector: Arc<Collector>, signal: Signal) -> Self {
        Reporter { collector, signal }
    }

    pub(super) fn report(&self, result: &Result<Accepted, Failure>) {
        let (state, why) = match result {
            Ok(Accepted { rejected: 0, .. }) => (State::Taking, String::new()),
            Ok(Accepted { rejected, why }) => {
                (State::Refusing, format!("it rejects {rejected} of them: {why}"))
            }
            Err(Failure { kind: Kind::Refused, why, .. }) => (State::Refusing, why.clone()),
            Err(Failure { kind: Kind::Unreachable, why, .. }) => (State::Away, why.clone()),
        };
        let line = {
            let mut seen = self.collector.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.note(self.signal, state, Clock::now())
        };
        let (name, what) = (&self.collector.name, what(self.signal));
        match line {
            None => {}
            Some(Line::Away) => {
                log::warn!(
                    "otlp: {name} is away, nothing is exported to it until it is back: {why}"
                );
            }
            Some(Line::Back(over)) => log::info!("otlp: {name} is back {over}"),
            Some(Line::Refuses) => {
                log::warn!("otlp: {name} refuses {what}, they are lost until it takes them: {why}");
            }
            Some(Line::TakesAgain(over)) => log::info!("otlp: {name} takes {what} again {over}"),
        }
    }
}

const fn what(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "spans",
        Signal::Metrics => "metrics",
    }
}

impl Seen {
    fn note(&mut self, signal: Signal, state: State, now: Moment) -> Option<Line> {
        let refusing = &mut self.refusing[signal as usize];
        if state == State::Away {
            refusing.stop();
            return self.away.met(now).then_some(Line::Away);
        }
        // Any response shows that the collector is reachable, for the other signal too.
        let back = self.away.over(now).map(Line::Back);
        match state {
            // Which also shows that it is back.
            State::Refusing if refusing.met(now) => Some(Line::Refuses),
            State::Refusing => back,
            State::Taking | State::Away => back.or(refusing.over(now).map(Line::TakesAgain)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Signal::{Metrics, Traces};
    use super::State::{Away, Refusing, Taking};
    use super::*;

    fn lines(seen: &[(Signal, State)]) -> Vec<Line> {
        let mut state = Seen::default();
        let now = Moment::ZERO;
        seen.iter().filter_map(|(signal, seen)| state.note(*signal, *seen, now)).collect()
    }

    fn over(times: u64) -> Over {
        Over { lasted: Duration::ZERO, times }
    }

    #[test]
    fn a_collector_that_works_is_not_worth_a_line() {
        assert_eq!(lines(&[(Traces, Taking), (Metrics, Taking), (Traces, Taking)]), []);
    }

    #[test]
    fn an_outage_is_said_once_for_both_signals() {
        let outage = [(Traces, Away), (Metrics, Away), (Traces, Away), (Metrics, Away)];
        assert_eq!(lines(&outage), [Line::Away]);
        let back = [&outage[..], &[(Metrics, Taking), (Traces, Taking)]].concat();
        assert_eq!(lines(&back), [Line::Away, Line::Back(over(4))]);
        let again = [&back[..], &[(Traces, Away)]].concat();
        assert_eq!(lines(&again), [Line::Away, Line::Back(over(4)), Line::Away]);
    }

    #[test]
    fn a_signal_that_is_refused_for_good_does_not_fill_the_log() {
        let refused = [(Metrics, Refusing), (Traces, Taking), (Metrics, Refusing)];
        assert_eq!(lines(&refused), [Line::Refuses]);
        let taken = [&refused[..], &[(Metrics, Taking)]].concat();
        assert_eq!(lines(&taken), [Line::Refuses, Line::TakesAgain(over(2))]);
    }

    #[test]
    fn an_outage_is_said_of_a_collector_that_refused_something_before() {
        let seen = [(Metrics, Refusing), (Traces, Away), (Traces, Taking), (Metrics, Refusing)];
        assert_eq!(lines(&seen), [Line::Refuses, Line::Away, Line::Back(over(1))]);
    }
}
