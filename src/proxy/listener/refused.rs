//! Client connections that are closed on arrival, and what is told of them.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use super::{Listener, Listeners};
use crate::condition::Spell;
use crate::policy::networks;

/// Why there is no place for a client connection.
#[derive(Clone, Copy, Debug)]
pub enum Full {
    /// The listener's `max_connections` are open.
    Listener,
    /// `server.max_connections` are open, over all listeners.
    Server,
    /// The remaining file descriptors are reserved for other uses.
    Descriptors,
    /// The client's address holds the listener's `max_connections_per_address`.
    Address(IpAddr),
    /// The listener's `networks` refuse the client's address.
    Network(IpAddr, networks::Refusal),
}

/// When connections to a listener are refused, for each [`Full`].
#[derive(Debug, Default)]
pub(super) struct Spells {
    listener: Spell,
    server: Spell,
    descriptors: Spell,
    address: Spell,
    network: Spell,
}

impl Full {
    /// The value of the metric's label.
    const fn as_str(self) -> &'static str {
        match self {
            Full::Listener => "listener",
            Full::Server => "server",
            Full::Descriptors => "descriptors",
            Full::Address(_) => "address",
            Full::Network(..) => "network",
        }
    }

    fn spell(self, spells: &Spells) -> &Spell {
        match self {
            Full::Listener => &spells.listener,
            Full::Server => &spells.server,
            Full::Descriptors => &spells.descriptors,
            Full::Address(_) => &spells.address,
            Full::Network(..) => &spells.network,
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
