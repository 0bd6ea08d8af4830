//! Asks the services of `auth` over HTTP: authorization servers about tokens, and services of forward auth
//! about requests.
//!
//! Requests with the same credentials ask once: the first asks, the others wait for its answer.
//! `policy::auth` decides what is remembered and what an answer means.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::Client;
use tokio::sync::Semaphore;

use crate::condition::Condition;
use crate::policy::auth::{
    Answer, Denial, Digest, Forwarder, Identity, Inquiry, Introspector, Now, ServiceUrl, Waited,
};
use crate::runtime::fetch::{self, Unread};
use crate::time::{Clock, Moment};

/// Limit on an answer about a token. Answers about requests have bodies for people, which are not used.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// How much of an unused body is read, so that its connection can be used again.
const MAX_UNUSED_BYTES: usize = 64 * 1024;
/// How long it may take.
const MAX_UNUSED_TIME: Duration = Duration::from_millis(50);
/// How long a connection is kept for later questions: Node closes them after 5 s, and a question that is
/// sent in that moment is lost.
const IDLE_TIME: Duration = Duration::from_secs(4);
/// The most connections that are kept for later questions.
const IDLE_CONNECTIONS: usize = 32;

/// The service of one entry of `auth`.
pub struct Service {
    authority: Arc<str>,
    url: ServiceUrl,
    client: Client,
    slots: Semaphore,
    most: usize,
    /// Held for a few loads and stores, never across an await.
    failing: Mutex<Failing>,
    passed: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    remembered: AtomicU64,
}

#[derive(Default)]
struct Failing {
    condition: Condition,
    last_error: Option<Arc<str>>,
}

/// How questions to a service have ended, since it was configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// It let the request pass.
    pub passed: u64,
    /// It did not.
    pub refused: u64,
    /// It did not answer, or with nonsense.
    pub failed: u64,
    /// It was not asked, because it had been.
    pub remembered: u64,
    /// Questions under way.
    pub in_flight: usize,
    /// Why the last question failed; `None` if it did not.
    pub last_error: Option<Arc<str>>,
}

/// One question.
pub enum Question<'a> {
    /// About a token.
    Token {
        /// Whose.
        by: &'a Introspector,
        /// The body.
        form: String,
    },
    /// About a request.
    Request {
        /// Whose.
        by: &'a Forwarder,
        /// Its header fields.
        headers: HeaderMap,
    },
}

impl<'a> Question<'a> {
    /// Whether a token is active.
    pub fn of_token(by: &'a Introspector, token: &str) -> Self {
        Question::Token { by, form: by.form(token) }
    }

    /// Whether a request may pass, with the header fields that tell of it.
    pub fn of_request(by: &'a Forwarder, headers: HeaderMap) -> Self {
        Question::Request { by, headers }
    }
}

impl Service {
    /// # Errors
    /// No HTTP client can be built, for example on a system without root certificates.
    pub fn new(inquiry: &Inquiry) -> Result<Self, reqwest::Error> {
        let url = match inquiry {
            Inquiry::Introspection(introspector) => &introspector.config.url,
            Inquiry::Forward(forwarder) => &forwarder.config.url,
        };
        let builder =
            fetch::builder().pool_max_idle_per_host(IDLE_CONNECTIONS).pool_idle_timeout(IDLE_TIME);
        // Without TLS, the client must also work on a system without root certificates.
        let builder = if url.is_encrypted() { builder } else { builder.tls_certs_only([]) };
        let most = inquiry.max_in_flight().min(Semaphore::MAX_PERMITS);
        Ok(Service {
            authority: inquiry.authority().clone(),
            url: url.clone(),
            client: builder.build()?,
            slots: Semaphore::new(most),
            most,
            failing: Mutex::default(),
            passed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            remembered: AtomicU64::new(0),
        })
    }

    /// The state now.
    pub fn status(&self) -> Status {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Status {
            passed: count(&self.passed),
            refused: count(&self.refused),
            failed: count(&self.failed),
            remembered: count(&self.remembered),
            in_flight: self.most - self.slots.available_permits(),
            last_error: self.failing().last_error.clone(),
        }
    }

    /// What is remembered of the credentials under `key`, or what the service says now. Waits, for its
    /// turn, for a free slot and for the answer, at most the authority's `timeout` and `left` in all.
    ///
    /// # Errors
    /// The request may not pass, or that is not known.
    pub async fn answer<'a>(
        &self,
        inquiry: &Inquiry,
        key: Option<Digest>,
        now: Now,
        left: Duration,
        question: impl Fn() -> Question<'a>,
    ) -> Result<Arc<Identity>, Denial> {
        if let Some(known) = key.and_then(|key| inquiry.recall(&key, now)) {
            self.remembered.fetch_add(1, Ordering::Relaxed);
            return known;
        }
        let limit = inquiry.timeout().min(left);
        let sent = AtomicBool::new(false);
        let answered = self.answer_in_turn(inquiry, key, now, question, &sent);
        if let Ok(answer) = tokio::time::timeout(limit, answered).await {
            return answer;
        }
        let within = humantime::format_duration(limit);
        if left < inquiry.timeout() {
            // A client in a hurry says nothing about the service.
            return Err(inquiry.unanswered("the request's deadline came before an answer"));
        }
        if sent.into_inner() {
            let why = format!("{} has not answered within {within}", self.url);
            return Err(self.note_failure(inquiry, why));
        }
        let most = self.most;
        Err(inquiry.unanswered(format!(
            "no turn to ask came within {within}: another request asks about the same, or \
             {most} questions are under way"
        )))
    }

    async fn answer_in_turn<'a>(
        &self,
        inquiry: &Inquiry,
        key: Option<Digest>,
        now: Now,
        question: impl Fn() -> Question<'a>,
        sent: &AtomicBool,
    ) -> Result<Arc<Identity>, Denial> {
        let Some(key) = key else { return self.ask(inquiry, question(), now, sent).await.verdict };
        let turn = match inquiry.turn(&key, now).await {
            Waited::Turn(turn) => Some(turn),
            Waited::Passed(identity) => {
                self.remembered.fetch_add(1, Ordering::Relaxed);
                return Ok(identity);
            }
            Waited::Each => None,
        };
        // Another request may have been refused meanwhile.
        if let Some(known) = inquiry.recall(&key, later(now)) {
            self.remembered.fetch_add(1, Ordering::Relaxed);
            return known;
        }
        let Answer { verdict, may_be_kept } = self.ask(inquiry, question(), now, sent).await;
        if let Some(turn) = turn {
            inquiry.keep(key, turn, &verdict, may_be_kept, later(now));
        }
        verdict
    }

    async fn ask(
        &self,
        inquiry: &Inquiry,
        question: Question<'_>,
        now: Now,
        sent: &AtomicBool,
    ) -> Answer {
        // Never closed.
        let _slot = self.slots.acquire().await;
        sent.store(true, Ordering::Relaxed);
        let answer = match question {
            Question::Token { by, form } => self.ask_of_token(inquiry, by, form, now).await,
            Question::Request { by, headers } => self.ask_of_request(inquiry, by, headers).await,
        };
        match &answer.verdict {
            Err(Denial::Unanswered { why, .. }) => self.note(why.clone()),
            verdict => {
                let counter = if verdict.is_ok() { &self.passed } else { &self.refused };
                counter.fetch_add(1, Ordering::Relaxed);
                self.note_success();
            }
        }
        answer
    }

    async fn ask_of_token(
        &self,
        inquiry: &Inquiry,
        by: &Introspector,
        form: String,
        now: Now,
    ) -> Answer {
        let json = HeaderValue::from_static("application/json");
        let content = HeaderValue::from_static("application/x-www-form-urlencoded");
        let mut request = self.client.post(self.url.expose()).body(form);
        request = request.header(CONTENT_TYPE, content).header(ACCEPT, json);
        if let Some(authorization) = by.authorization() {
            request = request.header(http::header::AUTHORIZATION, authorization);
        }
        let document = async {
            let response = request.send().await.map_err(|error| self.transport(error))?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    let status = response.status().as_u16();
                    let hint = "check client_id and client_secret, or token";
                    return Err(format!("{} refuses the gateway ({status}): {hint}", self.url));
                }
                status => return Err(format!("{} has answered {}", self.url, status.as_u16())),
            }
            fetch::body(response, MAX_ANSWER_BYTES).await.map_err(|unread| match unread {
                Unread::TooLarge => {
                    format!("the answer of {} exceeds {MAX_ANSWER_BYTES} bytes", self.url)
                }
                Unread::Transport(error) => self.transport(error),
            })
        };
        let verdict = match document.await {
            Ok(document) => by.judge(&document, later(now).unix_seconds).map(Arc::new),
            Err(why) => Err(inquiry.unanswered(why)),
        };
        Answer { verdict, may_be_kept: true }
    }

    async fn ask_of_request(
        &self,
        inquiry: &Inquiry,
        by: &Forwarder,
        headers: HeaderMap,
    ) -> Answer {
        let sent = self.client.get(self.url.expose()).headers(headers).send().await;
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                let verdict = Err(inquiry.unanswered(self.transport(error)));
                return Answer { verdict, may_be_kept: false };
            }
        };
        let answer = by.judge(response.status(), response.headers());
        // Dropped unread, the connection could not be used again. The verdict does not wait for long.
        let unused = fetch::body(response, MAX_UNUSED_BYTES);
        let _ = tokio::time::timeout(MAX_UNUSED_TIME, unused).await;
        answer
    }

    /// Without the URL that the error would print, whose query may have a token.
    fn transport(&self, error: reqwest::Error) -> String {
        let what = if error.is_connect() { "cannot be reached" } else { "does not answer" };
        format!("{} {what}: {}", self.url, fetch::chain(&error.without_url()))
    }

    fn note_failure(&self, inquiry: &Inquiry, why: String) -> Denial {
        let denial = inquiry.unanswered(why);
        if let Denial::Unanswered { why, .. } = &denial {
            self.note(why.clone());
        }
        denial
    }

    /// Warns when questions begin to fail, not every time.
    fn note(&self, why: Arc<str>) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut failing = self.failing();
        let begins = failing.condition.met(Clock::now());
        failing.last_error = Some(why.clone());
        drop(failing);
        if begins {
            log::warn!(
                "auth.{}: {why}; requests that need its answer get 503 until it answers",
                self.authority
            );
        }
    }

    fn note_success(&self) {
        let mut failing = self.failing();
        let over = failing.condition.over(Clock::now());
        failing.last_error = None;
        drop(failing);
        if let Some(over) = over {
            log::info!("auth.{}: {} answers again {over}", self.authority, self.url);
        }
    }

    fn failing(&self) -> MutexGuard<'_, Failing> {
        // Every write leaves the state consistent, even if a panic comes between two.
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both clocks after a wait that began at `before`.
fn later(before: Now) -> Now {
    let moment: Moment = Clock::now();
    let waited = moment.since(before.moment).as_secs();
    Now { unix_seconds: before.unix_seconds + waited, moment }
}
