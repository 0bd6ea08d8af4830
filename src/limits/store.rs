//! An entry of `rate_limit_stores`: the script, and a server that runs it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::{Client, RedisError, TlsCertificates};
use tokio::task::JoinHandle;

use super::link::Link;
use crate::limits::call::Call;
use crate::observe::metrics::StoreMetrics;
use crate::policy::rate_limit;
use crate::policy::rate_limit::RedisUrl;
use crate::time::Clock;

/// One server. Dropping it closes its connection.
pub struct Store {
    config: rate_limit::Redis,
    link: Arc<Link>,
    metrics: StoreMetrics,
    /// Set once the configuration is in force: one that is only checked does not connect.
    task: OnceLock<JoinHandle<()>>,
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
    ) -> Result<Option<Self>, String> {
        let Some(url) = &config.url else { return Ok(None) };
        let client = client(url, config)?;
        let name = format!("rate_limit_stores.{name}: {url}");
        let link = Arc::new(Link::new(name, client, *config.timeout, probe(&config.prefix)));
        Ok(Some(Store { config: config.clone(), link, metrics, task: OnceLock::new() }))
    }

    /// Starts to connect, unless it has already. Must be called within a Tokio runtime.
    pub fn start(&self) {
        self.task.get_or_init(|| tokio::spawn(self.link.clone().supervise()));
    }

    /// The configuration it was made from. A reload keeps a store whose configuration is unchanged.
    pub fn config(&self) -> &rate_limit::Redis {
        &self.config
    }

    /// Whether requests use it at the moment.
    pub fn is_up(&self) -> bool {
        self.link.is_up()
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

fn client(url: &RedisUrl, config: &rate_limit::Redis) -> Result<Client, String> {
    // Requests of many clients share the connection, so none must wait for the reply to another.
    let nodelay = redis::io::tcp::TcpSettings::default().set_nodelay(true);
    let unusable = |error: RedisError| error.to_string();
    let info = url.parsed().map_err(unusable)?.set_tcp_settings(nodelay);
    let Some(path) = &config.ca else { return Client::open(info).map_err(unusable) };
    if !url.is_encrypted() {
        return Err("ca: is of use with rediss:// only".to_owned());
    }
    let file = |error: &dyn std::fmt::Display| format!("ca: {}: {error}", path.display());
    let root_cert = Some(std::fs::read(path).map_err(|error| file(&error))?);
    let certificates = TlsCertificates { client_tls: None, root_cert };
    Client::build_with_tls(info, certificates).map_err(|error| file(&error))
}
