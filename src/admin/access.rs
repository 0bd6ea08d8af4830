//! Decides which requests are served: those with the token, if there is one, and none that a web page
//! may have sent through a visitor's browser.
//!
//! Over the Unix socket no token is asked for: who may open its file is decided by the system, which
//! lets in the gateway's own user and root. Nor does `Host` matter there, because no browser can be led
//! to it.
//!
//! A page can make its own name resolve to this listener (DNS rebinding), and then read the
//! responses as if they came from the page's own server. The browser still sends the page's name in
//! `Host`. A page can also send a command without reading the response; the browser then adds
//! `Origin` or `Sec-Fetch-Site`.

use std::net::Ipv4Addr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;

use crate::config::admin::Token;
use crate::routing::host::{HostPattern, normalize};
use crate::runtime::shared::Shared;
use crate::runtime::snapshot::Snapshot;
use crate::upstream::discovery::config::Source;

/// Read for any `Host` and without a token: probes and scrapes use a service's name, and get only health
/// and counts.
const OPEN: [&str; 4] = ["/livez", "/readyz", "/healthz", "/metrics"];
/// How a browser came to send a request; `none` if its user typed the address.
const FETCH_SITE: &str = "sec-fetch-site";

/// How a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Over the network, or loopback.
    Address,
    /// Over the Unix socket.
    Socket,
}

/// What requests of one listener are checked by.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) shared: Arc<Shared>,
    pub(super) over: Over,
}

/// Passes a request on, or responds with the reason for refusing it.
pub(super) async fn check(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if !request.method().is_safe() && is_of_page(request.headers()) {
        let detail =
            "orders are not taken from web pages: send it without Origin and Sec-Fetch-Site";
        return refusal(StatusCode::FORBIDDEN, "cross_origin", detail);
    }
    // An endpoint may be this listener's own address, and then clients would give orders.
    if gate.shared.via.is_own(request.headers()) {
        let detail =
            "the request comes from this gateway itself: an endpoint is its admin listener";
        return refusal(StatusCode::LOOP_DETECTED, "loop", detail);
    }
    match gate.over {
        Over::Socket => next.run(request).await,
        Over::Address => match refused(&gate.shared, &request) {
            Some(refusal) => refusal,
            None => next.run(request).await,
        },
    }
}

fn refused(shared: &Shared, request: &Request) -> Option<Response> {
    let open = OPEN.contains(&request.uri().path());
    let snapshot = shared.snapshot.load();
    let admin = &snapshot.config.admin;
    let shown = token(request.headers());
    // It may do nothing else, and no page of another site knows it: `Host` does not matter.
    let registry = registry_tokens(&snapshot, request);
    if shown.is_some_and(|token| is_known(token, registry)) {
        return None;
    }
    if !open && !is_addressed(request.uri(), request.headers(), &admin.hosts) {
        let detail = "this listener goes by its IP address and by localhost: use one of them in Host, \
                      or add the name to admin.hosts";
        return Some(refusal(StatusCode::MISDIRECTED_REQUEST, "unknown_host", detail));
    }
    // With instances that are let in by a token, others would be let in without one.
    let is_exposed =
        admin.address.is_some_and(|address| !address.ip().to_canonical().is_loopback());
    let asks = !admin.token.is_empty()
        || !registry.is_empty()
        || (is_exposed && has_registry_tokens(&snapshot));
    if (open && request.method().is_safe()) || !asks {
        return None;
    }
    let (detail, challenge) = match shown {
        Some(token) if is_known(token, &admin.token) => return None,
        Some(_) if registry.is_empty() => {
            ("the token is not one of those in admin.token", "Bearer error=\"invalid_token\"")
        }
        Some(_) => {
            let detail = "the token is neither in admin.token nor in the registry's tokens";
            (detail, "Bearer error=\"invalid_token\"")
        }
        None if registry.is_empty() && admin.token.is_empty() => (
            "set admin.token: a registry has a token, and other hosts reach this listener",
            "Bearer",
        ),
        None if registry.is_empty() => {
            ("send `Authorization: Bearer` with the token of admin.token", "Bearer")
        }
        None => ("send `Authorization: Bearer` with the token of the registry", "Bearer"),
    };
    let mut response = refusal(StatusCode::UNAUTHORIZED, "unauthenticated", detail);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    Some(response)
}

fn has_registry_tokens(snapshot: &Snapshot) -> bool {
    snapshot.upstreams.values().any(|target| {
        let discover = target.upstream.config().discover.as_ref();
        match discover.map(|discover| &discover.source) {
            Some(Source::Registry(registry)) => !registry.token.is_empty(),
            Some(_) | None => false,
        }
    })
}

/// The tokens with which a request may be sent, if it is one to a register: those that the upstream has
/// of its own. An order that an operator gives is a POST, and not for instances.
fn registry_tokens<'a>(snapshot: &'a Snapshot, request: &Request) -> &'a [Token] {
    if ![Method::GET, Method::HEAD, Method::PUT, Method::DELETE].contains(request.method()) {
        return &[];
    }
    let path = request.uri().path().strip_prefix("/upstreams/");
    let name = path.and_then(|path| path.split_once("/endpoints")).map(|(name, _)| name);
    let name = name.and_then(|name| percent_decode_str(name).decode_utf8().ok());
    let target = name.and_then(|name| snapshot.upstreams.get(&*name));
    let discover = target.and_then(|target| target.upstream.config().discover.as_ref());
    match discover.map(|discover| &discover.source) {
        Some(Source::Registry(registry)) => &registry.token,
        Some(_) | None => &[],
    }
}

/// The token that a request shows: RFC 6750, section 2.1. `None` if it shows none, or several.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, token) = field.as_bytes().split_at_checked("Bearer".len())?;
    let token = token.strip_prefix(b" ")?.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer") && !token.is_empty()).then_some(token)
}

/// Digests are compared, each as a whole and all of them, so that the time says nothing about a token:
/// neither its bytes, nor its length, nor which one it is.
fn is_known(token: &[u8], tokens: &[Token]) -> bool {
    let token = digest(&SHA256, token);
    tokens.iter().fold(false, |known, one| {
        let one = digest(&SHA256, one.expose().as_bytes());
        verify_slices_are_equal(token.as_ref(), one.as_ref()).is_ok() | known
    })
}

fn is_of_page(headers: &HeaderMap) -> bool {
    let site = headers.get(FETCH_SITE);
    headers.contains_key(ORIGIN) || site.is_some_and(|site| site != "none")
}

/// Whether the request names exactly one host, and it is one of this listener's.
fn is_addressed(uri: &Uri, headers: &HeaderMap, hosts: &[HostPattern]) -> bool {
    let mut fields = headers.get_all(HOST).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return false };
    let is_ours = |raw: &[u8]| normalize(raw).is_ok_and(|host| is_name(&host, hosts));
    is_ours(field.as_bytes())
        && uri.authority().is_none_or(|target| is_ours(target.as_str().as_bytes()))
}

/// `host` is normalized; an IPv6 address is in brackets. An address cannot be made to resolve to
/// another host, as a page's name can.
fn is_name(host: &str, hosts: &[HostPattern]) -> bool {
    host == "localhost"
        || host.starts_with('[')
        || host.parse::<Ipv4Addr>().is_ok()
        || hosts.iter().any(|pattern| pattern.covers(host))
}

pub(super) fn refusal(status: StatusCode, code: &str, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let problem = serde_json::json!({
        "type": "about:blank",
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
    });
    (status, [(CONTENT_TYPE, "application/problem+json")], problem.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_once_and_by_its_scheme() {
        let shown = |fields: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(AUTHORIZATION, HeaderValue::from_static(field));
            }
            token(&headers).map(<[u8]>::to_vec)
        };
        for field in ["Bearer abc", "bearer abc", "BEARER   abc "] {
            assert_eq!(shown(&[field]).as_deref(), Some(&b"abc"[..]), "{field}");
        }
        for field in ["", "Bearer", "Bearer ", "Bearerabc", "Basic abc", "abc", "Bear abc"] {
            assert_eq!(shown(&[field]), None, "{field}");
        }
        assert_eq!(shown(&[]), None);
        assert_eq!(shown(&["Bearer abc", "Bearer abc"]), None);
    }

    fn hosts() -> Vec<HostPattern> {
        ["gateway.internal", "*.svc.cluster.local"].map(|h| h.parse().expect("a host")).into()
    }

    fn addressed(uri: &str, fields: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(HOST, HeaderValue::from_static(field));
        }
        is_addressed(&uri.parse().expect("a target"), &headers, &hosts())
    }

    #[test]
    fn addresses_localhost_and_what_is_configured_are_names_of_the_listener() {
        for host in [
            "127.0.0.1:9901",
            "10.1.2.3",
            "[::1]:9901",
            "localhost",
            "LocalHost.:9901",
            "Gateway.Internal:9901",
            "gateway.default.svc.cluster.local",
        ] {
            assert!(addressed("/status", &[host]), "{host}");
        }
    }

    #[test]
    fn no_other_name_is() {
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.1",
            "gateway.internal.evil.example",
            "svc.cluster.local",
            "evilsvc.cluster.local",
            "127.0.0.1@evil.example",
        ] {
            assert!(!addressed("/status", &[host]), "{host}");
        }
    }

    #[test]
    fn one_host_is_named_and_the_target_agrees() {
        assert!(!addressed("/status", &[]));
        assert!(!addressed("/status", &["localhost", "localhost"]));
        assert!(addressed("http://localhost:9901/status", &["localhost:9901"]));
        assert!(!addressed("http://evil.example/status", &["localhost"]));
        assert!(!addressed("http://localhost/status", &["evil.example"]));
    }
}
