//! How a request ended.

use crate::policy::failure::{Cause, Fault};

/// How a request ended: one of these, and each says why in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending<'a> {
    /// The client has a whole response that is not an error, or the one that its route's `respond` writes,
    /// whatever its status; or it had a tunnel, whichever side
    /// ended that.
    Answered,
    /// The client has an error that is not the gateway's refusal: the upstream's response, for
    /// `cause`; or, without one, that of a page of the gateway's own, or nothing at all.
    Failed {
        /// Why the upstream failed.
        cause: Option<Cause>,
    },
    /// The client has the response to an earlier request with its idempotency key.
    Replayed {
        /// Whether that response is an error.
        failed: bool,
    },
    /// A CORS preflight, or `OPTIONS *`: the gateway answered, and nothing was invoked.
    Unforwarded,
    /// The gateway refused the request, because of the upstream or of something else, and the client
    /// was told, unless the upstream's response had begun.
    Refused(Refusal<'a>),
    /// The upstream's response broke off after its head. This is what the client would have been
    /// told.
    BrokeOff(Refusal<'a>),
    /// The client left before it had the whole response.
    ClientGone {
        /// What it was being sent.
        response: Response<'a>,
        /// The upstream's response was on its way.
        midway: bool,
    },
    /// The gateway dropped the request.
    Cut {
        /// Why it was dropped.
        why: Cut,
        /// What the client was being sent.
        response: Response<'a>,
        /// Whether the response's head had been sent.
        midway: bool,
    },
    /// What came from the client was no request, or only part of one.
    NoRequest(NoRequest),
}

/// What the client was being sent when it left, or when the request was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response<'a> {
    /// The upstream's response, or none yet.
    Upstream,
    /// One that was kept for its idempotency key.
    Replay,
    /// The gateway's own response to a request that invokes nothing.
    Unforwarded,
    /// The gateway's refusal.
    Refusal(Refusal<'a>),
}

/// A refusal, as it is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// The stable name: the problem's `code`, the metric's label, the cause.
    pub code: &'static str,
    /// Whose fault it was.
    pub fault: Fault,
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

/// Why there is no request, though a client was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRequest {
    /// A load balancer did not announce, as it must, whose connection it relays.
    ProxyHeader,
    /// The TLS handshake failed, or took too long.
    Handshake,
    /// Part of a head came, and the rest not within the listener's `header_timeout`.
    HeadLate,
    /// The connection ended in the middle of a head.
    HeadCutOff,
    /// What came over HTTP/2 breaks its rules.
    Http2,
}

impl NoRequest {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            NoRequest::ProxyHeader => "proxy_header",
            NoRequest::Handshake => "tls_handshake",
            NoRequest::HeadLate => "header_timeout",
            NoRequest::HeadCutOff => "head_cut_off",
            NoRequest::Http2 => "http2_violation",
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
            | Ending::Refused(_)
            | Ending::BrokeOff(_)
            | Ending::ClientGone { .. }
            | Ending::Cut { .. }
            | Ending::NoRequest(_) => false,
        }
    }

    /// Whether an upstream or a route of the gateway's own was asked for, so that there is something
    /// to record.
    pub const fn is_invocation(&self) -> bool {
        match self {
            Ending::Unforwarded
            | Ending::ClientGone { response: Response::Unforwarded, .. }
            | Ending::Cut { response: Response::Unforwarded, .. }
            | Ending::NoRequest(_) => false,
            Ending::Answered
            | Ending::Failed { .. }
            | Ending::Replayed { .. }
            | Ending::Refused(_)
            | Ending::BrokeOff(_)
            | Ending::ClientGone { .. }
            | Ending::Cut { .. } => true,
        }
    }

    /// The refusal, whether the client was there to be told of it or not.
    pub const fn refusal(&self) -> Option<Refusal<'a>> {
        match *self {
            Ending::Refused(refusal)
            | Ending::ClientGone { response: Response::Refusal(refusal), .. }
            | Ending::Cut { response: Response::Refusal(refusal), .. } => Some(refusal),
            Ending::Answered
            | Ending::Failed { .. }
            | Ending::Replayed { .. }
            | Ending::Unforwarded
            | Ending::BrokeOff(_)
            | Ending::ClientGone {
                response: Response::Upstream | Response::Replay | Response::Unforwarded,
                ..
            }
            | Ending::Cut {
                response: Response::Upstream | Response::Replay | Response::Unforwarded,
                ..
            }
            | Ending::NoRequest(_) => None,
        }
    }

    /// The record's `rejection`: the refusal's code, or the word for a replay.
    pub const fn recorded_rejection(&self) -> Option<&'static str> {
        match self {
            Ending::Replayed { .. }
            | Ending::ClientGone { response: Response::Replay, .. }
            | Ending::Cut { response: Response::Replay, .. } => Some(REPLAYED),
            Ending::Answered
            | Ending::Failed { .. }
            | Ending::Unforwarded
            | Ending::Refused(_)
            | Ending::BrokeOff(_)
            | Ending::ClientGone { .. }
            | Ending::Cut { .. }
            | Ending::NoRequest(_) => match self.refusal() {
                Some(refusal) => Some(refusal.code),
                None => None,
            },
        }
    }

    /// Why the gateway dropped the request, if it did.
    pub const fn cut(&self) -> Option<Cut> {
        if let Ending::Cut { why, .. } = self { Some(*why) } else { None }
    }

    /// Whether a response broke off after its head had been sent, whichever side ended it.
    pub const fn is_truncated(&self) -> bool {
        match self {
            Ending::BrokeOff(_) => true,
            Ending::ClientGone { midway, .. } | Ending::Cut { midway, .. } => *midway,
            Ending::Answered
            | Ending::Failed { .. }
            | Ending::Replayed { .. }
            | Ending::Unforwarded
            | Ending::Refused(_)
            | Ending::NoRequest(_) => false,
        }
    }

    /// Why the request failed, in one word, which the record, the log, the metrics and the client's
    /// problem have in common. `None` for a success, and for an error whose response says why.
    pub fn cause(&self) -> Option<&'static str> {
        match self {
            Ending::Answered | Ending::Replayed { .. } | Ending::Unforwarded => None,
            Ending::Failed { cause } => cause.map(Cause::as_str),
            Ending::Refused(refusal) | Ending::BrokeOff(refusal) => Some(refusal.code),
            Ending::ClientGone { .. } => Some(CLIENT_GONE),
            Ending::Cut { why, .. } => Some(why.as_str()),
            Ending::NoRequest(no_request) => Some(no_request.as_str()),
        }
    }
}

impl Ending<'_> {
    /// Whose fault the failure was; `None` for a success.
    pub const fn fault(&self) -> Option<Fault> {
        match self {
            Ending::Answered | Ending::Unforwarded | Ending::Replayed { failed: false } => None,
            Ending::Failed { cause: Some(cause) } => Some(cause.fault()),
            // A page of the gateway's own says that the gateway is not well.
            Ending::Failed { cause: None } => Some(Fault::Gateway),
            // The error that is given again was the upstream's.
            Ending::Replayed { failed: true } => Some(Fault::Upstream),
            Ending::Refused(refusal) | Ending::BrokeOff(refusal) => Some(refusal.fault),
            Ending::ClientGone { .. } | Ending::NoRequest(_) => Some(Fault::Client),
            Ending::Cut { why: Cut::Overdue, .. } => Some(Fault::Upstream),
            Ending::Cut { why: Cut::Panic | Cut::Shutdown, .. } => Some(Fault::Gateway),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSAL: Refusal<'_> =
        Refusal { code: "attempt_timeout", fault: Fault::Upstream, detail: "late" };

    #[test]
    fn every_way_to_end_has_one_cause_or_is_a_success() {
        let gone = |response, midway| Ending::ClientGone { response, midway };
        let cut = |response, midway| Ending::Cut { why: Cut::Panic, response, midway };
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
                Ending::Refused(REFUSAL),
                false,
                Some("attempt_timeout"),
                Some("attempt_timeout"),
                false,
            ),
            (Ending::BrokeOff(REFUSAL), false, Some("attempt_timeout"), None, true),
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
            (cut(Response::Upstream, true), false, Some("panic"), None, true),
            (cut(Response::Replay, false), false, Some("panic"), Some("idempotent_replay"), false),
            (
                cut(Response::Refusal(REFUSAL), false),
                false,
                Some("panic"),
                Some("attempt_timeout"),
                false,
            ),
            (Ending::NoRequest(NoRequest::Handshake), false, Some("tls_handshake"), None, false),
        ] {
            let told = (
                ending.is_success(),
                ending.cause(),
                ending.recorded_rejection(),
                ending.is_truncated(),
            );
            assert_eq!(told, (success, cause, instead, truncated), "{ending:?}");
            assert_eq!(ending.fault().is_none(), success, "{ending:?}");
        }
    }

    #[test]
    fn only_what_invokes_something_is_recorded() {
        let response = Response::Unforwarded;
        for ending in [
            Ending::Unforwarded,
            Ending::ClientGone { response, midway: false },
            Ending::Cut { why: Cut::Shutdown, response, midway: false },
            Ending::NoRequest(NoRequest::Handshake),
        ] {
            assert!(!ending.is_invocation(), "{ending:?}");
        }
        let response = Response::Upstream;
        let cut = Ending::Cut { why: Cut::Shutdown, response, midway: false };
        assert!(cut.is_invocation());
    }
}
