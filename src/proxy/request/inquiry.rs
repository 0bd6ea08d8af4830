//! What a service of forward auth is told of a request, by the names that Traefik's `forwardAuth` and NGINX's
//! `auth_request` have made common.

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_proxy::Session;

use crate::policy::auth::Forwarder;
use crate::proxy::exchange::context::Context;
use crate::proxy::request;
use crate::runtime::snapshot::Route;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Fields that are about the client's message or connection, or that would make the service answer with
/// something other than its verdict.
const OF_MESSAGE: [HeaderName; 18] = [
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
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    RANGE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A request as the service sees it.
pub struct About {
    /// Its header fields, without those that the client must not assert.
    pub headers: HeaderMap,
    method: String,
    /// The path that was routed, with the query.
    uri: String,
}

/// Describes the request.
pub fn about(session: &Session, ctx: &Context, route: &Route) -> About {
    let head = session.req_header();
    let mut headers = head.headers.clone();
    if let Some(authority) = head.uri.authority()
        && !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(HOST, host);
    }
    request::assertions::remove_forged(&mut headers, ctx, route);
    request::headers::forwarded(&mut headers, ctx);
    let mut uri = ctx.path.as_deref().unwrap_or_else(|| head.uri.path()).to_owned();
    if let Some(query) = head.uri.query() {
        uri.push('?');
        uri.push_str(query);
    }
    About { headers, method: head.method.as_str().to_owned(), uri }
}

impl About {
    /// Method, scheme, host, and path with query.
    pub fn target(&self) -> [&str; 4] {
        let field = |name| self.headers.get(name).and_then(|value| value.to_str().ok());
        let of = |name| field(name).unwrap_or_default();
        [&self.method, of(X_FORWARDED_PROTO), of(X_FORWARDED_HOST), &self.uri]
    }

    /// The header fields of the question.
    pub fn to_send(&self, forwarder: &Forwarder, ctx: &Context) -> HeaderMap {
        let named_by_connection = |name: &HeaderName| {
            let listed = self.headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok());
            let mut listed = listed.flat_map(|line| line.split(','));
            listed.any(|listed| listed.trim().eq_ignore_ascii_case(name.as_str()))
        };
        let mut sent = HeaderMap::with_capacity(self.headers.len() + 8);
        for (name, value) in &self.headers {
            let wanted = match &forwarder.config.request_headers {
                Some(only) => only.contains(name),
                None => true,
            };
            // What the service itself is to say: it might say what it was told.
            if forwarder.config.response_headers.contains(name) {
                continue;
            }
            let is_told = [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO].contains(name);
            if is_told || (wanted && !OF_MESSAGE.contains(name) && !named_by_connection(name)) {
                sent.append(name.clone(), value.clone());
            }
        }
        let [method, scheme, host, uri] = self.target();
        let url = format!("{scheme}://{host}{uri}");
        for (name, text) in [
            (X_FORWARDED_METHOD, method),
            (X_ORIGINAL_METHOD, method),
            (X_FORWARDED_URI, uri),
            (X_ORIGINAL_URI, uri),
            (X_ORIGINAL_URL, &url),
        ] {
            // A method, and a path and query that were parsed, are visible ASCII or more.
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                sent.insert(name, value);
            }
        }
        request::headers::identify_question(&mut sent, ctx);
        sent
    }
}
