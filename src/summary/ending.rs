//! How a request ended.

use crate::policy::failure::Cause;

/// How a request ended: one of these, and each says why in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending<'a> {
    /// The client has a whole response that is not an error.
    Answered,
    /// The client has a whole response that is an error, and not the gateway's: the upstream's, for
    /// `cause`; or, without one, that of a status page.
    Failed { cause: Option<Cause> },
    /// The client has the response to an earlier request with its idempotency key.
    Replayed { failed: bool },
    /// A CORS preflight, or `OPTIONS *`: the gateway answered, and nothing was invoked.
    Unforwarded,
    /// The gateway answered by itself. `upstream` says why the upstream failed, if that was the
    /// reason.
    Refused { refusal: Refusal<'a>, upstream: Option<Cause> },
    /// The response broke off after its head. `refusal` is what the client would have been told.
    BrokeOff { refusal: Option<Refusal<'a>>, upstream: Option<Cause> },
    /// The client left before it had the whole response.
    ClientGone {
        response: Response<'a>,
        /// The upstream's response was on its way.
        midway: bool,
    },
    /// The gateway dropped the request.
    Cut(Cut),
    /// The connection ended before a request began on it.
    Unbegun(Unbegun),
}

/// What a client that left was being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response<'a> {
    /// The upstream's response, or none yet.
    Upstream,
    Replay,
    /// The gateway's own response to a request that invokes nothing.
    Unforwarded,
    Refusal(Refusal<'a>),
}

/// A refusal, as it is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// The stable name: the problem's `code`, the metric's label.
    pub code: &'static str,
    /// For a person.
    pub detail: &'a str,
}

/// Why the gateway dropped a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Its deadline passed while it waited for something that does not end by itself.
    Overdue,
    /// A panic.
    Panic,
    /// The drain's time was over.
    Shutdown,
}

impl Cut {
    /// The stable name in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cut::Overdue => "overdue",
            Cut::Panic => "panic",
            Cut::Shutdown => "shutdown",
        }
    }

    /// What happened, in words.
    pub const fn phrase(self) -> &'static str {
        match self {
            Cut::Overdue => "the request's deadline passed, and the gateway cut it off",
            Cut::Panic => "the gateway failed",
            Cut::Shutdown => "the gateway shut down",
        }
    }
}

/// Why no request began on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unbegun {
    /// The TLS handshake failed, or took too long.
    Handshake,
}

impl Unbegun {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Unbegun::Handshake => "tls_handshake",
        }
    }
}

/// What the record calls a response that is given again. It stands in the column of refusals, though
/// it is not one.
const REPLAYED: &str = "idempotent_replay";
const CLIENT_GONE: &str = "client_gone";

impl<'a> Ending<'a> {
    /// The client got what it asked for: a response that is not an error, and all of it.
    pub const fn is_success(&self) -> bool {
        match self {
            Ending::Answered | Ending::Unforwarded | Ending::Replayed { failed: false } => true,
            Ending::Replayed { failed: true }
            | Ending::Failed { .. }
            | Ending::Refused { .. }
            | Ending::BrokeOff { .. }
            | Ending::ClientGone { .. }
            | Ending::Cut(_)
            | Ending::Unbegun(_) => false,
        }
    }

    /// Whether an upstream or a route of the gateway's own was asked for, so that there is something
    /// to record.
    pub const fn is_invocation(&self) -> bool {
        match self {
            Ending::Unforwarded
            | Ending::ClientGone { response: Response::Unforwarded, .. }
            | Ending::Unbegun(_) => false,
            Ending::Answered
            | Ending::Failed { .. }
            | Ending::Replayed { .. }
            | Ending::Refused { .. }
            | Ending::BrokeOff { .. }
            | Ending::ClientGone { .. }
            | Ending::Cut(_) => true,
        }
    }

    /// The refusal that the client was sent, whether it stayed for it or not.
    pub const fn refusal(&self) -> Option<Refusal<'a>> {
        match *self {
            Ending::Refused { refusal, .. }
            | Ending::ClientGone { response: Response::Refusal(refusal), .. } => Some(refusal),
            Ending::Answered
            | Ending::Failed { .. }
            | Ending::Replayed { .. }
            | Ending::Unforwarded
            | Ending::BrokeOff { .. }
            | Ending::ClientGone {
                response: Response::Upstream | Response::Replay | Response::Unforwarded,
                ..
            }
            | Ending::Cut(_)
            | Ending::Unbegun(_) => None,
        }
    }

    /// What the response was instead of the upstream's, in one word: the record's `rejection`.
    pub const fn instead(&self) -> Option<&'static str> {
        match self {
            Ending::Replayed { .. } | Ending::ClientGone { response: Response::Replay, .. } => {
                Some(REPLAYED)
            }
            Ending::Answered
            | Ending::Failed { .. }
            | Ending::Unforwarded
            | Ending::Refused { .. }
            | Ending::BrokeOff { .. }
            | Ending::ClientGone { .. }
            | Ending::Cut(_)
            | Ending::Unbegun(_) => match self.refusal() {
                Some(refusal) => Some(refusal.code),
                None => None,
            },
        }
    }

    /// Whether a response broke off after its head had been sent, whichever side ended it.
    pub const fn is_truncated(&self) -> bool {
        match self {
            Ending::BrokeOff { .. } => true,
            Ending::ClientGone { midway, .. } => *midway,
            Ending::Answered
            | Ending::Failed { .. }
            | Ending::Replayed { .. }
            | Ending::Unforwarded
            | Ending::Refused { .. }
            | Ending::Cut(_)
            | Ending::Unbegun(_) => false,
        }
    }

    /// Why the request failed, in one word: the record's `cause`. The upstream's failure comes before
    /// the name of the refusal that told the client of it. `None` for a success, and for an error
    /// whose response says why.
    pub fn cause(&self) -> Option<&'static str> {
        match self {
            Ending::Answered | Ending::Replayed { .. } | Ending::Unforwarded => None,
            Ending::Failed { cause } => cause.map(Cause::as_str),
            Ending::Refused { refusal, upstream } => {
                Some(upstream.map_or(refusal.code, Cause::as_str))
            }
            Ending::BrokeOff { refusal, upstream } => {
                upstream.map(Cause::as_str).or(refusal.map(|refusal| refusal.code))
            }
            Ending::ClientGone { .. } => Some(CLIENT_GONE),
            Ending::Cut(cut) => Some(cut.as_str()),
            Ending::Unbegun(unbegun) => Some(unbegun.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSAL: Refusal<'_> = Refusal { code: "attempt_timeout", detail: "late" };

    #[test]
    fn every_way_to_end_has_one_cause_or_is_a_success() {
        let gone = |response, midway| Ending::ClientGone { response, midway };
        let upstream = Some(Cause::TlsExpired);
        for (ending, success, cause, instead, truncated) in [
            (Ending::Answered, true, None, None, false),
            (Ending::Unforwarded, true, None, None, false),
            (Ending::Replayed { failed: false }, true, None, Some("idempotent_replay"), false),
            (Ending::Replayed { failed: true }, false, None, Some("idempotent_replay"), false),
            (
                Ending::Failed { cause: Some(Cause::Answered(503)) },
                false,
                Some("upstream_5xx"),
                None,
                false,
            ),
            (
                Ending::Refused { refusal: REFUSAL, upstream: None },
                false,
                Some("attempt_timeout"),
                Some("attempt_timeout"),
                false,
            ),
            (
                Ending::Refused { refusal: REFUSAL, upstream },
                false,
                Some("tls_expired"),
                Some("attempt_timeout"),
                false,
            ),
            (
                Ending::BrokeOff { refusal: Some(REFUSAL), upstream: None },
                false,
                Some("attempt_timeout"),
                None,
                true,
            ),
            (
                Ending::BrokeOff { refusal: Some(REFUSAL), upstream },
                false,
                Some("tls_expired"),
                None,
                true,
            ),
            (gone(Response::Upstream, true), false, Some("client_gone"), None, true),
            (
                gone(Response::Refusal(REFUSAL), false),
                false,
                Some("client_gone"),
                Some("attempt_timeout"),
                false,
            ),
            (
                gone(Response::Replay, false),
                false,
                Some("client_gone"),
                Some("idempotent_replay"),
                false,
            ),
            (Ending::Cut(Cut::Panic), false, Some("panic"), None, false),
            (Ending::Unbegun(Unbegun::Handshake), false, Some("tls_handshake"), None, false),
        ] {
            let told =
                (ending.is_success(), ending.cause(), ending.instead(), ending.is_truncated());
            assert_eq!(told, (success, cause, instead, truncated), "{ending:?}");
        }
    }

    #[test]
    fn only_what_invokes_something_is_recorded() {
        let own = Ending::ClientGone { response: Response::Unforwarded, midway: false };
        for ending in [Ending::Unforwarded, own, Ending::Unbegun(Unbegun::Handshake)] {
            assert!(!ending.is_invocation(), "{ending:?}");
        }
        assert!(Ending::Cut(Cut::Shutdown).is_invocation());
    }
}
