//! Asks Eureka for the instances of an application, again and again.
//!
//! Of several servers the one is asked that answered last. The next ones are asked if it does not answer, and
//! also if it knows of no instance: it may just have been started. So an empty answer is accepted only if
//! all of them give it; and a 404 counts as one only from a server that otherwise answers as Eureka does: a
//! proxy before it, or a wrong path, has a 404 for everything.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Client, StatusCode};

use super::backoff::Backoff;
use super::http::{Answer, Failure, Http};
use super::{Asked, Unusable};
use crate::upstream::Upstream;
use crate::upstream::config::Listed;
use crate::upstream::discovery::config::{Eureka, EurekaServer};
use crate::upstream::discovery::eureka::{is_registry, read};
use crate::upstream::discovery::instance::Terms;
use crate::upstream::discovery::known::Said;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of one application.
pub(super) struct EurekaSource {
    config: Arc<Eureka>,
    terms: Terms,
    http: Http,
    /// The server that answered last.
    current: usize,
    backoff: Backoff,
    /// How long to wait before the next question; `None` before the first one.
    pause: Option<Duration>,
    unusable: Unusable,
}

impl EurekaSource {
    pub(super) fn new(config: &Eureka, upstream: &Upstream) -> Self {
        let is_tls = config.address.iter().any(|server| server.url.tls);
        EurekaSource {
            config: Arc::new(config.clone()),
            terms: Terms::of(upstream.config()),
            http: Http::new("Eureka", config.ca.as_ref(), is_tls),
            current: 0,
            backoff: Backoff::default(),
            pause: None,
            unusable: Unusable::new(&upstream.name, config.words()),
        }
    }

    /// The answer of the first server that knows instances; an empty one if no server knows any.
    async fn ask(&mut self) -> Result<Said<Vec<Listed>>, Failure> {
        let client = self.http.client().await?;
        let config = self.config.clone();
        let servers = config.address.len();
        let (mut nothing, mut failures, mut wait) = (None, Vec::new(), Duration::ZERO);
        for turn in 0..servers {
            let at = (self.current + turn) % servers;
            let server = &config.address[at];
            match self.ask_server(&client, server).await {
                Ok(Said::These(these)) => {
                    self.current = at;
                    return Ok(Said::These(these));
                }
                Ok(Said::Nothing(words)) => nothing = nothing.or(Some(words)),
                Ok(Said::Failed(why)) => failures.push(why),
                Err(failure) => {
                    wait = wait.max(failure.wait);
                    failures.push(match servers {
                        1 => failure.why,
                        _ => format!("{}: {}", server.url, failure.why),
                    });
                }
            }
        }
        match nothing.filter(|_| failures.is_empty()) {
            Some(words) => Ok(Said::Nothing(words)),
            // Those that are away may know instances.
            None => Err(Failure { why: failures.join("; "), wait }),
        }
    }

    /// Whether it lists applications, as Eureka does even if there is none.
    async fn is_eureka(&self, client: &Client, server: &EurekaServer) -> Result<bool, Failure> {
        let answer = self.answer(client, server, "apps").await?;
        match answer.status {
            StatusCode::OK => Ok(tokio::task::spawn_blocking(move || is_registry(&answer.body))
                .await
                .unwrap_or(false)),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.http.refusal(&answer)),
        }
    }

    async fn answer(
        &self,
        client: &Client,
        server: &EurekaServer,
        path: &str,
    ) -> Result<Answer, Failure> {
        let mut request = client.get(format!("{}/{path}", server.url));
        if let Some(login) = &server.login {
            request = request.basic_auth(&login.user, Some(login.password.expose()));
        }
        let json = HeaderValue::from_static("application/json");
        let request = request.header(ACCEPT, json).build();
        let request = request.map_err(|error| format!("address: {}", error.without_url()))?;
        self.http.ask(client, request, TIMEOUT).await
    }

    async fn ask_server(
        &mut self,
        client: &Client,
        server: &EurekaServer,
    ) -> Result<Said<Vec<Listed>>, Failure> {
        let application = self.config.application();
        let name = utf8_percent_encode(&application, NON_ALPHANUMERIC);
        let answer = self.answer(client, server, &format!("apps/{name}")).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                let refusal = self.http.refusal(&answer);
                return match self.is_eureka(client, server).await? {
                    true => Ok(Said::Nothing("Eureka does not know this application".to_owned())),
                    false => Err(Failure {
                        why: format!("{}, also when asked for all applications", refusal.why),
                        ..refusal
                    }),
                };
            }
            _ => return Err(self.http.refusal(&answer)),
        }
        let (config, terms, body) = (self.config.clone(), self.terms.clone(), answer.body);
        // A large one takes a while.
        let read = move || read(&body, &config, &terms);
        let found = tokio::task::spawn_blocking(read).await;
        // A panic, which the runtime logs.
        let found = found.map_err(|_| "the answer cannot be read".to_owned())?;
        self.unusable.tell(found.unusable);
        match found.said {
            Said::Failed(why) => Err(why.into()),
            said => Ok(said),
        }
    }
}

impl Asked for EurekaSource {
    async fn next(&mut self) -> Said<Vec<Listed>> {
        if let Some(pause) = self.pause {
            tokio::time::sleep(pause).await;
        }
        let every = *self.config.every;
        match self.ask().await {
            Ok(said) => {
                self.backoff.reset();
                // Of those that were started at once, not all ask at once.
                self.pause = Some(every.mul_f64(1.0 - 0.1 * fastrand::f64()));
                said
            }
            Err(Failure { why, wait }) => {
                self.pause = Some(self.backoff.pause(wait));
                Said::Failed(why)
            }
        }
    }
}
