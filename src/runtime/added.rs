//! The addresses of listeners that a reload adds: all of them are bound, or none, and they close if it does not
//! come to its end.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

use super::shared::Shared;
use super::sockets::Sockets;
use crate::config::code::Code;
use crate::config::load::KeyPath;
use crate::config::{Config, Problem};

/// Binds the addresses of `new` that `old` has no listener at: all of them, or none.
pub(super) fn bind(
    sockets: &Sockets,
    old: &Config,
    new: &Config,
) -> Result<BTreeMap<SocketAddr, TcpListener>, Vec<Problem>> {
    let bound: Vec<_> = old.listeners.values().map(|listener| listener.address).collect();
    let added = new.listeners.iter().map(|(name, listener)| (listener.address, name.as_str()));
    let added: BTreeMap<_, _> = added.filter(|(address, _)| !bound.contains(address)).collect();
    sockets.listen_all(added.keys().copied()).map_err(|failed| {
        let problem = |(address, error): (SocketAddr, std::io::Error)| {
            let name = added.get(&address).copied().unwrap_or_default();
            let path = KeyPath::root().key("listeners").key(name).key("address");
            Problem::new(
                Code::AddressUnusable,
                path,
                format!("cannot listen on {address}: {error}"),
            )
        };
        failed.into_iter().map(problem).collect()
    })
}

/// Addresses that a reload has bound: closed if it does not come to its end, for clients must not wait there.
pub(super) struct Opened<'a> {
    sockets: &'a Sockets,
    addresses: Vec<SocketAddr>,
}

impl<'a> Opened<'a> {
    pub(super) fn new(shared: &'a Shared, sockets: &BTreeMap<SocketAddr, TcpListener>) -> Self {
        Opened { sockets: &shared.sockets, addresses: sockets.keys().copied().collect() }
    }

    pub(super) fn are_accepted_from(mut self) {
        self.addresses.clear();
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.addresses.iter().for_each(|address| self.sockets.close(*address));
    }
}
