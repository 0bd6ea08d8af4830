//! The breaker against a naive model, over random histories in virtual time.
//!
//! The model remembers every call since the last change of phase and derives each result from that
//! list. It shares no code with the machine or the window.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::units::{Percent, Timespan};

#[derive(Clone, Copy, Debug)]
enum Step {
    Acquire,
    /// Ends the n-th oldest call in flight (modulo how many there are); `None` drops it.
    End(usize, Option<Verdict>),
    Pass(u64),
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    InFlight,
    Ended,
    Ignored,
}

struct Call {
    id: usize,
    begun: u64,
    fate: Fate,
    reclaimed: bool,
}

#[derive(Clone, Copy)]
struct Ending {
    verdict: Verdict,
    begun: u64,
    at: u64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Stage {
    Closed,
    Open { until: u64 },
    HalfOpen { since: u64, youngest: u64 },
}

struct Model {
    config: Config,
    stage: Stage,
    /// The calls of this phase, and so are the results, in the order they arrived.
    calls: Vec<Call>,
    results: Vec<Ending>,
    /// When the fixed interval began, and how many results there were at that time.
    interval: (u64, usize),
}

impl Model {
    fn new(config: Config) -> Self {
        Model { config, stage: Stage::Closed, calls: vec![], results: vec![], interval: (0, 0) }
    }

    fn enter(&mut self, stage: Stage, now: u64) {
        self.stage = stage;
        self.calls.clear();
        self.results.clear();
        self.interval = (now, 0);
    }

    /// Whether a fixed interval has ended that no call has followed yet.
    fn is_over(&self, now: u64) -> bool {
        let mode = self.config.consecutive.as_ref().filter(|mode| mode.reset == Reset::Fixed);
        let span = mode.and_then(|mode| mode.reset_every);
        self.stage == Stage::Closed && span.is_some_and(|s| now - self.interval.0 >= nanos(s))
    }

    fn expire(&mut self, now: u64) {
        if let (Stage::HalfOpen { since, .. }, Some(most)) = (self.stage, self.config.max_half_open)
            && now >= since + nanos(most)
        {
            self.open(since + nanos(most));
        }
    }

    fn acquire(&mut self, id: usize, now: u64) -> bool {
        self.expire(now);
        if self.is_over(now) {
            self.interval = (now, self.results.len());
        }
        if let Stage::Open { until } = self.stage {
            if now < until {
                return false;
            }
            self.enter(Stage::HalfOpen { since: now, youngest: now }, now);
        }
        if let Stage::HalfOpen { since, youngest } = self.stage {
            if self.places() >= self.config.half_open_calls as usize {
                if now < youngest + nanos(self.config.open_for) {
                    return false;
                }
                for call in &mut self.calls {
                    call.reclaimed |= call.fate == Fate::InFlight;
                }
            }
            self.stage = Stage::HalfOpen { since, youngest: now };
        }
        self.calls.push(Call { id, begun: now, fate: Fate::InFlight, reclaimed: false });
        true
    }

    /// Places taken by results, and by calls in flight that have not lost theirs.
    fn places(&self) -> usize {
        let holds = |call: &&Call| match call.fate {
            Fate::InFlight => !call.reclaimed,
            Fate::Ended => true,
            Fate::Ignored => false,
        };
        self.calls.iter().filter(holds).count()
    }

    fn end(&mut self, id: usize, verdict: Option<Verdict>, now: u64) {
        self.expire(now);
        let counts = match (self.stage, self.config.closes_on()) {
            (Stage::HalfOpen { .. }, CloseOn::Successes) => {
                [Verdict::Success, Verdict::Failure].as_slice()
            }
            (_, _) => &[Verdict::Success, Verdict::Failure, Verdict::Throttled],
        };
        let Some(call) = self.calls.iter_mut().find(|call| call.id == id) else { return };
        let Some(verdict) = verdict.filter(|verdict| counts.contains(verdict)) else {
            call.fate = Fate::Ignored;
            return;
        };
        call.fate = Fate::Ended;
        self.results.push(Ending { verdict, begun: call.begun, at: now });
        match self.stage {
            Stage::Closed if self.run_trips(now) || self.window_trips(now) => self.open(now),
            Stage::HalfOpen { .. } => match self.trial_closes() {
                Some(true) => self.enter(Stage::Closed, now),
                Some(false) => self.open(now),
                None => {}
            },
            Stage::Closed | Stage::Open { .. } => {}
        }
    }

    fn open(&mut self, now: u64) {
        self.enter(Stage::Open { until: now + nanos(self.config.open_for) }, now);
    }

    fn trial_closes(&self) -> Option<bool> {
        let permitted = self.config.half_open_calls as usize;
        match (self.config.closes_on(), &self.config.window) {
            (CloseOn::Rate, Some(window)) => {
                let minimum = permitted.min(window.minimum_calls as usize);
                let enough = self.results.len() >= minimum;
                enough.then(|| !reaches_a_rate(window, &self.results))
            }
            (_, _) if self.results.iter().any(|result| result.verdict == Verdict::Failure) => {
                Some(false)
            }
            (_, _) => (self.results.len() >= permitted).then_some(true),
        }
    }

    /// Whether the latest results, except neutral ones, are enough failures, all recent enough.
    fn run_trips(&self, now: u64) -> bool {
        let Some(mode) = &self.config.consecutive else { return false };
        if self.is_over(now) {
            return false;
        }
        let counts = |result: &&Ending| match mode.reset {
            Reset::Rolling => true,
            Reset::Fixed => result.begun >= self.interval.0,
        };
        let young = |at: u64| match (mode.reset, mode.reset_every) {
            (Reset::Rolling, Some(age)) => now - at < nanos(age),
            (Reset::Rolling, None) | (Reset::Fixed, _) => true,
        };
        // Only a failure in this interval can trip.
        let Some(last) = self.results.last().filter(counts) else { return false };
        let results = &self.results[self.interval.1..];
        let run = results.iter().filter(counts).filter(|r| r.verdict != Verdict::Throttled).rev();
        let run = run.take_while(|r| r.verdict == Verdict::Failure && young(r.at));
        last.verdict == Verdict::Failure && run.count() >= mode.failures as usize
    }

    fn window_trips(&self, now: u64) -> bool {
        let Some(window) = &self.config.window else { return false };
        let latest: Vec<Ending> = match window.extent {
            Extent::Calls(calls) => {
                self.results.iter().rev().take(calls as usize).copied().collect()
            }
            Extent::Seconds(seconds) => {
                let inside = |r: &&Ending| r.at / SECOND + u64::from(seconds) > now / SECOND;
                self.results.iter().filter(inside).copied().collect()
            }
        };
        latest.len() >= window.minimum_calls as usize && reaches_a_rate(window, &latest)
    }
}

fn reaches_a_rate(window: &Window, results: &[Ending]) -> bool {
    let share = |matches: &dyn Fn(&&Ending) -> bool| {
        results.iter().filter(matches).count() as f64 / results.len() as f64
    };
    let failed = share(&|result| result.verdict != Verdict::Success);
    let slow = |slow: &SlowCalls| {
        share(&|result| result.at - result.begun > nanos(slow.longer_than)) >= slow.rate.fraction()
    };
    failed >= window.failure_rate.fraction() || window.slow_calls.as_ref().is_some_and(slow)
}

const SECOND: u64 = 1_000_000_000;
const TICK: u64 = SECOND / 10;

fn nanos(span: Timespan) -> u64 {
    u64::try_from(span.as_nanos()).expect("short")
}

fn ticks(ticks: u64) -> Timespan {
    Timespan(Duration::from_nanos(ticks * TICK))
}

fn consecutive() -> impl Strategy<Value = Consecutive> {
    let reset = prop_oneof![Just(Reset::Rolling), Just(Reset::Fixed)];
    (1..5_u32, prop::option::of(1..40_u64), reset).prop_map(|(failures, every, reset)| {
        Consecutive { failures, reset_every: every.map(ticks), reset }
    })
}

fn window() -> impl Strategy<Value = Window> {
    let extent =
        prop_oneof![(1..8_u32).prop_map(Extent::Calls), (1..5_u32).prop_map(Extent::Seconds)];
    let slow = prop::option::of((1..20_u64, 1..=4_u8));
    (extent, 1..8_u32, 1..=4_u8, slow).prop_map(|(extent, minimum, quarters, slow)| Window {
        extent,
        minimum_calls: match extent {
            Extent::Calls(calls) => minimum.min(calls),
            Extent::Seconds(_) => minimum,
        },
        failure_rate: Percent::new(quarters * 25),
        slow_calls: slow.map(|(than, quarters)| SlowCalls {
            longer_than: ticks(than),
            rate: Percent::new(quarters * 25),
        }),
    })
}

fn configs() -> impl Strategy<Value = Config> {
    let modes = prop_oneof![
        consecutive().prop_map(|mode| (Some(mode), None)),
        window().prop_map(|mode| (None, Some(mode))),
        (consecutive(), window()).prop_map(|(run, window)| (Some(run), Some(window))),
    ];
    let trial = (1..4_u32, prop::option::of(1..60_u64), any::<Option<bool>>());
    (modes, 1..30_u64, trial).prop_map(|((consecutive, window), open, (calls, most, by_rate))| {
        let defaults: Config = serde_yaml::from_str("{consecutive: {failures: 1}}").expect("valid");
        let close_on = by_rate.map(|by_rate| match by_rate && window.is_some() {
            true => CloseOn::Rate,
            false => CloseOn::Successes,
        });
        Config {
            consecutive,
            window,
            open_for: ticks(open),
            half_open_calls: calls,
            max_half_open: most.map(ticks),
            close_on,
            ..defaults
        }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict = prop_oneof![
        4 => Just(Some(Verdict::Failure)),
        4 => Just(Some(Verdict::Success)),
        1 => Just(Some(Verdict::Throttled)),
        1 => Just(Some(Verdict::Neutral)),
        1 => Just(None),
    ];
    let step = prop_oneof![
        4 => Just(Step::Acquire),
        4 => (0..6_usize, verdict).prop_map(|(nth, verdict)| Step::End(nth, verdict)),
        2 => (0..25_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn it_admits_exactly_what_the_model_admits(config in configs(), steps in steps()) {
        let breaker = Arc::new(Breaker::new(config.clone(), Moment::ZERO));
        let mut model = Model::new(config);
        let mut in_flight: Vec<(usize, Permit)> = vec![];
        let mut now = 0;
        for (id, step) in steps.into_iter().enumerate() {
            let moment = Moment::from_nanos(now);
            match step {
                Step::Pass(time) => now += time * TICK,
                Step::Acquire => {
                    let permit = breaker.acquire(moment);
                    prop_assert_eq!(permit.is_ok(), model.acquire(id, now), "at {}", now);
                    in_flight.extend(permit.ok().map(|permit| (id, permit)));
                }
                Step::End(nth, verdict) if !in_flight.is_empty() => {
                    let (id, permit) = in_flight.remove(nth % in_flight.len());
                    model.end(id, verdict, now);
                    match verdict {
                        Some(verdict) => permit.record(verdict, moment),
                        None => drop(permit),
                    }
                }
                Step::End(..) => {}
            }
        }
    }

    #[test]
    fn it_always_heals_once_the_upstream_has(config in configs(), steps in steps()) {
        let breaker = Arc::new(Breaker::new(config.clone(), Moment::ZERO));
        let mut stuck = vec![];
        let mut now = Moment::ZERO;
        for step in steps {
            match step {
                Step::Pass(time) => now = now + Duration::from_nanos(time * TICK),
                Step::Acquire => stuck.extend(breaker.acquire(now)),
                Step::End(_, Some(verdict)) => {
                    if let Some(permit) = stuck.pop() { permit.record(verdict, now) }
                }
                Step::End(_, None) => drop(stuck.pop()),
            }
        }
        // What is stuck remains so; everything else succeeds from here on. Results that are still
        // in a window may open the circuit once more.
        for _ in 0..20 {
            now = now + *config.open_for;
            for _ in 0..config.half_open_calls {
                if let Ok(permit) = breaker.acquire(now) { permit.record(Verdict::Success, now) }
            }
        }
        let state = breaker.state(now);
        prop_assert!(matches!(state, State::Closed { .. }), "{:?}", state);
    }
}
