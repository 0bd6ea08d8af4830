//! Whose connection it is, before anything else is read of it.

use std::time::Duration;

use pingora_core::protocols::Stream;

use super::announced;
use super::lost::Client;
use super::{Listener, Listeners};
use crate::proxy::downstream::address::{Peer, is_trusted};
use crate::proxy::downstream::proxy_header::Source;
use crate::summary::attempt::Limit;

/// A connection of which that is known.
pub(super) struct Arrived {
    /// `None` if the socket has no peer address.
    pub(super) peer: Option<Peer>,
    /// What the client has sent meanwhile.
    pub(super) ahead: Vec<u8>,
}

impl Listener {
    /// Whether `peer` must announce whose connection it relays.
    pub(super) fn is_announced_by(&self, peer: &Peer) -> bool {
        let proxy_protocol = self.config.proxy_protocol.as_ref();
        proxy_protocol.is_some_and(|proxy_protocol| is_trusted(&proxy_protocol.from, peer.address))
    }
}

impl Listeners {
    /// Reads whose connection the balancer of `client` relays over `stream`, within `limit`. `None` if
    /// it did not say so; that has been reported then.
    pub(super) async fn announced(
        &self,
        stream: &mut Stream,
        listener: &Listener,
        client: Client<'_>,
        limit: (Duration, Option<Limit>),
    ) -> Option<Arrived> {
        let balancer = client.peer?;
        match announced::read(stream, limit.0).await {
            Ok(announced) => {
                let peer = match announced.source {
                    Source::Client(address) => Peer::new(address),
                    Source::Unknown | Source::Balancer => balancer.clone(),
                };
                Some(Arrived { peer: Some(peer), ahead: announced.ahead })
            }
            Err(failed) => {
                let said = client.unannounced(&failed, limit.1)?;
                if let Some(begun) = listener.unannounced.met() {
                    let name = listener.name.clone();
                    log::warn!("listener {name}: connections of {balancer} are closed: {said}");
                    begun.until(move |over| {
                        log::info!(
                            "listener {name}: no more connections without a valid PROXY header {over}"
                        );
                    });
                }
                None
            }
        }
    }
}
