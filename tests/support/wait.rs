//! Waiting for something with a deadline, and judging how long something took.

use std::collections::VecDeque;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine; reached only by a failing test.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Poll until `found` gives something. Panics, naming `what`, at the deadline.
#[track_caller]
pub fn eventually<T>(what: &str, found: impl FnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, found)
}

/// The same until `limit`, for what takes long on any machine.
#[track_caller]
pub fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut found: impl FnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        let waited = started.elapsed();
        assert!(waited < limit, "waited {limit:?} in vain for: {what}");
        // Most questions cost the gateway something: the longer the wait, the less often they are asked.
        pass((waited / 10).clamp(Duration::from_millis(5), Duration::from_millis(40)));
    }
}

/// Let a time pass that shows nowhere outside: one that is the test's subject, a client's pace, or one in which
/// nothing may happen. What can be asked for is waited for with [`eventually`].
pub fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// `work` on all of `cases` at the same time, where most of it is waiting. The first that fails fails the
/// test.
pub fn at_once<T: Send>(cases: impl IntoIterator<Item = T>, work: impl Fn(T) + Sync) {
    let work = &work;
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || work(case));
        }
    });
}

/// The result of `work`, and how long it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = watched();
    let value = work();
    (value, started.elapsed())
}

/// Now; from now on it is known how late the machine is.
pub fn watched() -> Instant {
    LazyLock::force(&LATENESS);
    Instant::now()
}

/// Not before `expected`, and at most 100 ms after it: the promise for every deadline.
#[track_caller]
pub fn assert_about(took: Duration, expected: Duration) {
    let early = Duration::from_millis(15);
    assert!(took + early >= expected, "took {took:?} instead of {expected:?}");
    assert_within(took, expected + Duration::from_millis(100));
}

/// At most `limit`, and what the machine itself was late by meanwhile.
#[track_caller]
pub fn assert_within(took: Duration, limit: Duration) {
    assert_within_since(Instant::now() - took, took, limit);
}

/// The same for what did not end just now, but happened after `started`, which [`watched`] gave.
#[track_caller]
pub fn assert_within_since(started: Instant, took: Duration, limit: Duration) {
    // A request passes through four threads, each of which may have to wait for its turn.
    let late = lateness(started) * 4;
    assert!(
        took <= limit + late,
        "took {took:?}, more than {limit:?} and {late:?} of a busy machine"
    );
}

/// How late a thread that sleeps was woken, by when.
static LATENESS: LazyLock<Mutex<VecDeque<(Instant, Duration)>>> = LazyLock::new(|| {
    std::thread::spawn(|| {
        let nap = Duration::from_millis(5);
        loop {
            let started = Instant::now();
            pass(nap);
            let late = started.elapsed().saturating_sub(nap);
            let mut samples = LATENESS.lock().expect("the samples");
            samples.push_back((Instant::now(), late));
            if samples.len() > 4000 {
                samples.pop_front();
            }
        }
    });
    Mutex::default()
});

/// The worst since then, as far back as there are samples.
fn lateness(since: Instant) -> Duration {
    let samples = LATENESS.lock().expect("the samples");
    let recent = samples.iter().rev().take_while(|(at, _)| *at >= since);
    recent.map(|(_, late)| *late).max().unwrap_or_default()
}
