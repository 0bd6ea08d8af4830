//! What the operator configures under `upstreams.NAME.discover`.

mod consul;
mod eureka;
mod kubernetes;
mod name;
mod own;
mod srv;

use std::path::PathBuf;

pub use consul::Consul;
pub use eureka::{Eureka, Login, Port as EurekaPort, Prefer, Server as EurekaServer};
use ipnet::IpNet;
pub use kubernetes::{Kubernetes, Label, Port};
pub use name::Name;
pub use own::Own;
use serde::{Deserialize, Deserializer, de};
pub(super) use srv::is_host;
pub use srv::{Server, Srv};

use crate::config::admin::{Token, tokens};
use crate::units::Timespan;
use crate::units::schema::one_or_many;
use crate::upstream::config::Url;

/// A source of endpoints, and how those that it gives as addresses are reached.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[schemars(with = "Written", rename = "Discover")]
#[serde(try_from = "Written")]
pub struct Discover {
    /// What knows the endpoints.
    pub source: Source,
    /// Scheme, `Host` header, certificate's name and base path of endpoints that the source gives as
    /// addresses; `None`: `http://` and the address.
    pub form: Option<Url>,
    /// Where this gateway listens, which no endpoint may be. Set once the configuration is whole.
    pub own: Vec<Own>,
}

/// The kinds of source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A list of endpoints in a file.
    File(File),
    /// Instances that register themselves at the admin listener.
    Registry(Registry),
    /// The EndpointSlices of a service of Kubernetes.
    Kubernetes(Kubernetes),
    /// The SRV records of a name.
    Srv(Srv),
    /// The instances of a service in Consul.
    Consul(Consul),
    /// The instances of an application in Eureka.
    Eureka(Eureka),
}

/// `file:`, a list of endpoints in YAML or JSON, written as under `endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FileSource")]
pub struct File {
    /// The file, relative to the configuration's. It is looked at twice a second, and taken once it
    /// has stayed the same from one look to the next.
    pub path: PathBuf,
}

/// `registry:`, a register that instances enter themselves in: `PUT /upstreams/NAME/endpoints/ID` at the
/// admin listener, again before their lease is over.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RegistrySource")]
pub struct Registry {
    /// Where instances may be: networks such as 10.0.0.0/8, or addresses; at least one. An element may
    /// hold several, separated by commas.
    #[serde(deserialize_with = "networks")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub allow: Vec<IpNet>,
    /// What an instance shows as `Authorization: Bearer`, besides what `admin.token` says: with it, it may
    /// register for this upstream, and nothing else. One, or a list of which each is valid. At least
    /// 16 bytes, visible ASCII without spaces. Default: none.
    #[serde(default, deserialize_with = "tokens")]
    #[schemars(schema_with = "one_or_many::<Token>")]
    pub token: Vec<Token>,
    /// After this long an instance is forgotten that has not registered again, unless it asks for
    /// another time; 1 s to 1 h, default 30 s.
    #[serde(default = "default_lease", deserialize_with = "lease")]
    pub lease: Timespan,
}

/// The least and the longest lease.
pub const LEASES: (Timespan, Timespan) = (Timespan::from_secs(1), Timespan::from_secs(60 * 60));

fn default_lease() -> Timespan {
    Timespan::from_secs(30)
}

fn lease<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timespan, D::Error> {
    let lease = Timespan::deserialize(deserializer)?;
    match (LEASES.0..=LEASES.1).contains(&lease) {
        true => Ok(lease),
        false => Err(de::Error::custom("must be from 1s to 1h")),
    }
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let networks = crate::policy::networks::networks(deserializer)?;
    match networks.is_empty() {
        true => Err(de::Error::custom("name at least one network, such as 10.0.0.0/8")),
        false => Ok(networks),
    }
}

/// Where a source answers over HTTP.
fn server<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    over_http(Url::deserialize(deserializer)?)
}

fn over_http<E: de::Error>(url: Url) -> Result<Url, E> {
    match url.place.is_socket() {
        true => Err(E::custom("expected http:// or https:// with a host, not a socket")),
        false => Ok(url),
    }
}

/// The keys as in the file, before one kind is picked.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// A list of endpoints in a file.
    #[serde(default)]
    file: Option<File>,
    /// Instances that register themselves at the admin listener.
    #[serde(default)]
    registry: Option<Registry>,
    /// The EndpointSlices of a service of Kubernetes.
    #[serde(default)]
    kubernetes: Option<Kubernetes>,
    /// The SRV records of a name.
    #[serde(default)]
    srv: Option<Srv>,
    /// The instances of a service in Consul.
    #[serde(default)]
    consul: Option<Consul>,
    /// The instances of an application in Eureka.
    #[serde(default)]
    eureka: Option<Eureka>,
    /// How endpoints are reached that the source gives as addresses, such as `https://orders.internal/api`:
    /// scheme, `Host` header, name of the certificate, and base path. Default: `http://` and the address.
    #[serde(default, rename = "as")]
    form: Option<Url>,
}

impl TryFrom<Written> for Discover {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { file, registry, kubernetes, srv, consul, eureka, form } = written;
        if let Some(mistake) = consul.as_ref().and_then(Consul::mistake) {
            return Err(mistake.to_owned());
        }
        let sources = [
            file.map(Source::File),
            registry.map(Source::Registry),
            kubernetes.map(Source::Kubernetes),
            srv.map(Source::Srv),
            consul.map(Source::Consul),
            eureka.map(Source::Eureka),
        ];
        let mut sources = sources.into_iter().flatten();
        let source = sources.next().ok_or("needs a source, such as `file: {path: orders.yaml}`")?;
        if sources.next().is_some() {
            return Err("has more than one source: write one".to_owned());
        }
        if form.as_ref().is_some_and(|form| form.place.is_socket()) {
            return Err("as: is http:// or https:// with a host, not a socket".to_owned());
        }
        let scheme = match &source {
            Source::File(_)
            | Source::Registry(_)
            | Source::Kubernetes(_)
            | Source::Consul(_)
            | Source::Eureka(_) => None,
            Source::Srv(srv) => srv.scheme,
        };
        if scheme.is_some() && form.is_some() {
            return Err("scheme: is for endpoints without `as`, which has one".to_owned());
        }
        Ok(Discover { source, form, own: Vec::new() })
    }
}

impl Discover {
    /// Whether its endpoints are reached over TLS, as far as that is known before it is asked.
    pub fn is_tls(&self) -> Option<bool> {
        let form = self.form.as_ref().map(|form| form.tls);
        match &self.source {
            Source::File(_) => form,
            // They give addresses.
            Source::Registry(_) | Source::Kubernetes(_) | Source::Consul(_) => {
                Some(form.unwrap_or(false))
            }
            Source::Eureka(eureka) => form.or(eureka.is_tls()),
            Source::Srv(srv) => Some(form.unwrap_or(srv.is_tls())),
        }
    }

    /// Whether `other` asks the same source for the same endpoints, so that they are kept until it
    /// answers anew.
    pub fn has_same_endpoints(&self, other: &Discover) -> bool {
        self.form == other.form && self.source.is_same(&other.source)
    }
}

impl Source {
    fn is_same(&self, other: &Source) -> bool {
        match (self, other) {
            (Source::File(one), Source::File(other)) => one.path == other.path,
            (Source::Registry(_), Source::Registry(_)) => true,
            (Source::Kubernetes(one), Source::Kubernetes(other)) => one.has_same_endpoints(other),
            (Source::Srv(one), Source::Srv(other)) => one == other,
            (Source::Consul(one), Source::Consul(other)) => one.has_same_endpoints(other),
            (Source::Eureka(one), Source::Eureka(other)) => one.has_same_endpoints(other),
            (
                Source::File(_)
                | Source::Registry(_)
                | Source::Kubernetes(_)
                | Source::Srv(_)
                | Source::Consul(_)
                | Source::Eureka(_),
                _,
            ) => false,
        }
    }

    /// The kind of source, as it is written.
    pub fn as_str(&self) -> &'static str {
        match self {
            Source::File(_) => "file",
            Source::Registry(_) => "registry",
            Source::Kubernetes(_) => "kubernetes",
            Source::Srv(_) => "srv",
            Source::Consul(_) => "consul",
            Source::Eureka(_) => "eureka",
        }
    }

    /// The source in words, for log lines and `/status`.
    pub fn words(&self) -> String {
        match self {
            Source::File(file) => format!("file {}", file.path.display()),
            Source::Registry(_) => "registry".to_owned(),
            Source::Kubernetes(kubernetes) => kubernetes.words(),
            Source::Srv(srv) => format!("SRV records of {}", srv.name.as_str()),
            Source::Consul(consul) => consul.words(),
            Source::Eureka(eureka) => eureka.words(),
        }
    }
}
