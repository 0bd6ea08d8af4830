//! Waiting for something with a deadline, and judging how long something took.

use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine; reached only by a failing test.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Poll until `found` gives something. Panics, naming `what`, at the deadline.
#[track_caller]
pub fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for: {what}");
        pass(Duration::from_millis(5));
    }
}

/// Let a configured time pass whose end shows nowhere outside.
pub fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// The result of `work`, and how long it took.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let value = work();
    (value, started.elapsed())
}

/// Not before `expected`, and at most 100 ms after it: the promise for every deadline.
#[track_caller]
pub fn assert_about(took: Duration, expected: Duration) {
    let early = Duration::from_millis(15);
    let late = Duration::from_millis(100);
    assert!(
        took + early >= expected && took <= expected + late,
        "took {took:?} instead of {expected:?}"
    );
}
