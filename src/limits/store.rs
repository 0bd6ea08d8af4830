//! An entry of `rate_limit_stores`: the script, and a server that runs it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::{Client, RedisError, TlsCertificates};
use tokio::task::JoinHandle;

use super::link::Link;
use crate::files::pem;
use crate::files::text::unmarked;
use crate::limits::call::Call;
use crate::observe::metrics::StoreMetrics;
use crate::policy::rate_limit;
use crate::policy::rate_limit::RedisUrl;
use crate::time::Clock;
use crate::units::reason;

/// One server. Dropping it closes its connection.
pub struct Store {
    config: rate_limit::Redis,
    /// The content of `config.ca`: another one can be under the same path later.
    authorities: Option<Vec<u8>>,
    link: Arc<Link>,
    metrics: StoreMetrics,
    /// Set once the configuration is in force: one that is only checked does not connect.
    task: OnceLock<JoinHandle<()>>,
}

/// Why no store can be made.
#[derive(Debug)]
pub struct Unusable {
    /// The key below `redis` that is wrong.
    pub key: &'static str,
    /// In lower case, without a full stop.
    pub message: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl Store {
    /// The store that `config` describes; `None` if it has no URL. Does not connect before
    /// [`Store::start`].
    ///
    /// # Errors
    /// The file of authorities cannot be read, or does not fit the URL.
    pub fn try_new(
        name: &str,
        config: &rate_limit::Redis,
        metrics: StoreMetrics,
    ) -> Result<Option<Self>, Unusable> {
        let Some(url) = &config.url else { return Ok(None) };
        let authorities = authorities(config)?;
        let client = client(url, config, authorities.clone())?;
        let name = format!("rate_limit_stores.{name}: {url}");
        let link = Arc::new(Link::new(name, client, *config.timeout, probe(&config.prefix)));
        Ok(Some(Store {
            config: config.clone(),
            authorities,
            link,
            metrics,
            task: OnceLock::new(),
        }))
    }

    /// Starts to connect, unless it has already. Must be called within a Tokio runtime.
    pub fn start(&self) {
        self.task.get_or_init(|| tokio::spawn(self.link.clone().supervise()));
    }

    /// Whether `config` describes this store, down to the content of its file of authorities. If so, a
    /// reload keeps it.
    pub fn is_as(&self, config: &rate_limit::Redis) -> bool {
        // A file that cannot be read is a mistake, which `try_new` reports.
        self.config == *config && authorities(config).is_ok_and(|now| now == self.authorities)
    }

    /// Whether requests use it at the moment.
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Why requests do not use it; `None` if they do, or if it has not been reached yet.
    pub fn error(&self) -> Option<String> {
        self.link.error()
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.config.prefix
    }

    /// The script's reply; `None` if the server is down. If that is known already, `call` is not
    /// even built.
    pub(crate) async fn ask(
        &self,
        call: impl FnOnce() -> Call,
        at_most: Duration,
    ) -> Option<Vec<u64>> {
        if !self.link.is_up() {
            self.metrics.fallback.inc();
            return None;
        }
        let asked = Clock::now();
        let answer = self.link.ask(&call(), at_most).await;
        self.metrics.duration.observe(Clock::now().since(asked).as_secs_f64());
        match &answer {
            Some(_) => self.metrics.shared.inc(),
            None => self.metrics.fallback.inc(),
        }
        answer
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// Proves that a server is healthy: it runs the script, and it may write.
fn probe(prefix: &str) -> Call {
    let arguments = ["1", "token_bucket", "1", "1", "1", "1000"].map(str::to_owned);
    Call { keys: vec![format!("{prefix}:probe")], arguments: arguments.into() }
}

/// The content of the file of authorities, without a byte order mark. The driver would take one without a certificate, and then trust
/// no server.
fn authorities(config: &rate_limit::Redis) -> Result<Option<Vec<u8>>, Unusable> {
    let Some(path) = &config.ca else { return Ok(None) };
    let file = path.display();
    let unusable = |message| Unusable {
        key: "ca",
        message,
        remedy: "name a PEM file of certificates that the gateway may read; its path is relative to the \
                 directory that the gateway is started in",
    };
    let content = std::fs::read(path).map_err(|error| {
        unusable(format!("the file `{file}` cannot be read: {}", reason(&error)))
    })?;
    match pem::certificates(&content) {
        // The driver parses it once more, and does not skip a byte order mark.
        Ok(_) => Ok(Some(unmarked(&content).to_vec())),
        Err(error) => Err(unusable(format!("the file `{file}` {error}"))),
    }
}

fn client(
    url: &RedisUrl,
    config: &rate_limit::Redis,
    authorities: Option<Vec<u8>>,
) -> Result<Client, Unusable> {
    // Requests of many clients share the connection, so none must wait for the reply to another.
    let nodelay = redis::io::tcp::TcpSettings::default().set_nodelay(true);
    let unusable = |error: RedisError| Unusable {
        key: "url",
        message: error.to_string(),
        remedy: "write it as in redis://user:password@host:6379/0, or rediss:// for TLS",
    };
    let info = url.parsed().map_err(unusable)?.set_tcp_settings(nodelay);
    let Some(path) = &config.ca else { return Client::open(info).map_err(unusable) };
    if !url.is_encrypted() {
        return Err(Unusable {
            key: "ca",
            message: "`url` begins with redis://, without TLS: there is no certificate to verify"
                .to_owned(),
            remedy: "write rediss:// in `url` if the server has TLS, or remove `ca`",
        });
    }
    let certificates = TlsCertificates { client_tls: None, root_cert: authorities };
    let unusable = |error: RedisError| Unusable {
        key: "ca",
        message: format!("the file `{}`: {error}", path.display()),
        remedy: "name a PEM file of certificates",
    };
    Client::build_with_tls(info, certificates).map_err(unusable)
}
