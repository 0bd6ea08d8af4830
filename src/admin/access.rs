//! Refuses requests that a web page may have sent through a visitor's browser.
//!
//! A page can make its own name resolve to this listener (DNS rebinding), and then read the
//! responses as if they came from the page's own server. The browser still sends the page's name in
//! `Host`. A page can also send a command without reading the response; the browser then adds
//! `Origin` or `Sec-Fetch-Site`.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, StatusCode, Uri};

use crate::routing::host::{HostPattern, normalize};
use crate::runtime::shared::Shared;

/// Served for any `Host`: probes and scrapes use a service's name, and read only health and counts.
const OPEN: [&str; 4] = ["/livez", "/readyz", "/healthz", "/metrics"];
/// How a browser came to send a request; `none` if its user typed the address.
const FETCH_SITE: &str = "sec-fetch-site";

/// Passes a request on, or responds with the reason for refusing it.
pub(super) async fn check(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    if !request.method().is_safe() && is_of_page(request.headers()) {
        let detail =
            "orders are not taken from web pages: send it without Origin and Sec-Fetch-Site";
        return refusal(StatusCode::FORBIDDEN, "cross_origin", detail);
    }
    let open = OPEN.contains(&request.uri().path());
    let snapshot = shared.snapshot.load();
    if !open && !is_addressed(request.uri(), request.headers(), &snapshot.config.admin.hosts) {
        let detail = "this listener goes by its IP address and by localhost: use one of them in Host, \
                      or add the name to admin.hosts";
        return refusal(StatusCode::MISDIRECTED_REQUEST, "unknown_host", detail);
    }
    drop(snapshot);
    next.run(request).await
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
    use http::HeaderValue;

    use super::*;

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
