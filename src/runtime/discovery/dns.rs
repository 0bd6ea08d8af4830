//! Asks DNS servers, for records that the system's resolver does not give, or not with their TTL.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer, RetryDnsHandle};
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};

use crate::upstream::discovery::config::Server;
use crate::upstream::discovery::known::Said;
use crate::upstream::discovery::srv::{Found, find};

/// How long a server may take to answer. Over UDP it is asked several times meanwhile.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How often the servers are asked in all, before an answer is given up.
const ATTEMPTS: usize = 2;
/// How long a question may take in all, with what is truncated asked for again over TCP.
const LIMIT: Duration = Duration::from_secs(5);
/// Names that lead to another, each of which had to be asked for.
const MOST_ALIASES: usize = 8;

/// The servers that are asked. Cheap to clone.
#[derive(Clone)]
pub(super) struct Dns {
    servers: Vec<SocketAddr>,
    pool: RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>,
}

/// Records, the message that brought them, and for how long they hold.
pub(super) struct Answer<T> {
    pub(super) records: Vec<T>,
    pub(super) message: DnsResponse,
    pub(super) ttl: Duration,
}

impl Dns {
    /// The servers that are configured, or the system's. `before` is kept if they are the same.
    ///
    /// # Errors
    /// Why the system's cannot be known.
    pub(super) async fn of(
        configured: Option<&[Server]>,
        before: Option<Dns>,
    ) -> Result<Dns, String> {
        let servers = match configured {
            Some(servers) => servers.iter().map(|server| server.0).collect(),
            // It reads a file.
            None => tokio::task::spawn_blocking(system_servers)
                .await
                .map_err(|_| "the system's DNS servers cannot be read".to_owned())??,
        };
        match before {
            Some(before) if before.servers == servers => Ok(before),
            Some(_) | None => Dns::new(servers),
        }
    }

    fn new(servers: Vec<SocketAddr>) -> Result<Dns, String> {
        let mut options = ResolverOpts::default();
        options.timeout = TIMEOUT;
        let tls = TlsConfig::new().map_err(|error| error.to_string())?;
        let context = Arc::new(PoolContext::new(options, tls));
        let each = servers.iter().map(|server| {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            config.connections.iter_mut().for_each(|way| way.port = server.port());
            config
        });
        let pool = NameServerPool::from_config(each, context, TokioRuntimeProvider::default());
        Ok(Dns { servers, pool: RetryDnsHandle::new(pool, ATTEMPTS - 1) })
    }

    /// The records of `name` that `pick` takes. An alias is followed.
    pub(super) async fn look_up<T>(
        &self,
        name: Name,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Said<Answer<T>> {
        let mut name = name;
        let mut alias_ttl = Duration::MAX;
        for _ in 0..MOST_ALIASES {
            let message = match self.ask(&name, kind).await {
                Said::These(message) => message,
                Said::Nothing(words) => return Said::Nothing(words),
                Said::Failed(words) => return Said::Failed(words),
            };
            match find(&message, &name, &pick) {
                Found::These(records, ttl) => {
                    let ttl = ttl.min(alias_ttl);
                    return Said::These(Answer { records, message, ttl });
                }
                Found::Alias(other, ttl) => (name, alias_ttl) = (other, ttl.min(alias_ttl)),
                Found::Nothing => return Said::Nothing(without(kind)),
            }
        }
        Said::Failed("it is an alias of aliases without end".to_owned())
    }

    async fn ask(&self, name: &Name, kind: RecordType) -> Said<DnsResponse> {
        let query = Query::query(name.clone(), kind);
        let answer = self.pool.lookup(query, DnsRequestOptions::default()).first_answer();
        match tokio::time::timeout(LIMIT, answer).await {
            Ok(Ok(message)) => Said::These(message),
            Ok(Err(error)) => self.judge(error, kind),
            Err(_) => self.silent(),
        }
    }

    /// What an answer without the records means.
    fn judge(&self, error: NetError, kind: RecordType) -> Said<DnsResponse> {
        match error {
            NetError::Dns(DnsError::NoRecordsFound(NoRecords {
                soa, ns, response_code, ..
            })) => {
                match response_code {
                    ResponseCode::NXDomain => Said::Nothing("the name does not exist".to_owned()),
                    // A server that knows the zone says so; this one only knows who would.
                    _ if soa.is_none() && ns.is_some() => {
                        Said::Failed("the server only refers to others".to_owned())
                    }
                    _ => Said::Nothing(without(kind)),
                }
            }
            NetError::Dns(DnsError::ResponseCode(code)) => {
                Said::Failed(format!("the server answers with an error: {}", code.to_str()))
            }
            NetError::Timeout => self.silent(),
            other => Said::Failed(other.to_string()),
        }
    }

    fn silent<T>(&self) -> Said<T> {
        let servers: Vec<_> = self.servers.iter().map(SocketAddr::to_string).collect();
        Said::Failed(format!("no answer from {}", servers.join(", ")))
    }
}

fn without(kind: RecordType) -> String {
    format!("the name has no {kind} record")
}

fn system_servers() -> Result<Vec<SocketAddr>, String> {
    let unknown = |error: NetError| format!("the system's DNS servers cannot be read: {error}");
    let (config, _) = read_system_conf().map_err(unknown)?;
    let servers = config.name_servers().iter().filter_map(|server| {
        let way = server.connections.first()?;
        Some(SocketAddr::new(server.ip, way.port))
    });
    Ok(servers.collect())
}
