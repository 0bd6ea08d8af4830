//! Requests to registries that answer with one document.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Request, StatusCode};

use super::files::{certificates, text};
use crate::runtime::fetch::{self, Unread};

/// Limit on an answer: with all its checks and metadata, an instance takes some KiB.
const LARGEST: usize = 64 * 1024 * 1024;
/// Limit on what is read of an error.
const LARGEST_ERROR: usize = 64 * 1024;
/// Characters that are shown of it.
const LONGEST_MESSAGE: usize = 400;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of one registry.
pub(super) struct Http {
    /// For words: `Consul`.
    who: &'static str,
    /// The authorities that its certificate is signed by; `None`: the system's.
    ca: Option<PathBuf>,
    is_tls: bool,
    /// The client, and the text of the authorities it was built from.
    built: Option<(Option<String>, Client)>,
}

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Cut, if it is an error.
    pub(super) body: Vec<u8>,
}

/// Why a question brought nothing.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) why: String,
    /// How long the server wants to be left alone.
    pub(super) wait: Duration,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Failure { why, wait: Duration::ZERO }
    }
}

impl Http {
    /// `is_tls`: whether it, or one of its servers, is asked over TLS.
    pub(super) fn new(who: &'static str, ca: Option<&PathBuf>, is_tls: bool) -> Self {
        Http { who, ca: ca.cloned(), is_tls, built: None }
    }

    /// The client. It is built anew when the authorities have changed.
    ///
    /// # Errors
    /// The authorities cannot be read.
    pub(super) async fn client(&mut self) -> Result<Client, String> {
        let pem = match &self.ca {
            Some(path) => Some(text(path).await.map_err(|error| format!("ca: {error}"))?),
            None => None,
        };
        if let Some((of, client)) = &self.built
            && *of == pem
        {
            return Ok(client.clone());
        }
        let builder = fetch::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A kept connection may be closed in the moment in which it is used again.
            .pool_max_idle_per_host(0);
        let builder = match (&self.ca, &pem) {
            (Some(path), Some(pem)) => builder.tls_certs_only(certificates(path, pem)?),
            // Without TLS, the client must also work on a system without root certificates.
            (None, _) | (_, None) if !self.is_tls => builder.tls_certs_only([]),
            (None, _) | (_, None) => builder,
        };
        let client = builder.build().map_err(|error| error.to_string())?;
        self.built = Some((pem, client.clone()));
        Ok(client)
    }

    /// The answer to a request, which must be there after `time`.
    ///
    /// # Errors
    /// There is none, or it is too large.
    pub(super) async fn ask(
        &self,
        client: &Client,
        request: Request,
        time: Duration,
    ) -> Result<Answer, Failure> {
        let who = self.who;
        let unanswered = |error: reqwest::Error| {
            format!("{who} cannot be asked: {}", fetch::chain(&error.without_url()))
        };
        let answer = async {
            let response = client.execute(request).await.map_err(unanswered)?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = match status == StatusCode::OK {
                true => fetch::body(response, LARGEST).await.map_err(|unread| match unread {
                    Unread::TooLarge => format!("{who}'s answer is larger than {LARGEST} bytes"),
                    Unread::Transport(error) => unanswered(error),
                })?,
                false => fetch::body(response, LARGEST_ERROR).await.unwrap_or_default(),
            };
            Ok(Answer { status, headers, body })
        };
        let late = |_| format!("no answer from {who} within {} s", time.as_secs());
        tokio::time::timeout(time, answer).await.map_err(late)?
    }

    /// What an answer with another status than was hoped for means.
    pub(super) fn refusal(&self, answer: &Answer) -> Failure {
        let status = answer.status;
        let text = String::from_utf8_lossy(&answer.body);
        let said = text.trim();
        // A page for people, of something in between, has no line that says more than the status.
        let said = if said.starts_with('<') { "" } else { said };
        let said: String = said.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE).collect();
        let colon = if said.is_empty() { "" } else { ": " };
        let hint = if status.is_redirection() { "; redirects are not followed" } else { "" };
        let seconds = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = seconds.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        Failure {
            why: format!("{} answers {}{hint}{colon}{said}", self.who, status.as_u16()),
            wait: wait.unwrap_or_default(),
        }
    }
}
