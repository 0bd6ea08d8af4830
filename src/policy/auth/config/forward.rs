//! `forward:`: an HTTP service that is asked about each request.

use std::num::NonZeroU32;

use http::HeaderName;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, RANGE, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use super::ServiceUrl;
use super::asked::{in_flight, name, names, two_seconds};
use crate::units::Timespan;

/// Header fields that belong to one message or connection, and cannot come from another.
const OF_MESSAGES: [HeaderName; 8] =
    [CONNECTION, CONTENT_LENGTH, HOST, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// Fields that are about the client's message or connection, or that would make the service answer with
/// something other than its verdict.
const NEVER_SENT: [HeaderName; 18] = [
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    RANGE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// An HTTP service that is asked about each request: a status of 2xx lets it pass.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "WrittenForward")]
#[serde(try_from = "WrittenForward")]
pub struct Forward {
    /// Where it is asked, by GET.
    pub url: ServiceUrl,
    /// The request's header fields that the service gets; `None`: all but those of the message.
    pub request_headers: Option<Vec<HeaderName>>,
    /// The service's header fields that the upstream gets. Those of the client never pass.
    pub response_headers: Vec<HeaderName>,
    /// The service's header field that names the consumer; `None`: the consumer has the authority's
    /// name.
    pub consumer_header: Option<HeaderName>,
    /// The credentials, which the upstream does not get; default `Authorization`.
    pub credentials: Vec<HeaderName>,
    /// Whether clients of plain HTTP get the service's redirects; default `true`.
    pub redirects: bool,
    /// The time limit of one question, including the connect; longer than 0, default 2 s.
    pub timeout: Timespan,
    /// The most questions under way at once; at least 1, default 128.
    pub max_in_flight: NonZeroU32,
    /// Remembers that requests may pass; `None`: each request is asked about.
    pub cache: Option<ForwardCache>,
}

/// Which requests may pass without asking again.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardCache {
    /// Two requests are alike if these header fields are, and at least one of them is present.
    pub by: Vec<HeaderName>,
    /// Whether method, scheme, host, path and query must be alike, too.
    pub per_target: bool,
    /// For how long; longer than 0.
    pub ttl: Timespan,
    /// The most that is remembered; at least 1, default 10,000.
    pub max_entries: NonZeroU32,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenForward {
    /// Where it is asked, by GET.
    url: ServiceUrl,
    /// The request's header fields that the service gets; absent: all but those of the message
    /// itself.
    request_headers: Option<Vec<String>>,
    /// The service's header fields that the upstream gets. The client's own are always removed.
    /// Default: none.
    #[serde(default)]
    response_headers: Vec<String>,
    /// The service's header field that names the consumer; absent: the consumer has the authority's
    /// name.
    consumer_header: Option<String>,
    /// The header fields with credentials, which the upstream does not get unless the route has
    /// `forward_credentials`; default `[Authorization]`.
    #[serde(default = "authorization")]
    credentials: Vec<String>,
    /// Whether clients of plain HTTP get the service's redirects, such as to a login page; `false`:
    /// they get 401. Default `true`.
    #[serde(default = "yes")]
    redirects: bool,
    /// The time limit of one question, including the connect; longer than 0, default 2 s.
    #[serde(default = "two_seconds")]
    timeout: Timespan,
    /// The most questions under way at once; further ones wait. At least 1, default 128.
    #[serde(default = "in_flight")]
    max_in_flight: NonZeroU32,
    /// Remembers that requests may pass; absent: each request is asked about.
    cache: Option<WrittenCache>,
}

/// Which requests may pass without asking again.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenCache {
    /// Two requests are alike if these header fields are. A request without any of them is always
    /// asked about.
    by: Vec<String>,
    /// Whether method, scheme, host, path and query must be alike, too; `false` only if the service
    /// does not look at them. Default `true`.
    #[serde(default = "yes")]
    per_target: bool,
    /// For how long; longer than 0. An answer with `Cache-Control: no-store` or `no-cache` is not
    /// remembered.
    ttl: Timespan,
    /// The most that is remembered; at least 1, default 10,000.
    #[serde(default = "ten_thousand")]
    max_entries: NonZeroU32,
}

impl TryFrom<WrittenForward> for Forward {
    type Error = String;

    fn try_from(written: WrittenForward) -> Result<Self, String> {
        if written.timeout.is_zero() {
            return Err("timeout must be more than 0".to_owned());
        }
        let request = written.request_headers.as_deref();
        let response_headers = names("response_headers", &written.response_headers)?;
        if let Some(own) = response_headers.iter().find(|name| OF_MESSAGES.contains(name)) {
            return Err(format!(
                "response_headers: `{own}` belongs to the service's own response: leave it out"
            ));
        }
        let cache = written.cache.map(ForwardCache::try_from).transpose()?;
        let request_headers =
            request.map(|request| names("request_headers", request)).transpose()?;
        let consumer = written.consumer_header.as_deref();
        let forward = Forward {
            url: written.url,
            request_headers,
            response_headers,
            consumer_header: consumer.map(|text| name("consumer_header", text)).transpose()?,
            credentials: names("credentials", &written.credentials)?,
            redirects: written.redirects,
            timeout: written.timeout,
            max_in_flight: written.max_in_flight,
            cache,
        };
        let mut by = forward.cache.iter().flat_map(|cache| &cache.by);
        if let Some(unsent) = by.find(|name| !forward.tells(name)) {
            return Err(format!(
                "cache.by: the service does not get `{unsent}`, so callers that differ in it would be \
                 alike: add it to request_headers, or take it out"
            ));
        }
        Ok(forward)
    }
}

impl Forward {
    /// Whether the service gets the request's field `name`. What the service itself is to say it gets only
    /// where that is a credential or chosen: it might say what it was told.
    pub fn tells(&self, name: &HeaderName) -> bool {
        let is_chosen = self.request_headers.as_ref().map(|only| only.contains(name));
        let is_its_own =
            self.response_headers.contains(name) || self.consumer_header.as_ref() == Some(name);
        let is_wanted = is_chosen.unwrap_or_else(|| !is_its_own || self.credentials.contains(name));
        is_wanted && !NEVER_SENT.contains(name)
    }
}

impl TryFrom<WrittenCache> for ForwardCache {
    type Error = String;

    fn try_from(written: WrittenCache) -> Result<Self, String> {
        if written.by.is_empty() {
            return Err(
                "cache.by: name at least one header field that tells callers apart, such as \
                        Authorization or Cookie"
                    .to_owned(),
            );
        }
        if written.ttl.is_zero() {
            return Err(
                "cache.ttl must be more than 0; without `cache`, nothing is remembered".to_owned()
            );
        }
        let by = names("cache.by", &written.by)?;
        let WrittenCache { per_target, ttl, max_entries, .. } = written;
        Ok(ForwardCache { by, per_target, ttl, max_entries })
    }
}

fn authorization() -> Vec<String> {
    vec![AUTHORIZATION.to_string()]
}

fn yes() -> bool {
    true
}

fn ten_thousand() -> NonZeroU32 {
    const ENTRIES: NonZeroU32 = NonZeroU32::new(10_000).expect("not zero");
    ENTRIES
}
