//! Signals that end the gateway, and those that must not.
//!
//! [`super::reload`] handles SIGHUP.

use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::task::Poll;

use rustix::process::Signal as Known;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::shared::Shared;
use crate::condition::{Condition, QUIET};
use crate::time::Clock;

/// Other signals that are sent to servers, and would end the process by default.
const TAKEN: [(SignalKind, &str); 7] = [
    (SignalKind::user_defined1(), "SIGUSR1: the access log is opened anew, if it is a file"),
    (SignalKind::alarm(), "SIGALRM: nothing is done on it"),
    (SignalKind::io(), "SIGIO: nothing is done on it"),
    (kind(Known::VTALARM), "SIGVTALRM: nothing is done on it"),
    (kind(Known::PROF), "SIGPROF: nothing is done on it"),
    (kind(Known::POWER), "SIGPWR: nothing is done on it"),
    (kind(Known::STKFLT), "SIGSTKFLT: nothing is done on it"),
];

/// The real-time signals. glibc begins at 34 and musl at 35; the runtime cannot receive the last, 64.
const REAL_TIME: RangeInclusive<i32> = 34..=63;
/// `SIGRTMIN+3` as glibc counts: what systemd's containers are stopped with, and so the `STOPSIGNAL`
/// of images built on theirs.
const HALT: i32 = 37;

/// Signals by which the gateway is told to end.
const ORDERS: [(SignalKind, &str); 4] = [
    (SignalKind::terminate(), "SIGTERM"),
    (SignalKind::interrupt(), "SIGINT"),
    (SignalKind::quit(), "SIGQUIT"),
    (SignalKind::from_raw(HALT), "SIGRTMIN+3"),
];
/// The limit on CPU time is reached: the kernel repeats this each second, and kills at the hard limit.
const OUT_OF_TIME: (SignalKind, &str) = (kind(Known::XCPU), "SIGXCPU");

const fn kind(signal: Known) -> SignalKind {
    SignalKind::from_raw(signal.as_raw())
}

/// Handles every signal that must not end the gateway, for as long as `runtime` runs.
pub(super) fn take_others(runtime: &Runtime) {
    let _inside = runtime.enter();
    for (kind, what) in TAKEN {
        take(runtime, kind, what.to_owned());
    }
    for number in REAL_TIME.filter(|number| *number != HALT) {
        take(
            runtime,
            SignalKind::from_raw(number),
            format!("signal {number}: nothing is done on it"),
        );
    }
    // `upgrade::launch` acts on it once there is something to take over.
    if let Err(error) = signal(SignalKind::user_defined2()) {
        log::error!("SIGUSR2 cannot be received: {error}");
    }
    // A file has reached the limit on its size. The write fails, and what wrote it says so. A line about
    // the signal could be such a write itself, and cause the next signal.
    if let Err(error) = signal(kind(Known::XFSZ)) {
        log::error!("SIGXFSZ cannot be received: {error}");
    }
}

/// Logs `what` at each signal of this kind, but at most once a second: timers send some of them.
fn take(runtime: &Runtime, kind: SignalKind, what: String) {
    match signal(kind) {
        Ok(mut signals) => drop(runtime.spawn(async move {
            // A signal that comes again and again is told once.
            let mut repeated = Condition::default();
            while signals.recv().await.is_some() {
                let now = Clock::now();
                repeated.over_after(QUIET, now);
                if repeated.met(now) {
                    log::info!("{what}");
                }
            }
        })),
        // The C library keeps some of the real-time signals to itself.
        Err(_) if REAL_TIME.contains(&kind.as_raw_value()) => {}
        Err(error) => log::error!("{what}; it cannot be received: {error}"),
    }
}

/// Opens the access log anew at each SIGUSR1, for as long as `runtime` runs.
pub(super) fn reopen_on_request(runtime: &Runtime, shared: Arc<Shared>) {
    let _inside = runtime.enter();
    // Errors have been logged by `take_others`.
    let Ok(mut signals) = signal(SignalKind::user_defined1()) else { return };
    runtime.spawn(async move {
        while signals.recv().await.is_some() {
            shared.access_log.reopen(&shared.snapshot.load().config.access_log);
        }
    });
}

/// Waits for a signal that ends the gateway; returns its name.
pub(super) async fn ending() -> &'static str {
    any(ORDERS.into_iter().chain([OUT_OF_TIME])).await
}

/// Waits for another order to end; returns its name.
pub(super) async fn ordered_again() -> &'static str {
    any(ORDERS).await
}

async fn any(signals: impl IntoIterator<Item = (SignalKind, &'static str)>) -> &'static str {
    let mut received = Vec::new();
    for (kind, name) in signals {
        match signal(kind) {
            Ok(signal) => received.push((signal, name)),
            // Without a handler the signal keeps its default, which ends the process.
            Err(error) => log::error!("{name} cannot be received, it will not drain: {error}"),
        }
    }
    poll_fn(|cx| {
        for (signal, name) in &mut received {
            if signal.poll_recv(cx).is_ready() {
                return Poll::Ready(*name);
            }
        }
        Poll::Pending
    })
    .await
}
