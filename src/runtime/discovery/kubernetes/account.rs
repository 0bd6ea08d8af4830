//! What a pod is given to reach the API server: its address, a token, authorities, a namespace.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use reqwest::Certificate;
use reqwest::header::HeaderValue;

use crate::runtime::discovery::files::{authorities, text, token};
use crate::upstream::discovery::config::{Kubernetes, Label};

/// Where a pod finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The configuration, and what it leaves to the pod's environment.
pub(super) struct Account {
    /// The URL of the API server, without a slash at its end.
    pub(super) server: String,
    pub(super) namespace: Label,
    token: Option<PathBuf>,
    authorities: Option<PathBuf>,
}

impl Account {
    /// # Errors
    /// The API server or the namespace is neither configured nor to be found.
    pub(super) async fn read(config: &Kubernetes) -> Result<Self, String> {
        let (server, is_tls) = match &config.api {
            Some(url) => (url.to_string(), url.tls),
            None => (of_environment()?, true),
        };
        let namespace = match &config.namespace {
            Some(name) => name.clone(),
            None => namespace().await?,
        };
        let given = |name: &str| is_tls.then(|| Path::new(ACCOUNT).join(name));
        Ok(Account {
            server,
            namespace,
            // Without TLS all in between could read it: it is sent only if it is configured.
            token: config.token_file.clone().or_else(|| given("token")),
            authorities: given("ca.crt").map(|file| config.ca.clone().unwrap_or(file)),
        })
    }

    /// The value of `Authorization`, if there is a token.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub(super) async fn token(&self) -> Result<Option<HeaderValue>, String> {
        let Some(path) = &self.token else { return Ok(None) };
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token(path).await?))
            .map_err(|_| format!("token_file: {} holds no token", path.display()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Those that sign the API server's certificate; without TLS none.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub(super) async fn authorities(&self) -> Result<Vec<Certificate>, String> {
        let Some(path) = &self.authorities else { return Ok(Vec::new()) };
        authorities(path).await
    }
}

/// What every container of a pod has in its environment.
fn of_environment() -> Result<String, String> {
    let variable = |name: &str| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty());
        value.ok_or_else(|| format!("{name} is not set, as outside a pod: say where the `api` is"))
    };
    let host = variable("KUBERNETES_SERVICE_HOST")?;
    let port = variable("KUBERNETES_SERVICE_PORT")?;
    Ok(match host.parse::<Ipv6Addr>() {
        Ok(ip) => format!("https://[{ip}]:{port}"),
        Err(_) => format!("https://{host}:{port}"),
    })
}

async fn namespace() -> Result<Label, String> {
    let path = Path::new(ACCOUNT).join("namespace");
    let name = text(&path).await.map_err(|error| {
        format!("{error}, as outside a pod: say which `namespace` the service is in")
    })?;
    name.parse().map_err(|error| format!("{}: {error}", path.display()))
}
