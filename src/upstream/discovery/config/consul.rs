//! What the operator configures under `discover.consul`.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

use super::name::{Name, names};
use super::{networks, server};
use crate::config::admin::Token;
use crate::units::Timespan;
use crate::units::schema::one_or_many;
use crate::upstream::config::Url;

/// `consul:`, the instances of a service in Consul, asked for by blocking queries: a change is known at
/// once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ConsulSource")]
pub struct Consul {
    /// The name of the service.
    pub service: Name,
    /// Where the agent or a server answers over HTTP; default `http://127.0.0.1:8500`, the agent of this
    /// machine.
    #[serde(default = "local_agent", deserialize_with = "server")]
    pub address: Url,
    /// Instances must have all of these tags: one, or a list. Default: none.
    #[serde(default, deserialize_with = "names")]
    #[schemars(schema_with = "one_or_many::<Name>")]
    pub tags: Vec<Name>,
    /// An expression that instances must fulfil, in Consul's language: `Service.Meta.version == "2"`.
    pub filter: Option<Name>,
    /// The datacenter; default that of the agent.
    pub datacenter: Option<Name>,
    /// The namespace; default that of the token. Consul Enterprise has them.
    pub namespace: Option<Name>,
    /// The admin partition; default that of the agent. Consul Enterprise has them.
    pub partition: Option<Name>,
    /// The ACL token, which needs `service:read` and `node:read`. Default: none, as an anonymous client.
    pub token: Option<Token>,
    /// A file with the ACL token instead. It is read for each query, because it changes.
    pub token_file: Option<PathBuf>,
    /// A PEM file with the authorities that sign the certificate of an `https://` address; default
    /// those of the system.
    pub ca: Option<PathBuf>,
    /// `false`: an instance with a check in the state `warning` is used, too, with its weight for that
    /// state; default `true`. One with a critical check, such as that of the maintenance mode, never is.
    #[serde(default = "yes")]
    pub passing_only: bool,
    /// `true`: a server that is not the leader may answer, with what it knows; default `false`.
    #[serde(default)]
    pub stale: bool,
    /// Where instances may be: networks such as 10.0.0.0/8, or addresses; others are not used. Default:
    /// everywhere but at loopback (127.0.0.0/8, ::1) and link-local addresses (169.254.0.0/16, fe80::/10).
    #[serde(default, deserialize_with = "networks")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub allow: Vec<IpNet>,
    /// How long a query waits for a change before the next one takes over, in whole seconds; 1 s to
    /// 10 min, default 1 min.
    #[serde(default = "default_wait", deserialize_with = "wait")]
    pub wait: Timespan,
}

impl Consul {
    /// What is wrong with keys together.
    pub(super) fn mistake(&self) -> Option<&'static str> {
        (self.token.is_some() && self.token_file.is_some())
            .then_some("has `token` and `token_file`: write one")
    }

    /// Whether `other` means the same endpoints.
    pub fn has_same_endpoints(&self, other: &Consul) -> bool {
        let of = |one: &Consul| {
            let place = (one.datacenter.clone(), one.namespace.clone(), one.partition.clone());
            let which = (one.tags.clone(), one.filter.clone(), one.passing_only);
            (one.service.clone(), one.address.clone(), place, which)
        };
        of(self) == of(other)
    }

    /// In words, for log lines and `/status`.
    pub fn words(&self) -> String {
        let mut words = format!("consul {}", self.service);
        for tag in &self.tags {
            words += &format!(" tag {tag}");
        }
        for (what, name) in [
            ("where", &self.filter),
            ("in", &self.datacenter),
            ("namespace", &self.namespace),
            ("partition", &self.partition),
        ] {
            if let Some(name) = name {
                words += &format!(" {what} {name}");
            }
        }
        words
    }
}

fn local_agent() -> Url {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 8500));
    Url::at(address, None)
}

fn yes() -> bool {
    true
}

fn default_wait() -> Timespan {
    Timespan::from_secs(60)
}

fn wait<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    let span = Timespan::deserialize(deserializer)?;
    match (Timespan::from_secs(1)..=Timespan::from_secs(10 * 60)).contains(&span) {
        true => Ok(span),
        false => Err(de::Error::custom("must be from 1s to 10m, which is Consul's own limit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<Consul, String> {
        serde_yaml::from_str(&format!("{{service: orders{rest}}}")).map_err(|e| e.to_string())
    }

    #[test]
    fn the_agent_of_this_machine_is_asked_unless_another_is_named() {
        let consul = parse("").expect("valid");
        assert_eq!(consul.address.to_string(), "http://127.0.0.1:8500");
        assert!(consul.passing_only && !consul.stale);
        assert_eq!(consul.wait, Timespan::from_secs(60));
        assert!(parse(", address: 'https://consul.internal:8501/base'").is_ok());
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for (wrong, says) in [
            (", address: 'unix:/run/consul.sock'", "not a socket"),
            (", address: '127.0.0.1:8500'", "http://"),
            (", wait: 999ms", "from 1s to 10m"),
            (", wait: 11m", "from 1s to 10m"),
            (", tags: []", "at least one"),
            (", tags: ['']", "a name has"),
            (", datacenter: \"a\\nb\"", "a name has"),
            (", token: short", "at least 16 bytes"),
            (", tag: a", "tag"),
        ] {
            let error = parse(wrong).expect_err(wrong);
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn how_it_is_asked_does_not_make_it_another_source() {
        let one = parse("").expect("valid");
        for same in ["token: 0123456789abcdef", "token_file: a", "ca: b", "wait: 5s", "stale: true"]
        {
            assert!(one.has_same_endpoints(&parse(&format!(", {same}")).expect(same)), "{same}");
        }
        for other in [
            "tags: a",
            "datacenter: eu",
            "namespace: a",
            "partition: b",
            "filter: c",
            "passing_only: false",
            "address: 'http://a:8500'",
        ] {
            assert!(
                !one.has_same_endpoints(&parse(&format!(", {other}")).expect(other)),
                "{other}"
            );
        }
    }

    #[test]
    fn it_is_named_by_what_it_says() {
        assert_eq!(parse("").expect("valid").words(), "consul orders");
        let whole = parse(", tags: [a, b], datacenter: eu, namespace: shop").expect("valid");
        assert_eq!(whole.words(), "consul orders tag a tag b in eu namespace shop");
    }
}
