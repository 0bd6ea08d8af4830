//! Networks that may, and networks that may not: by the client's address alone.
//!
//! `deny` wins: an address in one of its networks is refused, whatever `allow` says, and whichever
//! of the two networks is smaller. Of the other addresses all pass where there is no `allow`, and
//! otherwise those in one of its networks. So the order of the entries means nothing.

mod ranges;

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer};

use self::ranges::Ranges;
use super::dry_run::Enforce;

/// Which addresses may, and which may not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Only addresses in these networks may: networks such as 10.0.0.0/8, or addresses. An element
    /// may hold several, separated by commas. Absent: all that `deny` does not have.
    #[serde(deserialize_with = "some_networks")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub allow: Vec<IpNet>,
    /// Addresses in these networks may not, also where `allow` has them. Absent: none.
    #[serde(deserialize_with = "some_networks")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub deny: Vec<IpNet>,
    /// `false`: what would be refused is counted, and passes. Default `true`.
    pub enforce: Enforce,
}

/// Why an address may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A network of `deny` has it.
    Denied,
    /// No network of `allow` has it.
    NotAllowed,
    /// There is `allow`, and the address is not known.
    Unknown,
}

impl Refusal {
    /// What is wrong, in words.
    pub const fn phrase(self) -> &'static str {
        match self {
            Refusal::Denied => "the address is in `networks.deny`",
            Refusal::NotAllowed => "the address is not in `networks.allow`",
            Refusal::Unknown => "the client's address is not known, so `networks.allow` has it not",
        }
    }
}

/// The lists, compiled: a look-up takes as many steps as the number of networks has bits.
#[derive(Debug, Clone)]
pub struct Networks {
    /// `None`: every address.
    allow: Option<Ranges>,
    deny: Ranges,
    enforce: Enforce,
}

impl Networks {
    /// The lists of `config`.
    pub fn new(config: &Config) -> Self {
        let allow = (!config.allow.is_empty()).then(|| Ranges::new(&config.allow));
        Networks { allow, deny: Ranges::new(&config.deny), enforce: config.enforce }
    }

    /// Whether `address` may; an IPv4 address written as IPv6 is the IPv4 address.
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self, address: IpAddr) -> Result<(), Refusal> {
        let address = address.to_canonical();
        if self.deny.contains(address) {
            return Err(Refusal::Denied);
        }
        match &self.allow {
            Some(allow) if !allow.contains(address) => Err(Refusal::NotAllowed),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a client may of which only the address of its `balancer` is known. No network of `allow`
    /// is known to have it, not even one that has the balancer.
    ///
    /// # Errors
    /// It may not.
    pub fn check_unknown(&self, balancer: IpAddr) -> Result<(), Refusal> {
        match (self.check(balancer), &self.allow) {
            (Err(Refusal::Denied), _) => Err(Refusal::Denied),
            (_, Some(_)) => Err(Refusal::Unknown),
            (checked, None) => checked,
        }
    }

    /// Whether it refuses.
    pub const fn enforce(&self) -> Enforce {
        self.enforce
    }
}

/// A list of networks such as `10.0.0.0/8`, and of single addresses. An element may hold several,
/// separated by commas.
///
/// # Errors
/// Names what is expected instead.
pub fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    struct Networks(Vec<IpNet>);

    impl<'de> Deserialize<'de> for Networks {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            text.split(',').map(|part| network(part.trim())).collect::<Result<_, _>>().map(Networks)
        }
    }

    fn network<E: serde::de::Error>(text: &str) -> Result<IpNet, E> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let network = network.map(canonical);
        network.map_err(|_| E::custom("expected a network such as 10.0.0.0/8, or an address"))
    }

    let networks = Vec::<Networks>::deserialize(deserializer)?;
    Ok(networks.into_iter().flat_map(|networks| networks.0).collect())
}

/// The same with at least one network.
///
/// # Errors
/// As [`networks`]; also if there is none.
pub fn some_networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let networks = networks(deserializer)?;
    if networks.is_empty() {
        return Err(serde::de::Error::custom("expected at least one network, such as 10.0.0.0/8"));
    }
    Ok(networks)
}

/// IPv4 networks written as IPv6 are IPv4 networks, as the addresses that are looked up in them are.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests;
