//! Behaviours of gobreaker and resilience4j, each as a history in one line; and each difference to
//! this breaker, by name.
//!
//! A history consists of words. A letter is a call, a number after it how many:
//!
//! | word | means |
//! |---|---|
//! | `s` `f` `n` `d` | a call that succeeds, fails, is neutral, is dropped, in no time |
//! | `z` `y` | a call that takes 5 s and succeeds, or fails |
//! | `a` | a call that begins and stays in flight |
//! | `S` `F` `D` | the oldest call in flight succeeds, fails, is dropped |
//! | `!` | a call that is refused |
//! | `+9` | 9 s pass |
//! | `=open` | the state must be this |

use std::collections::VecDeque;

use super::*;

const SLOW: Duration = Duration::from_secs(5);

fn play(config: &str, history: &str) {
    let mut bench = Bench::new(config);
    let mut in_flight = VecDeque::new();
    for (place, word) in history.split_whitespace().enumerate() {
        let (kind, rest) = word.split_at(1);
        if kind == "=" {
            let state = bench.state().as_str();
            assert_eq!(state, rest, "word {place} of {history} with {config}");
            continue;
        }
        let number = rest.parse().unwrap_or(1);
        if kind == "+" {
            bench.pass(Duration::from_secs(number));
            continue;
        }
        for _ in 0..number {
            call(&mut bench, &mut in_flight, kind)
                .unwrap_or_else(|what| panic!("{what} at word {place} of {history}"));
        }
    }
}

fn call(bench: &mut Bench, in_flight: &mut VecDeque<Permit>, kind: &str) -> Result<(), String> {
    let admitted = match kind {
        "S" | "F" | "D" => in_flight.pop_front().ok_or("nothing in flight")?,
        "!" => match bench.breaker.acquire(bench.now) {
            Ok(_) => return Err("admitted".to_owned()),
            Err(Open { .. }) => return Ok(()),
        },
        _ => bench.breaker.acquire(bench.now).map_err(|open| open.to_string())?,
    };
    if matches!(kind, "z" | "y") {
        bench.pass(SLOW);
    }
    match kind {
        "s" | "z" | "S" => admitted.record(Verdict::Success, bench.now),
        "f" | "y" | "F" => admitted.record(Verdict::Failure, bench.now),
        "n" => admitted.record(Verdict::Neutral, bench.now),
        "d" | "D" => drop(admitted),
        "a" => in_flight.push_back(admitted),
        _ => return Err(format!("no such word: {kind}")),
    }
    Ok(())
}

/// gobreaker's defaults: more than 5 failures in a row, 60 s, one trial call.
const GO_DEFAULT: &str = "{consecutive: {failures: 6}, open_for: 60s}";
/// With `Interval` 30 s and `MaxRequests` 3.
const GO_INTERVAL: &str = "{consecutive: {failures: 6, reset_every: 30s, reset: fixed}, open_for: 90s, \
     half_open_calls: 3}";
/// With `ReadyToTrip` at 60 % of at least 3 requests, in rolling buckets of 30 s.
const GO_ROLLING: &str = "{window: {time: 30s, minimum_calls: 3, failure_rate: 60%}, \
                           open_for: 90s, half_open_calls: 3, close_on: successes}";

#[test]
fn gobreaker_does_this() {
    for (config, history) in [
        // Closed: the sixth failure in a row trips; a success starts the count over.
        (GO_DEFAULT, "f5 =closed s f =closed f4 =closed f =open"),
        (GO_DEFAULT, "f5 s f5 s f5 =closed"),
        // Open: all calls are refused until the timeout is over, to the second.
        (GO_DEFAULT, "f6 =open ! ! +59 =open ! +1 =half_open"),
        // Half-open: a failure opens for the whole timeout, a success closes and clears the counts.
        (GO_DEFAULT, "f6 +60 f =open +59 ! +1 =half_open s =closed f5 =closed f =open"),
        // `MaxRequests` 0 means one.
        (GO_DEFAULT, "f6 +60 a ! S =closed"),
        // Calls in two steps: begun and ended separately.
        (GO_DEFAULT, "a6 F5 =closed F =open"),
        // A result from an older generation changes nothing, whether open, half-open or closed.
        (GO_DEFAULT, "a f6 =open S =open ! +60 =half_open s =closed"),
        (GO_DEFAULT, "a2 f6 +60 a =half_open S =half_open F =half_open ! S =closed"),
        (GO_DEFAULT, "a f6 +60 s =closed f5 F =closed f =open"),
        // Half-open admits `MaxRequests`, including those that have succeeded, and closes after as
        // many successes in a row; any failure opens.
        (GO_INTERVAL, "f6 +90 a3 ! S2 =half_open ! S =closed"),
        (GO_INTERVAL, "f6 +90 s2 =half_open a ! S =closed"),
        (GO_INTERVAL, "f6 +90 s2 f =open ! +90 s3 =closed"),
        // An excluded result gives its place back.
        (GO_INTERVAL, "f6 +90 n9 =half_open s3 =closed"),
        // The end of an interval clears everything, including failures in a row ...
        (GO_INTERVAL, "f5 +29 =closed f =open"),
        (GO_INTERVAL, "f5 +30 f5 =closed f =open"),
        // ... and results of calls that were in flight then are dropped.
        (GO_INTERVAL, "a f5 +30 s F =closed"),
        // The next interval begins with the first call after the last one ended.
        (GO_INTERVAL, "f5 +45 f5 +29 f =open"),
        // Rolling buckets: the oldest drop out as time passes.
        (GO_ROLLING, "s f s f s f s f s f =closed +30 f s =closed f =open"),
        (
            GO_ROLLING,
            "s f s f s f s f s f +3 s +2 s +2 s +2 f +3 s f +3 s f +3 s f +3 s f +3 s f +3 s f \
             +3 f5 =closed f =closed f =open +90 =half_open s2 =half_open a ! S =closed",
        ),
    ] {
        play(config, history);
    }
}

#[test]
fn gobreaker_does_not_do_this() {
    for (config, history) in [
        // There a panic is a failure; here a neutral call is not.
        (GO_DEFAULT, "f5 d9 =closed f =open"),
        // There a trial call that never ends keeps the circuit half-open for ever.
        (GO_DEFAULT, "f6 +60 a ! +59 ! +1 s =closed"),
        // There calls slower than the interval never count; here that is so with `reset: fixed`.
        ("{consecutive: {failures: 6, reset_every: 30s}}", "a6 +90 F6 =open"),
        // There a run of failures across the end of an interval is cut in two.
        ("{consecutive: {failures: 6, reset_every: 30s}}", "+29 f3 +2 f3 =open"),
    ] {
        play(config, history);
    }
}

/// 50 % of at least 5 calls in 5 s; open for 5 s, 4 trial calls.
const R4J_TIME: &str = "{window: {time: 5s, minimum_calls: 5}, open_for: 5s, half_open_calls: 4}";
/// The same of the last 5 calls, or 50 % of them slower than 4 s.
const R4J_SLOW: &str = "{window: {calls: 5, slow_calls: {longer_than: 4s, rate: 50%}}, \
                         open_for: 5s, half_open_calls: 4}";

#[test]
fn resilience4j_does_this() {
    for (config, history) in [
        // No rate before the minimum; the call that reaches it is judged, even a success.
        (R4J_TIME, "f3 s =closed s =open !"),
        (R4J_TIME, "f2 s2 =closed s =closed"),
        // Slow calls have a rate of their own, whether they failed or not.
        (R4J_SLOW, "y z f s =closed z =open"),
        (R4J_SLOW, "f s z s =closed z =closed"),
        // Open: refused until the wait is over.
        (R4J_TIME, "f5 =open ! +3 ! =open +3 =half_open"),
        // Half-open: four calls; one that is released makes room for another.
        (R4J_TIME, "f5 +5 a4 ! ! D a !"),
        // Judged once all four have ended: 75 % opens, 25 % closes.
        (R4J_TIME, "f5 +5 f2 s =half_open f =open"),
        (R4J_TIME, "f5 +5 f s2 =half_open s =closed"),
        (R4J_SLOW, "f5 +5 z3 s =open"),
        // An ignored result is released, and not judged.
        (R4J_TIME, "f5 +5 s3 n =half_open f =closed"),
        (R4J_TIME, "f5 +5 n4 =half_open s3 =half_open s =closed"),
        // Closed again, it starts with empty counts.
        (R4J_TIME, "f5 +5 s4 =closed f4 =closed f =open"),
        // The seconds of a time window drop out one by one.
        (R4J_TIME, "f4 +4 s =open"),
        (R4J_TIME, "f4 +5 s =closed f3 =closed f =open"),
        // A trial does not need more calls than the minimum.
        (
            "{window: {calls: 10, minimum_calls: 2}, half_open_calls: 5, open_for: 5s}",
            "f2 +5 s2 =closed",
        ),
        // `maxWaitDurationInHalfOpenState`: an undecided trial opens the circuit.
        (
            "{window: {calls: 2}, open_for: 5s, half_open_calls: 2, max_half_open: 3s}",
            "f2 +5 s +2 =half_open +1 =open !",
        ),
    ] {
        play(config, history);
    }
}

#[test]
fn resilience4j_does_not_do_this() {
    for (config, history) in [
        // There a result counts in whatever state it arrives: a call from before the trip would be
        // the fourth of the trial, and close the circuit.
        (R4J_TIME, "a f5 +5 s3 S =half_open s =closed"),
        // There a trial call that never ends keeps its place, unless a maximum wait is configured.
        (R4J_TIME, "f5 +5 a4 ! +4 ! +1 s4 =closed"),
    ] {
        play(config, history);
    }
}
