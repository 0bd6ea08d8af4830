//! The script, run by a Redis that the tests start, compared with the in-process limits.
//!
//! Its arithmetic is checked in virtual time: the test's copy of the script gets the time as two
//! more arguments, and drops a key when its time to live is over in virtual time.

mod spring;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;
use redis::{Connection, Script};

use super::terms::{self, Intent};
use super::*;
use crate::policy::dry_run::Enforce;
use crate::policy::rate_limit::{
    Algorithm, Config, FixedWindow, Key, Named, OnFailure, Part, Replays, Shared, SlidingWindow,
    Standing, TokenBucket, Verdict, check_shared,
};
use crate::units::Timespan;

#[path = "../../tests/support/redis.rs"]
mod server;

const LUA: &str = include_str!("count.lua");
/// Microseconds; not at a boundary of any window that matters.
const START: u64 = 1_763_000_000_000_000;

/// A server whose clock the test sets.
struct Virtual {
    connection: RefCell<Connection>,
    script: Script,
    _server: server::Redis,
}

impl Virtual {
    fn start() -> Option<Self> {
        let server = server::Redis::start()?;
        let replaced = [
            ("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}"),
            (
                "redis.call('SET', key, state, 'PX', math.ceil(whole / 1000) + 1)",
                "redis.call('SET', key, state)
                 local ends = now + 1000 * (math.ceil(whole / 1000) + 1)
                 redis.call('SET', 'end:' .. key, string.format('%.0f', ends))",
            ),
            (
                "local states, answer",
                "for _, key in ipairs(KEYS) do
                   local ends = redis.call('GET', 'end:' .. key)
                   if ends and now >= tonumber(ends) then redis.call('DEL', key) end
                 end
                 local states, answer",
            ),
        ];
        let script = replaced.iter().fold(LUA.to_owned(), |script, (part, instead)| {
            assert_eq!(script.matches(part).count(), 1, "{part}");
            script.replace(part, instead)
        });
        let client = redis::Client::open(server.url()).expect("a URL");
        let connection = client.get_connection().expect("a connection");
        Some(Virtual {
            connection: connection.into(),
            script: Script::new(&script),
            _server: server,
        })
    }

    fn forget(&self) {
        redis::cmd("FLUSHALL").exec(&mut self.connection.borrow_mut()).expect("an answer");
    }

    fn set(&self, terms: &[Terms], state: &str) {
        let key = terms[0].key(&anybody());
        redis::cmd("SET")
            .arg(key)
            .arg(state)
            .exec(&mut self.connection.borrow_mut())
            .expect("an answer");
    }

    fn ask(&self, terms: &[Terms], intent: Intent, micros: u64) -> Vec<Verdict> {
        let mut call = self.script.prepare_invoke();
        for terms in terms {
            call.key(terms.key(&anybody()));
        }
        call.arg(&*terms::arguments(terms, intent));
        call.arg(micros / 1_000_000).arg(micros % 1_000_000);
        let numbers: Vec<u64> = call.invoke(&mut self.connection.borrow_mut()).expect("an answer");
        terms::verdicts(terms, &numbers).expect("four numbers each")
    }

    fn count(&self, terms: &[Terms], micros: u64) -> Verdict {
        self.ask(terms, Intent::Count, micros)[0]
    }
}

fn anybody() -> Requester<'static> {
    static NO_HEADERS: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);
    let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let consumer = Some(Named { authority: None, name: "acme" });
    Requester { consumer, claims: None, address, headers: &NO_HEADERS }
}

fn config(algorithm: Algorithm, on_failure: Option<OnFailure>) -> Config {
    let shared = on_failure.map(|on_failure| Shared { store: "redis".to_owned(), on_failure });
    Config {
        algorithm,
        key: Key::default(),
        cost: 1,
        replays: Replays::Counted,
        max_keys: 100,
        shared,
        enforce: Enforce::Yes,
    }
}

fn shared(algorithms: impl IntoIterator<Item = Algorithm>) -> Limits {
    let limit = |algorithm| config(algorithm, Some(OnFailure::Open));
    Limits(algorithms.into_iter().map(limit).collect())
}

fn compiled(algorithms: impl IntoIterator<Item = Algorithm>) -> Box<[Terms]> {
    terms::compile("p", "r", &shared(algorithms))
}

fn limiters(limits: &Limits) -> Vec<Arc<Limiter>> {
    limits.0.iter().map(|limit| Arc::new(Limiter::new(limit.clone()))).collect()
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    (0..3, 1..8_u32, (1..5000_u64).prop_map(Timespan::from_millis), 1..8_u32).prop_map(
        |(kind, requests, per, burst)| match kind {
            0 => Algorithm::FixedWindow(FixedWindow { requests, per }),
            1 => Algorithm::SlidingWindow(SlidingWindow { requests, per }),
            _ => Algorithm::TokenBucket(TokenBucket { rate: requests, per, burst }),
        },
    )
}

/// The script counts in microseconds, rounded up.
fn in_micros(verdict: Verdict) -> Verdict {
    let up = |wait: Duration| Duration::from_micros(wait.as_nanos().div_ceil(1000) as u64);
    let (reset_after, retry_after) = (up(verdict.reset_after), up(verdict.retry_after));
    Verdict { reset_after, retry_after, ..verdict }
}

/// What is said of the strictest limit, whichever that is: of two whose times differ by less than a microsecond
/// it may be one in process and the other in the script.
fn strictness(standing: Standing) -> (bool, u32, Duration, Option<u32>) {
    let Verdict { admitted, remaining, reset_after, retry_after, .. } = in_micros(standing.verdict);
    match admitted {
        true => (true, remaining, reset_after, standing.first),
        false => (false, 0, retry_after, standing.first),
    }
}

/// For any limits and any rhythm, the script's verdicts equal those of the in-process limits.
#[test]
fn the_script_says_what_the_limits_it_stands_in_for_say() {
    let Some(redis) = Virtual::start() else { return };
    let limit = (algorithm(), 1..4_u32);
    let histories =
        (prop::collection::vec(limit, 1..4), prop::collection::vec(0..3_000_000_u64, 1..60));
    let mut runner = proptest::test_runner::TestRunner::default();
    let outcome = runner.run(&histories, |(limits, pauses)| {
        // In-process windows end on whole milliseconds.
        let fixed = limits.iter().any(|(a, _)| matches!(a, Algorithm::FixedWindow(_)));
        let all = |on_failure| {
            let limit = |(algorithm, cost): &(Algorithm, u32)| Config {
                cost: (*cost).min(algorithm.most()),
                ..config(algorithm.clone(), on_failure)
            };
            Limits(limits.iter().map(limit).collect())
        };
        let (local, shared) = (all(None), all(Some(OnFailure::Open)));
        let terms = terms::compile("p", "r", &shared);
        let (local, shared) = (limiters(&local), limiters(&shared));
        redis.forget();
        let mut now = START;
        for pause in pauses {
            now += if fixed { pause / 1000 * 1000 } else { pause };
            let moment = Moment::from_nanos(now * 1000);
            let verdicts = redis.ask(&terms, Intent::Count, now);
            let expected = local.iter().map(|limiter| limiter.peek(&anybody(), moment));
            let expected: Vec<_> = expected.map(in_micros).collect();
            prop_assert_eq!(&verdicts, &expected, "at {}", now);
            let heard = Heard::Verdicts { verdicts, refused_here: None, would_refuse_here: None };
            let told = check_shared(&shared, &anybody(), &heard, Part::All, moment).ok().flatten();
            let here = Heard::Nothing;
            let counted = check_shared(&local, &anybody(), &here, Part::All, moment).ok().flatten();
            prop_assert_eq!(told.map(strictness), counted.map(strictness), "at {}", now);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// For any limits and any rhythm. What a dry run is over for, its twin does not ask about.
#[test]
fn dry_limits_count_what_their_enforcing_twins_count() {
    let Some(redis) = Virtual::start() else { return };
    let event = (0..2_000_000_u64, prop::bool::weighted(0.2));
    let histories = (prop::collection::vec(algorithm(), 1..4), prop::collection::vec(event, 1..60));
    let mut runner = proptest::test_runner::TestRunner::default();
    let outcome = runner.run(&histories, |(limits, events)| {
        let enforced = shared(limits);
        let mut dry = enforced.clone();
        dry.0.iter_mut().for_each(|limit| limit.enforce = Enforce::No);
        let enforced = terms::compile("twin", "r", &enforced);
        let dry = terms::compile("dry", "r", &dry);
        redis.forget();
        let mut now = START;
        for (pause, is_over) in events {
            now += pause;
            if is_over {
                redis.ask(&dry, Intent::CountEnforced, now);
                continue;
            }
            let told = redis.ask(&dry, Intent::Count, now);
            prop_assert_eq!(told, redis.ask(&enforced, Intent::Count, now), "at {}", now);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn an_enforced_limit_counts_what_a_dry_one_beside_it_would_refuse() {
    let Some(redis) = Virtual::start() else { return };
    let per = Timespan::from_secs(60);
    let window = |requests| Algorithm::FixedWindow(FixedWindow { requests, per });
    let mut limits = shared([window(1), window(3)]);
    limits.0[0].enforce = Enforce::No;
    let terms = terms::compile("p", "r", &limits);
    let told = [(); 5].map(|()| {
        let verdicts = redis.ask(&terms, Intent::Count, START);
        [verdicts[0].admitted, verdicts[1].admitted]
    });
    let [passes, over, refused] = [[true, true], [false, true], [false, false]];
    assert_eq!(told, [passes, over, over, refused, refused]);
}

#[test]
fn a_look_counts_nothing() {
    let Some(redis) = Virtual::start() else { return };
    let per = Timespan::from_secs(1);
    for algorithm in [
        Algorithm::FixedWindow(FixedWindow { requests: 2, per }),
        Algorithm::SlidingWindow(SlidingWindow { requests: 2, per }),
        Algorithm::TokenBucket(TokenBucket { rate: 1, per, burst: 2 }),
    ] {
        let terms = compiled([algorithm]);
        assert!((0..9).all(|_| redis.ask(&terms, Intent::Look, START)[0].admitted));
        assert_eq!([(); 3].map(|()| redis.count(&terms, START).admitted), [true, true, false]);
    }
}

/// Numbers whose products do not fit into a double.
#[test]
fn the_largest_limits_are_counted_to_the_request() {
    let Some(redis) = Virtual::start() else { return };
    let per = Timespan::from_secs(366 * 24 * 3600);
    let window = SlidingWindow { requests: 1_000_000, per };
    let terms = compiled([Algorithm::SlidingWindow(window)]);
    let [_, ticks, tick] = terms[0].numbers();
    let number = START / tick / ticks;
    // The last window was used up, and this one has just begun: one request comes back per
    // millionth of a window.
    redis.set(&terms, &format!("{} 0 1000000", number - 1));
    let border = number * ticks * tick;
    let told = redis.count(&terms, border);
    let millionth = Duration::from_micros(per.as_micros() as u64 / 1_000_000);
    assert!(!told.admitted && told.retry_after <= millionth, "{told:?}");
    let wait = told.retry_after.as_micros() as u64;
    assert!(!redis.ask(&terms, Intent::Look, border + wait - tick)[0].admitted);
    assert!(redis.ask(&terms, Intent::Look, border + wait)[0].admitted);

    let bucket = TokenBucket { rate: 1, per: Timespan::from_secs(31), burst: 1_000_000 };
    let terms = compiled([Algorithm::TokenBucket(bucket)]);
    redis.set(&terms, &format!("{START} {}", 31_000_000_u64 * 1_000_000));
    let told = redis.count(&terms, START);
    assert_eq!((told.admitted, told.retry_after), (false, Duration::from_secs(31)));
    assert!(!redis.count(&terms, START + 30_999_999).admitted);
    assert!(redis.count(&terms, START + 31_000_000).admitted);
}

proptest! {
    /// Within half of what a double holds exactly, and not off by more than a millionth.
    #[test]
    fn every_number_of_the_script_is_exact(
        requests in 1..=1_000_000_u32, burst in 1..=1_000_000_u32,
        nanos in 1_000_000..=366 * 24 * 3600 * 1_000_000_000_u64,
    ) {
        let per = Timespan(Duration::from_nanos(nanos));
        let window = compiled([Algorithm::SlidingWindow(SlidingWindow { requests, per })]);
        let [_, ticks, tick] = window[0].numbers();
        prop_assert!(u64::from(requests) * ticks < 1 << 53);
        let micros = nanos.div_ceil(1000);
        prop_assert!((micros..=micros + 1 + micros / 1_000_000).contains(&(ticks * tick)));

        let per_token = nanos.div_ceil(requests.into());
        prop_assume!(u128::from(per_token) * u128::from(burst) <= 366 * 24 * 3600 * 1_000_000_000);
        let bucket = TokenBucket { rate: requests, per, burst };
        let bucket = compiled([Algorithm::TokenBucket(bucket)]);
        let [_, units, unit] = bucket[0].numbers();
        prop_assert!((u64::from(burst) + 1) * units < 1 << 53);
        let nanos = units * 1000 / unit;
        prop_assert!((per_token..=per_token + per_token / 1_000_000).contains(&nanos));
    }
}

#[test]
fn a_clock_that_is_set_back_locks_nobody_out() {
    let Some(redis) = Virtual::start() else { return };
    let per = Timespan::from_secs(10);
    for algorithm in [
        Algorithm::FixedWindow(FixedWindow { requests: 2, per }),
        Algorithm::SlidingWindow(SlidingWindow { requests: 2, per }),
        Algorithm::TokenBucket(TokenBucket { rate: 1, per, burst: 2 }),
    ] {
        let terms = compiled([algorithm.clone()]);
        (0..2).for_each(|_| assert!(redis.count(&terms, START).admitted));
        let earlier = START - 3_600_000_000;
        let told = redis.count(&terms, earlier);
        assert!(!told.admitted && told.retry_after <= Duration::from_secs(20), "{told:?}");
        let waited = earlier + told.retry_after.as_micros() as u64;
        assert!(redis.count(&terms, waited).admitted, "{algorithm:?}");
    }
}

#[test]
fn what_is_no_state_is_none() {
    let Some(redis) = Virtual::start() else { return };
    let per = Timespan::from_secs(10);
    let terms = compiled([Algorithm::FixedWindow(FixedWindow { requests: 2, per })]);
    redis.set(&terms, "nonsense");
    assert_eq!(redis.count(&terms, START).remaining, 1);
    redis.forget();
    let key = terms[0].key(&anybody());
    redis::cmd("RPUSH")
        .arg(key)
        .arg("x")
        .exec(&mut redis.connection.borrow_mut())
        .expect("an answer");
    assert_eq!([(); 3].map(|()| redis.count(&terms, START).admitted), [true, true, false]);
}

#[test]
fn a_state_lives_as_long_as_it_means_something() {
    let Some(server) = server::Redis::start() else { return };
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_connection().expect("a connection");
    let per = Timespan::from_millis(700);
    for algorithm in [
        Algorithm::FixedWindow(FixedWindow { requests: 9, per }),
        Algorithm::SlidingWindow(SlidingWindow { requests: 9, per }),
        Algorithm::TokenBucket(TokenBucket { rate: 1, per, burst: 9 }),
        // Spring's key would expire at once.
        Algorithm::TokenBucket(TokenBucket { rate: 1_000_000, per, burst: 1 }),
    ] {
        let terms = compiled([algorithm.clone()]);
        let key = terms[0].key(&anybody());
        let script = Script::new(LUA);
        let mut call = script.key(&key);
        call.arg(&*terms::arguments(&terms, Intent::Count));
        let numbers: Vec<u64> = call.invoke(&mut connection).expect("an answer");
        let ttl: i64 = redis::cmd("PTTL").arg(&key).query(&mut connection).expect("an answer");
        let whole = Duration::from_micros(numbers[2]).as_millis() as i64;
        // A few milliseconds may have passed between the two.
        assert!((whole - 100..=whole + 2).contains(&ttl), "{algorithm:?}: {ttl} of {whole} ms");
    }
}

#[test]
fn keys_tell_apart_what_is_counted_apart() {
    let per = Timespan::from_secs(60);
    let window = |requests| Algorithm::FixedWindow(FixedWindow { requests, per });
    let stems = |limits: &Limits| -> Vec<String> {
        let keys =
            terms::compile("p", "r", limits).iter().map(|t| t.key(&anybody())).collect::<Vec<_>>();
        keys.into_iter().map(|key| key.rsplit_once(':').expect("a digest").0.to_owned()).collect()
    };
    let mut limits = shared([window(5), window(7), window(5)]);
    limits.0[1].key = serde_yaml::from_str("[client_address, route]").expect("valid");
    assert_eq!(
        stems(&limits),
        [
            "p:r:fixed_window:5/1m:consumer",
            "p:r:fixed_window:7/1m:client_address+route",
            "p:r:fixed_window:5/1m:consumer:2",
        ]
    );
    // Its place in the list, and limits that are not shared, must not matter.
    limits.0.remove(0);
    limits.0.insert(0, config(window(5), None));
    assert_eq!(stems(&limits)[1], "p:r:fixed_window:5/1m:consumer");
    limits.0[2].cost = 3;
    assert_eq!(stems(&limits)[1], "p:r:fixed_window:5/1mx3:consumer");
}

#[test]
fn an_answer_that_is_none_is_not_taken_for_one() {
    let terms = compiled([Algorithm::TokenBucket(TokenBucket {
        rate: 1,
        per: Timespan::from_secs(1),
        burst: 1,
    })]);
    for numbers in [&[][..], &[1, 1, 1], &[1, u64::MAX, 1, 1], &[1; 8]] {
        assert_eq!(terms::verdicts(&terms, numbers), None);
    }
}
