//! What a service of forward auth is told of a request, by the names that Traefik's `forwardAuth` and NGINX's
//! `auth_request` have made common.

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_proxy::Session;

use crate::policy::auth::Forwarder;
use crate::proxy::downstream::address::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use crate::proxy::exchange::context::Context;
use crate::proxy::request;
use crate::runtime::snapshot::Route;

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");

/// A request as the service sees it.
pub struct About {
    /// Its header fields, without those that the client must not assert.
    pub headers: HeaderMap,
    method: String,
    scheme: &'static str,
    /// The host by which the request was routed, with the port that the client named.
    host: String,
    /// The path that was routed, before the route rewrites it, with the query.
    uri: String,
}

/// Describes the request.
pub fn about(session: &Session, ctx: &Context, route: &Route) -> About {
    let head = session.req_header();
    let mut headers = head.headers.clone();
    request::assertions::remove_forged(&mut headers, ctx, route);
    request::headers::forwarded(&mut headers, ctx);
    request::headers::certified(&mut headers, ctx);
    let mut uri = ctx.recorded_path.as_deref().unwrap_or_else(|| head.uri.path()).to_owned();
    if let Some(query) = head.uri.query() {
        uri.push('?');
        uri.push_str(query);
    }
    let scheme = request::head::scheme(ctx, &head.headers).as_str();
    // It was routed by it, so it is there and valid.
    let host = request::head::host_of(head).map(|host| host.into_owned()).unwrap_or_default();
    let port = request::head::port_of(head).map(|port| format!(":{port}")).unwrap_or_default();
    About { headers, method: head.method.as_str().to_owned(), scheme, host: host + &port, uri }
}

impl About {
    /// Method, scheme, host, and path with query.
    pub fn target(&self) -> [&str; 4] {
        [&self.method, self.scheme, &self.host, &self.uri]
    }

    /// What the service is told of the client's certificate; empty if it has none.
    pub fn certificate(&self, ctx: &Context) -> &[u8] {
        let name = &ctx.snapshot.config.identifiers.client_certificate.0;
        let told = self.headers.get_all(name).iter().next_back();
        told.map(|value| value.as_bytes()).unwrap_or_default()
    }

    /// The header fields of the question.
    pub fn to_send(&self, forwarder: &Forwarder, ctx: &Context) -> HeaderMap {
        let named_by_connection = |name: &HeaderName| {
            let listed = self.headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok());
            let mut listed = listed.flat_map(|line| line.split(','));
            listed.any(|listed| listed.trim().eq_ignore_ascii_case(name.as_str()))
        };
        let names = &ctx.snapshot.config.identifiers;
        let gateways = [&names.consumer.0, &names.attempt_count.0];
        let mut sent = HeaderMap::with_capacity(self.headers.len() + 8);
        for (name, value) in &self.headers {
            if forwarder.config.tells(name)
                && !gateways.contains(&name)
                && !named_by_connection(name)
            {
                sent.append(name.clone(), value.clone());
            }
        }
        for name in [&X_FORWARDED_FOR, &names.client_certificate.0] {
            if !sent.contains_key(name) {
                let values = self.headers.get_all(name).iter();
                for value in values {
                    sent.append(name, value.clone());
                }
            }
        }
        let [method, scheme, host, uri] = self.target();
        let url = format!("{scheme}://{host}{uri}");
        for (name, text) in [
            (X_FORWARDED_METHOD, method),
            (X_ORIGINAL_METHOD, method),
            (X_FORWARDED_PROTO, scheme),
            (X_FORWARDED_HOST, host),
            (X_FORWARDED_URI, uri),
            (X_ORIGINAL_URI, uri),
            (X_ORIGINAL_URL, &url),
        ] {
            // A method, a host, and a path and query that were parsed are valid values.
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                sent.insert(name, value);
            }
        }
        request::headers::identify_question(&mut sent, ctx);
        sent
    }
}
