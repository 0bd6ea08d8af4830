//! Which endpoints are ejected, and what the breaker counts then.

use std::sync::Barrier;

use proptest::prelude::*;

use super::super::ejection::{Counted, Reason};
use super::*;
use crate::policy::breaker::{Permit, State};
use crate::policy::outcome::Outcome;

const OK: Outcome = Outcome::Response(200);
const FAILED: Outcome = Outcome::Response(503);

/// An upstream of which attempts at endpoints of choice are made.
struct Bench {
    upstream: Arc<Upstream>,
    now: Moment,
}

/// An attempt that is under way.
struct UnderWay(Ticket, Option<Permit>);

impl Bench {
    fn new(count: u16, more: &str) -> Self {
        let names: Vec<_> = (1..=count).map(|port| format!("http://127.0.0.1:{port}")).collect();
        let yaml = format!("{{endpoints: {names:?}, balance: random, {more}}}");
        Bench { upstream: Arc::new(upstream(&yaml)), now: at(1) }
    }

    /// An attempt at the endpoint with this port, which must be one that is used.
    fn begin(&self, to: u16) -> UnderWay {
        let breaker = self.upstream.breaker();
        let permit = breaker.map(|breaker| breaker.acquire(self.now).expect("closed"));
        for _ in 0..10_000 {
            let ticket = taken(&self.upstream, &[], self.now);
            if port(ticket.endpoint()) == to {
                return UnderWay(ticket, permit);
            }
        }
        panic!("{to} is not used")
    }

    /// As the request path does it.
    fn end(&self, UnderWay(mut ticket, permit): UnderWay, outcome: Outcome) -> Counted {
        let counted = self.upstream.ended(&mut ticket, outcome, None, self.now);
        if let (Some(permit), Some(breaker)) = (permit, self.upstream.breaker())
            && counted != Counted::No
        {
            let receipt = permit.settle(breaker.config().judge(outcome), self.now);
            self.upstream.remember(ticket.endpoint(), counted, receipt);
        }
        counted
    }

    fn attempts(&mut self, to: u16, outcome: Outcome, times: usize) {
        for _ in 0..times {
            self.end(self.begin(to), outcome);
            self.now = self.now + Duration::from_millis(1);
        }
    }

    fn ejected(&self) -> Vec<u16> {
        let set = self.upstream.set();
        let ejected = set.members().iter().filter(|m| m.endpoint.standing.has(Absence::Ejected));
        ejected.map(|member| port(&member.endpoint)).collect()
    }

    /// Failures in a row as the breaker counts them; `None` if it is open.
    fn in_a_row(&self) -> Option<u32> {
        match self.upstream.breaker().expect("one").state(self.now) {
            State::Closed { failures } => Some(failures),
            State::Open { .. }
            | State::HalfOpen { .. }
            | State::ForcedOpen
            | State::ForcedClosed => None,
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    fn news(&self) -> Vec<String> {
        self.upstream.news().take().iter().map(ToString::to_string).collect()
    }
}

#[test]
fn an_endpoint_is_ejected_after_five_failures_in_a_row_and_readmitted_by_one_success() {
    let mut bench = Bench::new(3, "");
    bench.attempts(1, FAILED, 4);
    bench.attempts(1, OK, 1);
    bench.attempts(1, FAILED, 4);
    assert!(bench.ejected().is_empty());
    bench.attempts(1, FAILED, 1);
    assert_eq!((bench.ejected(), ports_used(&bench.upstream)), (vec![1], vec![2, 3]));
    bench.pass(12);
    let probe = taken(&bench.upstream, &[], bench.now);
    assert!(probe.is_probe() && port(probe.endpoint()) == 1);
    bench.end(UnderWay(probe, None), OK);
    assert_eq!((bench.ejected(), ports_used(&bench.upstream)), (vec![], vec![1, 2, 3]));
    let news = bench.news();
    assert_eq!(news.len(), 2, "{news:?}");
    assert!(news[0].starts_with("127.0.0.1:1 is ejected for 1"), "{news:?}");
    assert!(news[0].ends_with("s: 5 failures in a row"), "{news:?}");
    let end = "is used again after 12.0s; probes that failed meanwhile: 0";
    assert_eq!(news[1], format!("127.0.0.1:1 {end}"));
}

#[test]
fn with_ejection_off_nothing_is_ejected() {
    let mut bench = Bench::new(3, "ejection: off");
    bench.attempts(1, FAILED, 100);
    assert!(bench.ejected().is_empty());
}

#[test]
fn only_outcomes_that_failure_on_names_eject() {
    let mut bench = Bench::new(2, "ejection: {consecutive_failures: 2, failure_on: [418]}");
    bench.attempts(1, FAILED, 10);
    bench.attempts(2, Outcome::Response(418), 2);
    assert_eq!(bench.ejected(), [2]);
}

#[test]
fn a_share_of_failures_ejects_at_the_end_of_the_window() {
    let rules = "consecutive_failures: 0, window: {time: 10s, failure_rate: 30%}";
    let mut bench = Bench::new(5, &format!("ejection: {{{rules}}}"));
    // The first failure of all begins a window.
    bench.attempts(2, FAILED, 1);
    for _ in 0..60 {
        bench.attempts(1, OK, 1);
        bench.attempts(1, FAILED, 1);
        (2..=5).for_each(|other| bench.attempts(other, OK, 2));
    }
    assert!(bench.ejected().is_empty(), "the window is not over");
    bench.pass(10);
    bench.attempts(1, FAILED, 1);
    assert_eq!(bench.ejected(), [1]);
    let news = bench.news().concat();
    assert!(news.contains("of 121 attempts 61 failed"), "{news}");
}

#[test]
fn endpoints_that_fail_alike_are_left_to_the_breaker() {
    let rules = "consecutive_failures: 0, window: {time: 10s, failure_rate: 30%}";
    let mut bench = Bench::new(3, &format!("ejection: {{{rules}}}"));
    for _ in 0..3 {
        for _ in 0..60 {
            (1..=3).for_each(|each| bench.attempts(each, OK, 1));
            (1..=3).for_each(|each| bench.attempts(each, FAILED, 1));
        }
        bench.pass(10);
    }
    assert!(bench.ejected().is_empty());
}

#[test]
fn of_requests_at_once_exactly_one_is_the_probe() {
    let mut bench = Bench::new(3, "");
    bench.attempts(1, FAILED, 5);
    bench.pass(12);
    let (start, now) = (Arc::new(Barrier::new(8)), bench.now);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (upstream, start) = (bench.upstream.clone(), start.clone());
            std::thread::spawn(move || {
                start.wait();
                taken(&upstream, &[], now)
            })
        })
        .collect();
    let tickets: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("ok")).collect();
    let probes: Vec<_> = tickets.iter().filter(|ticket| ticket.is_probe()).collect();
    assert_eq!(probes.len(), 1);
    assert_eq!(tickets.iter().filter(|ticket| port(ticket.endpoint()) == 1).count(), 1);
    // Dropped without a result, it is offered to the next request.
    drop(tickets);
    assert!(taken(&bench.upstream, &[], now).is_probe());
}

#[test]
fn a_probe_that_fails_is_followed_by_one_after_twice_the_time() {
    let mut bench = Bench::new(3, "");
    bench.attempts(1, FAILED, 5);
    bench.pass(12);
    bench.end(UnderWay(taken(&bench.upstream, &[], bench.now), None), FAILED);
    bench.pass(19);
    assert!((0..50).all(|_| !taken(&bench.upstream, &[], bench.now).is_probe()));
    bench.pass(5);
    assert!(taken(&bench.upstream, &[], bench.now).is_probe());
    assert_eq!(bench.news().len(), 1, "a probe that failed is no edge");
}

#[test]
fn a_request_does_not_probe_an_endpoint_that_has_failed_it() {
    let mut bench = Bench::new(3, "");
    bench.attempts(1, FAILED, 5);
    bench.pass(12);
    let first = bench.upstream.set().members()[0].endpoint.clone();
    let ticket = taken(&bench.upstream, &[first], bench.now);
    assert!(!ticket.is_probe() && port(ticket.endpoint()) != 1);
    bench.pass(1);
    assert!(taken(&bench.upstream, &[], bench.now).is_probe());
}

#[test]
fn a_check_that_passes_again_readmits_and_one_that_always_passed_does_not() {
    let mut bench = Bench::new(3, "");
    bench.attempts(1, FAILED, 5);
    stand(&bench.upstream, 0, Absence::Unhealthy, false);
    assert_eq!(bench.ejected(), [1]);
    stand(&bench.upstream, 0, Absence::Unhealthy, true);
    bench.pass(12);
    assert!((0..50).all(|_| !taken(&bench.upstream, &[], bench.now).is_probe()));
    stand(&bench.upstream, 0, Absence::Unhealthy, false);
    assert_eq!((bench.ejected(), ports_used(&bench.upstream)), (vec![], vec![1, 2, 3]));
}

#[test]
fn the_edges_of_using_all_are_told_once() {
    let bench = Bench::new(3, "");
    (0..3).for_each(|place| stand(&bench.upstream, place, Absence::Unhealthy, true));
    assert_eq!(bench.news(), ["0 of 3 endpoints are available; all of them are used"]);
    assert_eq!(ports_used(&bench.upstream), [1, 2, 3]);
    stand(&bench.upstream, 1, Absence::Unhealthy, false);
    stand(&bench.upstream, 2, Absence::Unhealthy, false);
    assert_eq!(bench.news(), ["1 of 3 endpoints are available again; only these are used"]);
    assert_eq!(ports_used(&bench.upstream), [2, 3]);
}

#[test]
fn below_a_share_all_are_used_but_never_those_that_are_drained() {
    let bench = Bench::new(4, "when_none_available: 50%");
    (0..2).for_each(|place| stand(&bench.upstream, place, Absence::Unhealthy, true));
    assert_eq!(ports_used(&bench.upstream), [3, 4]);
    stand(&bench.upstream, 2, Absence::Unhealthy, true);
    assert_eq!(ports_used(&bench.upstream), [1, 2, 3, 4]);
    stand(&bench.upstream, 3, Absence::Drained, true);
    assert_eq!(ports_used(&bench.upstream), [1, 2, 3]);
}

#[test]
fn with_refuse_no_endpoint_is_used_that_is_not_available() {
    let bench = Bench::new(2, "when_none_available: refuse");
    let ask = ask(&[], None, bench.now);
    (0..2).for_each(|place| stand(&bench.upstream, place, Absence::Unhealthy, true));
    assert_eq!(bench.upstream.pick(&ask).expect_err("none"), Unavailable::Refused);
    assert_eq!(bench.news(), ["none of 2 endpoints is available; requests are refused"]);
    (0..2).for_each(|place| stand(&bench.upstream, place, Absence::Drained, true));
    assert_eq!(bench.upstream.pick(&ask).expect_err("none"), Unavailable::Empty);
}

#[test]
fn a_reload_keeps_ejections_and_their_probe() {
    let mut bench = Bench::new(3, "");
    bench.attempts(1, FAILED, 5);
    let yaml = "{endpoints: ['http://127.0.0.1:1', 'http://127.0.0.1:2', 'http://127.0.0.1:4'], \
                balance: random}";
    let config = serde_yaml::from_str(yaml).expect("valid");
    let new = Upstream::reconfigured(&bench.upstream, &config, bench.now);
    assert_eq!(ports_used(&new), [2, 4]);
    let late = bench.begin(2);
    bench.upstream = new;
    drop(late);
    bench.pass(12);
    assert!(taken(&bench.upstream, &[], bench.now).is_probe());
}

#[test]
fn a_probe_that_a_reload_overtakes_is_offered_again_after_it() {
    let mut bench = Bench::new(3, "");
    bench.attempts(1, FAILED, 5);
    bench.pass(12);
    let probe = taken(&bench.upstream, &[], bench.now);
    assert!(probe.is_probe());
    let mut config = bench.upstream.config().clone();
    config.balance = balance::Policy::RoundRobin;
    let new = Upstream::reconfigured(&bench.upstream, &config, bench.now);
    assert!((0..50).all(|_| !taken(&new, &[], bench.now).is_probe()));
    drop(probe);
    assert!(taken(&new, &[], bench.now).is_probe());
}

#[test]
fn an_endpoint_that_a_request_of_before_a_reload_finds_dead_is_ejected_after_it() {
    let mut bench = Bench::new(3, "");
    let mut config = bench.upstream.config().clone();
    config.balance = balance::Policy::RoundRobin;
    let new = Upstream::reconfigured(&bench.upstream, &config, bench.now);
    bench.attempts(1, FAILED, 5);
    assert_eq!((ports_used(&new), ports_used(&bench.upstream)), (vec![2, 3], vec![2, 3]));
}

/// What the upstream's breaker has counted in a row after each history; `None` if it is open.
/// `a`, `b`, `c` are failures of the three endpoints, and capitals successes.
#[test]
fn an_attempt_counts_for_the_breaker_unless_it_counted_towards_an_ejection() {
    let breaker = "circuit_breaker: {consecutive: {failures: 8}}";
    for (endpoints, history, wanted) in [
        // Not ejected: each failure counts.
        (3, "aaaa", Some(4)),
        (3, "aaaab", Some(5)),
        // A success ends the run, of the endpoint and of the breaker.
        (3, "aaaaA", Some(0)),
        (3, "aaaaB", Some(0)),
        // Five in a row eject, and none of the five counts.
        (3, "aaaaa", Some(0)),
        // Others' failures in between still count, before and after.
        (3, "baaacaa", Some(2)),
        (3, "aaaaabb", Some(2)),
        // What another endpoint's success had ended is not restored.
        (3, "aaBaaa", Some(0)),
        // Of three one may be ejected: the next one's failures all count.
        (3, "aaaaabbbbbbb", Some(7)),
        (3, "aaaaabbbbbbbb", None),
        // All alike: the breaker opens, though one endpoint was ejected on the way.
        (3, "abcabcabcabcabcbcb", None),
        // A single endpoint is never ejected: as if there were no ejection.
        (1, "aaaaaaa", Some(7)),
        (1, "aaaaaaaa", None),
        // With two, one may be ejected.
        (2, "aaaaabbbb", Some(4)),
    ] {
        let mut bench = Bench::new(endpoints, breaker);
        for attempt in history.chars() {
            let to = u16::from(attempt.to_ascii_lowercase() as u8 - b'a') + 1;
            if bench.in_a_row().is_some() && !bench.ejected().contains(&to) {
                bench.attempts(to, if attempt.is_lowercase() { FAILED } else { OK }, 1);
            }
        }
        assert_eq!(bench.in_a_row(), wanted, "{history} of {endpoints}");
    }
}

#[test]
fn late_results_of_an_ejected_endpoint_count_neither_for_it_nor_for_the_breaker() {
    let mut bench = Bench::new(3, "circuit_breaker: {consecutive: {failures: 8}}");
    let late: Vec<_> = (0..6).map(|_| bench.begin(1)).collect();
    let success = bench.begin(1);
    bench.attempts(1, FAILED, 5);
    bench.attempts(2, FAILED, 2);
    let counted: Vec<_> = late.into_iter().map(|late| bench.end(late, FAILED)).collect();
    assert_eq!(counted, [Counted::No; 6]);
    assert_eq!(bench.end(success, OK), Counted::No);
    assert_eq!(bench.in_a_row(), Some(2), "a late success ends no run");
    assert_eq!(bench.upstream.set().members()[0].endpoint.ejection.shown().times, 1);
}

#[test]
fn a_probe_that_fails_does_not_count_for_the_breaker_and_one_that_succeeds_does() {
    let mut bench = Bench::new(3, "circuit_breaker: {consecutive: {failures: 8}}");
    bench.attempts(1, FAILED, 5);
    bench.attempts(2, FAILED, 3);
    bench.pass(12);
    let probe = bench.begin(1);
    assert!(probe.0.is_probe());
    assert_eq!((bench.end(probe, FAILED), bench.in_a_row()), (Counted::No, Some(3)));
    bench.pass(24);
    let probe = bench.begin(1);
    assert!(probe.0.is_probe());
    assert_eq!((bench.end(probe, OK), bench.in_a_row()), (Counted::Yes, Some(0)));
}

#[test]
fn a_breaker_that_an_endpoint_has_opened_stays_open_when_it_is_ejected() {
    let mut bench = Bench::new(3, "circuit_breaker: {consecutive: {failures: 4}}");
    let two = [bench.begin(1), bench.begin(1)];
    bench.attempts(1, FAILED, 3);
    let [fourth, fifth] = two;
    bench.end(fourth, FAILED);
    assert_eq!((bench.in_a_row(), bench.ejected()), (None, vec![]));
    bench.end(fifth, FAILED);
    assert_eq!((bench.in_a_row(), bench.ejected()), (None, vec![1]));
}

#[test]
fn what_an_ejection_takes_back_is_missing_in_both_kinds_of_windows() {
    for window in ["calls: 20", "time: 60s"] {
        let rules = "minimum_calls: 10, failure_rate: 50%";
        let breaker = format!("circuit_breaker: {{window: {{{window}, {rules}}}}}");
        let mut bench = Bench::new(3, &breaker);
        bench.attempts(1, FAILED, 5);
        assert_eq!(bench.ejected(), [1], "{window}");
        // Of ten calls that are left, four and then five have failed.
        bench.attempts(2, OK, 6);
        bench.attempts(3, FAILED, 4);
        assert!(bench.in_a_row().is_some(), "{window}");
        bench.attempts(3, FAILED, 2);
        assert!(bench.in_a_row().is_none(), "{window}");
    }
}

#[test]
fn while_all_are_used_failures_of_an_ejected_endpoint_count_for_the_breaker() {
    let mut bench = Bench::new(2, "circuit_breaker: {consecutive: {failures: 8}}");
    bench.attempts(1, FAILED, 5);
    stand(&bench.upstream, 1, Absence::Unhealthy, true);
    assert_eq!(ports_used(&bench.upstream), [1, 2]);
    bench.attempts(1, FAILED, 3);
    assert_eq!(bench.in_a_row(), Some(3));
}

#[test]
fn a_reason_has_its_name() {
    assert_eq!(Reason::Consecutive { failures: 5 }.as_str(), "consecutive_failures");
    assert_eq!(Reason::Share { ended: 2, failed: 1 }.as_str(), "failure_rate");
}

proptest! {
    /// Whatever fails and whatever checks say, no more are ejected than may be, and never the last
    /// one that is available.
    #[test]
    fn the_bound_holds_in_every_history(
        count in 1_u16..12,
        share in 0_u8..=100,
        steps in prop::collection::vec((0_u16..12, 0_u8..10), 1..200),
    ) {
        let rules = format!("ejection: {{consecutive_failures: 2, max_ejected: {share}%}}");
        let mut bench = Bench::new(count, &rules);
        let most = bench.upstream.config().ejection_rules().expect("on").most_ejected(count.into());
        for (place, step) in steps {
            let place = usize::from(place % count);
            match step {
                0 => stand(&bench.upstream, place, Absence::Unhealthy, true),
                1 => stand(&bench.upstream, place, Absence::Unhealthy, false),
                2 => bench.pass(12),
                _ => {
                    let available = bench.upstream.set().counts.available;
                    let mut ticket = taken(&bench.upstream, &[], bench.now);
                    let outcome = if step == 3 { OK } else { FAILED };
                    bench.upstream.ended(&mut ticket, outcome, None, bench.now);
                    let left = bench.upstream.set().counts.available;
                    prop_assert!(left > 0 || available == 0, "the last one was ejected");
                }
            }
            prop_assert!(bench.ejected().len() <= most, "{} of {count}", bench.ejected().len());
        }
    }
}
