//! One stream of a client's HTTP/2 connection: its request, and the response to it.
//!
//! Pingora's session replaces the upstream's `Date` with its own and cannot be told not to, and its
//! output cannot be corrected as [`super::date`] does for HTTP/1. [`super::http2_session`] bounds
//! the time a stream may take.

mod form;
mod kept;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response};
use kept::Kept;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::v1::client::http_req_header_to_wire;
use pingora_core::protocols::http::v2::write_body;
use pingora_core::protocols::{Digest, Stream};
use pingora_core::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::proxy::downstream;
use crate::proxy::downstream::head::Fault;

/// A stream that a client has opened. Its methods fail once the client has reset the stream, or the
/// connection has failed.
pub struct H2Stream {
    request: RequestHeader,
    fault: Option<Fault>,
    body: RecvStream,
    /// Its head announces a body of no bytes.
    says_nothing: bool,
    respond: SendResponse<Bytes>,
    /// `None` until the head is written.
    writer: Option<SendStream<Bytes>>,
    written: Option<Box<ResponseHeader>>,
    ended: bool,
    read: usize,
    sent: usize,
    kept: Option<Kept>,
    digest: Arc<Digest>,
    drain_timeout: Option<Duration>,
}

impl H2Stream {
    /// The next stream of `connection`; `None` once it closes. The connection makes progress only
    /// while this is polled. Cancelling it loses nothing. `accepted` is told the number of each that the library
    /// hands on.
    ///
    /// # Errors
    /// The connection has failed.
    pub async fn accept(
        connection: &mut Connection<Stream, Bytes>,
        digest: &Arc<Digest>,
        accepted: impl FnOnce(u32),
    ) -> Result<Option<H2Stream>, h2::Error> {
        let Some(opened) = connection.accept().await else { return Ok(None) };
        let (request, respond) = opened?;
        accepted(respond.stream_id().as_u32());
        let (head, body) = request.into_parts();
        let request = RequestHeader::from(head);
        let says_nothing = request.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
        Ok(Some(H2Stream {
            says_nothing,
            fault: form::fault(&request),
            request,
            body,
            respond,
            writer: None,
            written: None,
            ended: false,
            read: 0,
            sent: 0,
            kept: None,
            digest: digest.clone(),
            drain_timeout: None,
        }))
    }

    /// Says that nothing has been done for it: the client may send it again.
    pub fn refuse(mut self) {
        self.respond.send_reset(Reason::REFUSED_STREAM);
    }

    /// Why the request must be refused because of its head; `None` if nothing is wrong with it.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The head of the request; its pseudo-header fields are method and URI.
    pub fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    /// As [`H2Stream::req_header`].
    pub fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    /// The next piece of the request's body; `None` at its end.
    ///
    /// # Errors
    /// The client has reset the stream, or the connection has failed.
    pub async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let data = self.body.data().await.transpose();
        let data = data.or_err(ErrorType::ReadError, "reading a request's body")?;
        if let Some(data) = &data {
            self.read += data.len();
            if let Some(kept) = &mut self.kept {
                kept.push(data);
            }
            // A closed stream has no capacity to release.
            let _ = self.body.flow_control().release_capacity(data.len());
        }
        Ok(data)
    }

    /// The same, but at the end of the body it waits until the client resets the stream.
    ///
    /// # Errors
    /// As [`H2Stream::read_body_bytes`].
    pub async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if !no_body_expected && !self.is_body_done() {
            return self.read_body_bytes().await;
        }
        let reset = std::future::poll_fn(|cx| match &mut self.writer {
            Some(writer) => writer.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        });
        let reason = reset.await.or_err(ErrorType::H2Error, "waiting for a client")?;
        Err(Error::explain(ErrorType::H2Error, format!("the client reset the stream: {reason}")))
    }

    /// Reads the rest of the body and drops it.
    ///
    /// # Errors
    /// Reading failed, or took longer than the limit.
    pub async fn drain_request_body(&mut self) -> Result<()> {
        let timeout = self.drain_timeout;
        let drained = async {
            while !self.is_body_done() && self.read_body_bytes().await?.is_some() {}
            Ok(())
        };
        match timeout {
            None => drained.await,
            Some(timeout) => tokio::time::timeout(timeout, drained)
                .await
                .unwrap_or_else(|_| Err(Error::new(ErrorType::ReadTimedout))),
        }
    }

    /// Writes the head of the final response; informational heads such as 103 are dropped.
    ///
    /// # Errors
    /// The stream was reset.
    pub fn write_response_header(
        &mut self,
        mut head: Box<ResponseHeader>,
        end: bool,
    ) -> Result<()> {
        if self.ended || self.written.is_some() || head.status.is_informational() {
            return Ok(());
        }
        downstream::date::settle(&mut head)?;
        form::settle(&mut head);
        let response = Response::from_parts(head.as_owned_parts(), ());
        let writer = self.respond.send_response(response, end);
        self.writer = Some(writer.or_err(ErrorType::WriteError, "writing a response's head")?);
        self.written = Some(head);
        self.ended = end;
        Ok(())
    }

    /// Writes `data` when the client has room for it, and with `end` ends the response. After the
    /// end nothing is written.
    ///
    /// # Errors
    /// There is no head yet, or the client does not take it.
    pub async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let Some(writer) = &mut self.writer else { return Err(Error::new(ErrorType::H2Error)) };
        let length = data.len();
        write_body(writer, data, end, None).await.map_err(Error::into_down)?;
        self.sent += length;
        self.ended = end;
        Ok(())
    }

    /// Ends the response with `trailers`.
    ///
    /// # Errors
    /// There is no head yet, or the stream was reset.
    pub fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let Some(writer) = &mut self.writer else { return Err(Error::new(ErrorType::H2Error)) };
        writer.send_trailers(trailers).or_err(ErrorType::WriteError, "writing trailers")?;
        self.ended = true;
        Ok(())
    }

    /// Writes `tasks`. Returns whether the response ends with them.
    ///
    /// # Errors
    /// Writing failed, or one of the tasks is an error.
    pub async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut ends = false;
        for task in tasks {
            ends |= match task {
                HttpTask::Header(head, end) => {
                    self.write_response_header(head, end).map_err(Error::into_down)?;
                    end
                }
                HttpTask::Body(Some(data), end) if !data.is_empty() => {
                    self.write_body(data, end).await?;
                    end
                }
                HttpTask::Body(_, end) => end,
                HttpTask::Trailer(trailers) => {
                    if let Some(trailers) = trailers {
                        self.write_trailers(*trailers)?;
                    }
                    true
                }
                HttpTask::Done => true,
                // Tunnels exist only over HTTP/1.
                HttpTask::UpgradedBody(..) => return Err(Error::new(ErrorType::InternalError)),
                HttpTask::Failed(error) => return Err(error),
            };
        }
        if ends {
            self.finish().map_err(Error::into_down)?;
        }
        Ok(ends)
    }

    /// Ends the response, if it has begun and not ended. Otherwise the stream is reset when it is
    /// dropped.
    ///
    /// # Errors
    /// The stream was reset.
    pub fn finish(&mut self) -> Result<()> {
        if !self.ended
            && let Some(writer) = &mut self.writer
        {
            let last = writer.send_data(Bytes::new(), true);
            last.or_err(ErrorType::WriteError, "ending a response")?;
            self.ended = true;
        }
        Ok(())
    }

    /// Resets the stream in the middle of the response.
    pub fn shutdown(&mut self) {
        if !self.ended {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    /// The head of the response; `None` until it is written.
    pub fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    /// Whether all of the request's body was read.
    pub fn is_body_done(&self) -> bool {
        self.is_body_empty() || self.body.is_end_stream()
    }

    /// Whether the request has no body.
    pub fn is_body_empty(&self) -> bool {
        self.read == 0 && (self.body.is_end_stream() || self.says_nothing)
    }

    /// Bytes of the response's body, written so far.
    pub fn body_bytes_sent(&self) -> usize {
        self.sent
    }

    /// Bytes of the request's body, read so far.
    pub fn body_bytes_read(&self) -> usize {
        self.read
    }

    /// Keeps what is read from here on for a retry.
    pub fn enable_retry_buffering(&mut self) {
        self.kept.get_or_insert_default();
    }

    /// Whether more was read than is kept.
    pub fn retry_buffer_truncated(&self) -> bool {
        self.kept.as_ref().is_some_and(Kept::is_truncated)
    }

    /// What was read and kept; `None` if that is nothing, or was too much.
    pub fn get_retry_buffer(&self) -> Option<Bytes> {
        self.kept.as_ref()?.bytes()
    }

    /// Method and target, for a log line.
    pub fn request_summary(&self) -> String {
        format!("{} {}", self.request.method, self.request.uri)
    }

    /// The head as HTTP/1 would write it.
    pub fn pseudo_raw_h1_request_header(&self) -> Bytes {
        http_req_header_to_wire(&self.request).map(BytesMut::freeze).unwrap_or_default()
    }

    /// What is known of the client's connection: addresses, TLS.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// `None` while other streams of the connection share it.
    pub fn digest_mut(&mut self) -> Option<&mut Digest> {
        Arc::get_mut(&mut self.digest)
    }

    /// Limits [`H2Stream::drain_request_body`]; `None` means no limit.
    pub fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    /// As set before.
    pub fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }
}
