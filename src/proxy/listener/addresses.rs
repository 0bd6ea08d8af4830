//! How many connections each address holds.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks among which addresses are spread.
const SHARDS: usize = 16;
/// A shard with room for more entries than this gives room back that it does not need.
const ROOM: usize = 64;

/// The connections of one listener, by address. There is an entry for each address that holds one,
/// so there are no more entries than open connections.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Locked only to add or subtract one.
    shards: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
    /// Keyed at random: clients cannot choose addresses that fall into one shard.
    hasher: RandomState,
}

/// A connection's place among those of its address, given back on drop.
#[must_use]
#[derive(Debug)]
pub(super) struct Counted {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    /// Counts a connection of `address`; `None` if it already holds `most`. Networks of IPv6 (/64)
    /// count as one address: a subscriber commonly has all of one.
    pub(super) fn count(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Counted> {
        let address = subscriber(address);
        let mut shard = self.shard(address);
        let open = shard.entry(address).or_default();
        if *open >= most {
            return None;
        }
        *open += 1;
        drop(shard);
        Some(Counted { addresses: self.clone(), address })
    }

    fn shard(&self, address: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        let place = self.hasher.hash_one(address) as usize % SHARDS;
        // Every change leaves it consistent, so a panic elsewhere does no harm.
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut shard = self.addresses.shard(self.address);
        let Entry::Occupied(mut open) = shard.entry(self.address) else { return };
        *open.get_mut() -= 1;
        if *open.get() == 0 {
            open.remove();
            if shard.capacity() > ROOM && shard.len() < shard.capacity() / 4 {
                let room = shard.len() * 2;
                shard.shrink_to(room);
            }
        }
    }
}

/// The address that `address` counts as.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn room(addresses: &Addresses) -> usize {
        addresses.shards.iter().map(|shard| shard.lock().expect("no panic").capacity()).sum()
    }

    fn entries(addresses: &Addresses) -> usize {
        addresses.shards.iter().map(|shard| shard.lock().expect("no panic").len()).sum()
    }

    #[test]
    fn an_address_holds_as_many_as_it_may_and_each_is_given_back() {
        let addresses = Arc::new(Addresses::default());
        let one = || addresses.count(address("192.0.2.1"), 2);
        let (first, second) = (one().expect("room"), one().expect("room"));
        assert!(one().is_none());
        assert!(addresses.count(address("192.0.2.2"), 2).is_some(), "another is not concerned");
        drop(first);
        let third = one().expect("the place of the first");
        assert!(one().is_none());
        drop((second, third));
        assert_eq!(entries(&addresses), 0, "nothing is kept of who has left");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let addresses = Arc::new(Addresses::default());
        let _held = addresses.count(address("2001:db8::1"), 1).expect("room");
        assert!(addresses.count(address("2001:db8::ffff:1"), 1).is_none());
        assert!(addresses.count(address("2001:db8:0:1::1"), 1).is_some());
    }

    #[test]
    fn ipv4_written_as_ipv6_is_ipv4() {
        let addresses = Arc::new(Addresses::default());
        let _held = addresses.count(address("192.0.2.1"), 1).expect("room");
        assert!(addresses.count(address("::ffff:192.0.2.1"), 1).is_none());
    }

    #[test]
    fn room_for_many_addresses_is_given_back() {
        let addresses = Arc::new(Addresses::default());
        let many = (0..20_000_u32).map(|n| addresses.count(IpAddr::from(n.to_be_bytes()), 1));
        let many: Vec<_> = many.map(|counted| counted.expect("room")).collect();
        assert_eq!(entries(&addresses), 20_000);
        drop(many);
        assert_eq!(entries(&addresses), 0);
        assert!(room(&addresses) <= 2 * ROOM * SHARDS, "{}", room(&addresses));
    }
}
