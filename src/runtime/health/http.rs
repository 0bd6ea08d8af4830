//! A check by HTTP: one request, and the status of its response.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, LOCATION, USER_AGENT};
use http::{HeaderValue, Method};
use pingora_core::Result;
use pingora_core::protocols::http::client::HttpSession;
use pingora_http::{RequestHeader, ResponseHeader};

use super::fault::{Fault, failed, of_exchange};
use crate::upstream::Endpoint;
use crate::upstream::health::config::Http;

/// What is read of a response's body; the rest is not waited for.
const MAX_BODY: usize = 64 * 1024;
/// Interim responses before the final one, of which there are usually none.
const MAX_INTERIM: usize = 8;
/// What is shown of where a redirect leads, in characters.
const MAX_LOCATION: usize = 200;

pub(super) const AGENT: HeaderValue = HeaderValue::from_static("portcullis-health-check");

/// Sends the request, and judges the response once it is complete.
pub(super) async fn check(
    session: &mut HttpSession,
    endpoint: &Endpoint,
    config: &Http,
) -> Result<(), Fault> {
    let request = request(session, endpoint, config).map_err(of_exchange)?;
    session.write_request_header(Box::new(request)).await.map_err(of_exchange)?;
    session.finish_request_body().await.map_err(of_exchange)?;
    read_head(session).await?;
    let head = session.response_header();
    let verdict =
        head.map_or_else(|| Err(failed("invalid_response", "no head")), |head| judge(head, config));
    // A response that breaks off fails the check, whatever its status.
    let mut read = 0;
    while verdict.is_ok() && read < MAX_BODY {
        match session.read_response_body().await.map_err(of_exchange)? {
            Some(bytes) => read += bytes.len(),
            None => break,
        }
    }
    verdict
}

fn request(session: &HttpSession, endpoint: &Endpoint, config: &Http) -> Result<RequestHeader> {
    let path = format!("{}{}", endpoint.key.base_path, config.path);
    let mut request = RequestHeader::build(config.method.clone(), path.as_bytes(), None)?;
    request.insert_header(HOST, endpoint.key.authority.clone())?;
    request.insert_header(USER_AGENT, AGENT)?;
    for (name, value) in &config.headers {
        request.insert_header(name.clone(), value.clone())?;
    }
    if session.as_http1().is_some() {
        // The next check makes a connection of its own.
        request.insert_header(CONNECTION, "close")?;
        if [Method::POST, Method::PUT, Method::PATCH].contains(&config.method) {
            request.insert_header(CONTENT_LENGTH, "0")?;
        }
    }
    Ok(request)
}

/// Reads heads up to the final one.
pub(super) async fn read_head(session: &mut HttpSession) -> Result<(), Fault> {
    for _ in 0..=MAX_INTERIM {
        session.read_response_header().await.map_err(of_exchange)?;
        let status = session.response_header().map(|head| head.status.as_u16());
        if !matches!(status, Some(100 | 102..=199)) {
            return Ok(());
        }
    }
    Err(failed("invalid_response", "interim responses without end"))
}

fn judge(head: &ResponseHeader, config: &Http) -> Result<(), Fault> {
    let status = head.status.as_u16();
    if config.expect.contains(status) {
        return Ok(());
    }
    if let (300..=399, Some(location)) = (status, head.headers.get(LOCATION)) {
        let location = String::from_utf8_lossy(location.as_bytes());
        let shown: String = location.chars().take(MAX_LOCATION).collect();
        return Err(failed(
            "redirect",
            format_args!(
                "{status} redirects to {}, and redirects are not followed",
                shown.escape_debug()
            ),
        ));
    }
    Err(failed("status", format_args!("status {status}, expected {}", config.expect)))
}
