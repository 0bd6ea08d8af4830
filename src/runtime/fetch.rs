//! What this process asks others for over HTTP for its own needs: keys of issuers, endpoints of
//! registries. The common part: a client that goes where it is told and nowhere else, and a body that is
//! read up to a limit.

use std::error::Error;

use reqwest::{ClientBuilder, Response};

/// Why a body was not read to its end.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is larger than allowed.
    TooLarge,
    /// The connection failed.
    Transport(reqwest::Error),
}

/// A client of HTTP/1.1 that follows no redirect, and uses no proxy that an environment variable names:
/// secrets go to the configured server only, and answers come from it.
pub(super) fn builder() -> ClientBuilder {
    // Building a client panics if no provider is installed. If another one is installed already,
    // that is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .no_proxy()
}

/// The body, of at most `most` bytes.
///
/// # Errors
/// It is larger, or does not come to its end.
pub(super) async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Unread::Transport)? {
        if body.len() + chunk.len() > most {
            return Err(Unread::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The error with its causes: the outermost one seldom says what to do.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
