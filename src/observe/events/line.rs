//! Events as log lines.

use super::spells::Ended;
use super::{CircuitChange, FailedRequest};
use crate::condition::Over;
use crate::policy::breaker::Change;
use crate::policy::dry_run::Enforce;
use crate::policy::failure::Cause;
use crate::summary::attempt::Failure;
use crate::summary::words::Words;

pub(super) fn failure(request: &FailedRequest) {
    let FailedRequest { failure, route, request_id, attempts, no_retry } = request;
    let Failure { upstream, cause, endpoint, words, connection } = &**failure;
    let mut line = format!("upstreams.{upstream}: {}", cause.phrase());
    if let Some(endpoint) = endpoint {
        line.push(' ');
        line.push_str(endpoint);
    }
    // What an application says is for the access log, which can mask it.
    let words = if let Cause::Grpc(_) = cause { &Words::None } else { words };
    if let Some(words) = words.of(*cause) {
        line.push_str(": ");
        line.push_str(&words);
    }
    line.push_str(&format!("; cause={} route={route} attempts={attempts}", cause.as_str()));
    if let Some(connection) = connection {
        line.push_str(&format!(" connection={}", connection.as_str()));
    }
    if let Some(reason) = no_retry {
        line.push_str(&format!(" no_retry={reason}"));
    }
    line.push_str(&format!(" request_id={}", request_id.to_str().unwrap_or("-")));
    log::warn!("{line}");
}

pub(super) fn ended(Ended { key: (upstream, cause), over }: &Ended) {
    log::info!("upstreams.{upstream}: no more of these failures {over}; cause={cause}");
}

pub(super) fn losing() {
    log::warn!("failures come too fast for the log, and are not in it");
}

pub(super) fn lost(over: Over) {
    log::info!("no more failures come too fast for the log {over}");
}

pub(super) fn circuit(CircuitChange { scope, name, enforce, change }: &CircuitChange) {
    let are = match enforce {
        Enforce::Yes => "are refused",
        Enforce::No => "would be refused, if that were enforced,",
    };
    match change {
        Change::Opened { why, for_now } => {
            log::warn!("the circuit of {scope} {name} opened: {why}; calls {are} for {for_now:?}");
        }
        Change::Closed { after, failed_trials } => log::info!(
            "the circuit of {scope} {name} closed after {:.1}s; trials that failed meanwhile: \
             {failed_trials}",
            after.as_secs_f64()
        ),
    }
}
