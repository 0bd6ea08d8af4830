//! Signals that end the gateway, and those that must not.
//!
//! [`super::reload`] handles SIGHUP.

use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::shared::Shared;

/// Other signals that are sent to servers, and would end the process by default.
const TAKEN: [(SignalKind, &str); 4] = [
    (SignalKind::user_defined1(), "SIGUSR1: the access log is opened anew, if it is a file"),
    (SignalKind::user_defined2(), "SIGUSR2: nothing is done on it"),
    (SignalKind::alarm(), "SIGALRM: nothing is done on it"),
    (SignalKind::io(), "SIGIO: nothing is done on it"),
];

/// Handles every signal that must not end the gateway, for as long as `runtime` runs.
pub(super) fn take_others(runtime: &Runtime) {
    let _inside = runtime.enter();
    for (kind, what) in TAKEN {
        match signal(kind) {
            Ok(mut signals) => drop(runtime.spawn(async move {
                while signals.recv().await.is_some() {
                    log::info!("{what}");
                }
            })),
            Err(error) => log::error!("{what}; it cannot be received: {error}"),
        }
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
    let [terminate, interrupt, quit] =
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()].map(signal);
    match (terminate, interrupt, quit) {
        (Ok(mut terminate), Ok(mut interrupt), Ok(mut quit)) => tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = quit.recv() => "SIGQUIT",
        },
        (terminate, interrupt, quit) => {
            // Without a handler the signals keep their default, which ends the process.
            for error in [terminate.err(), interrupt.err(), quit.err()].into_iter().flatten() {
                log::error!("signals cannot be received, there will be no drain: {error}");
            }
            std::future::pending().await
        }
    }
}
