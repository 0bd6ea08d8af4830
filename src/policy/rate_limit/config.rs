//! `rate_limit:` as an operator writes it.

use std::net::IpAddr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer};

use crate::units::{self, Timespan};

/// `rate_limit:` of a route.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "Written")]
pub struct Config {
    /// How requests are counted.
    pub algorithm: Algorithm,
    /// Who is counted apart; default the consumer.
    pub key: KeySource,
    /// Keys remembered at once, about; 1 to 10,000,000, default 100,000.
    pub max_keys: u32,
}

/// The algorithms, of which a limit names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Algorithm {
    FixedWindow(FixedWindow),
}

/// `fixed_window:`. A window begins with the first request of a key after its last one ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedWindow {
    /// Requests admitted per window; 1 to 1,000,000.
    #[serde(deserialize_with = "units::bounded::<_, 1, 1_000_000>")]
    pub requests: u32,
    /// Length of a window; 1 ms to 366 days.
    #[serde(deserialize_with = "window")]
    pub per: Timespan,
}

/// Where the key of a request comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// The authenticated consumer; the client address for anonymous requests.
    #[default]
    Consumer,
    /// The client address.
    ClientAddress,
    /// One count for all requests of the route.
    Route,
}

impl KeySource {
    /// Who a request counts for. `consumer` must be one that credentials proved, never a claim
    /// of the client's.
    pub fn subject(self, consumer: Option<&str>, address: IpAddr) -> Subject<'_> {
        match (self, consumer) {
            (KeySource::Consumer, Some(consumer)) => Subject::Consumer(consumer),
            (KeySource::Consumer, None) | (KeySource::ClientAddress, _) => {
                Subject::address(address)
            }
            (KeySource::Route, _) => Subject::Everyone,
        }
    }
}

/// Who is limited. A consumer that is named like an address is not that address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject<'a> {
    Consumer(&'a str),
    /// An IPv4 address, or an IPv6 network; see [`Subject::address`].
    Address(IpAddr),
    Everyone,
}

impl Subject<'_> {
    /// The client at `address`. One subscriber commonly holds a /64 of IPv6, so that is what is
    /// counted; an IPv4 address written as IPv6 is the IPv4 address.
    pub fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Subject::Address(address.into()),
            IpAddr::V6(address) => {
                let network = address.to_bits() & (u128::MAX << 64);
                Subject::Address(std::net::Ipv6Addr::from_bits(network).into())
            }
        }
    }
}

/// What stands in the file, before one algorithm is picked.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    fixed_window: Option<FixedWindow>,
    #[serde(default)]
    key: KeySource,
    #[serde(default = "default_max_keys", deserialize_with = "max_keys")]
    max_keys: u32,
}

impl TryFrom<Written> for Config {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { fixed_window, key, max_keys } = written;
        let Some(fixed_window) = fixed_window else {
            return Err("needs an algorithm, such as `fixed_window: {requests: 100, per: 1m}`");
        };
        Ok(Config { algorithm: Algorithm::FixedWindow(fixed_window), key, max_keys })
    }
}

const LONGEST_WINDOW: Duration = Duration::from_secs(366 * 24 * 3600);

fn window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    let per = Timespan::deserialize(deserializer)?;
    if *per < Duration::from_millis(1) || *per > LONGEST_WINDOW {
        return Err(de::Error::custom("must be from 1ms to 366days"));
    }
    Ok(per)
}

fn max_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    units::bounded::<_, 1, 10_000_000>(deserializer)
}

fn default_max_keys() -> u32 {
    100_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        serde_yaml::from_str(text).map_err(|e| e.to_string())
    }

    fn address(text: &str) -> Subject<'static> {
        Subject::address(text.parse().expect("an address"))
    }

    #[test]
    fn consumers_are_counted_unless_the_key_says_otherwise() {
        let config = parse("{fixed_window: {requests: 100, per: 1m}}").expect("valid");
        assert_eq!((config.key, config.max_keys), (KeySource::Consumer, 100_000));
        let config = parse("{fixed_window: {requests: 100, per: 1m}, key: route}").expect("valid");
        assert_eq!(config.key, KeySource::Route);
    }

    #[test]
    fn values_that_could_not_work_are_refused() {
        for text in [
            "{}",
            "{fixed_window: {requests: 0, per: 1m}}",
            "{fixed_window: {requests: 1000001, per: 1m}}",
            "{fixed_window: {requests: 100, per: 0s}}",
            "{fixed_window: {requests: 100, per: 2years}}",
            "{fixed_window: {requests: 100}}",
            "{fixed_window: {requests: 100, per: 1m}, key: path}",
            "{fixed_window: {requests: 100, per: 1m}, max_keys: 0}",
            "{fixed: {requests: 100, per: 1m}}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_anonymous_request_counts_for_its_address() {
        let ip = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(KeySource::Consumer.subject(None, ip), Subject::Address(ip));
        assert_eq!(KeySource::Consumer.subject(Some("acme"), ip), Subject::Consumer("acme"));
        assert_eq!(KeySource::ClientAddress.subject(Some("acme"), ip), Subject::Address(ip));
        assert_eq!(KeySource::Route.subject(Some("acme"), ip), Subject::Everyone);
    }

    #[test]
    fn a_client_cannot_change_its_count_within_its_ipv6_network() {
        assert_eq!(address("2001:db8:0:1::1"), address("2001:db8:0:1:ffff::2"));
        assert_ne!(address("2001:db8:0:1::1"), address("2001:db8:0:2::1"));
    }

    #[test]
    fn an_ipv4_address_written_as_ipv6_is_itself() {
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("::ffff:192.0.2.1"), address("192.0.2.2"));
    }
}
