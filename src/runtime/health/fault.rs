//! Why a check did not pass, read from Pingora's errors.

use std::fmt::Display;
use std::time::Duration;

use pingora_core::{Error, ErrorSource, ErrorType};

use crate::policy::failure::Cause;
use crate::proxy::attempt::ended;
use crate::upstream::health::Failure;

/// Why a check did not pass.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The endpoint's: the check has failed.
    Endpoint(Failure),
    /// The gateway's own, such as a lack of descriptors: it says nothing about the endpoint.
    Own,
}

/// The endpoint's fault, in one word and in many.
pub(super) fn failed(kind: &'static str, words: impl Display) -> Fault {
    Fault::Endpoint(Failure { kind, words: words.to_string().into() })
}

/// Nothing came, or not all of it.
pub(super) fn timed_out(what: &str, limit: Duration) -> Fault {
    failed("timeout", format_args!("no {what} within {limit:?}"))
}

/// No connection could be made.
pub(super) fn of_connect(error: Box<Error>) -> Fault {
    match error.etype() {
        // No socket could be made, or it would have taken a descriptor that is reserved.
        ErrorType::InternalError => Fault::Own,
        _ => {
            let cause = ended::connect_cause(&error);
            of_cause(cause, error)
        }
    }
}

/// The exchange broke off.
pub(super) fn of_exchange(error: Box<Error>) -> Fault {
    let cause = match error.etype() {
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::InvalidH2 => {
            Cause::InvalidResponse
        }
        ErrorType::ConnectionClosed => Cause::Closed,
        ErrorType::InternalError if error.esource() == &ErrorSource::Internal => {
            return Fault::Own;
        }
        _ => Cause::Reset,
    };
    of_cause(cause, error)
}

fn of_cause(cause: Cause, mut error: Box<Error>) -> Fault {
    match ended::words(&mut error).of(cause) {
        Some(words) => failed(cause.as_str(), format_args!("{}: {words}", cause.phrase())),
        None => failed(cause.as_str(), cause.phrase()),
    }
}
