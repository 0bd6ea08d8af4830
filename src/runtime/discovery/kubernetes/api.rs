//! Requests to the API server, and what may come back.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::account::Account;
use super::changes::Changes;
use crate::runtime::fetch::{self, Unread};
use crate::upstream::discovery::config::Kubernetes;
use crate::upstream::discovery::kubernetes::{Slices, Trouble};

/// Limit on a list: 100,000 endpoints take about 40 MiB.
const LARGEST_LIST: usize = 64 * 1024 * 1024;
/// Limit on what is read of an error.
const LARGEST_ERROR: usize = 64 * 1024;
/// Characters that are shown of it.
const LONGEST_MESSAGE: usize = 400;
/// How long a response may take, that of a watch up to its head.
const TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Slices in a page of a list.
const PAGE: usize = 500;
/// The most pages.
const MOST_PAGES: usize = 1000;

/// Why a request brought nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server no longer knows the version.
    TooOld,
    Failed {
        why: String,
        /// How long the server wants to be left alone.
        wait: Option<Duration>,
        /// It answered with something unusable, so all is listed anew.
        is_nonsense: bool,
    },
}

/// The slices of one service at the API server.
pub(super) struct Api {
    client: reqwest::Client,
    account: Account,
    /// Their address, up to the parameters that each request adds.
    slices: String,
}

impl Api {
    /// Reads anew what may have changed: authorities come and go as tokens do.
    ///
    /// # Errors
    /// It is not known where the server is, or what its certificate must be signed by.
    pub(super) async fn new(config: &Kubernetes) -> Result<Self, Failure> {
        let account = Account::read(config).await.map_err(Failure::of)?;
        let client = client(&account).await.map_err(Failure::of)?;
        let (base, namespace, service) = (&account.server, &account.namespace, &config.service);
        let label = encoded("kubernetes.io/service-name=");
        let slices = format!(
            "{base}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector={label}{service}"
        );
        Ok(Api { client, account, slices })
    }

    /// All slices, as of one version.
    ///
    /// # Errors
    /// The server could not be asked, or answered something else.
    pub(super) async fn list(&self) -> Result<Slices, Failure> {
        let mut slices = Slices::default();
        let mut next: Option<String> = None;
        let mut left = LARGEST_LIST;
        for _ in 0..MOST_PAGES {
            let from = next.map(|next| format!("&continue={}", encoded(&next))).unwrap_or_default();
            let page = async {
                let response = self.get(&format!("&limit={PAGE}{from}")).await?;
                body(response, left).await
            };
            let page = within(TIMEOUT, page).await?;
            left -= page.len();
            // 50,000 endpoints take 70 ms, in which nothing else would go on beside them.
            let taken = tokio::task::spawn_blocking(move || {
                let taken = slices.take_page(&page);
                (slices, taken)
            });
            let (filled, taken) = taken
                .await
                // A panic, which the runtime logs.
                .map_err(|_| Failure::nonsense("the list cannot be read".to_owned()))?;
            (slices, next) = (filled, taken?);
            if next.is_none() {
                return Ok(slices);
            }
        }
        Err(Failure::nonsense(format!("the list has more than {MOST_PAGES} pages")))
    }

    /// What has changed after `version`, and what changes from now on, for about `time`.
    ///
    /// # Errors
    /// The server could not be asked, or does not know the version any more.
    pub(super) async fn watch(&self, version: &str, time: Duration) -> Result<Changes, Failure> {
        // Of those who were all cut off at once, not all come back at once.
        let seconds = time.mul_f64(1.0 - 0.1 * fastrand::f64()).as_secs().max(1);
        let version = encoded(version);
        let query = format!(
            "&watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}"
        );
        let response = within(TIMEOUT, self.get(&query)).await?;
        Ok(Changes::new(response, time))
    }

    /// A response with status 200.
    async fn get(&self, query: &str) -> Result<Response, Failure> {
        let token = self.account.token().await.map_err(Failure::of)?;
        let response = self.send(query, token.clone()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return checked(response).await;
        }
        // It may have been exchanged a moment ago.
        let newer = self.account.token().await.map_err(Failure::of)?;
        match newer == token {
            true => checked(response).await,
            false => checked(self.send(query, newer).await?).await,
        }
    }

    async fn send(&self, query: &str, token: Option<HeaderValue>) -> Result<Response, Failure> {
        let mut request = self.client.get(format!("{}{query}", self.slices));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        request.send().await.map_err(unanswered)
    }
}

impl Failure {
    fn of(why: String) -> Self {
        Failure::Failed { why, wait: None, is_nonsense: false }
    }

    pub(super) fn nonsense(why: String) -> Self {
        Failure::Failed { why, wait: None, is_nonsense: true }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::TooOld => Failure::TooOld,
            Trouble::Wrong(why) => Failure::nonsense(shown(&why)),
        }
    }
}

async fn within<T>(
    time: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let late = |_| Failure::of(format!("no answer within {} s", time.as_secs()));
    tokio::time::timeout(time, work).await.map_err(late)?
}

async fn checked(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    match status {
        StatusCode::OK => return Ok(response),
        StatusCode::GONE => return Err(Failure::TooOld),
        _ => {}
    }
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let wait = seconds.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let text = body(response, LARGEST_ERROR).await.unwrap_or_default();
    let said = serde_json::from_slice::<serde_json::Value>(&text).ok();
    let message = said.as_ref().and_then(|said| said["message"].as_str()).unwrap_or_default();
    let colon = if message.is_empty() { "" } else { ": " };
    let why = format!("the API server answers {}{colon}{}", status.as_u16(), shown(message));
    Err(Failure::Failed { why, wait, is_nonsense: false })
}

/// A text of the API server, cut and without control characters, for a line of the log.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE).collect()
}

async fn body(response: Response, most: usize) -> Result<Vec<u8>, Failure> {
    fetch::body(response, most).await.map_err(|unread| match unread {
        Unread::TooLarge => Failure::nonsense(format!("the answer is larger than {most} bytes")),
        Unread::Transport(error) => unanswered(error),
    })
}

async fn client(account: &Account) -> Result<reqwest::Client, String> {
    let builder = fetch::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .tls_certs_only(account.authorities().await?);
    builder.build().map_err(|error| error.to_string())
}

fn unanswered(error: reqwest::Error) -> Failure {
    let why = fetch::chain(&error.without_url());
    Failure::of(format!("the API server cannot be asked: {why}"))
}

fn encoded(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}
