//! One export: a message posted to a collector, with retries, until it is accepted or its time is
//! over.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, TE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::grpc::{self, Status};
use super::target::{Authorities, Target, Unusable};
use crate::config::otlp::{Compression, Protocol};
use crate::files::pem;

/// The first pause between attempts; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Limit in bytes on a collector's response, which is normally short.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Posts the messages of one signal.
pub struct Sender {
    client: reqwest::Client,
    url: String,
    headers: HeaderMap,
    protocol: Protocol,
    compression: Compression,
    timeout: Duration,
}

/// The collector has accepted a message, except for the rejected part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// How many spans or points.
    pub rejected: u64,
    pub why: String,
}

/// The collector has not accepted a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub kind: Kind,
    pub why: String,
    /// The shortest pause before a retry; `None` if it must not be retried.
    again: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There was no response.
    Unreachable,
    /// The response was not a success.
    Refused,
}

impl Sender {
    /// Opens no connection.
    ///
    /// # Errors
    /// The authorities are no certificates, or the system has none.
    pub fn new(target: &Target) -> Result<Self, Unusable> {
        let to = &target.destination;
        let mut headers = to.headers.clone();
        let mut set =
            |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
        match to.protocol {
            Protocol::Grpc => {
                set(CONTENT_TYPE, "application/grpc");
                set(TE, "trailers");
                if to.compression == Compression::Gzip {
                    set(HeaderName::from_static("grpc-encoding"), "gzip");
                }
            }
            Protocol::HttpProtobuf => {
                set(CONTENT_TYPE, "application/x-protobuf");
                if to.compression == Compression::Gzip {
                    set(CONTENT_ENCODING, "gzip");
                }
            }
        }
        Ok(Sender {
            client: client(target)?,
            url: to.uri.to_string(),
            headers,
            protocol: to.protocol,
            compression: to.compression,
            timeout: *to.timeout,
        })
    }

    /// Sends `message`, with retries within the timeout. There are no retries while `closing`, or
    /// once it begins.
    ///
    /// # Errors
    /// The last attempt's failure.
    pub(super) async fn send(
        &self,
        message: &impl Message,
        mut closing: watch::Receiver<bool>,
    ) -> Result<Accepted, Failure> {
        let body = self.body(message);
        let deadline = Instant::now() + self.timeout;
        let mut pause = FIRST_PAUSE;
        loop {
            let Ok(result) = timeout_at(deadline, self.attempt(body.clone())).await else {
                return Err(Failure {
                    kind: Kind::Unreachable,
                    why: format!("no answer within {}", humantime::format_duration(self.timeout)),
                    again: None,
                });
            };
            let failure = match result {
                Ok(accepted) => return Ok(accepted),
                Err(failure) => failure,
            };
            let Some(at_least) = failure.again else { return Err(failure) };
            let wait = pause.mul_f64(1.0 + 0.2 * fastrand::f64()).max(at_least);
            if Instant::now() + wait >= deadline {
                return Err(failure);
            }
            tokio::select! {
                () = sleep(wait) => pause = (pause * 2).min(LONGEST_PAUSE),
                _ = closing.wait_for(|closing| *closing) => return Err(failure),
            }
        }
    }

    fn body(&self, message: &impl Message) -> Bytes {
        let message = match self.compression {
            Compression::None => message.encode_to_vec(),
            Compression::Gzip => compress(&message.encode_to_vec()),
        };
        match self.protocol {
            Protocol::Grpc => grpc::frame(&message, self.compression == Compression::Gzip),
            Protocol::HttpProtobuf => message.into(),
        }
    }

    async fn attempt(&self, body: Bytes) -> Result<Accepted, Failure> {
        let request = self.client.post(&self.url).headers(self.headers.clone()).body(body);
        let response = request.send().await.map_err(|error| unreachable(&error.without_url()))?;
        let (head, body) = http::Response::from(response).into_parts();
        if !head.status.is_success() {
            return Err(refused_by_http(head.status, &head.headers));
        }
        let read = Limited::new(body, ANSWER_LIMIT).collect().await;
        let read = read.map_err(|error| unreachable(&*error))?;
        let trailers = read.trailers().cloned();
        let body = read.to_bytes();
        match self.protocol {
            Protocol::Grpc => {
                Status::of(&head.headers, trailers.as_ref()).map_err(refused_by_grpc)?;
                Ok(accepted(grpc::unframe(&body).unwrap_or_default()))
            }
            Protocol::HttpProtobuf => Ok(accepted(&body)),
        }
    }
}

/// The responses for spans and for metrics have different names but the same fields.
fn accepted(message: &[u8]) -> Accepted {
    let answer = ExportTraceServiceResponse::decode(message).ok();
    let partly = answer.and_then(|answer| answer.partial_success).unwrap_or_default();
    let rejected = u64::try_from(partly.rejected_spans).unwrap_or(0);
    Accepted { rejected, why: partly.error_message }
}

fn unreachable(error: &(dyn Error + 'static)) -> Failure {
    // The outermost error seldom says what to do.
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        why = format!("{why}: {error}");
        cause = error.source();
    }
    Failure { kind: Kind::Unreachable, why, again: Some(Duration::ZERO) }
}

fn refused_by_http(status: StatusCode, headers: &HeaderMap) -> Failure {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let pause = Duration::from_secs(seconds.unwrap_or(0));
    // The statuses after which the OTLP specification allows a retry.
    let temporary = matches!(status.as_u16(), 429 | 502 | 503 | 504);
    let why = format!("it answers {status}");
    Failure { kind: Kind::Refused, why, again: temporary.then_some(pause) }
}

fn refused_by_grpc(status: Status) -> Failure {
    let again = status.is_temporary().then_some(Duration::ZERO);
    let why = format!("it answers grpc-status {}: {}", status.code, status.message);
    Failure { kind: Kind::Refused, why, again }
}

fn compress(message: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to memory does not fail.
    let written = encoder.write_all(message).and_then(|()| encoder.finish());
    written.unwrap_or_default()
}

fn client(target: &Target) -> Result<reqwest::Client, Unusable> {
    let to = &target.destination;
    // Building a client panics if no provider is installed. If another one is installed already,
    // that is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let third = *to.timeout / 3;
    let builder = reqwest::Client::builder()
        .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        // The configuration decides where telemetry goes, not a proxy variable.
        .no_proxy()
        .connect_timeout(third);
    let builder = match to.protocol {
        Protocol::Grpc => builder
            .http2_prior_knowledge()
            // Notices within one export that a peer has vanished, so that a new connection is
            // opened.
            .http2_keep_alive_interval(third)
            .http2_keep_alive_timeout(third),
        Protocol::HttpProtobuf => builder,
    };
    let builder = match (&target.authorities, to.is_encrypted()) {
        // Without TLS, the client must also work on a system without root certificates.
        (_, false) => builder.tls_certs_only([]),
        (None, true) => builder,
        (Some(Authorities { file, pem }), true) => {
            let wrong = |why: String| Unusable::NoAuthorities { file: file.clone(), why };
            let unusable = |error: reqwest::Error| {
                wrong(format!("holds a certificate that cannot be used: {}", innermost(&error)))
            };
            let found = pem::certificates(pem).map_err(|error| wrong(error.to_string()))?;
            let authorities: reqwest::Result<Vec<_>> =
                found.iter().map(|one| reqwest::Certificate::from_der(one)).collect();
            let authorities = authorities.map_err(unusable)?;
            // What is in them is looked at only here.
            return builder.tls_certs_only(authorities).build().map_err(unusable);
        }
    };
    builder.build().map_err(|error| Unusable::Client(innermost(&error)))
}

/// The outer errors say only that there is one.
fn innermost(mut error: &(dyn Error + 'static)) -> String {
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}
