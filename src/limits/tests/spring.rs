//! The token bucket compared with that of Spring Cloud Gateway's `RedisRateLimiter`, whose script
//! is modelled here: where they agree, and each of its bugs that this one does not have.
//!
//! Two more bugs are shown by tests of the whole gateway. When Redis fails, Spring's limiter lets
//! all requests pass and reports -1 remaining. And it keeps tokens and time under two keys, one of
//! which may be lost.

use super::*;

/// Spring's limiter as it behaves: whole seconds, and a state that lives for `2 x burst / rate` of
/// them.
struct Spring {
    rate: u64,
    burst: u64,
    state: Option<State>,
}

#[derive(Clone, Copy)]
struct State {
    tokens: u64,
    refreshed: u64,
    forgotten: u64,
}

impl Spring {
    fn admits(&mut self, micros: u64) -> bool {
        let now = micros / 1_000_000;
        let state = self.state.filter(|state| micros < state.forgotten);
        let State { tokens, refreshed, .. } =
            state.unwrap_or(State { tokens: self.burst, refreshed: now, forgotten: 0 });
        let tokens = self.burst.min(tokens + now.saturating_sub(refreshed) * self.rate);
        let admitted = tokens >= 1;
        let kept_for = 2 * self.burst / self.rate;
        if kept_for > 0 {
            self.state = Some(State {
                tokens: tokens - u64::from(admitted),
                refreshed: now,
                forgotten: micros + kept_for * 1_000_000,
            });
        }
        admitted
    }
}

struct Case {
    name: &'static str,
    rate: u32,
    burst: u32,
    /// Milliseconds since a whole second, and how many requests are made then.
    history: &'static [(u64, usize)],
    springs: &'static [usize],
    ours: &'static [usize],
}

const CASES: [Case; 5] = [
    Case {
        name: "they agree at whole seconds: a burst, then the rate, then a burst again",
        rate: 10,
        burst: 20,
        history: &[(0, 50), (1000, 50), (2000, 50), (60_000, 50)],
        springs: &[20, 10, 10, 20],
        ours: &[20, 10, 10, 20],
    },
    Case {
        name: "bug: a state that would live for less than a second is not kept, so a burst below \
               half of the rate never limits",
        rate: 10,
        burst: 4,
        history: &[(0, 50), (1, 50)],
        springs: &[50, 50],
        ours: &[4, 0],
    },
    Case {
        name: "bug: time in whole seconds gives a second's tokens back at its border",
        rate: 10,
        burst: 20,
        history: &[(999, 50), (1000, 50)],
        springs: &[20, 10],
        ours: &[20, 0],
    },
    Case {
        name: "bug: and none before it, however long a client has waited",
        rate: 10,
        burst: 20,
        history: &[(0, 50), (999, 50)],
        springs: &[20, 0],
        ours: &[20, 9],
    },
    Case {
        name: "a client that asks all the time gets the rate, from Spring's in lumps",
        rate: 10,
        burst: 10,
        history: &[(0, 10), (500, 10), (1000, 10), (1500, 10)],
        springs: &[10, 0, 10, 0],
        ours: &[10, 5, 5, 5],
    },
];

#[test]
fn the_token_bucket_admits_what_springs_does_but_for_its_bugs() {
    let Some(redis) = Virtual::start() else { return };
    let second = START / 1_000_000 * 1_000_000;
    for Case { name, rate, burst, history, springs, ours } in CASES {
        let mut spring = Spring { rate: rate.into(), burst: burst.into(), state: None };
        let per = Timespan::from_secs(1);
        let bucket = compiled([Algorithm::TokenBucket(TokenBucket { rate, per, burst })]);
        redis.forget();
        let mut admitted = (vec![], vec![]);
        for (millis, requests) in history {
            let now = second + millis * 1000;
            admitted.0.push((0..*requests).filter(|_| spring.admits(now)).count());
            admitted.1.push((0..*requests).filter(|_| redis.count(&bucket, now).admitted).count());
        }
        assert_eq!((&*admitted.0, &*admitted.1), (springs, ours), "{name}");
    }
}

/// Spring's responses say how much remains, but never how long to wait, and -1 when Redis fails.
#[test]
fn a_refusal_says_how_long_to_wait_to_the_microsecond() {
    let Some(redis) = Virtual::start() else { return };
    let per = Timespan::from_secs(1);
    let bucket = compiled([Algorithm::TokenBucket(TokenBucket { rate: 10, per, burst: 20 })]);
    (0..20).for_each(|_| assert!(redis.count(&bucket, START).admitted));
    let told = redis.count(&bucket, START + 40_000);
    assert_eq!((told.retry_after, told.remaining), (Duration::from_millis(60), 0));
    assert!(!redis.count(&bucket, START + 99_999).admitted);
    assert!(redis.count(&bucket, START + 100_000).admitted);
}
