//! Cross-origin requests (Fetch standard, "CORS protocol").
//!
//! The gateway handles a preflight itself, before authentication: browsers send it without
//! credentials. Other requests are only given their response headers here.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, SET_COOKIE,
    VARY,
};
use http::{HeaderMap, HeaderValue, Method};
use pingora_core::Result;
use pingora_http::ResponseHeader;

use crate::config::origin::Origin;
use crate::config::route::Cors;

/// In the configuration: any method or field. Responses list names instead of `*`, because browsers
/// take it literally if credentials are allowed.
const ANY: &str = "*";

/// The method that a preflight asks about; `None` for every other request.
pub fn preflight(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if *method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    Method::from_bytes(headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

/// Adds the headers of the response to a preflight. An origin that is not allowed gets no
/// permission and no error; the browser then blocks the request.
///
/// # Errors
/// Those of Pingora's header functions.
pub fn permit_preflight(
    cors: &Cors,
    request: &HeaderMap,
    response: &mut ResponseHeader,
) -> Result<()> {
    response.append_header(
        VARY,
        "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    )?;
    let Some(origin) = allowed_origin(cors, request) else {
        return Ok(());
    };
    permit_origin(cors, origin, response)?;
    let methods = match cors.methods.iter().any(|method| method == ANY) {
        true => request.get(ACCESS_CONTROL_REQUEST_METHOD).cloned(),
        false => HeaderValue::try_from(cors.methods.join(", ")).ok(),
    };
    if let Some(methods) = methods {
        response.insert_header(ACCESS_CONTROL_ALLOW_METHODS, methods)?;
    }
    let allowed = match cors.request_headers.iter().any(|name| name.0 == ANY) {
        true => asked_for(request),
        false => list(cors.request_headers.iter().map(|h| &h.0)),
    };
    if !allowed.is_empty() {
        response.insert_header(ACCESS_CONTROL_ALLOW_HEADERS, allowed)?;
    }
    response.insert_header(ACCESS_CONTROL_MAX_AGE, cors.max_age.as_secs().to_string())
}

/// Adds the headers of the response to an actual request, and replaces those of the upstream.
///
/// # Errors
/// Those of Pingora's header functions.
pub fn permit(cors: &Cors, request: &HeaderMap, response: &mut ResponseHeader) -> Result<()> {
    for name in [
        ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_EXPOSE_HEADERS,
    ] {
        response.remove_header(&name);
    }
    response.append_header(VARY, "Origin")?;
    let Some(origin) = allowed_origin(cors, request) else {
        return Ok(());
    };
    permit_origin(cors, origin, response)?;
    let exposed = match cors.expose.iter().any(|name| name.0 == ANY) {
        true => list(response.headers.keys().filter(|name| **name != SET_COOKIE)),
        false => list(cors.expose.iter().map(|h| &h.0)),
    };
    if !exposed.is_empty() {
        response.insert_header(ACCESS_CONTROL_EXPOSE_HEADERS, exposed)?;
    }
    Ok(())
}

/// The fields that a preflight asks about, for routes that allow any. They are listed one by one:
/// for a request with credentials `*` is an ordinary name, and it never covers `Authorization`.
fn asked_for(request: &HeaderMap) -> String {
    let lines = request.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    let names: Vec<HeaderName> = names.collect();
    list(names.iter())
}

fn permit_origin(cors: &Cors, origin: HeaderValue, response: &mut ResponseHeader) -> Result<()> {
    response.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, origin)?;
    if cors.credentials {
        response.insert_header(ACCESS_CONTROL_ALLOW_CREDENTIALS, "true")?;
    }
    Ok(())
}

/// The origin to allow: `*` only without credentials, as the standard requires.
fn allowed_origin(cors: &Cors, request: &HeaderMap) -> Option<HeaderValue> {
    let origin = request.get(ORIGIN)?;
    if !cors.credentials && cors.origins.contains(&Origin::Any) {
        return Some(HeaderValue::from_static("*"));
    }
    cors.origins.iter().any(|o| o.covers(origin.as_bytes())).then(|| origin.clone())
}

fn list<'a>(names: impl Iterator<Item = &'a HeaderName>) -> String {
    names.map(HeaderName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Timespan;

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        Cors {
            origins: origins.iter().map(|o| o.parse().expect("an origin")).collect(),
            methods: vec!["POST".to_owned()],
            request_headers: Vec::new(),
            expose: Vec::new(),
            max_age: Timespan::from_secs(60),
            credentials,
        }
    }

    fn allowed(cors: &Cors, origin: &'static str) -> Option<String> {
        let request = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
        let mut response = ResponseHeader::build(200, None).expect("a response");
        permit(cors, &request, &mut response).expect("headers");
        let allowed = response.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN)?;
        Some(allowed.to_str().expect("text").to_owned())
    }

    #[test]
    fn only_listed_origins_are_allowed() {
        let cors = cors(&["http://a.example"], false);
        assert_eq!(allowed(&cors, "http://a.example").as_deref(), Some("http://a.example"));
        assert_eq!(allowed(&cors, "http://b.example"), None);
    }

    #[test]
    fn any_origin_with_credentials_is_echoed_never_starred() {
        assert_eq!(allowed(&cors(&["*"], false), "http://a.example").as_deref(), Some("*"));
        let echoed = allowed(&cors(&["*"], true), "http://a.example");
        assert_eq!(echoed.as_deref(), Some("http://a.example"));
    }

    #[test]
    fn a_preflight_is_an_options_request_with_origin_and_method() {
        let mut headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static("http://a"))]);
        assert_eq!(preflight(&Method::OPTIONS, &headers), None);
        headers.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
        assert_eq!(preflight(&Method::OPTIONS, &headers), Some(Method::POST));
        assert_eq!(preflight(&Method::GET, &headers), None);
    }
}
