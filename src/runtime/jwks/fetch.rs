//! One fetch of a key set: the client, the limits on what it reads, and what can go wrong.

use crate::policy::auth::{InvalidKeys, Jwks as Config};
use crate::runtime::fetch::{self, Unread};

/// Limit on the document; a key takes about 400 bytes.
pub(super) const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;

/// Fetches the document at the configured URL.
///
/// # Errors
/// There was no response, its status was not 200, or it is too large.
pub(super) async fn document(
    client: &reqwest::Client,
    config: &Config,
) -> Result<Vec<u8>, FetchError> {
    let response = client.get(config.url.expose()).send().await?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    Ok(fetch::body(response, MAX_DOCUMENT_BYTES).await?)
}

/// Why a fetch produced no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the request failed")]
    Transport(#[source] reqwest::Error),
    #[error("the answer was status {0}, not 200; redirects are not followed")]
    Status(u16),
    #[error("the answer is larger than {MAX_DOCUMENT_BYTES} bytes")]
    TooLarge,
    #[error(transparent)]
    Keys(#[from] InvalidKeys),
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        // The URL may have a token in its query.
        FetchError::Transport(error.without_url())
    }
}

impl From<Unread> for FetchError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::TooLarge => FetchError::TooLarge,
            Unread::Transport(error) => error.into(),
        }
    }
}

impl FetchError {
    /// The error with its causes.
    pub(super) fn chain(&self) -> String {
        fetch::chain(self)
    }
}

pub(super) fn client(config: &Config) -> Result<reqwest::Client, reqwest::Error> {
    let builder = fetch::builder()
        .timeout(*config.timeout)
        // Between two refreshes a connection would only grow stale.
        .pool_max_idle_per_host(0);
    if config.url.is_encrypted() {
        return builder.build();
    }
    // Without TLS, the client must also work on a system without root certificates.
    builder.tls_certs_only([]).build()
}
