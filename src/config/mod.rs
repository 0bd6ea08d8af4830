//! The configuration as the operator wrote it: plain, comparable, typed.
//!
//! Each policy defines its own keys; this module puts them together. [`load`] reads them from
//! files, `validate` checks the rules that concern several keys. `runtime::snapshot` says what they
//! are compiled into.

pub mod access_log;
pub mod admin;
pub mod code;
pub mod defaults;
pub mod effective;
pub mod error_codes;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod header_fields;
pub mod header_value;
pub mod load;
pub mod log;
pub mod max_body;
pub mod metrics;
pub mod origin;
pub mod otlp;
mod renamed;
pub mod respond;
pub mod route;
pub mod rpc_code;
pub mod schema;
pub mod server;
mod socket_path;
pub mod status_map;
pub mod steps;
pub mod timeouts;
pub mod tls;
pub mod traces;
mod validate;
pub mod warnings;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use load::NamedFiles;
pub use load::{Diagnostic, Environment, Location, Problem, Sources};
pub use route::Route;

use crate::policy::{auth, rate_limit, retry};
use crate::record;
use crate::transcode;
use crate::upstream;
use crate::upstream::discovery::config::Source;

/// Upstreams may be written once for several names.
static TEMPLATES: load::Templates = load::Templates {
    section: "upstreams",
    list: "each",
    uses: &["routes", "*", "upstream", "among"],
};

/// The main file with the files it includes.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The process itself: threads, shutdown, limits of all connections together.
    #[serde(default)]
    pub server: server::Server,
    /// The addresses that clients connect to, by names of the operator's choice; at least one.
    pub listeners: BTreeMap<String, server::Listener>,
    /// The listener for health, metrics, state and orders.
    #[serde(default)]
    pub admin: admin::Admin,
    /// Which peers are trusted to name the client's address.
    #[serde(default)]
    pub client_address: server::ClientAddress,
    /// The headers that hold a request's ids, its consumer and the number of its attempt.
    #[serde(default)]
    pub identifiers: server::Identifiers,
    /// Limit on the requests of one address to all routes together; absent: none.
    pub flood_guard: Option<server::FloodGuard>,
    /// Which responses carry the headers of rate limits, on all routes that have limits.
    #[serde(default)]
    pub rate_limit_headers: rate_limit::Headers,
    /// The stores in which replicas count rate limits together, by the names that `shared.store` of
    /// a limit refers to; default: none.
    #[serde(default)]
    pub rate_limit_stores: BTreeMap<String, rate_limit::Store>,
    /// Where the rows of requests are written, how long they are kept, and how they are queued.
    #[serde(default)]
    pub record: record::Config,
    /// The process's own log.
    #[serde(default)]
    pub log: log::Log,
    /// Which requests have a line in the access log, and where the lines go.
    #[serde(default)]
    pub access_log: access_log::AccessLog,
    /// The collector for traces and metrics. An absent setting is read from OpenTelemetry's
    /// variables; without an address in either, nothing is exported.
    #[serde(default)]
    pub otlp: otlp::Otlp,
    /// Which requests are traced; a collector for spans alone.
    #[serde(default)]
    pub traces: traces::Traces,
    /// How often metrics are exported; a collector for them alone.
    #[serde(default)]
    pub metrics: metrics::Metrics,
    /// Authorities that verify credentials, by the names that `auth.require` of a route refers to;
    /// default: none.
    #[serde(default)]
    pub auth: BTreeMap<String, auth::Config>,
    /// Limits on the retries of several routes together, by the names that `retry.budget` of a
    /// route refers to; default: none.
    #[serde(default)]
    pub retry_budgets: BTreeMap<String, retry::budget::Config>,
    /// The services behind the gateway, by the names that routes refer to; default: none.
    #[serde(default)]
    pub upstreams: upstream::config::Upstreams,
    /// Descriptor sets for routes that transcode, by the names that `transcode.descriptors` refers
    /// to; default: none.
    #[serde(default)]
    pub descriptors: BTreeMap<String, transcode::config::DescriptorFile>,
    /// What a route does not say, for the routes of all files; one file alone may have it. Of two
    /// mappings, at any depth, the route's own has what it lacks from here; any other value of the
    /// route replaces the default. So do `auth`, `rate_limit`, `bulkhead` and `fallback` as a whole.
    /// `off` switches a policy off. A route with `serve` has no defaults of what concerns upstreams.
    #[serde(default)]
    pub defaults: defaults::Defaults,
    /// The routes by name. The name is the label in metrics, log and record.
    // Each is shared with the route compiled from it.
    #[serde(default, deserialize_with = "shared")]
    #[schemars(with = "BTreeMap<String, Route>")]
    pub routes: BTreeMap<String, Arc<Route>>,
}

fn shared<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Arc<Route>>, D::Error> {
    let routes = BTreeMap::<String, Route>::deserialize(deserializer)?;
    Ok(routes.into_iter().map(|(name, route)| (name, Arc::new(route))).collect())
}

impl Config {
    /// Reads and checks the configuration at `location`, as [`Config::load`] does.
    ///
    /// # Errors
    /// All mistakes; never empty.
    pub fn at(location: &Location) -> Result<(Config, Sources), Vec<Diagnostic>> {
        Config::load(&location.file, &location.environment()?)
    }

    /// Reads and checks `path`. All mistakes are reported together, in the order of the file.
    ///
    /// # Errors
    /// All mistakes; never empty.
    pub fn load(
        path: &Path,
        environment: &Environment,
    ) -> Result<(Config, Sources), Vec<Diagnostic>> {
        let loaded = Config::draft(path, environment).validate(validate::problems);
        let (mut config, sources) = loaded?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for descriptors in config.descriptors.values_mut() {
            descriptors.file = folder.join(&descriptors.file);
        }
        let own = validate::own(&config);
        for discover in config.upstreams.values_mut().filter_map(|up| up.discover.as_mut()) {
            discover.own.clone_from(&own);
            match &mut discover.source {
                Source::File(file) => file.path = folder.join(&file.path),
                Source::Registry(_) => {}
                Source::Kubernetes(kubernetes) => {
                    let files = [&mut kubernetes.token_file, &mut kubernetes.ca];
                    files.into_iter().flatten().for_each(|file| *file = folder.join(&*file));
                }
                Source::Srv(_) => {}
                Source::Consul(consul) => {
                    let files = [&mut consul.token_file, &mut consul.ca];
                    files.into_iter().flatten().for_each(|file| *file = folder.join(&*file));
                }
                Source::Eureka(eureka) => {
                    eureka.ca.iter_mut().for_each(|file| *file = folder.join(&*file));
                }
            }
        }
        Ok((config, sources))
    }

    fn draft(path: &Path, environment: &Environment) -> load::Draft<Config> {
        let (layering, renamed) = (&defaults::LAYERING, renamed::RENAMED);
        load::load_layered::<Config, defaults::Alone>(
            path,
            environment,
            &TEMPLATES,
            layering,
            renamed,
        )
    }

    /// The files that the configuration at `location` names, and that a reload reads again:
    /// certificates, keys, authorities, descriptor sets, `${file:…}`. Of a configuration that is not
    /// valid, those of its valid parts.
    pub fn named_files(location: &Location) -> NamedFiles {
        let Ok(environment) = location.environment() else { return NamedFiles::default() };
        let draft = Config::draft(&location.file, &environment);
        let (config, sources) = draft.parts();
        let values = sources.referenced().map(Path::to_owned).collect();
        let mut files = BTreeSet::new();
        let Some(config) = config else { return NamedFiles { values, others: files } };
        for tls in config.listeners.values().filter_map(|listener| listener.tls.as_ref()) {
            let pairs = tls.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
            files.extend(pairs.chain(&tls.client_ca).chain(&tls.client_crl).cloned());
            match &tls.tickets {
                tls::Tickets::Keys(file) => drop(files.insert(file.clone())),
                tls::Tickets::Off | tls::Tickets::On => {}
            }
        }
        files.extend(config.upstreams.values().flat_map(|upstream| upstream.tls.files().cloned()));
        let telemetry = otlp::telemetry::Telemetry::resolve(config, &environment);
        let collectors = telemetry.traces.into_iter().chain(telemetry.metrics);
        files.extend(collectors.filter(|to| to.is_encrypted()).filter_map(|to| to.ca));
        let folder = location.file.parent().unwrap_or(Path::new(""));
        files.extend(config.descriptors.values().map(|set| folder.join(&set.file)));
        NamedFiles { values, others: files }
    }

    /// The paths of the policies that are dry runs.
    pub fn not_enforced(&self) -> Vec<String> {
        let guard = self.flood_guard.as_ref().filter(|guard| guard.enforce.is_dry());
        let upstreams = self.upstreams.iter().filter(|(_, upstream)| {
            upstream.circuit_breaker.as_ref().is_some_and(|breaker| breaker.enforce.is_dry())
        });
        let all = self.defaults.0.not_enforced();
        let routes = self.routes.iter().flat_map(|(name, route)| {
            let own = route.not_enforced().into_iter();
            // What the defaults have is named once.
            let own = own.filter(|key| !all.contains(key) || !self.defaults.0.agrees(route, key));
            own.map(move |key| format!("routes.{name}.{key}")).collect::<Vec<_>>()
        });
        let all_routes = all.iter().map(|key| format!("{}.{key}", defaults::SECTION));
        let guard = guard.map(|_| "flood_guard".to_owned());
        let listeners = self.listeners.iter().filter(|(_, listener)| {
            listener.networks.as_ref().is_some_and(|networks| networks.enforce.is_dry())
        });
        let listeners = listeners.map(|(name, _)| format!("listeners.{name}.networks"));
        let upstreams = upstreams.map(|(name, _)| format!("upstreams.{name}.circuit_breaker"));
        guard
            .into_iter()
            .chain(listeners)
            .chain(upstreams)
            .chain(all_routes)
            .chain(routes)
            .collect()
    }
}
