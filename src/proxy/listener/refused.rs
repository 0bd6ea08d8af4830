//! Why client connections are closed on arrival, and how long that has lasted.

use std::net::IpAddr;

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
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Full::Listener => "listener",
            Full::Server => "server",
            Full::Descriptors => "descriptors",
            Full::Address(_) => "address",
            Full::Network(..) => "network",
        }
    }

    pub(super) fn spell(self, spells: &Spells) -> &Spell {
        match self {
            Full::Listener => &spells.listener,
            Full::Server => &spells.server,
            Full::Descriptors => &spells.descriptors,
            Full::Address(_) => &spells.address,
            Full::Network(..) => &spells.network,
        }
    }
}
