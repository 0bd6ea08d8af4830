//! The breaker against a naive model, over random histories in virtual time.
//!
//! The model remembers every call since the last change of phase and derives each answer from
//! that list. It shares no code with the machine.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::units::Timespan;

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
    Ended(Verdict, u64),
    Ignored,
}

/// A call of this phase.
struct Call {
    id: usize,
    fate: Fate,
    reclaimed: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Stage {
    Closed { since: u64 },
    Open { until: u64 },
    HalfOpen { youngest: u64 },
}

struct Model {
    config: Config,
    stage: Stage,
    calls: Vec<Call>,
    /// Results in the order they came in, since the stage or window began.
    results: Vec<(Verdict, u64)>,
}

impl Model {
    fn new(config: Config) -> Self {
        Model { config, stage: Stage::Closed { since: 0 }, calls: vec![], results: vec![] }
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.calls.clear();
        self.results.clear();
    }

    /// Whether a fixed window is over that no call has followed yet.
    fn is_over(&self, now: u64) -> bool {
        let mode = self.config.consecutive.as_ref().expect("the model has one mode");
        match (self.stage, mode.reset, mode.reset_every) {
            (Stage::Closed { since }, Reset::Fixed, Some(span)) => now - since >= nanos(span),
            (_, Reset::Rolling | Reset::Fixed, _) => false,
        }
    }

    fn acquire(&mut self, id: usize, now: u64) -> bool {
        if self.is_over(now) {
            self.enter(Stage::Closed { since: now });
        }
        if let Stage::Open { until } = self.stage {
            if now < until {
                return false;
            }
            self.enter(Stage::HalfOpen { youngest: now });
        }
        if let Stage::HalfOpen { youngest } = self.stage {
            if self.places() >= self.config.half_open_calls as usize {
                if now < youngest + nanos(self.config.open_for) {
                    return false;
                }
                for call in &mut self.calls {
                    call.reclaimed |= call.fate == Fate::InFlight;
                }
            }
            self.stage = Stage::HalfOpen { youngest: now };
        }
        self.calls.push(Call { id, fate: Fate::InFlight, reclaimed: false });
        true
    }

    /// Places taken: by successes, and by calls in flight that were not written off.
    fn places(&self) -> usize {
        let holds = |call: &&Call| match call.fate {
            Fate::InFlight => !call.reclaimed,
            Fate::Ended(verdict, _) => verdict == Verdict::Success,
            Fate::Ignored => false,
        };
        self.calls.iter().filter(holds).count()
    }

    fn end(&mut self, id: usize, verdict: Option<Verdict>, now: u64) {
        if self.is_over(now) {
            return;
        }
        let Some(call) = self.calls.iter_mut().find(|call| call.id == id) else { return };
        let Some(verdict) = verdict else {
            call.fate = Fate::Ignored;
            return;
        };
        call.fate = Fate::Ended(verdict, now);
        self.results.push((verdict, now));
        match self.stage {
            Stage::Closed { .. } if self.tripped(now) => self.open(now),
            Stage::HalfOpen { .. } if verdict == Verdict::Failure => self.open(now),
            Stage::HalfOpen { .. } if self.successes() >= self.config.half_open_calls as usize => {
                self.enter(Stage::Closed { since: now });
            }
            Stage::Closed { .. } | Stage::HalfOpen { .. } | Stage::Open { .. } => {}
        }
    }

    fn open(&mut self, now: u64) {
        self.enter(Stage::Open { until: now + nanos(self.config.open_for) });
    }

    fn successes(&self) -> usize {
        self.calls
            .iter()
            .filter(|call| matches!(call.fate, Fate::Ended(Verdict::Success, _)))
            .count()
    }

    /// Whether the latest results, neutral ones left out, are enough failures, young enough.
    fn tripped(&self, now: u64) -> bool {
        let mode = self.config.consecutive.as_ref().expect("the model has one mode");
        let young = |at: u64| match (mode.reset, mode.reset_every) {
            (Reset::Rolling, Some(age)) => now - at < nanos(age),
            (Reset::Rolling, None) | (Reset::Fixed, _) => true,
        };
        let run = self.results.iter().rev().filter(|(verdict, _)| *verdict != Verdict::Neutral);
        run.take_while(|(verdict, at)| *verdict == Verdict::Failure && young(*at)).count()
            >= mode.failures as usize
    }
}

fn nanos(span: Timespan) -> u64 {
    u64::try_from(span.as_nanos()).expect("short")
}

fn span(nanos: u64) -> Timespan {
    Timespan(Duration::from_nanos(nanos))
}

fn configs() -> impl Strategy<Value = Config> {
    let reset =
        (prop::option::of(1..40_u64), prop_oneof![Just(Reset::Rolling), Just(Reset::Fixed)]);
    (1..5_u32, reset, 1..30_u64, 1..4_u32).prop_map(|(failures, (every, reset), open, calls)| {
        let mode = Consecutive { failures, reset_every: every.map(span), reset };
        let text = "{consecutive: {failures: 1}}";
        let defaults: Config = serde_yaml::from_str(text).expect("valid");
        Config { consecutive: Some(mode), open_for: span(open), half_open_calls: calls, ..defaults }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict = prop_oneof![
        4 => Just(Some(Verdict::Failure)),
        3 => Just(Some(Verdict::Success)),
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
                Step::Pass(time) => now += time,
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
                Step::Pass(time) => now = now + Duration::from_nanos(time),
                Step::Acquire => stuck.extend(breaker.acquire(now)),
                Step::End(_, Some(verdict)) => {
                    if let Some(permit) = stuck.pop() { permit.record(verdict, now) }
                }
                Step::End(_, None) => drop(stuck.pop()),
            }
        }
        // Whatever is stuck stays so; everything else succeeds from here on.
        for _ in 0..=config.half_open_calls {
            now = now + *config.open_for;
            if let Ok(permit) = breaker.acquire(now) { permit.record(Verdict::Success, now) }
        }
        let state = breaker.state(now);
        prop_assert!(matches!(state, State::Closed { .. }), "{:?}", state);
    }
}
