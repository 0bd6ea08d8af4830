//! What a client sent that is no request: it is told of, as a request is, so that an operator sees
//! who cannot get through, and why.

use std::io;
use std::time::Duration;

use crate::proxy::downstream::address::Peer;
use crate::proxy::downstream::http1::GuardedIo;
use crate::proxy::downstream::http2::Broken;
use crate::proxy::listener::announced::Failed;
use crate::proxy::listener::unagreed::{Reason, Unagreed};
use crate::proxy::report;
use crate::proxy::report::summary::Lost;
use crate::runtime::shared::Shared;
use crate::summary::attempt::{Bound, Limit};
use crate::summary::ending::NoRequest;
use crate::time::{Clock, Moment};

/// A client that has not sent a whole request since the given moment.
pub(super) struct Client<'a> {
    pub(super) shared: &'a Shared,
    pub(super) listener: &'a str,
    pub(super) peer: Option<&'a Peer>,
    pub(super) since: Moment,
}

impl Client<'_> {
    /// A load balancer did not announce whose connection it relays, or not within `limit`. Returns
    /// what was wrong; `None` if it has sent nothing, and left.
    pub(super) fn unannounced(&self, failed: &Failed, limit: Option<Limit>) -> Option<String> {
        let reason = failed.as_str()?;
        self.shared.metrics.proxy_headers_refused.with_label_values(&[reason]).inc();
        let (said, limit) = match failed {
            Failed::Silent => return None,
            Failed::Fault(fault) => (fault.phrase().to_owned(), None),
            Failed::Late => ("the PROXY header is late".to_owned(), limit),
            Failed::CutOff(error) => (format!("the PROXY header is cut off: {error}"), None),
        };
        self.tell(NoRequest::ProxyHeader, Some(&said), limit);
        Some(said)
    }

    /// The TLS handshake failed, or took as long as `limit` allows. A client that leaves `silent` has not
    /// begun one: it may only have looked whether someone listens, as load balancers do.
    pub(super) fn handshake(&self, failed: &Unagreed, limit: Option<Limit>) {
        let took = Clock::now().since(self.since);
        let is_past = |limit: &Limit| matches!(limit.bound, Bound::Time(time) if took >= time);
        let reached = limit.filter(is_past);
        let is_late = reached.is_some();
        if failed.silent && !is_late {
            return;
        }
        let labels = [self.listener, failed.reason.as_str()];
        self.shared.metrics.tls_failed.with_label_values(&labels).inc();
        // Of all that may be wrong, only this is answered in HTTP.
        let status = if failed.reason == Reason::NotTls { 400 } else { 0 };
        self.tell_answered(status, NoRequest::Handshake, failed.said().as_deref(), reached);
    }

    /// The connection has ended with `error`. If part of a head had come by then, that is told;
    /// otherwise the client just left, or was idle for too long.
    pub(super) fn head(&self, io: &GuardedIo, error: &io::Error, header_timeout: Duration) {
        if !io.has_begun_head() {
            return;
        }
        match error.kind() {
            // The drain is over, and waits for no client.
            io::ErrorKind::ConnectionAborted => {}
            io::ErrorKind::TimedOut => {
                let limit = Limit { key: "header_timeout", bound: Bound::Time(header_timeout) };
                self.tell(NoRequest::HeadLate, None, Some(limit));
            }
            _ => self.tell(NoRequest::HeadCutOff, Some(&error.to_string()), None),
        }
    }

    /// The client has broken the rules of HTTP/2.
    pub(super) fn http2(&self, broken: Broken<'_>) {
        let said = match broken {
            Broken::Rules(said) => said,
            Broken::Flood => {
                self.warn_of_flood();
                "more control frames than go with what was asked for and sent"
            }
        };
        self.tell(NoRequest::Http2, Some(said), None);
    }

    fn warn_of_flood(&self) {
        let Some(begun) = self.shared.control_floods.met() else { return };
        let (listener, peer) = (self.listener, self.peer.map(|peer| peer.address));
        let peer = peer.map_or_else(|| "a client".to_owned(), |address| address.to_string());
        log::warn!(
            "listener {listener}: {peer} floods it with control frames of HTTP/2: connection closed"
        );
        begun.until(|over| log::info!("no more floods of control frames {over}"));
    }

    fn tell(&self, why: NoRequest, said: Option<&str>, limit: Option<Limit>) {
        self.tell_answered(0, why, said, limit);
    }

    fn tell_answered(&self, status: u16, why: NoRequest, said: Option<&str>, limit: Option<Limit>) {
        let client = self.peer.map(|peer| peer.address);
        let took = Clock::now().since(self.since);
        let listener = self.listener;
        report::no_request(self.shared, client, &Lost { listener, why, status, said, limit, took });
    }
}
