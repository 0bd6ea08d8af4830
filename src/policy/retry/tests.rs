//! When an attempt is tried again, one condition at a time.

use std::sync::Arc;
use std::thread;

use proptest::prelude::*;

use super::*;

const NOW: Moment = Moment::ZERO;

fn config(text: &str) -> Config {
    serde_yaml::from_str(text).expect("a valid configuration")
}

/// A GET that got a 503, with nothing against another attempt.
fn attempt() -> Attempt<'static> {
    Attempt {
        outcome: Outcome::Response(503),
        method: &Method::GET,
        keyed: false,
        retries_done: 0,
        body_replayable: true,
        response_started: false,
        client_gone: false,
        nested: false,
        server_asks: None,
        time_left: None,
        random: 0.0,
    }
}

fn stopped_by(config: &Config, attempt: Attempt<'_>) -> Option<Reason> {
    match decide(config, &attempt, None, NOW) {
        Decision::Retry { .. } => None,
        Decision::Stop(reason) => Some(reason),
    }
}

fn budget(capacity: u32) -> Arc<Budget> {
    let bucket = budget::TokenBucket { capacity, refill_per_second: 1.0 };
    Arc::new(Budget::new(budget::Bound::TokenBucket(bucket).into(), NOW))
}

#[test]
fn a_retryable_attempt_is_tried_again_after_the_backoff() {
    let config = config("{max_retries: 2, backoff: {base: 100ms}}");
    let after = Duration::from_millis(100);
    assert_eq!(decide(&config, &attempt(), None, NOW), Decision::Retry { after });
    let second = Attempt { retries_done: 1, ..attempt() };
    assert_eq!(decide(&config, &second, None, NOW), Decision::Retry { after: after * 2 });
}

#[test]
fn each_obstacle_stops_a_retry_and_is_named() {
    let cases = [
        (Attempt { client_gone: true, ..attempt() }, Reason::ClientGone),
        (Attempt { response_started: true, ..attempt() }, Reason::ResponseStarted),
        (Attempt { outcome: Outcome::Response(200), ..attempt() }, Reason::NotRetryable),
        (Attempt { outcome: Outcome::Timeout, ..attempt() }, Reason::NotRetryable),
        (Attempt { nested: true, ..attempt() }, Reason::Nested),
        (Attempt { method: &Method::POST, ..attempt() }, Reason::Method),
        (Attempt { retries_done: 1, ..attempt() }, Reason::Exhausted),
        (Attempt { server_asks: Some(Pushback::Never), ..attempt() }, Reason::Pushback),
        (Attempt { body_replayable: false, ..attempt() }, Reason::BodyTooLarge),
    ];
    let config = config("{}");
    for (attempt, reason) in cases {
        assert_eq!(stopped_by(&config, attempt), Some(reason));
    }
}

/// Retried at each gateway of a circle, a request would go round again and again.
#[test]
fn a_request_that_went_in_a_circle_is_not_sent_again() {
    let of = |status| Attempt { outcome: Outcome::Response(status), ..attempt() };
    let config = config("{on: [5xx, 508]}");
    assert_eq!(stopped_by(&config, of(508)), Some(Reason::NotRetryable));
    assert_eq!(stopped_by(&config, of(507)), None);
}

#[test]
fn methods_open_from_safe_over_idempotent_to_any() {
    let allowed = |methods: Methods| {
        ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH", "TRACE", "CONNECT"]
            .into_iter()
            .filter(|name| methods.allow(&name.parse().expect("a method")))
            .count()
    };
    assert_eq!(allowed(Methods::Safe), 3);
    assert_eq!(allowed(Methods::Idempotent), 5);
    assert_eq!(allowed(Methods::Any), 7);
}

#[test]
fn a_request_that_holds_a_key_is_retried_whatever_its_method() {
    let config = config("{methods: safe, on: [503, reset]}");
    for outcome in [Outcome::Response(503), Outcome::Reset] {
        let post = Attempt { outcome, keyed: true, method: &Method::POST, ..attempt() };
        assert_eq!(stopped_by(&config, post), None);
        let trace = Attempt { method: &Method::TRACE, ..post };
        assert_eq!(stopped_by(&config, trace), Some(Reason::Method));
    }
}

#[test]
fn a_request_that_was_not_sent_is_retried_whatever_its_method() {
    let config = config("{}");
    for outcome in [Outcome::ConnectFailure, Outcome::ConnectTimeout, Outcome::RefusedStream] {
        let post = Attempt { outcome, method: &Method::POST, ..attempt() };
        assert_eq!(stopped_by(&config, post), None, "{outcome:?}");
    }
    let reset = Attempt { outcome: Outcome::Reset, method: &Method::POST, ..attempt() };
    assert_eq!(stopped_by(&config, reset), Some(Reason::Method));
}

#[test]
fn trace_is_never_sent_twice() {
    let config = config("{methods: any}");
    for outcome in [Outcome::Response(503), Outcome::ConnectFailure] {
        let trace = Attempt { outcome, method: &Method::TRACE, ..attempt() };
        assert_eq!(stopped_by(&config, trace), Some(Reason::Method));
    }
}

#[test]
fn a_retry_that_could_not_begin_before_the_deadline_is_not_begun() {
    let config = config("{backoff: {base: 100ms}}");
    let left = |millis| Attempt { time_left: Some(Duration::from_millis(millis)), ..attempt() };
    assert_eq!(stopped_by(&config, left(101)), None);
    assert_eq!(stopped_by(&config, left(100)), Some(Reason::Deadline));
    assert_eq!(stopped_by(&config, left(0)), Some(Reason::Deadline));
}

fn asked(seconds: u64) -> Attempt<'static> {
    Attempt { server_asks: Some(Pushback::After(Duration::from_secs(seconds))), ..attempt() }
}

#[test]
fn no_retry_is_earlier_than_the_upstream_or_the_backoff_says() {
    let config = config("{backoff: {base: 2s}}");
    for (asks, waits) in [(0, 2), (2, 2), (3, 3), (10, 10)] {
        let after = Duration::from_secs(waits);
        assert_eq!(decide(&config, &asked(asks), None, NOW), Decision::Retry { after });
    }
}

#[test]
fn an_upstream_that_asks_for_too_long_a_wait_gets_no_retry() {
    assert_eq!(stopped_by(&config("{}"), asked(11)), Some(Reason::Pushback));
    assert_eq!(stopped_by(&config("{max_retry_after: 1m}"), asked(11)), None);
    let attempt = Attempt { time_left: Some(Duration::from_secs(5)), ..asked(5) };
    assert_eq!(stopped_by(&config("{}"), attempt), Some(Reason::Deadline));
}

#[test]
fn a_grpc_status_is_retried_if_it_is_named() {
    let grpc = |code| Attempt { outcome: Outcome::Grpc(code), ..attempt() };
    let config = config("{on: [grpc_unavailable]}");
    assert_eq!(stopped_by(&config, grpc(14)), None);
    assert_eq!(stopped_by(&config, grpc(13)), Some(Reason::NotRetryable));
}

#[test]
fn an_empty_budget_stops_a_retry() {
    let mut stake = budget(1).enter(NOW);
    let config = config("{max_retries: 10}");
    let after = Duration::from_millis(25);
    assert_eq!(decide(&config, &attempt(), Some(&mut stake), NOW), Decision::Retry { after });
    let stop = Decision::Stop(Reason::Budget);
    assert_eq!(decide(&config, &attempt(), Some(&mut stake), NOW), stop);
}

#[test]
fn the_budget_is_charged_only_for_retries_that_are_made() {
    let budget = budget(1);
    let mut stake = budget.enter(NOW);
    let config = config("{}");
    for attempt in [
        Attempt { method: &Method::POST, ..attempt() },
        Attempt { retries_done: 1, ..attempt() },
        Attempt { time_left: Some(Duration::ZERO), ..attempt() },
    ] {
        assert!(matches!(decide(&config, &attempt, Some(&mut stake), NOW), Decision::Stop(_)));
    }
    assert_eq!(budget.withdrawn() + budget.refused(), 0);
}

#[test]
fn no_retries_can_be_asked_for_and_more_than_ten_cannot() {
    assert_eq!(stopped_by(&config("{max_retries: 0}"), attempt()), Some(Reason::Exhausted));
    assert!(serde_yaml::from_str::<Config>("{max_retries: 11}").is_err());
}

#[test]
fn the_defaults_are_one_retry_of_safe_methods() {
    let config = config("{}");
    assert_eq!((config.max_retries, config.methods), (1, Methods::Safe));
    let on = "connect_failure, refused_stream, reset, 502, 503, 504";
    assert_eq!(config.on.to_string(), on);
    assert_eq!((config.budget, config.backoff), (BudgetName::OfUpstream, Backoff::default()));
    assert_eq!(config.max_retry_after, Timespan::from_secs(10));
}

/// The number of calls that an always failing upstream sees, while 16 threads make 250 requests
/// each at one moment; each request would be retried ten times.
fn calls_in_an_outage(config: budget::Config) -> usize {
    let budget = Arc::new(Budget::new(config, NOW));
    let policy = self::config("{max_retries: 10}");
    let calls = || {
        let mut stake = budget.enter(NOW);
        let retried = |retries_done: &u32| {
            let attempt = Attempt { retries_done: *retries_done, ..attempt() };
            matches!(decide(&policy, &attempt, Some(&mut stake), NOW), Decision::Retry { .. })
        };
        1 + (0..).take_while(retried).count()
    };
    thread::scope(|scope| {
        let thread = || (0..250).map(|_| calls()).sum::<usize>();
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(thread)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    })
}

#[test]
fn a_bucket_bounds_the_calls_of_an_outage_to_the_requests_and_its_tokens() {
    let bucket = budget::TokenBucket { capacity: 20, refill_per_second: 1.0 };
    assert_eq!(calls_in_an_outage(budget::Bound::TokenBucket(bucket).into()), 4000 + 20);
}

#[test]
fn a_ratio_bounds_the_calls_of_an_outage_to_the_requests_and_their_share() {
    let ratio: budget::Ratio =
        serde_yaml::from_str("{share: 20%, min_per_second: 3, ttl: 10s}").expect("valid");
    // Each request makes all retries it gets, so that the budget is spent to within the fraction of
    // a retry.
    assert_eq!(calls_in_an_outage(budget::Bound::Ratio(ratio).into()), 4000 + 800 + 30);
}

fn attempts() -> impl Strategy<Value = Attempt<'static>> {
    const METHODS: [&Method; 5] =
        [&Method::GET, &Method::PUT, &Method::POST, &Method::TRACE, &Method::HEAD];
    let outcome = prop::sample::select(vec![
        Outcome::Response(200),
        Outcome::Response(503),
        Outcome::ConnectFailure,
        Outcome::RefusedStream,
        Outcome::Reset,
        Outcome::Timeout,
    ]);
    let asks = prop_oneof![
        Just(None),
        Just(Some(Pushback::Never)),
        (0..30_u64).prop_map(|seconds| Some(Pushback::After(Duration::from_secs(seconds)))),
    ];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let keyed = any::<bool>();
    let rest = (asks, prop::option::of(0..20_000_u64), 0.0..1.0_f64);
    (outcome, 0..METHODS.len(), keyed, 0..4_u32, flags, rest).prop_map(
        |(outcome, method, keyed, retries_done, flags, (server_asks, left, random))| Attempt {
            outcome,
            method: METHODS[method],
            keyed,
            retries_done,
            body_replayable: flags.0,
            // Rare, because after that the rest of a history shows nothing.
            response_started: flags.1 && retries_done == 3,
            client_gone: flags.2 && retries_done == 2,
            nested: flags.3 && retries_done == 1,
            server_asks,
            time_left: left.map(Duration::from_millis),
            random,
        },
    )
}

proptest! {
    /// Checks each condition on its own, in no order: a retry is made if none is against it, and
    /// the budget is charged for exactly those.
    #[test]
    fn a_retry_is_made_if_nothing_speaks_against_it(
        max_retries in 0..4_u32, any_method in any::<bool>(), tokens in 1..5_u32,
        attempts in prop::collection::vec(attempts(), 1..30),
    ) {
        let methods = if any_method { "any" } else { "safe" };
        let config = config(&format!("{{max_retries: {max_retries}, methods: {methods}}}"));
        let budget = budget(tokens);
        let mut stake = budget.enter(NOW);
        let mut left = tokens;
        for attempt in attempts {
            let unsent =
                matches!(attempt.outcome, Outcome::ConnectFailure | Outcome::RefusedStream);
            let safe = [Method::GET, Method::HEAD].contains(attempt.method);
            let worth = unsent || matches!(attempt.outcome, Outcome::Response(503) | Outcome::Reset);
            let asked = match attempt.server_asks {
                None => Some(Duration::ZERO),
                Some(Pushback::After(asked)) => Some(asked).filter(|asked| asked.as_secs() <= 10),
                Some(Pushback::Never) => None,
            };
            let backoff = config.backoff.delay(attempt.retries_done + 1, attempt.random);
            let wait = asked.map(|asked| asked.max(backoff));
            let expected = [
                !attempt.client_gone && !attempt.response_started && !attempt.nested,
                attempt.body_replayable,
                worth,
                (safe || unsent || attempt.keyed || any_method) && attempt.method != Method::TRACE,
                attempt.retries_done < max_retries,
                wait.is_some_and(|wait| attempt.time_left.is_none_or(|left| wait < left)),
                left > 0,
            ];
            let decision = decide(&config, &attempt, Some(&mut stake), NOW);
            let made = expected.iter().all(|holds| *holds);
            prop_assert_eq!(made, matches!(decision, Decision::Retry { .. }), "{:?}", decision);
            if let (Decision::Retry { after }, Some(wait)) = (decision, wait) {
                prop_assert_eq!(after, wait);
                left -= 1;
            }
            prop_assert_eq!(budget.withdrawn(), u64::from(tokens - left));
        }
    }
}
