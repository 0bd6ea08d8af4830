//! Asks Consul for the instances of a service, by blocking queries.
//!
//! The first query is answered at once, with an index; each one after it waits on the server for a
//! change after that index, or until `wait` is over. After a failure, and when the index has become smaller,
//! one without index comes first: the server may have another history than before.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderValue;
use reqwest::{Method, Request, StatusCode};

use super::backoff::Backoff;
use super::files::token;
use super::http::{Answer, Failure, Http};
use super::{Asked, Unusable};
use crate::time::Clock;
use crate::upstream::Upstream;
use crate::upstream::config::Listed;
use crate::upstream::discovery::config::Consul;
use crate::upstream::discovery::consul::{Index, Told, read};
use crate::upstream::discovery::instance::Terms;
use crate::upstream::discovery::known::Said;
use crate::upstream::discovery::pace::Spacing;

/// How long an answer may take that waits for nothing.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of one service.
pub(super) struct ConsulSource {
    config: Arc<Consul>,
    terms: Terms,
    http: Http,
    index: Index,
    spacing: Spacing,
    backoff: Backoff,
    /// How long to wait after a failure.
    pause: Duration,
    unusable: Unusable,
}

impl ConsulSource {
    pub(super) fn new(config: &Consul, upstream: &Upstream) -> Self {
        ConsulSource {
            config: Arc::new(config.clone()),
            terms: Terms::of(upstream.config()),
            http: Http::new("Consul", config.ca.as_ref(), config.address.tls),
            index: Index::default(),
            spacing: Spacing::default(),
            backoff: Backoff::default(),
            pause: Duration::ZERO,
            unusable: Unusable::new(&upstream.name, config.words()),
        }
    }

    async fn ask(&mut self) -> Result<Said<Vec<Listed>>, Failure> {
        let answer = self.answer().await?;
        if answer.status != StatusCode::OK {
            return Err(self.http.refusal(&answer));
        }
        let header = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
        self.index.take(header("x-consul-index"))?;
        let told = Told {
            is_filtered: header("x-consul-results-filtered-by-acls") == Some("true"),
            is_leaderless: header("x-consul-knownleader") == Some("false"),
        };
        let (config, terms, body) = (self.config.clone(), self.terms.clone(), answer.body);
        // A large one takes a while.
        let read = move || read(&body, &told, &config, &terms);
        let found = tokio::task::spawn_blocking(read).await;
        // A panic, which the runtime logs.
        let found = found.map_err(|_| "the answer cannot be read".to_owned())?;
        self.unusable.tell(found.unusable);
        match found.said {
            Said::Failed(why) => Err(why.into()),
            said => Ok(said),
        }
    }

    async fn answer(&mut self) -> Result<Answer, Failure> {
        let client = self.http.client().await?;
        let token = self.token().await?;
        let answer = self.http.ask(&client, self.request(token.clone())?, self.time()).await?;
        if ![StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED].contains(&answer.status) {
            return Ok(answer);
        }
        // It may have been exchanged a moment ago.
        let newer = self.token().await?;
        match newer == token {
            true => Ok(answer),
            false => self.http.ask(&client, self.request(newer)?, self.time()).await,
        }
    }

    async fn token(&self) -> Result<Option<HeaderValue>, String> {
        let token = match (&self.config.token, &self.config.token_file) {
            (Some(token), _) => token.expose().to_owned(),
            (None, Some(path)) => token(path).await?,
            (None, None) => return Ok(None),
        };
        let value = HeaderValue::from_str(&token);
        let mut value = value.map_err(|_| "token: is not a valid header value".to_owned())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// How long an answer may take: a query waits up to a sixteenth longer than it is asked to.
    fn time(&self) -> Duration {
        let wait = self.index.number().map(|_| *self.config.wait);
        wait.map_or(TIMEOUT, |wait| wait + wait / 16 + TIMEOUT)
    }

    fn request(&self, token: Option<HeaderValue>) -> Result<Request, String> {
        let url = self.url().parse::<reqwest::Url>();
        let url = url.map_err(|error| format!("address: {error}"))?;
        let mut request = Request::new(Method::GET, url);
        if let Some(token) = token {
            request.headers_mut().insert("x-consul-token", token);
        }
        Ok(request)
    }

    fn url(&self) -> String {
        let Consul { address, service, wait, .. } = &*self.config;
        let mut url = format!("{address}/v1/health/service/{}?", encoded(service.as_str()));
        let mut add = |name: &str, value: &str| {
            let before = if url.ends_with('?') { "" } else { "&" };
            url += &format!("{before}{name}={}", encoded(value));
        };
        if self.config.passing_only {
            add("passing", "1");
        }
        if self.config.stale {
            add("stale", "1");
        }
        self.config.tags.iter().for_each(|tag| add("tag", tag.as_str()));
        for (name, value) in [
            ("filter", &self.config.filter),
            ("dc", &self.config.datacenter),
            ("ns", &self.config.namespace),
            ("partition", &self.config.partition),
        ] {
            value.iter().for_each(|value| add(name, value.as_str()));
        }
        if let Some(index) = self.index.number() {
            add("index", &index.to_string());
            add("wait", &format!("{}s", wait.as_secs()));
        }
        url
    }
}

impl Asked for ConsulSource {
    async fn next(&mut self) -> Said<Vec<Listed>> {
        let spacing = self.spacing.pause(Clock::now());
        tokio::time::sleep(self.pause.max(spacing)).await;
        match self.ask().await {
            Ok(said) => {
                self.backoff.reset();
                self.pause = Duration::ZERO;
                said
            }
            Err(Failure { why, wait }) => {
                self.index = Index::default();
                self.pause = self.backoff.pause(wait);
                Said::Failed(why)
            }
        }
    }
}

fn encoded(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}
