//! Events as log lines.

use std::error::Error;

use super::spells::LeftOut;
use super::{CircuitChange, Failure, Words};
use crate::policy::breaker::{Change, Why};
use crate::policy::failure::Cause;

/// Longest error text in characters: part of it may come from the peer.
const MAX_WORDS: usize = 300;

pub(super) fn failure(failure: &Failure) {
    let Failure { upstream, cause, endpoint, words, route, request_id, attempts, no_retry } =
        failure;
    let mut line = format!("upstreams.{upstream}: {}", cause.phrase());
    if let Some(endpoint) = endpoint {
        line.push(' ');
        line.push_str(endpoint);
    }
    if let Some(words) = in_words(*cause, words) {
        line.push_str(": ");
        line.push_str(&words);
    }
    line.push_str(&format!("; cause={} route={route} attempts={attempts}", cause.as_str()));
    if let Some(reason) = no_retry {
        line.push_str(&format!(" no_retry={reason}"));
    }
    line.push_str(&format!(" request_id={}", request_id.to_str().unwrap_or("-")));
    log::warn!("{line}");
}

/// What the error adds to the cause.
fn in_words(cause: Cause, words: &Words) -> Option<String> {
    let said = match (cause, words) {
        (Cause::Answered(status), _) => return Some(format!("status {status}")),
        (Cause::Grpc(code), _) => return Some(format!("grpc-status {code}")),
        // The system's error message would repeat the cause.
        (Cause::ConnectRefused, _) | (_, Words::None) => return None,
        (_, Words::Text(text)) => text.to_string(),
        (_, Words::Shared(text)) => text.to_string(),
        (_, Words::Error(error)) => innermost(&**error).to_string(),
    };
    let said = plain(without_chain(&said));
    (!said.is_empty()).then_some(said)
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// Pingora reports a TLS error in one text with its whole context; the error itself comes last.
fn without_chain(text: &str) -> &str {
    let text = text.rsplit_once(", SNI: ").map_or(text, |(before, _)| before);
    text.rsplit_once(" cause: ").map_or(text, |(_, last)| last).trim()
}

/// One line of bounded length, without control characters.
fn plain(text: &str) -> String {
    text.chars().take(MAX_WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

pub(super) fn left_out(LeftOut { key: (upstream, cause), count }: &LeftOut) {
    log::warn!("upstreams.{upstream}: {count} more failures left out; cause={cause}");
}

pub(super) fn lost(count: u64) {
    if count > 0 {
        log::warn!("{count} failures came too fast for the log, and are not in it");
    }
}

pub(super) fn circuit(CircuitChange { scope, name, change }: &CircuitChange) {
    match change {
        Change::Opened { why: Why::InARow(failures), for_now } => log::warn!(
            "the circuit of {scope} {name} opened: {failures} failures in a row; \
             calls are refused for {for_now:?}"
        ),
        Change::Opened { why: Why::Rate { calls, failed, slow }, for_now } => log::warn!(
            "the circuit of {scope} {name} opened: of {calls} calls {failed} failed and {slow} were \
             slow; calls are refused for {for_now:?}"
        ),
        Change::Closed { after, failed_trials } => log::info!(
            "the circuit of {scope} {name} closed after {:.1}s; trials that failed meanwhile: \
             {failed_trials}",
            after.as_secs_f64()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_chain_the_last_error_is_told() {
        let chain = "TLS connect() failed:  TLSHandshakeFailure context: tls connect error cause: \
                     invalid peer certificate: UnknownIssuer, SNI: one.test";
        assert_eq!(without_chain(chain), "invalid peer certificate: UnknownIssuer");
    }

    #[test]
    fn words_from_outside_stay_one_short_line() {
        let words = Words::Text(format!("a\nb\u{1b}[31m{}", "c".repeat(1000)).into());
        let said = in_words(Cause::TlsFailed, &words).expect("words");
        assert!(said.starts_with("a b [31mc") && said.len() == MAX_WORDS, "{said}");
    }
}
