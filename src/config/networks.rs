//! Networks and addresses in a configuration.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

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
