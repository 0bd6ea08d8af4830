//! Asks for the SRV records of a name, and for the addresses of their targets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::task::JoinSet;

use super::Asked;
use super::dns::{Answer, Dns};
use crate::time::{Clock, Moment};
use crate::upstream::config::{IpFamily, Listed};
use crate::upstream::discovery::config::{Discover, Srv};
use crate::upstream::discovery::known::{Edge, Said};
use crate::upstream::discovery::pace::{Learned, Pace};
use crate::upstream::discovery::srv::{
    Form, Looked, Service, Target, address, brought_along, targets,
};
use crate::upstream::{Config, Upstream};

/// Questions after addresses that are open at the same time.
const MOST_AT_ONCE: usize = 16;

/// What is known of the service.
pub(super) struct SrvSource {
    upstream: Arc<str>,
    config: Srv,
    form: Form,
    pace: Pace,
    empty_after: Duration,
    most: usize,
    dns: Option<Dns>,
    service: Service,
    /// What was known before a reload serves until then, or until all is known of each target.
    known_until: Option<Moment>,
    /// How long to wait before the next question; `None` before the first one.
    pause: Option<Duration>,
}

/// Targets and what was said about the addresses of each, and for how long that holds.
struct Round {
    targets: Vec<Target>,
    addresses: BTreeMap<String, Looked>,
    ttl: Duration,
}

impl SrvSource {
    pub(super) fn new(config: &Srv, discover: &Discover, upstream: &Upstream) -> Self {
        let Config { ip_family, resolve_every, empty_after, max_endpoints, .. } = upstream.config();
        let form = discover.form.clone();
        SrvSource {
            upstream: upstream.name.clone(),
            config: config.clone(),
            form: Form { is_tls: config.is_tls(), form, family: *ip_family },
            pace: Pace::new(**resolve_every),
            empty_after: **empty_after,
            most: *max_endpoints as usize,
            dns: None,
            service: Service::new(upstream.pairs()),
            known_until: upstream
                .source()
                .filter(|source| source.endpoints > 0)
                .map(|_| Clock::now() + **empty_after),
            pause: None,
        }
    }

    async fn ask(&mut self) -> Said<Vec<Listed>> {
        let (said, learned) = match self.round().await {
            Said::These(round) => self.take_in(round),
            Said::Nothing(words) => (Said::Nothing(words), Learned::Nothing),
            Said::Failed(words) => (Said::Failed(words), Learned::Nothing),
        };
        self.pause = Some(self.pace.after(learned));
        said
    }

    fn take_in(&mut self, round: Round) -> (Said<Vec<Listed>>, Learned) {
        let Round { targets, addresses, ttl } = round;
        let is_whole = addresses.values().all(Looked::is_whole);
        let now = Clock::now();
        let (said, news) =
            self.service.take_in(targets, addresses, &self.form, self.empty_after, now);
        news.into_iter().for_each(|(host, edge)| self.tell(&host, edge));
        self.known_until = self.known_until.filter(|until| !is_whole && now < *until);
        let said = match said {
            Said::These(_) if self.known_until.is_some() => {
                Said::Failed("not all of its targets have answered since the reload".to_owned())
            }
            said => said,
        };
        let learned = match &said {
            Said::These(_) if is_whole => Learned::All(ttl),
            Said::These(_) => Learned::Part(ttl),
            Said::Nothing(_) | Said::Failed(_) => Learned::Nothing,
        };
        (said, learned)
    }

    async fn round(&mut self) -> Said<Round> {
        let servers = self.config.resolver.as_deref();
        let dns = match Dns::of(servers, self.dns.take()).await {
            Ok(dns) => self.dns.insert(dns).clone(),
            Err(error) => return Said::Failed(error),
        };
        let name = match full_name(self.config.name.as_str()) {
            Ok(name) => name,
            Err(error) => return Said::Failed(error),
        };
        let Answer { records, message, ttl } =
            match dns.look_up(name, RecordType::SRV, Target::read).await {
                Said::These(answer) => answer,
                Said::Nothing(words) => return Said::Nothing(words),
                Said::Failed(words) => return Said::Failed(words),
            };
        let targets = match targets(records) {
            Said::These(targets) => targets,
            Said::Nothing(words) => return Said::Nothing(words),
            Said::Failed(words) => return Said::Failed(words),
        };
        let hosts = targets.iter().map(|target| target.host().to_owned());
        match self.addresses(&dns, hosts.collect(), &message).await {
            Ok((addresses, least)) => {
                Said::These(Round { targets, addresses, ttl: ttl.min(least) })
            }
            Err(error) => Said::Failed(error),
        }
    }

    /// The addresses of all `hosts`, and for how long they hold: those that the message brings along, and
    /// what it lacks asked for.
    async fn addresses(
        &self,
        dns: &Dns,
        mut hosts: Vec<String>,
        message: &Message,
    ) -> Result<(BTreeMap<String, Looked>, Duration), String> {
        hosts.sort_unstable();
        hosts.dedup();
        let mut waiting = hosts.into_iter();
        let mut asking = JoinSet::new();
        let mut all = BTreeMap::new();
        let (mut count, mut ttl) = (0, Duration::MAX);
        loop {
            while asking.len() < MOST_AT_ONCE
                && let Some(host) = waiting.next()
            {
                let name = full_name(&host)?;
                let known = brought_along(message, &name);
                asking.spawn(complete(dns.clone(), host, name, known, self.form.family));
            }
            let Some(joined) = asking.join_next().await else { return Ok((all, ttl)) };
            // A panic, which the runtime logs.
            let (host, looked, lifetime) = joined.map_err(|_| "no answer".to_owned())?;
            if let Said::These(addresses) = &looked.said {
                count += addresses.len();
            }
            if count > self.most {
                return Err(format!(
                    "its targets have more addresses than the {} that `max_endpoints` allows",
                    self.most
                ));
            }
            ttl = ttl.min(lifetime);
            all.insert(host, looked);
        }
    }

    fn tell(&self, host: &str, edge: Edge) {
        let (name, service) = (&self.upstream, self.config.name.as_str());
        match edge {
            Edge::Back(after) => log::info!(
                "upstreams.{name}: {host}, target of {service}, is resolved again, after {}s",
                after.as_secs()
            ),
            Edge::Lost(error) => log::warn!(
                "upstreams.{name}: cannot resolve {host}, target of {service}: {error}; keeping the \
                 addresses known so far"
            ),
            Edge::Emptied => log::warn!(
                "upstreams.{name}: {host}, target of {service}, has had no address for {:?}; giving up \
                 those known so far",
                self.empty_after
            ),
        }
    }
}

impl Asked for SrvSource {
    async fn next(&mut self) -> Said<Vec<Listed>> {
        if let Some(pause) = self.pause {
            tokio::time::sleep(pause).await;
        }
        self.ask().await
    }
}

/// Asks for the addresses of `name` that are not `known`, in the families that are used.
async fn complete(
    dns: Dns,
    host: String,
    name: Name,
    known: (Vec<IpAddr>, Duration),
    family: IpFamily,
) -> (String, Looked, Duration) {
    let (mut addresses, mut ttl) = known;
    let has = |all: &[IpAddr], kind| match kind {
        RecordType::AAAA => all.iter().any(IpAddr::is_ipv6),
        _ => all.iter().any(IpAddr::is_ipv4),
    };
    let kinds = match family {
        IpFamily::PreferIpv4 => [RecordType::A, RecordType::AAAA],
        IpFamily::PreferIpv6 | IpFamily::Both => [RecordType::AAAA, RecordType::A],
    };
    let (mut nothing, mut failure, mut failed) = (None, None, None);
    for kind in kinds {
        let is_enough = match family {
            IpFamily::PreferIpv4 | IpFamily::PreferIpv6 => has(&addresses, kinds[0]),
            IpFamily::Both => has(&addresses, kind),
        };
        if is_enough {
            continue;
        }
        match dns.look_up(name.clone(), kind, address).await {
            Said::These(answer) => {
                addresses.extend(answer.records);
                ttl = ttl.min(answer.ttl);
            }
            Said::Nothing(words) => nothing = Some(words),
            Said::Failed(words) => {
                failed = Some(kind == RecordType::AAAA);
                failure = Some(words);
            }
        }
    }
    let said = match (addresses.is_empty(), failure) {
        (false, _) => Said::These(addresses),
        (true, Some(words)) => Said::Failed(words),
        (true, None) => Said::Nothing(nothing.unwrap_or_else(|| "no address".to_owned())),
    };
    (host, Looked { said, failed }, ttl)
}

fn full_name(text: &str) -> Result<Name, String> {
    Name::from_ascii(format!("{text}.")).map_err(|error| format!("{text}: {error}"))
}
