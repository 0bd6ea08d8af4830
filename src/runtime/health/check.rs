//! One check of one endpoint.

use std::sync::{Arc, OnceLock};

use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use tokio::time::{Instant, timeout_at};

use super::fault::{Fault, of_connect, timed_out};
use super::{grpc, http};
use crate::runtime::descriptors::Descriptors;
use crate::runtime::peer;
use crate::runtime::pins;
use crate::runtime::snapshot::UpstreamTarget;
use crate::runtime::socket_check;
use crate::runtime::socket_check::SocketCheck;
use crate::upstream::Endpoint;
use crate::upstream::health::config::Check;
use crate::upstream::health::{Config, Failure};

/// Sends checks, each over a connection of its own: one that passes says that new connections can be
/// made. They are made as those of requests are.
pub(in crate::runtime) struct Checker {
    /// Made with the first check, because that reads the system's authorities.
    connector: OnceLock<Connector>,
    socket_check: SocketCheck,
}

impl Checker {
    /// Sends nothing yet.
    pub(in crate::runtime) fn new(descriptors: Descriptors) -> Self {
        let socket_check = socket_check::for_checks(descriptors);
        Checker { connector: OnceLock::new(), socket_check }
    }

    /// Checks the endpoint, within the configured time. `None`: it could not find out anything.
    pub(super) async fn check(
        &self,
        target: &UpstreamTarget,
        endpoint: &Arc<Endpoint>,
        config: &Config,
    ) -> Option<Result<(), Failure>> {
        let limit = *config.timeout;
        let deadline = Instant::now() + limit;
        let connected = timeout_at(deadline, self.connect(target, endpoint)).await;
        let mut session = match connected.unwrap_or_else(|_| Err(timed_out("connection", limit))) {
            Ok(session) => session,
            Err(fault) => return result(Err(fault)),
        };
        let exchanged = timeout_at(deadline, exchange(&mut session, endpoint, &config.check)).await;
        result(exchanged.unwrap_or_else(|_| Err(timed_out("complete response", limit))))
    }

    async fn connect(
        &self,
        target: &UpstreamTarget,
        endpoint: &Arc<Endpoint>,
    ) -> Result<HttpSession, Fault> {
        let connector = self.connector.get_or_init(|| Connector::new(None));
        let peer = self.peer(target, endpoint).map_err(of_connect)?;
        let (session, _) = connector.get_http_session(&peer).await.map_err(of_connect)?;
        let pins = &target.upstream.config().tls.pins;
        if endpoint.key.tls && !pins.is_empty() {
            pins::check(pins, session.digest()).map_err(of_connect)?;
        }
        Ok(session)
    }

    fn peer(
        &self,
        target: &UpstreamTarget,
        endpoint: &Arc<Endpoint>,
    ) -> pingora_core::Result<HttpPeer> {
        let mut peer = *peer::of(endpoint, target, &self.socket_check)?;
        // A connection that has only one stream is not pooled.
        peer.options.max_h2_streams = 1;
        peer.options.h2_ping_interval = None;
        Ok(peer)
    }
}

async fn exchange(
    session: &mut HttpSession,
    endpoint: &Arc<Endpoint>,
    check: &Check,
) -> Result<(), Fault> {
    match check {
        Check::Tcp => Ok(()),
        Check::Http(config) => http::check(session, endpoint, config).await,
        Check::Grpc(config) => grpc::check(session, endpoint, config).await,
    }
}

fn result(checked: Result<(), Fault>) -> Option<Result<(), Failure>> {
    match checked {
        Ok(()) => Some(Ok(())),
        Err(Fault::Endpoint(failure)) => Some(Err(failure)),
        Err(Fault::Own) => None,
    }
}
