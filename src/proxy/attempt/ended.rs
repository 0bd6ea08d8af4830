//! How an attempt without a response ended, read from Pingora's errors.
//!
//! Pingora reports an attempt's end in two dozen types of error. Here each becomes one [`Ended`];
//! [`super::failed`] decides what follows from it.

use std::borrow::Cow;
use std::time::Duration;

use pingora_core::{Error, ErrorSource, ErrorType, ImmutStr};
use pingora_proxy::Session;

use crate::policy::failure::Cause;
use crate::policy::outcome::Outcome;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::signal::UNREADABLE;
use crate::proxy::rejection::Rejection;
use crate::runtime::pins::UNPINNED;
use crate::summary::words::Words;
use crate::time::Moment;

/// Pingora's timers count whole milliseconds, and can end a wait up to one millisecond early.
pub(super) const EARLY: Duration = Duration::from_millis(1);

/// Why an attempt has no response, or only part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The fault lies with the upstream.
    Upstream(Cause),
    /// The client went away.
    ClientGone,
    /// The client did not send its body in time.
    ClientSlow,
    /// The client's body breaks the rules of its framing.
    ClientMalformed,
    /// The gateway itself failed.
    Internal,
}

impl Ended {
    /// The cause, if the fault lies with the upstream.
    pub fn cause(self) -> Option<Cause> {
        match self {
            Ended::Upstream(cause) => Some(cause),
            Ended::ClientGone | Ended::ClientSlow | Ended::ClientMalformed | Ended::Internal => {
                None
            }
        }
    }

    /// The outcome that policies judge, if the fault lies with the upstream.
    pub fn outcome(self) -> Option<Outcome> {
        self.cause().and_then(Cause::outcome)
    }

    /// What the client is told; `None` if it has left.
    pub fn rejection(self) -> Option<Rejection> {
        match self {
            Ended::Upstream(Cause::DeadlineExceeded) => Some(Rejection::DeadlineExceeded),
            Ended::Upstream(cause) => Some(Rejection::Upstream(cause)),
            Ended::ClientGone => None,
            Ended::ClientSlow => Some(Rejection::RequestTimeout),
            Ended::ClientMalformed => Some(Rejection::BadRequest("the body is malformed".into())),
            Ended::Internal => Some(Rejection::Internal),
        }
    }
}

/// A connection could not be made, so nothing was sent.
pub fn classify_connect(error: &Error, ctx: &Context, now: Moment) -> Ended {
    let cause = connect_cause(error);
    let early = if cause == Cause::ConnectTimeout { EARLY } else { Duration::ZERO };
    match is_expired(ctx, now + early) {
        true => Ended::Upstream(Cause::DeadlineExceeded),
        false => Ended::Upstream(cause),
    }
}

/// Why no connection could be made.
pub fn connect_cause(error: &Error) -> Cause {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Cause::ConnectTimeout,
        ErrorType::ConnectRefused => Cause::ConnectRefused,
        ErrorType::ConnectNoRoute => Cause::Unreachable,
        ErrorType::TLSHandshakeFailure
        | ErrorType::HandshakeError
        | ErrorType::InvalidCert
        | ErrorType::TLSWantX509Lookup => {
            tls_cause(error.context.as_ref().map_or("", ImmutStr::as_str))
        }
        etype if *etype == UNPINNED => Cause::TlsUnpinned,
        // The gateway is out of descriptors or ports, a firewall interferes, or the server speaks
        // another protocol.
        _ => Cause::ConnectFailed,
    }
}

/// By the time Pingora passes rustls' errors on, they are text. Its words for a certificate are
/// those of `rustls::CertificateError`, or the variants' names from its `Debug`.
fn tls_cause(words: &str) -> Cause {
    let says = |part: &str| words.contains(part);
    if !says("invalid peer certificate") {
        return Cause::TlsFailed;
    }
    if says("certificate expired") || says("certificate: Expired") {
        Cause::TlsExpired
    } else if says("certificate not valid yet") || says("NotValidYet") {
        Cause::TlsNotYetValid
    } else if says("certificate not valid for name") || says("NotValidForName") {
        Cause::TlsWrongName
    } else if says("UnknownIssuer") || says("BadSignature") {
        // An authority recreated under the same name: its signatures do not match the old key.
        Cause::TlsUnknownAuthority
    } else {
        Cause::TlsCertificate
    }
}

/// The exchange broke off while the request or its response was being forwarded.
pub fn classify(error: &Error, session: &mut Session, ctx: &Context, now: Moment) -> Ended {
    let body_done = session.as_downstream_mut().is_body_done();
    let expired = ctx.is_slow() || ctx.next_deadline().is_some_and(|deadline| now >= deadline);
    match error.esource() {
        ErrorSource::Downstream if ctx.is_malformed() => Ended::ClientMalformed,
        ErrorSource::Downstream => match error.etype() {
            // A client that does not read its response delays the request; the upstream does not.
            ErrorType::WriteError if expired => Ended::ClientSlow,
            ErrorType::ReadError if expired => {
                // The guard fires while the gateway waits for the client. If the client's body is
                // incomplete, the client caused the delay.
                if body_done { Ended::Upstream(timed_out(ctx, now)) } else { Ended::ClientSlow }
            }
            ErrorType::ReadTimedout => Ended::ClientSlow,
            ErrorType::ReadError
            | ErrorType::WriteError
            | ErrorType::WriteTimedout
            | ErrorType::ConnectionClosed
            | ErrorType::H2Error
            // Bytes after the body: a client that sent them is not waiting for a response.
            | ErrorType::ConnectError => Ended::ClientGone,
            _ => Ended::ClientMalformed,
        },
        ErrorSource::Upstream => match error.etype() {
            // The timer for reading the upstream restarts with every chunk of the client's body, so
            // it runs out when the client stalls.
            ErrorType::ReadTimedout if !body_done => Ended::ClientSlow,
            etype => Ended::Upstream(match etype {
                ErrorType::ReadTimedout | ErrorType::WriteTimedout => timed_out(ctx, now),
                ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::InvalidH2 => {
                    Cause::InvalidResponse
                }
                ErrorType::ConnectionClosed => Cause::Closed,
                etype if *etype == UNREADABLE => Cause::AnswerUnreadable,
                _ => Cause::Reset,
            }),
        },
        ErrorSource::Internal | ErrorSource::Unset => Ended::Internal,
    }
}

/// Every wait is cut to the deadlines. Finds which limit this wait has run into.
fn timed_out(ctx: &Context, now: Moment) -> Cause {
    if is_expired(ctx, now + EARLY) {
        Cause::DeadlineExceeded
    } else if ctx.attempt.next_deadline().is_some_and(|deadline| now + EARLY >= deadline) {
        Cause::AttemptTimeout
    } else {
        Cause::IdleTimeout
    }
}

fn is_expired(ctx: &Context, now: Moment) -> bool {
    ctx.deadline.is_some_and(|deadline| now >= deadline)
}

/// Whether the upstream says that it has not processed the request: it refused the stream, or it is
/// closing the connection and had not reached this request. Pingora marks both when it learns of
/// them by reading. A stream found gone while writing the body carries no reason, and counts as
/// reset, which promises nothing.
pub fn is_refused(error: &Error) -> bool {
    error.retry() && matches!(error.etype(), ErrorType::H2Error | ErrorType::H2Downgrade)
}

/// Moves the error's description out of it. It is formatted only where the log is written.
pub fn words(error: &mut Error) -> Words {
    let text = |context: Option<ImmutStr>| match context {
        Some(ImmutStr::Static(text)) => Words::Text(Cow::Borrowed(text)),
        Some(ImmutStr::Owned(text)) => Words::Text(Cow::Owned(text.into_string())),
        None => Words::None,
    };
    if connect_cause(error).outcome() == Some(Outcome::TlsFailure) {
        return text(error.context.take());
    }
    let Some(mut cause) = error.cause.take() else { return text(error.context.take()) };
    loop {
        match cause.downcast::<Box<Error>>() {
            Ok(mut inner) => match inner.cause.take() {
                Some(innermost) => cause = innermost,
                None => return text(inner.context.take()),
            },
            Err(innermost) => return Words::Error(innermost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_rustls_are_told_apart() {
        use rustls::CertificateError as Bad;
        use rustls::pki_types::UnixTime;
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let name = rustls::pki_types::ServerName::try_from("a.test").expect("a name");
        for (error, expected) in [
            (Bad::Expired, Cause::TlsExpired),
            (Bad::ExpiredContext { time: at(2), not_after: at(1) }, Cause::TlsExpired),
            (Bad::NotValidYet, Cause::TlsNotYetValid),
            (Bad::NotValidYetContext { time: at(1), not_before: at(2) }, Cause::TlsNotYetValid),
            (Bad::NotValidForName, Cause::TlsWrongName),
            (
                Bad::NotValidForNameContext { expected: name, presented: Vec::new() },
                Cause::TlsWrongName,
            ),
            (Bad::UnknownIssuer, Cause::TlsUnknownAuthority),
            (Bad::BadSignature, Cause::TlsUnknownAuthority),
            (Bad::Revoked, Cause::TlsCertificate),
            (Bad::BadEncoding, Cause::TlsCertificate),
        ] {
            let words = rustls::Error::InvalidCertificate(error).to_string();
            assert_eq!(tls_cause(&words), expected, "{words}");
        }
        assert_eq!(tls_cause("TLS connect() failed: tls handshake eof"), Cause::TlsFailed);
    }
}
