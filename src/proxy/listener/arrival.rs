//! Whose connection it is, before anything else is read of it, and whether there is a place for it
//! among those of its address.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pingora_core::protocols::{GetSocketDigest, Stream};

use super::addresses::Counted;
use super::announced;
use super::lost::Client;
use super::refused::Full;
use super::{Listener, Listeners};
use crate::proxy::downstream::address::{Peer, Whose, is_trusted};
use crate::proxy::downstream::proxy_header::Source;
use crate::summary::attempt::Limit;

/// What the socket says of a new connection.
pub enum Arrival {
    /// The connection is its peer's own.
    Known(Arrived),
    /// The peer is a load balancer, which will announce the client.
    Announced {
        /// The load balancer.
        by: Peer,
    },
}

/// A connection of which it is known whose it is.
pub struct Arrived {
    /// `None` if the socket has no peer address.
    pub(super) peer: Option<Peer>,
    /// Whether it is over TLS to the balancer that has announced it.
    pub(super) secure: bool,
    /// Held to the end of the connection.
    counted: Option<Counted>,
}

impl Listeners {
    /// Who has connected to `listener` by `socket`.
    ///
    /// # Errors
    /// There is no place for that address.
    pub fn arrival(
        &self,
        listener: &Listener,
        socket: &impl GetSocketDigest,
    ) -> Result<Arrival, Full> {
        let proxy_protocol = listener.config.proxy_protocol.as_ref();
        let from = proxy_protocol.map_or(&[][..], |proxy_protocol| &proxy_protocol.from);
        match Peer::of(socket) {
            Some(by) if is_trusted(from, by.address) => Ok(Arrival::Announced { by }),
            peer => self.admit(listener, peer).map(Arrival::Known),
        }
    }

    fn admit(&self, listener: &Listener, peer: Option<Peer>) -> Result<Arrived, Full> {
        let Some(address) = peer.as_ref().map(|peer| peer.address) else {
            return Ok(Arrived { peer, secure: false, counted: None });
        };
        self.check_network(listener, address, Whose::Own)?;
        let most = listener.config.max_connections_per_address;
        let counted = match most {
            0 => None,
            _ => Some(
                listener.lasting.addresses.count(address, most).ok_or(Full::Address(address))?,
            ),
        };
        Ok(Arrived { peer, secure: false, counted })
    }

    fn check_network(
        &self,
        listener: &Listener,
        address: IpAddr,
        whose: Whose,
    ) -> Result<(), Full> {
        let Some(networks) = &listener.networks else { return Ok(()) };
        let Err(refusal) = whose.check(networks, address) else { return Ok(()) };
        if networks.enforce().is_dry() {
            self.shared.metrics.connections_would_refuse.inc();
            return Ok(());
        }
        Err(Full::Network(address, refusal))
    }
}

impl Arrived {
    /// A connection with the address of a balancer, for which it is not counted.
    fn uncounted(peer: Peer) -> Self {
        Arrived { peer: Some(peer), secure: false, counted: None }
    }

    /// The peer, and what is to be held to the end of the connection.
    pub(super) fn into_parts(self) -> (Option<Peer>, Option<Counted>) {
        (self.peer, self.counted)
    }
}

impl Listeners {
    /// Reads whose connection the balancer of `client` relays over `stream`, within `limit`. Also
    /// returns what has come of the client's own bytes. `None` if the connection ends here; that has
    /// been told then.
    pub(super) async fn announced(
        &self,
        stream: &mut Stream,
        listener: &Listener,
        client: Client<'_>,
        limit: (Duration, Option<Limit>),
    ) -> Option<(Arrived, Vec<u8>)> {
        let balancer = client.peer?;
        match announced::read(stream, limit.0).await {
            Ok(announced) => {
                let arrived = match announced.source {
                    Source::Client(address) if address.to_canonical() != balancer.address => {
                        self.admit(listener, Some(Peer::new(address)))
                    }
                    // Unknown clients share the balancer's address, so they are not counted by address.
                    Source::Unknown => self
                        .check_network(listener, balancer.address, Whose::Balancers)
                        .map(|()| Arrived::uncounted(Peer::behind(balancer))),
                    // Its health checks must not fail because `networks` are those of clients. In
                    // version 1, which has no LOCAL, HAProxy announces itself for them.
                    Source::Balancer | Source::Client(_) => {
                        Ok(Arrived::uncounted(balancer.clone()))
                    }
                };
                match arrived {
                    Ok(arrived) => {
                        Some((Arrived { secure: announced.secure, ..arrived }, announced.ahead))
                    }
                    Err(full) => {
                        self.refused(listener, full);
                        None
                    }
                }
            }
            Err(failed) => {
                let said = client.unannounced(&failed, limit.1)?;
                if let Some(begun) = listener.lasting.unannounced.met() {
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

impl Listeners {
    /// Tells that a connection to `listener` is closed. It is closed at once, so that the client, or
    /// the load balancer in front, learns it now and can go elsewhere. In the kernel's queue it would
    /// wait for its own timeout.
    pub fn refused(&self, listener: &Listener, full: Full) {
        self.shared.metrics.connections_refused.with_label_values(&[full.as_str()]).inc();
        let Some(begun) = full.spell(&listener.lasting.refused).met() else { return };
        let name = listener.name.clone();
        let why = match full {
            Full::Listener => {
                let most = listener.config.max_connections;
                format!("listeners.{name}.max_connections: all {most} are open")
            }
            Full::Server => {
                let most = self.max_connections.load(Ordering::Relaxed);
                format!("server.max_connections: all {most} of the listeners are open")
            }
            Full::Descriptors => {
                "what is left of the limit of open files is not for clients".to_owned()
            }
            Full::Address(address) => {
                let most = listener.config.max_connections_per_address;
                format!(
                    "listeners.{name}.max_connections_per_address: {address} has all {most} open"
                )
            }
            Full::Network(address, refusal) => {
                format!("listeners.{name}.networks: {address}: {}", refusal.phrase())
            }
        };
        log::warn!("listener {name}: connections are closed on arrival: {why}");
        let full = full.as_str();
        begun.until(move |over| {
            log::info!(
                "listener {name}: no more connections closed for that reason ({full}) {over}"
            );
        });
    }
}
