//! How a request is going to end, as far as it is known.
//!
//! Two things are known apart: what the client's response is, and how much of it the client gets.
//!
//! ```text
//! response   Upstream ──> Replay ───────> Refusal ──> Refusal    a refusal takes the place of any
//!                │  └──────────────────────▲                     response, and only another one
//!                └──────> Unforwarded                            takes its place
//!
//! delivery   Whole ──> BrokenOff ──> ClientGone    a client that has left does not come back
//!              │ └───────────────────▲    │
//!              └──────> Cut <─────────────┘        the gateway can drop a request at any time
//! ```
//!
//! `proxy::report::summary` makes a [`summary::ending::Ending`](crate::summary::ending::Ending) of it
//! once the request has ended.

use crate::proxy::rejection::Rejection;
use crate::summary::ending::Cut;

/// How the request is going to end.
#[derive(Default)]
pub struct End {
    response: Response,
    delivery: Delivery,
}

/// What the client's response is.
pub enum Response {
    /// The upstream's, the page of a route that the gateway serves itself, or none yet. `rpc_failed`
    /// once it reports, whatever its HTTP status, that the call failed.
    Upstream {
        /// Whether the response reports a failed call.
        rpc_failed: bool,
    },
    /// The response to an earlier request with the same idempotency key.
    Replay {
        /// Whether the kept response is an error.
        failed: bool,
    },
    /// The gateway's, to a CORS preflight or `OPTIONS *`: neither invokes anything.
    Unforwarded,
    /// The gateway's refusal.
    Refusal(Rejection),
}

/// How much of the response the client gets.
#[derive(Default)]
pub enum Delivery {
    /// All of it, as far as is known.
    #[default]
    Whole,
    /// The upstream's response broke off after its head. A client that can be told after the head
    /// is told this.
    BrokenOff(Rejection),
    /// The client left.
    ClientGone {
        /// Whether the upstream's response was on its way.
        midway: bool,
    },
    /// The gateway dropped the request.
    Cut {
        /// Why it was dropped.
        why: Cut,
        /// Whether the response's head had been sent.
        midway: bool,
    },
}

impl Default for Response {
    fn default() -> Self {
        Response::Upstream { rpc_failed: false }
    }
}

impl End {
    /// What the client's response is, as far as is known.
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// How much of the response the client gets, as far as is known.
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// The refusal that is, or will be, the response.
    pub fn rejection(&self) -> Option<&Rejection> {
        match &self.response {
            Response::Refusal(rejection) => Some(rejection),
            Response::Upstream { .. } | Response::Replay { .. } | Response::Unforwarded => None,
        }
    }

    /// Why the response ended early, for a client that can be told after its head.
    pub fn why_midway(&self) -> Option<&Rejection> {
        match &self.delivery {
            Delivery::BrokenOff(rejection) => Some(rejection),
            Delivery::Whole | Delivery::ClientGone { .. } | Delivery::Cut { .. } => {
                self.rejection()
            }
        }
    }

    /// Whether the client left before it had the whole response.
    pub fn is_client_gone(&self) -> bool {
        matches!(self.delivery, Delivery::ClientGone { .. })
    }

    /// Whether the upstream's response, or a replay, reports that the call failed.
    pub fn has_rpc_failed(&self) -> bool {
        match self.response {
            Response::Upstream { rpc_failed } => rpc_failed,
            Response::Replay { failed } => failed,
            Response::Unforwarded | Response::Refusal(_) => false,
        }
    }

    /// The response is the gateway's refusal, in place of any other.
    pub fn refuse(&mut self, rejection: Rejection) {
        self.response = Response::Refusal(rejection);
    }

    /// The response is one that was kept. Does nothing if the request has been refused.
    pub fn replay(&mut self, failed: bool) {
        self.respond(Response::Replay { failed });
    }

    /// The gateway answers by itself, and nothing is invoked. Does nothing if the request has been
    /// refused.
    pub fn forward_nothing(&mut self) {
        self.respond(Response::Unforwarded);
    }

    fn respond(&mut self, response: Response) {
        match self.response {
            Response::Upstream { .. } | Response::Replay { .. } | Response::Unforwarded => {
                self.response = response;
            }
            Response::Refusal(_) => {}
        }
    }

    /// The upstream's response says whether the call failed. Says nothing about a refusal, which has
    /// taken its place.
    pub fn judge_rpc(&mut self, failed: bool) {
        if let Response::Upstream { rpc_failed } = &mut self.response {
            *rpc_failed = failed;
        }
    }

    /// The client left before it had all of its response.
    pub fn client_left(&mut self) {
        let midway = match self.delivery {
            Delivery::Whole => false,
            Delivery::BrokenOff(_) => true,
            Delivery::ClientGone { midway } | Delivery::Cut { midway, .. } => midway,
        };
        self.delivery = Delivery::ClientGone { midway };
    }

    /// The client left while the upstream's response was on its way.
    pub fn client_left_midway(&mut self) {
        self.delivery = Delivery::ClientGone { midway: true };
    }

    /// The upstream's response broke off after its head.
    pub fn break_off(&mut self, why: Rejection) {
        self.delivery = match self.delivery {
            Delivery::ClientGone { .. } => Delivery::ClientGone { midway: true },
            Delivery::Whole | Delivery::BrokenOff(_) | Delivery::Cut { .. } => {
                Delivery::BrokenOff(why)
            }
        };
    }

    /// The gateway drops the request.
    pub fn cut(&mut self, why: Cut, midway: bool) {
        self.delivery = Delivery::Cut { why, midway };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(rejection: Option<&Rejection>) -> Option<&'static str> {
        rejection.map(Rejection::code)
    }

    #[test]
    fn a_refusal_takes_the_place_of_any_response_and_nothing_takes_its_place() {
        let mut end = End::default();
        end.replay(true);
        assert!(end.has_rpc_failed());
        end.refuse(Rejection::RecordUnavailable);
        end.judge_rpc(true);
        end.replay(true);
        end.forward_nothing();
        assert_eq!(code(end.rejection()), Some("record_unavailable"));
        assert!(!end.has_rpc_failed());
    }

    #[test]
    fn a_client_that_has_left_does_not_come_back() {
        let mut end = End::default();
        end.client_left();
        end.break_off(Rejection::RequestTimeout);
        assert!(matches!(end.delivery(), Delivery::ClientGone { midway: true }));
        end.client_left();
        assert!(matches!(end.delivery(), Delivery::ClientGone { midway: true }));
    }

    #[test]
    fn what_broke_off_says_why_until_the_client_leaves() {
        let mut end = End::default();
        end.break_off(Rejection::RequestTimeout);
        assert_eq!(code(end.why_midway()), Some("request_timeout"));
        end.client_left();
        assert_eq!(code(end.why_midway()), None);
    }
}
