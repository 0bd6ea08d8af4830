//! One fetch of a key set: the client, the limits on what it reads, and what can go wrong.

use std::error::Error;

use crate::policy::auth::{InvalidKeys, Jwks as Config};

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
    let mut response = client.get(config.url.expose()).send().await?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if document.len() + chunk.len() > MAX_DOCUMENT_BYTES {
            return Err(FetchError::TooLarge);
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document)
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

impl FetchError {
    /// The error with its causes: the outermost one seldom says what to do.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

pub(super) fn client(config: &Config) -> Result<reqwest::Client, reqwest::Error> {
    // Building a client panics if no provider is installed. If another one is installed already,
    // that is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        // An environment variable must not be able to redirect the fetches to another source of
        // keys.
        .no_proxy()
        .timeout(*config.timeout)
        // Between two refreshes a connection would only grow stale.
        .pool_max_idle_per_host(0);
    if config.url.is_encrypted() {
        return builder.build();
    }
    // Without TLS, the client must also work on a system without root certificates.
    builder.tls_certs_only([]).build()
}
