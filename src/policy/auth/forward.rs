//! Requests that an HTTP service is asked about, by the conventions of Traefik's `forwardAuth` and NGINX's
//! `auth_request`.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::config::Forward;
use super::denial::{Denial, Said, Verdict};
use super::digest::Digest;
use super::identity::{Consumer, Identity, KeptClaims};
use super::memory::Memory;

/// Asks one service.
pub struct Forwarder {
    pub(super) authority: Arc<str>,
    /// As configured.
    pub config: Forward,
    /// What only the service may say of a client.
    pub(super) asserted: Box<[HeaderName]>,
    /// The consumer of services that name none.
    own: Option<(Consumer, HeaderValue)>,
    pub(super) memory: Option<Memory>,
}

/// What a service has answered.
pub struct Answer {
    /// Who may pass, or why not.
    pub verdict: Result<Arc<Identity>, Denial>,
    /// Whether it may be remembered.
    pub may_be_kept: bool,
}

impl Forwarder {
    pub(super) fn new(authority: &Arc<str>, config: &Forward) -> Self {
        let consumer: Option<Consumer> = authority.parse().ok();
        let own = consumer.and_then(|name| name.to_header().ok().map(|header| (name, header)));
        let remembered = |cache: &super::config::ForwardCache| {
            Memory::new(cache.max_entries, *cache.ttl, Duration::ZERO)
        };
        let asserted = config.response_headers.iter().chain(&config.consumer_header);
        Forwarder {
            authority: authority.clone(),
            asserted: asserted.cloned().collect(),
            own,
            memory: config.cache.as_ref().map(remembered),
            config: config.clone(),
        }
    }

    /// The key under which an answer is remembered; `None` if each such request is asked about.
    /// `target` is what was asked for: method, scheme, host, and path with query; `certificate` what is known
    /// of the client's certificate.
    pub fn key(
        &self,
        target: [&str; 4],
        certificate: &[u8],
        headers: &HeaderMap,
    ) -> Option<Digest> {
        let cache = self.config.cache.as_ref()?;
        if !cache.by.iter().any(|name| headers.contains_key(name)) {
            return None;
        }
        let mut parts: Vec<&[u8]> = Vec::with_capacity(16);
        parts.push(certificate);
        for name in &cache.by {
            parts.push(name.as_str().as_bytes());
            parts.extend(headers.get_all(name).iter().map(HeaderValue::as_bytes));
        }
        if cache.per_target {
            parts.push(b"");
            parts.extend(target.map(str::as_bytes));
        }
        Some(Digest::of(parts))
    }

    /// What follows from the service's answer.
    pub fn judge(&self, status: StatusCode, headers: &HeaderMap) -> Answer {
        let verdict = match status.as_u16() {
            200..=299 => self.identity(headers).map(Arc::new),
            401 => Err(self.said(Verdict::Unauthorized, headers)),
            403 => Err(self.said(Verdict::Forbidden, headers)),
            301 | 302 | 303 | 307 | 308 => Err(match headers.get(LOCATION) {
                Some(to) if self.config.redirects => {
                    self.said(Verdict::Redirect { status, location: to.clone() }, headers)
                }
                Some(_) => self.said(Verdict::Unauthorized, headers),
                None => self.nonsense(format!("status {status} without a Location")),
            }),
            status => Err(self.nonsense(format!(
                "status {status}: only 2xx, 401, 403 and redirects say something about a request"
            ))),
        };
        Answer { verdict, may_be_kept: !forbids_keeping(headers) }
    }

    fn identity(&self, headers: &HeaderMap) -> Result<Identity, Denial> {
        let (consumer, header) = match &self.config.consumer_header {
            None => self.own.clone().ok_or(Denial::Consumer)?,
            Some(name) => {
                let value = headers.get(name).and_then(|value| value.to_str().ok());
                let consumer: Option<Consumer> = value.and_then(|text| text.parse().ok());
                let header = consumer.as_ref().and_then(|consumer| consumer.to_header().ok());
                consumer.zip(header).ok_or_else(|| {
                    self.nonsense(format!("the response's `{name}` is missing or invalid"))
                })?
            }
        };
        let passed = self.config.response_headers.iter().flat_map(|name: &HeaderName| {
            headers.get_all(name).iter().map(|value| (name.clone(), value.clone()))
        });
        Ok(Identity {
            authority: self.authority.clone(),
            consumer,
            certified: None,
            header,
            scopes: Box::default(),
            roles: Box::default(),
            expires_at: None,
            claims: KeptClaims::default(),
            passed: passed.collect(),
        })
    }

    fn said(&self, verdict: Verdict, headers: &HeaderMap) -> Denial {
        let all = |name| headers.get_all(name).iter().cloned().collect();
        Denial::Said(Arc::new(Said {
            authority: self.authority.clone(),
            verdict,
            challenges: all(WWW_AUTHENTICATE),
            cookies: all(SET_COOKIE),
        }))
    }

    fn nonsense(&self, why: String) -> Denial {
        Denial::Unanswered { authority: self.authority.clone(), why: why.into() }
    }
}

fn forbids_keeping(headers: &HeaderMap) -> bool {
    let said = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = said.flat_map(|value| value.split(','));
    directives.any(|directive| {
        let name = directive.trim();
        name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache")
    })
}

#[cfg(test)]
mod tests;
